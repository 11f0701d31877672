"""Elementwise operations on tensors: ``gf.exp``, ``gf.add``, ``gf.where`` …

Each is a primitive after promotion, or a short formula over primitives.
Every function takes tensors or numbers, broadcasts, and returns a new tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphflow.checks import need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError
from graphflow.ir import types as T
from graphflow.promotion import as_operand, cast, operands, result_type

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "abs", "absolute", "add", "addcdiv", "addcmul", "atan2", "bitwise_and",
    "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    "ceil", "clamp", "clip", "cos", "div", "divide", "eq", "erf", "exp", "expm1", "floor",
    "floor_divide", "ge", "greater", "greater_equal", "gt", "isfinite", "isinf", "isnan", "le",
    "lerp", "less", "less_equal", "log", "log1p", "logical_and", "logical_not", "logical_or",
    "logical_xor", "lt", "maximum", "minimum", "mul", "multiply", "ne", "neg", "negative",
    "not_equal", "pow", "reciprocal", "relu", "remainder", "round", "rsqrt", "sigmoid", "sign",
    "sin", "sqrt", "square", "sub", "subtract", "tanh", "true_divide", "where",
]  # fmt: skip
METHODS = """
abs absolute add addcdiv addcmul atan2 bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor ceil clamp clip cos div divide eq erf exp expm1 floor floor_divide
ge gt isfinite isinf isnan le lerp log log1p logical_and logical_not logical_or logical_xor lt
maximum minimum mul multiply ne neg negative pow reciprocal relu remainder round rsqrt sigmoid
sign sin sqrt square sub subtract tanh true_divide
""".split()
IN_PLACE = """
abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clip cos div erf
exp expm1 floor floor_divide lerp log log1p logical_and logical_not logical_or logical_xor mul neg
pow reciprocal relu remainder round rsqrt sigmoid sign sin sqrt square sub tanh
""".split()


def _unary(op: str, summary: str, floating: bool = False) -> Callable[[Any], Tensor]:
    def function(input: Any) -> Tensor:
        (x,) = operands([input], floating)
        return _weakly(apply(op, x), input)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{summary} Elementwise; same shape as ``input``."
    return function


def _binary(op: str, summary: str, floating: bool = False) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        a, b = operands([input, other], floating)
        return _weakly(apply(op, a, b), input, other)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{summary} Elementwise with broadcasting and promotion."
    return function


def _weakly(out: Tensor, *sources: Any) -> Tensor:
    """Run-time scalars stay numbers for promotion: ``lr * 2`` is still a Python float."""
    for source in sources:
        if not getattr(source, "_weak", True):
            return out
    out._weak = out.dtype is T.float64
    return out


exp = _unary("exp", "e raised to the input.", floating=True)
log = _unary("log", "Natural logarithm.", floating=True)
log1p = _unary("log1p", "log(1 + input), exact near 0.", floating=True)
expm1 = _unary("expm1", "exp(input) - 1, exact near 0.", floating=True)
sqrt = _unary("sqrt", "Square root.", floating=True)
rsqrt = _unary("rsqrt", "1 / sqrt(input).", floating=True)
sin = _unary("sin", "Sine of radians.", floating=True)
cos = _unary("cos", "Cosine of radians.", floating=True)
tanh = _unary("tanh", "Hyperbolic tangent.", floating=True)
sigmoid = _unary("sigmoid", "1 / (1 + exp(-input)).", floating=True)
erf = _unary("erf", "Error function.", floating=True)
reciprocal = _unary("reciprocal", "1 / input.", floating=True)
relu = _unary("relu", "max(input, 0); NaN stays NaN.")
neg = _unary("neg", "-input.")
abs = _unary("abs", "Absolute value.")
sign = _unary("sign", "-1, 0 or 1.")
floor = _unary("floor", "Largest integer not above.")
ceil = _unary("ceil", "Smallest integer not below.")
round = _unary("round", "Nearest integer, halves to even.")

mul = _binary("mul", "input * other.")
div_true = _binary("div", "input / other.", floating=True)
maximum = _binary("maximum", "The larger; NaN if either is.")
minimum = _binary("minimum", "The smaller; NaN if either is.")
remainder = _binary("remainder", "Remainder with the divisor's sign.")
floor_divide = _binary("floor_divide", "Quotient rounded down.")
atan2 = _binary("atan2", "Angle of the point (other, input).", floating=True)
eq = _binary("eq", "input == other.")
ne = _binary("ne", "input != other.")
lt = _binary("lt", "input < other.")
le = _binary("le", "input <= other.")
gt = _binary("gt", "input > other.")
ge = _binary("ge", "input >= other.")


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input + alpha * other``."""
    return _scaled_sum("add", input, other, alpha)


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input - alpha * other``."""
    return _scaled_sum("sub", input, other, alpha)


def _scaled_sum(op: str, input: Any, other: Any, alpha: Any) -> Tensor:
    a, b = operands([input, other])
    if op == "sub" and a.dtype is T.bool_:
        raise DTypeError("subtraction of bool tensors is not supported; use ^ or logical_not")
    if not (isinstance(alpha, (int, float)) and alpha == 1):
        b = apply("mul", b, as_operand(alpha, b.dtype))
    return _weakly(apply(op, a, b), input, other)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; ``rounding_mode`` "floor" or "trunc" rounds the quotient."""
    if rounding_mode is None:
        return div_true(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode == "trunc":
        quotient = div_true(input, other)
        whole = where(quotient < 0, ceil(quotient), floor(quotient))
        return cast(whole, result_type(input, other))
    raise ValueError(f"rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")


def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``; small whole exponents become products."""
    if isinstance(exponent, (int, float)) and not isinstance(input, (int, float)):
        if exponent == 2:
            return mul(input, input)
        if exponent == 1:
            return input.clone()  # type: ignore[no-any-return]
        if exponent == 0.5:
            return sqrt(input)
        if exponent == -1 and input.dtype.is_floating_point:
            return reciprocal(input)
        if exponent == 3:
            return mul(mul(input, input), input)
    a, b = operands([input, exponent])
    return _weakly(apply("pow", a, b), input, exponent)


def square(input: Any) -> Tensor:
    """``input * input``."""
    return mul(input, input)


def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    """``input`` where ``condition`` holds, else ``other``; all three broadcast."""
    if need_tensor("where", condition, "condition").dtype is not T.bool_:
        raise DTypeError(
            f"where: the condition must be a bool tensor, not {condition.dtype.name}; "
            "compare it, for example condition != 0"
        )
    a, b = operands([input, other])
    return apply("where", condition, a, b)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """``input`` limited to ``[min, max]``; the gradient is 1 inside and at the limits."""
    if min is None and max is None:
        raise ValueError("clamp needs min, max or both")
    values = [v for v in (input, min, max) if v is not None]
    dtype = result_type(*values)
    out = cast(input, dtype)
    if min is not None:
        low = as_operand(min, dtype)
        out = apply("where", apply("lt", out, low), low, out)
    if max is not None:
        high = as_operand(max, dtype)
        out = apply("where", apply("gt", out, high), high, out)
    return out


def isnan(input: Tensor) -> Tensor:
    """True where the input is not a number."""
    return apply("isnan", cast(input, T.float32) if not input.dtype.is_floating_point else input)


def isinf(input: Tensor) -> Tensor:
    """True where the input is an infinity."""
    if not input.dtype.is_floating_point:
        return ne(input, input)
    return eq(abs(input), math.inf)


def isfinite(input: Tensor) -> Tensor:
    """True where the input is neither NaN nor infinite."""
    if not input.dtype.is_floating_point:
        return eq(input, input)
    return lt(abs(input), math.inf)


def logical_not(input: Tensor) -> Tensor:
    """True where the input is 0."""
    return apply("logical_not", cast(input, T.bool_))


def _logical(op: str) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        a, b = (cast(t, T.bool_) for t in operands([input, other]))
        return apply(op, a, b)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{op.replace('_', ' ')} of the truth values, elementwise."
    return function


logical_and = _logical("logical_and")
logical_or = _logical("logical_or")
logical_xor = _logical("logical_xor")


def _bitwise(op: str, logical: str | None) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        a, b = operands([input, other])
        if a.dtype.kind not in ("bool", "int", "uint"):
            raise DTypeError(f"{op} needs integer or bool tensors, not {a.dtype.name}")
        return apply(logical if logical and a.dtype is T.bool_ else op, a, b)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{op.replace('_', ' ')} of integers (logical for bool), elementwise."
    return function


bitwise_and = _bitwise("bitwise_and", "logical_and")
bitwise_or = _bitwise("bitwise_or", "logical_or")
bitwise_xor = _bitwise("bitwise_xor", "logical_xor")
bitwise_left_shift = _bitwise("shift_left", None)
bitwise_right_shift = _bitwise("shift_right", None)


def bitwise_not(input: Tensor) -> Tensor:
    """Complement of integers; logical not of bool."""
    if input.dtype is T.bool_:
        return apply("logical_not", input)
    return bitwise_xor(input, -1)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``input + weight * (end - input)``."""
    return add(input, mul(weight, sub(end, input)))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``."""
    return add(input, mul(mul(tensor1, tensor2), value))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``."""
    return add(input, mul(div(tensor1, tensor2), value))


absolute = abs
subtract = sub
multiply = mul
divide = div
true_divide = div
negative = neg
clip = clamp
greater = gt
greater_equal = ge
less = lt
less_equal = le
not_equal = ne
