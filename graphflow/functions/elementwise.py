"""Elementwise operations on tensors: ``gf.exp``, ``gf.add``, ``gf.where`` …

Each is a primitive after promotion, or a short formula over primitives.
Every function takes tensors or numbers, broadcasts, and returns a new tensor.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any, overload

from graphflow.autocasting import in_float32
from graphflow.checks import need_floating, need_one_tensor, need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast, is_one, operands, result_type
from graphflow.tensor import Tensor

__all__ = [
    "abs", "absolute", "add", "addcdiv", "addcmul", "atan2", "bitwise_and",
    "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    "ceil", "clamp", "clip", "cos", "div", "divide", "eq", "erf", "exp", "expm1", "floor",
    "floor_divide", "ge", "greater", "greater_equal", "gt", "isfinite", "isinf", "isnan", "le",
    "lerp", "less", "less_equal", "log", "log1p", "logical_and", "logical_not", "logical_or",
    "logical_xor", "lt", "maximum", "minimum", "mul", "multiply", "ne", "neg", "negative",
    "not_equal", "positive", "pow", "reciprocal", "relu", "remainder", "round", "rsqrt", "sigmoid",
    "sign", "sin", "sqrt", "square", "sub", "subtract", "tanh", "true_divide", "where",
]  # fmt: skip
METHODS = [name for name in __all__ if name != "where"]
IN_PLACE = """
abs absolute add addcdiv addcmul atan2 bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor ceil clamp clip cos div divide eq erf exp expm1 floor floor_divide
ge greater greater_equal gt le lerp less less_equal log log1p logical_and logical_not logical_or
logical_xor lt mul multiply ne neg negative not_equal pow reciprocal relu remainder round rsqrt
sigmoid sign sin sqrt square sub subtract tanh true_divide
""".split()


def _unary(op: str, summary: str, floating: bool = False) -> Callable[[Any], Tensor]:
    def function(input: Any) -> Tensor:
        (x,) = operands([input], floating)
        refuse_bool(op, x)
        return _weakly(apply(op, x), input)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{summary} Elementwise; same shape as ``input``."
    return function


def _binary(
    op: str, summary: str, floating: bool = False, tensors: int = 0
) -> Callable[[Any, Any], Tensor]:
    """``tensors``: how many of the operands, from the first on, may not be Python numbers."""

    def function(input: Any, other: Any) -> Tensor:
        refuse_numbers(op, *(input, other)[:tensors])
        a, b = operands([input, other], floating)
        return _weakly(apply(op, a, b), input, other)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{summary} Elementwise with broadcasting and promotion."
    return function


def of_one(formula: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """A formula of one floating operand as a function.

    The operand is promoted like that of ``exp``; half precision is computed in single.
    """

    def function(input: Any) -> Tensor:
        (x,) = operands([input], floating=True)
        return _weakly(_in_single(formula, x), input)

    return _as(formula, function)


def of_two(formula: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """A formula of two floating operands of one dtype as a function, see :func:`of_one`."""
    return _of_two(formula, need_one_tensor)


def of_two_tensors(formula: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """Like :func:`of_two`; both operands must be tensors, and not both of integers."""
    return _of_two(formula, _need_floating_tensors)


def _need_floating_tensors(name: str, *values: Any) -> None:
    refuse_numbers(name, *values)
    dtype = result_type(*values)
    if not (dtype.is_floating_point or dtype.is_complex):
        raise DTypeError(f"{name} takes floating tensors, not {dtype.name}")


def _of_two(
    formula: Callable[[Any, Any], Tensor], check: Callable[..., None]
) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        check(formula.__name__, input, other)
        a, b = operands([input, other], floating=True)
        return _weakly(_in_single(formula, a, b), input, other)

    return _as(formula, function)


def _in_single(formula: Callable[..., Tensor], *values: Tensor) -> Tensor:
    dtype = values[0].dtype
    if dtype.itemsize >= 4:
        return formula(*values)
    return cast(formula(*(cast(v, T.float32) for v in values)), dtype)


def _as(formula: Callable[..., Tensor], function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    function.__name__ = function.__qualname__ = formula.__name__
    function.__module__, function.__doc__ = formula.__module__, formula.__doc__
    return function


def refuse_bool(name: str, value: Tensor) -> None:
    """Refuse bool operands where PyTorch has no such operation."""
    if value.dtype is T.bool_:
        raise DTypeError(f"{name} does not take bool tensors; convert them, for example with int()")


def refuse_numbers(name: str, *values: Any) -> None:
    """Refuse Python numbers where PyTorch wants tensors."""
    for value in values:
        if isinstance(value, (bool, int, float, complex)):
            need_tensor(name, value, "operand")


def _weakly(out: Tensor, *sources: Any) -> Tensor:
    """Run-time scalars stay numbers for promotion: ``lr * 2`` is still a Python float."""
    for source in sources:
        if not getattr(source, "_weak", True):
            return out
    out._weak = out.dtype is T.float64
    return out


def _division(op: str, summary: str) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        need_one_tensor(op, input, other)
        a, b = operands([input, other])
        refuse_bool(op, a)
        refuse_zero(op, other, b)
        return _weakly(apply(op, a, b), input, other)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{summary} Elementwise; integers by zero raise where the divisor is known."
    return function


def refuse_zero(op: str, given: Any, divisor: Tensor) -> None:
    """Raise if whole numbers would be divided by 0, as far as the divisor has a value yet."""
    if divisor.dtype.kind not in ("int", "uint", "bool"):
        return
    known = mode.tracer is None
    if (given == 0) if not isinstance(given, Tensor) else known and not divisor._host().all():
        raise GraphFlowError(f"{op}: integer division by zero (ZeroDivisionError)")


exp = in_float32(_unary("exp", "e raised to the input.", floating=True))
log = in_float32(_unary("log", "Natural logarithm.", floating=True))
log1p = in_float32(_unary("log1p", "log(1 + input), exact near 0.", floating=True))
expm1 = in_float32(_unary("expm1", "exp(input) - 1, exact near 0.", floating=True))
sqrt = _unary("sqrt", "Square root.", floating=True)
rsqrt = in_float32(_unary("rsqrt", "1 / sqrt(input).", floating=True))
sin = _unary("sin", "Sine of radians.", floating=True)
cos = _unary("cos", "Cosine of radians.", floating=True)
tanh = _unary("tanh", "Hyperbolic tangent.", floating=True)
sigmoid = _unary("sigmoid", "1 / (1 + exp(-input)).", floating=True)
erf = _unary("erf", "Error function.", floating=True)
reciprocal = in_float32(_unary("reciprocal", "1 / input.", floating=True))
relu = _unary("relu", "max(input, 0); NaN stays NaN.")
neg = _unary("neg", "-input.")
abs = _unary("abs", "Absolute value.")
floor = _unary("floor", "Largest integer not above.")
ceil = _unary("ceil", "Smallest integer not below.")
_nearest = _unary("round", "Nearest integer, halves to even.")
_sign = _unary("sign", "-1, 0 or 1; 0 for NaN.")

mul = _binary("mul", "input * other.")
div_true = _binary("div", "input / other.", floating=True)
maximum = _binary("maximum", "The larger; NaN if either is.", tensors=2)
minimum = _binary("minimum", "The smaller; NaN if either is.", tensors=2)
remainder = _division("remainder", "Remainder with the divisor's sign.")
floor_divide = _division("floor_divide", "Quotient rounded down.")
atan2 = _binary("atan2", "Angle of the point (other, input).", floating=True, tensors=2)
eq = _binary("eq", "input == other.", tensors=1)
ne = _binary("ne", "input != other.", tensors=1)
lt = _binary("lt", "input < other.", tensors=1)
le = _binary("le", "input <= other.", tensors=1)
gt = _binary("gt", "input > other.", tensors=1)
ge = _binary("ge", "input >= other.", tensors=1)


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input + alpha * other``."""
    return _scaled_sum("add", input, other, alpha)


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input - alpha * other``."""
    return _scaled_sum("sub", input, other, alpha)


def _scaled_sum(op: str, input: Any, other: Any, alpha: Any) -> Tensor:
    a, b = operands([input, other])
    if op == "sub" and "bool" in {_kind(input), _kind(other)}:
        raise DTypeError("sub of bool tensors is not supported; use ^ or logical_not")
    if not is_one(alpha):
        if isinstance(alpha, bool) and a.dtype is not T.bool_:
            raise DTypeError(f"{op}: a bool alpha needs bool operands, not {a.dtype.name}")
        if isinstance(alpha, float) and not (a.dtype.is_floating_point or a.dtype.is_complex):
            raise DTypeError(f"{op}: alpha must be a whole number for {a.dtype.name} operands")
        b = apply("mul", b, as_operand(alpha, b.dtype))
    return _weakly(apply(op, a, b), input, other)


def _kind(value: Any) -> str:
    """``bool`` for bool tensors and Python's True and False."""
    return value.dtype.kind if isinstance(value, Tensor) else type(value).__name__


