"""Activations."""

from __future__ import annotations

import math

from graphflow.dispatch import apply
from graphflow.functions.elementwise import (
    abs,
    add,
    div,
    erf,
    exp,
    log1p,
    mul,
    neg,
    pow,
    relu,
    sigmoid,
    sub,
    tanh,
    where,
)
from graphflow.functions.reductions import log_softmax, softmax
from graphflow.promotion import as_operand
from graphflow.tensor import Tensor

__all__ = [
    "elu", "gelu", "leaky_relu", "log_softmax", "logsigmoid", "mish", "relu", "sigmoid", "silu",
    "softmax", "softplus", "tanh",
]  # fmt: skip


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; the identity above ``threshold``."""
    scaled = input if beta == 1 else mul(input, beta)
    safe = where(scaled > threshold, 0.0, scaled)
    soft = log1p(exp(safe))
    return where(scaled > threshold, input, soft if beta == 1 else div(soft, beta))


def mish(input: Tensor) -> Tensor:
    """x * tanh(softplus(x))."""
    return mul(input, tanh(softplus(input)))


def silu(input: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return mul(input, sigmoid(input))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), Phi the normal distribution function; "tanh" approximates it."""
    if approximate == "tanh":
        inner = mul(add(input, mul(pow(input, 3), 0.044715)), math.sqrt(2.0 / math.pi))
        return mul(mul(input, 0.5), add(tanh(inner), 1.0))
    if approximate != "none":
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    return mul(mul(input, 0.5), add(erf(mul(input, math.sqrt(0.5))), 1.0))


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x above 0, ``negative_slope`` * x below."""
    return where(input > 0, input, mul(input, negative_slope))


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x above 0, alpha * (exp(x) - 1) below."""
    low = where(input > 0, 0.0, input)
    return where(input > 0, input, mul(apply("expm1", low), alpha))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without the underflow."""
    return sub(apply("minimum", input, as_operand(0, input.dtype)), log1p(exp(neg(abs(input)))))
