"""Arithmetic, comparisons, logic and bits, element by element."""

from __future__ import annotations

from functools import reduce
from typing import Any

from graphflow.ir import types as T
from graphflow.onnx.operators.table import dtype_of, gf, operator
from graphflow.promotion import cast
from graphflow.tensor import Tensor

_SAME = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
    "Atan": "atan", "Atanh": "atanh", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh",
    "Erf": "erf", "Exp": "exp", "Floor": "floor", "IsNaN": "isnan", "Log": "log",
    "Neg": "neg", "Reciprocal": "reciprocal", "Round": "round", "Sign": "sign", "Sin": "sin",
    "Sinh": "sinh", "Sqrt": "sqrt", "Tan": "tan", "Not": "logical_not",
    "BitwiseNot": "bitwise_not",
}  # fmt: skip
_SAME_TWO = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "And": "logical_and", "Or": "logical_or",
    "Xor": "logical_xor", "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge",
    "Less": "lt", "LessOrEqual": "le", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
}  # fmt: skip


def _enter_one(onnx_name: str, name: str) -> None:
    @operator(onnx_name)
    def one(X: Tensor) -> Any:
        return getattr(gf, name)(X)


def _enter_two(onnx_name: str, name: str) -> None:
    @operator(onnx_name)
    def two(A: Tensor, B: Tensor) -> Any:
        return getattr(gf, name)(A, B)


for _onnx_name, _name in _SAME.items():
    _enter_one(_onnx_name, _name)
for _onnx_name, _name in _SAME_TWO.items():
    _enter_two(_onnx_name, _name)


@operator("Div")
def div(A: Tensor, B: Tensor) -> Any:
    """Quotients; those of whole numbers are truncated."""
    return gf.div(A, B) if A.dtype.is_floating_point else gf.div(A, B, rounding_mode="trunc")


@operator("Mod")
def mod(A: Tensor, B: Tensor, *, fmod: int = 0) -> Any:
    """Remainders with the sign of the divisor, or of the dividend."""
    return gf.fmod(A, B) if fmod else gf.remainder(A, B)


@operator("Pow")
def power(X: Tensor, Y: Tensor) -> Any:
    """Powers, in the dtype of the base."""
    if X.dtype.is_floating_point or not Y.dtype.is_floating_point:
        return gf.pow(X, cast(Y, X.dtype))
    return cast(gf.pow(cast(X, Y.dtype), Y), X.dtype)


@operator("Sum")
def total(*inputs: Tensor) -> Any:
    """The sum of all operands."""
    return reduce(gf.add, inputs)


@operator("Mean")
def mean(*inputs: Tensor) -> Any:
    """The mean of all operands."""
    return gf.div(total(*inputs), len(inputs))


@operator("Max")
def largest(*inputs: Tensor) -> Any:
    """The largest of all operands."""
    return reduce(gf.maximum, inputs)


@operator("Min")
def smallest(*inputs: Tensor) -> Any:
    """The smallest of all operands."""
    return reduce(gf.minimum, inputs)


@operator("Clip")
def clip(input: Tensor, min: Any = None, max: Any = None) -> Any:
    """Between two bounds (the upper one where they cross)."""
    for bound, function in ((min, gf.maximum), (max, gf.minimum)):
        if bound is not None:
            bound = bound if isinstance(bound, Tensor) else gf.tensor(bound, dtype=input.dtype)
            input = function(input, bound)
    return input


@operator("Where")
def where(condition: Tensor, X: Tensor, Y: Tensor) -> Any:
    """``X`` where the condition holds, else ``Y``."""
    return gf.where(condition, X, Y)


@operator("IsInf")
def isinf(X: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    """Where a number is infinite, of the wanted signs."""
    if detect_negative and detect_positive:
        return gf.isinf(X)
    if not detect_negative and not detect_positive:
        return gf.zeros_like(X, dtype=T.bool_)
    return gf.eq(X, float("inf") if detect_positive else float("-inf"))


@operator("BitShift")
def bit_shift(X: Tensor, Y: Tensor, *, direction: str) -> Any:
    """Bits moved left or right."""
    return (gf.bitwise_left_shift if direction == "LEFT" else gf.bitwise_right_shift)(X, Y)


@operator("Cast")
def cast_to(input: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    """The operand in another dtype."""
    return cast(input, dtype_of(to))


@operator("CastLike")
def cast_like(
    input: Tensor, target_type: Tensor, *, saturate: int = 1, round_mode: str = "up"
) -> Any:
    """The operand in the dtype of another."""
    return cast(input, target_type.dtype)


@operator("BitCast")
def bit_cast(input: Tensor, *, to: int) -> Any:
    """The same bytes as elements of another dtype."""
    return input.view(dtype_of(to))


@operator("Dropout", folds=False)
def dropout(
    data: Tensor, ratio: Any = None, training_mode: Any = None, *, seed: int = 0,
    outputs: int = 1,
) -> Any:  # fmt: skip
    """The operand (there is no dropout in a model that runs), and a mask of True."""
    if training_mode is not None:
        return _random_dropout(data, ratio, training_mode, outputs)
    return (data, gf.ones_like(data, dtype=T.bool_))[:outputs]


def _random_dropout(data: Tensor, ratio: Any, training: Tensor, outputs: int) -> Any:
    """With the rate and the choice given as tensors."""
    rate = cast(ratio, data.dtype) if ratio is not None else gf.tensor(0.5, dtype=data.dtype)
    drawn = gf.rand(tuple(data.shape))
    kept = gf.logical_or(gf.ge(cast(drawn, data.dtype), rate), gf.logical_not(training))
    scaled = gf.where(training, gf.div(data, 1 - rate), data)
    return (gf.where(kept, scaled, gf.zeros_like(data)), kept)[:outputs]