def sign(input: Any) -> Tensor:
    """-1, 0 or 1; 0 for NaN; bool stays as it is."""
    return apply("copy", input) if _kind(input) == "bool" else _sign(input)


def positive(input: Tensor) -> Tensor:
    """The input itself."""
    refuse_bool("positive", need_tensor("positive", input))
    return input


def round(input: Any, *, decimals: int = 0) -> Tensor:
    """The nearest integer, or multiple of ``10 ** -decimals``; halves to even."""
    if decimals == 0:
        return _nearest(input)
    if not need_tensor("round", input).dtype.is_floating_point:
        raise DTypeError(f"round with decimals needs a floating tensor, not {input.dtype.name}")
    factor = 10.0 ** builtins.abs(decimals)
    if decimals < 0:
        return mul(_nearest(div_true(input, factor)), factor)
    return div_true(_nearest(mul(input, factor)), factor)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; ``rounding_mode`` "floor" or "trunc" rounds the quotient."""
    if rounding_mode is None:
        return div_true(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        raise GraphFlowError(
            f"div: rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}"
        )
    a, b = operands([input, other])
    refuse_zero("div", other, b)
    if a.dtype.is_floating_point:
        return _weakly(apply("trunc", apply("div", a, b)), input, other)
    return apply("floor_divide", apply("sub", a, apply("fmod", a, b)), b)


@in_float32
def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``; small whole exponents become products."""
    if isinstance(input, Tensor) and isinstance(exponent, (int, float)):
        quick = _small_power(input, exponent)
        if quick is not None:
            return quick
    need_one_tensor("pow", input, exponent)
    a, b = operands([input, exponent])
    refuse_bool("pow", a)
    return _weakly(apply("pow", a, b), input, exponent)


