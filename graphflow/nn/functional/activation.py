"""Activations.

Where a function has a corner, the gradient there is PyTorch's: 0 at both ends of
``hardtanh`` and ``hardsigmoid``, the lower branch's at 0 for the ``elu`` family.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from graphflow.autocasting import in_float32, in_lower_precision
from graphflow.checks import need_floating, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, in_place
from graphflow.errors import ShapeError
from graphflow.functions import reductions
from graphflow.functions.elementwise import (
    abs,
    add,
    div,
    exp,
    log,
    log1p,
    mul,
    neg,
    pow,
    sigmoid,
    sub,
    tanh,
    where,
)
from graphflow.functions.elementwise import relu as _relu
from graphflow.functions.reductions import normal_dim
from graphflow.functions.shaping import cut
from graphflow.ir.types import DType
from graphflow.promotion import as_operand, cast
from graphflow.rng import default_generator
from graphflow.tensor import Tensor

__all__ = [
    "celu", "celu_", "elu", "elu_", "gelu", "glu", "gumbel_softmax", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "log_softmax",
    "logsigmoid", "mish", "prelu", "relu", "relu6", "relu_", "rrelu", "rrelu_", "selu", "selu_",
    "sigmoid", "silu", "softmax", "softmin", "softplus", "softshrink", "softsign", "tanh",
    "tanhshrink", "threshold", "threshold_",
]  # fmt: skip
METHODS = ("hardshrink", "prelu")

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
"""Constants of Klambauer et al., "Self-Normalizing Neural Networks" (2017)."""


def _writing(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The in-place form of an activation."""

    def write(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return in_place(input, function, args, kwargs)

    write.__name__ = write.__qualname__ = f"{function.__name__}_"
    write.__doc__ = f"``input`` overwritten by :func:`{function.__name__}` of it."
    return write


def _real(name: str, input: Tensor) -> Tensor:
    need_floating(name, need_tensor(name, input))
    return input


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return relu_(input) if inplace else _relu(input)


relu_ = _writing(_relu)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """``input`` limited to [min_val, max_val]."""
    need_tensor("hardtanh", input)
    if isinstance(min_val, (int, float)) and isinstance(max_val, (int, float)):
        if min_val > max_val:
            raise ValueError("hardtanh: min_val cannot be greater than max_val")
    if inplace:
        return hardtanh_(input, min_val, max_val)
    return where(input <= min_val, min_val, where(input >= max_val, max_val, input))


hardtanh_ = _writing(hardtanh)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x / 6 + 1/2, limited to [0, 1]."""
    if inplace:
        return in_place(input, hardsigmoid, (), {})
    line = add(div(_real("hardsigmoid", input), 6.0), 0.5)
    return where(input <= -3.0, 0.0, where(input >= 3.0, 1.0, line))


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x)."""
    if inplace:
        return in_place(input, hardswish, (), {})
    return mul(input, hardsigmoid(input))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x above 0, ``negative_slope`` * x below."""
    if inplace:
        return leaky_relu_(input, negative_slope)
    _real("leaky_relu", input)
    return where(input > 0, input, mul(input, negative_slope))


leaky_relu_ = _writing(leaky_relu)


@beside_operands
def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
    inplace: bool = False,
) -> Tensor:  # fmt: skip
    """Leaky ReLU; the slope is uniform in [lower, upper) while training, else its mean."""
    if inplace:
        return rrelu_(input, lower, upper, training)
    _real("rrelu", input)
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    unit = default_generator.draw().uniform(tuple(input.shape), input.dtype)
    return where(input <= 0, mul(input, add(mul(unit, upper - lower), lower)), input)


rrelu_ = _writing(rrelu)


@in_lower_precision
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x above 0, ``weight`` * x below; one weight, or one a channel (dimension 1)."""
    _real("prelu", input)
    if need_tensor("prelu", weight, "weight").ndim > 1:
        raise ShapeError(f"prelu: weight must be a scalar or 1-d, got {list(weight.shape)}")
    if weight.numel() != 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if input.ndim == 0 or channels != weight.numel():
            raise ShapeError(
                f"prelu: {weight.numel()} weights do not fit the channels of an input of "
                f"shape {list(input.shape)}"
            )
    shape = (1, -1, *[1] * (input.ndim - 2)) if input.ndim > 1 else [1] * input.ndim
    return where(input > 0, input, mul(input, weight.reshape(shape)))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha * (exp(x) - 1) below."""
    if inplace:
        return elu_(input, alpha)
    low = where(_real("elu", input) > 0, 0.0, input)
    return where(input > 0, input, mul(apply("expm1", low), alpha))


elu_ = _writing(elu)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha * (exp(x / alpha) - 1) below."""
    if isinstance(alpha, (int, float)) and alpha == 0:
        raise ZeroDivisionError("celu: alpha cannot be 0")
    if inplace:
        return celu_(input, alpha)
    low = div(where(_real("celu", input) > 0, 0.0, input), alpha)
    return where(input > 0, input, mul(apply("expm1", low), alpha))


celu_ = _writing(celu)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The self-normalising unit: a scaled :func:`elu`."""
    return selu_(input) if inplace else mul(elu(_real("selu", input), SELU_ALPHA), SELU_SCALE)


selu_ = _writing(selu)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), Phi the normal distribution function; "tanh" approximates it."""
    _real("gelu", input)
    if approximate == "tanh":
        inner = mul(add(input, mul(pow(input, 3), 0.044715)), math.sqrt(2.0 / math.pi))
        return mul(mul(input, 0.5), add(tanh(inner), 1.0))
    if approximate != "none":
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    return mul(input, apply("phi", input))


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    if inplace:
        return in_place(input, silu, (), {})
    return mul(_real("silu", input), sigmoid(input))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    if inplace:
        return in_place(input, mish, (), {})
    return mul(input, tanh(softplus(input)))


@in_float32
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; the identity above ``threshold``."""
    plain = isinstance(beta, (int, float)) and beta == 1
    scaled = _real("softplus", input) if plain else mul(input, beta)
    # What is not chosen must stay finite, for gradients meet it; half precision ends at e^11.
    bounded = isinstance(threshold, (int, float)) and input.dtype.itemsize > 2
    safe = where(scaled > threshold, min(threshold, 20.0) if bounded else 0.0, scaled)
    soft = log1p(exp(safe))
    return where(scaled > threshold, input, soft if plain else div(soft, beta))


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return div(input, add(abs(input), 1.0))


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return sub(input, tanh(input))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x outside [-lambd, lambd], else 0."""
    _real("hardshrink", input)
    return where((input >= -lambd) & (input <= lambd), 0.0, input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by ``lambd``, and 0 within it."""
    _real("softshrink", input)
    if isinstance(lambd, (int, float)) and lambd < 0:
        raise ValueError(f"softshrink: lambd must be at least 0, not {lambd}")
    low = where(input < -lambd, add(input, lambd), mul(input, 0.0))
    return where(input > lambd, sub(input, lambd), low)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x above ``threshold``, else ``value``."""
    if inplace:
        return threshold_(input, threshold, value)
    return where(input <= threshold, as_operand(value, input.dtype), input)


threshold_ = _writing(threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without the underflow."""
    _real("logsigmoid", input)
    return sub(apply("minimum", input, as_operand(0, input.dtype)), log1p(exp(neg(abs(input)))))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along ``dim`` times the sigmoid of the second."""
    if _real("glu", input).ndim == 0:
        raise ShapeError("glu does not support tensors of no dimensions")
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    if extent % 2:
        raise ShapeError(f"glu: halving dimension {dim} needs an even extent, not {extent}")
    half = extent // 2
    return mul(cut(input, axis, 0, half, 1), sigmoid(cut(input, axis, half, extent, 1)))


# ---- over a dimension ----------------------------------------------------------------


def _chosen_dim(name: str, input: Tensor, dim: int | None) -> int:
    """``dim``, or the dimension that older code left out (a warning asks for it)."""
    if dim is not None:
        return dim
    warnings.warn(f"{name}: give dim; choosing it by the rank is deprecated", stacklevel=3)
    return 0 if input.ndim in (0, 1, 3) else 1


@in_float32
def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """exp(input) over its sum along ``dim``."""
    return reductions.softmax(input, _chosen_dim("softmax", input, dim), dtype)


@in_float32
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """log(softmax(input)), without the overflow."""
    return reductions.log_softmax(input, _chosen_dim("log_softmax", input, dim), dtype)


@in_float32
def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """softmax(-input)."""
    return reductions.softmax(neg(input), _chosen_dim("softmin", input, dim), dtype)


@beside_operands
def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A sample of the relaxed categorical distribution (Jang et al. 2017).

    ``hard``: one-hot forwards, with the gradient of the soft sample.
    """
    _real("gumbel_softmax", logits)
    unit = default_generator.draw().uniform(tuple(logits.shape), logits.dtype)
    noise = neg(log(neg(log(sub(1.0, unit)))))
    soft = reductions.softmax(div(add(logits, noise), tau), dim)
    if not hard:
        return soft
    best = reductions.argmax(soft, dim, True)
    places = apply("iota", shape=tuple(soft.shape), axis=normal_dim(dim, soft.ndim),
                   dtype=best.dtype)  # fmt: skip
    sharp = cast(apply("eq", places, best), soft.dtype)
    return add(sub(sharp, soft.detach()), soft)
