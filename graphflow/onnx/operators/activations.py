"""Activation functions and softmax."""

from __future__ import annotations

from typing import Any

from graphflow.onnx.operators.table import F, gf, operator
from graphflow.tensor import Tensor

_SAME = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softsign": "softsign",
    "Mish": "mish",
}  # fmt: skip


def _enter(onnx_name: str, name: str) -> None:
    @operator(onnx_name)
    def activation(X: Tensor) -> Any:
        return getattr(F, name)(X)


for _onnx_name, _name in _SAME.items():
    _enter(_onnx_name, _name)


@operator("Softplus")
def softplus(X: Tensor) -> Any:
    """log(1 + exp(x)), without overflow."""
    return gf.logaddexp(X, gf.zeros_like(X))


@operator("LeakyRelu")
def leaky_relu(X: Tensor, *, alpha: float = 0.01) -> Any:
    """x, or alpha x below 0."""
    return F.leaky_relu(X, alpha)


@operator("PRelu")
def prelu(X: Tensor, slope: Tensor) -> Any:
    """x, or slope x below 0; the slope broadcasts."""
    return gf.where(gf.lt(X, 0), gf.mul(X, slope), X)


@operator("ThresholdedRelu")
def thresholded_relu(X: Tensor, *, alpha: float = 1.0) -> Any:
    """x where it is above alpha, else 0."""
    return gf.where(gf.gt(X, alpha), X, gf.zeros_like(X))


@operator("Elu")
def elu(X: Tensor, *, alpha: float = 1.0) -> Any:
    """x, or alpha (exp(x) - 1) below 0."""
    return F.elu(X, alpha)


@operator("Celu")
def celu(X: Tensor, *, alpha: float = 1.0) -> Any:
    """max(x, 0) + min(0, alpha (exp(x / alpha) - 1))."""
    return F.celu(X, alpha)


@operator("Selu")
def selu(X: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Any:
    """gamma times :func:`elu`."""
    return gf.mul(F.elu(X, alpha), gamma)


@operator("HardSigmoid")
def hard_sigmoid(X: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    """alpha x + beta, between 0 and 1."""
    return gf.clamp(gf.add(gf.mul(X, alpha), beta), 0.0, 1.0)


@operator("HardSwish")
def hard_swish(X: Tensor) -> Any:
    """x times the hard sigmoid of slope 1/6."""
    return F.hardswish(X)


@operator("Swish")
def swish(X: Tensor, *, alpha: float = 1.0) -> Any:
    """x sigmoid(alpha x)."""
    return F.silu(X) if alpha == 1.0 else gf.mul(X, gf.sigmoid(gf.mul(X, alpha)))


@operator("Gelu")
def gelu(X: Tensor, *, approximate: str = "none") -> Any:
    """x times the normal distribution function of x."""
    return F.gelu(X, approximate)


@operator("Shrink")
def shrink(input: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    below, above = gf.lt(input, -lambd), gf.gt(input, lambd)
    high = gf.where(above, gf.sub(input, bias), gf.zeros_like(input))
    return gf.where(below, gf.add(input, bias), high).to(input.dtype)


@operator("Softmax")
def softmax(input: Tensor, *, axis: int | None = None, opset: int) -> Any:
    """exp(x) over its sum along an axis (before version 13: along all from the axis on)."""
    return _along(F.softmax, input, axis, opset)


@operator("LogSoftmax")
def log_softmax(input: Tensor, *, axis: int | None = None, opset: int) -> Any:
    """The logarithm of softmax."""
    return _along(F.log_softmax, input, axis, opset)


@operator("Hardmax")
def hardmax(input: Tensor, *, axis: int | None = None, opset: int) -> Any:
    """1 at the first largest element, else 0."""

    def largest(x: Tensor, dim: int) -> Any:
        places = gf.arange(x.shape[dim]).reshape([-1 if k == dim % x.ndim else 1
                                                  for k in range(x.ndim)])  # fmt: skip
        return gf.eq(gf.argmax(x, dim, keepdim=True), places).to(x.dtype)

    return _along(largest, input, axis, opset)


def _along(function: Any, x: Tensor, axis: int | None, opset: int) -> Any:
    if opset >= 13:
        return function(x, dim=-1 if axis is None else axis)
    split = (1 if axis is None else axis) % x.ndim
    rows = gf.flatten(x, split)
    if split == 0:
        return function(rows, dim=0).reshape(tuple(x.shape))
    return function(rows, dim=-1).reshape(tuple(x.shape))