def _small_power(x: Tensor, n: Any) -> Tensor | None:
    """``x ** n`` without the general primitive, where that is exact."""
    floating = x.dtype.is_floating_point
    whole = x.dtype.kind in ("int", "uint")
    if not floating and isinstance(n, int) and n < 0 and not x.dtype.is_complex:
        raise GraphFlowError("pow: integers to negative integer powers are not allowed")
    if not floating and not (whole and type(n) is int):
        return None
    if n == 0.5:
        return sqrt(x)
    if n == -1:
        return reciprocal(x)
    products = {1: lambda: apply("copy", x), 2: lambda: mul(x, x), 3: lambda: mul(mul(x, x), x)}
    return _weakly(products[n](), x) if n in products else None


def square(input: Any) -> Tensor:
    """``input * input``; of bool, whole numbers."""
    return pow(input, 2)


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Any, other: Any) -> Tensor: ...
def where(condition: Tensor, input: Any = None, other: Any = None) -> Tensor | tuple[Tensor, ...]:
    """``input`` where ``condition`` holds, else ``other``; all three broadcast.

    ``where(condition)`` gives the places where it holds, one index tensor a dimension.
    """
    if input is None and other is None:
        places = need_tensor("where", condition, "condition").nonzero(as_tuple=True)
        return tuple(places)
    if need_tensor("where", condition, "condition").dtype is T.uint8:
        condition = cast(condition, T.bool_)
    if condition.dtype is not T.bool_:
        raise DTypeError(
            f"where: the condition must be a bool tensor, not {condition.dtype.name}; "
            "compare it, for example condition != 0"
        )
    a, b = operands([input, other])
    return apply("where", condition, a, b)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """``input`` limited to ``[min, max]`` (``max`` where they cross, NaN where a bound is).

    The gradient is 1 inside and at the limits; limits that are tensors have one outside.
    """
    if min is None and max is None:
        raise GraphFlowError("clamp needs min, max or both")
    need_tensor("clamp", input)
    dtype = result_type(*[v for v in (input, min, max) if v is not None])
    if dtype is T.bool_:
        raise DTypeError("clamp does not take bool tensors")
    out = cast(input, dtype)
    if min is not None:
        out = _limit("lt", out, min)
    return out if max is None else _limit("gt", out, max)


def _limit(beyond: str, x: Tensor, bound: Any) -> Tensor:
    limit = as_operand(bound, x.dtype)
    outside = apply(beyond, x, limit)
    if x.dtype.is_floating_point and (isinstance(bound, Tensor) or bound != bound):
        outside = apply("logical_or", outside, apply("isnan", limit))
    return apply("where", outside, limit, x)


def isnan(input: Tensor) -> Tensor:
    """True where the input is not a number."""
    whole = not (input.dtype.is_floating_point or input.dtype.is_complex)
    return apply("isnan", cast(input, T.float32) if whole else input)


def isinf(input: Tensor) -> Tensor:
    """True where the input is an infinity."""
    if input.dtype.is_complex:
        return logical_or(isinf(input.real), isinf(input.imag))
    if not input.dtype.is_floating_point:
        return ne(input, input)
    return eq(abs(input), math.inf)


def isfinite(input: Tensor) -> Tensor:
    """True where the input is neither NaN nor infinite."""
    if input.dtype.is_complex:
        return logical_and(isfinite(input.real), isfinite(input.imag))
    if not input.dtype.is_floating_point:
        return eq(input, input)
    return lt(abs(input), math.inf)


def logical_not(input: Tensor) -> Tensor:
    """True where the input is 0."""
    return apply("logical_not", cast(input, T.bool_))


def _logical(op: str) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        refuse_numbers(op, input, other)
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
        need_one_tensor(op, input, other)
        a, b = operands([input, other])
        kinds = ("bool", "int", "uint") if logical else ("int", "uint")
        if a.dtype.kind not in kinds:
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


def lerp(input: Tensor, end: Any, weight: Any) -> Tensor:
    """``input + weight * (end - input)``, from the nearer end."""
    need_floating("lerp", need_tensor("lerp", input))
    _same_dtype("lerp", input, end, weight)
    gap = sub(end, input)
    if isinstance(weight, (int, float)):
        if weight < 0.5:
            return add(input, mul(gap, weight))
        return sub(end, mul(gap, 1.0 - weight))
    from_start = add(input, mul(weight, gap))
    return where(lt(abs(weight), 0.5), from_start, sub(end, mul(gap, sub(1.0, weight))))


def _same_dtype(name: str, first: Tensor, *others: Any) -> None:
    for other in others:
        if isinstance(other, Tensor) and not other._weak and other.dtype is not first.dtype:
            raise DTypeError(
                f"{name}: the operands have different dtypes, {first.dtype.name} and "
                f"{other.dtype.name}"
            )


def addcmul(input: Tensor, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``."""
    product = mul(tensor1, tensor2)
    return add(input, product if is_one(value) else mul(product, value))


def addcdiv(input: Tensor, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``."""
    if not (
        result_type(tensor1, tensor2).is_floating_point or result_type(tensor1, tensor2).is_complex
    ):
        raise DTypeError("addcdiv does not divide integers; convert them, or use div")
    quotient = div(tensor1, tensor2)
    return add(input, quotient if is_one(value) else mul(quotient, value))


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
