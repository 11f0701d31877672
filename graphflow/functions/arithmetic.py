"""Less common elementwise operations: remainders, signs, rounding, integers, closeness."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphflow.autocasting import in_float32
from graphflow.checks import need_one_tensor, need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.functions.elementwise import (
    abs,
    add,
    clamp,
    eq,
    ge,
    gt,
    isfinite,
    isnan,
    le,
    logical_and,
    logical_or,
    lt,
    mul,
    of_one,
    pow,
    refuse_bool,
    refuse_numbers,
    refuse_zero,
    sub,
    where,
)
from graphflow.functions.manipulation import truth
from graphflow.ir import types as T
from graphflow.promotion import as_operand, cast, operands, result_type
from graphflow.tensor import Tensor

__all__ = [
    "allclose", "clamp_max",
    "clamp_min",
    "copysign",
    "exp2",
    "fix",
    "float_power",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "gcd",
    "heaviside",
    "isclose",
    "isneginf",
    "isposinf",
    "lcm",
    "ldexp",
    "log2",
    "log10",
    "nan_to_num",
    "rsub",
    "signbit",
    "trunc",
]  # fmt: skip
METHODS = [name for name in __all__ if name != "rsub"]
IN_PLACE = """
clamp_max clamp_min copysign exp2 fix float_power fmod frac gcd heaviside lcm ldexp
log10 log2 nan_to_num trunc
""".split()

# ---- logarithms and powers to other bases ----------------------------------------------


@of_one
def exp2(x: Tensor) -> Tensor:
    """2 raised to the input."""
    return apply("exp2", x)


@in_float32
@of_one
def log2(x: Tensor) -> Tensor:
    """Logarithm to base 2."""
    return apply("log2", x)


@in_float32
@of_one
def log10(x: Tensor) -> Tensor:
    """Logarithm to base 10."""
    return apply("log10", x)


def float_power(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent`` in double precision."""
    need_one_tensor("float_power", input, exponent)
    wide = T.complex128 if result_type(input, exponent).is_complex else T.float64
    return pow(as_operand(input, wide), as_operand(exponent, wide))


def ldexp(input: Any, other: Any) -> Tensor:
    """``input * 2 ** other``."""
    return mul(input, pow(2.0, other))


# ---- remainders, rounding ----------------------------------------------------------------


def fmod(input: Any, other: Any) -> Tensor:
    """Remainder with the sign of ``input``."""
    refuse_numbers("fmod", input)
    a, b = operands([input, other])
    refuse_bool("fmod", a)
    refuse_zero("fmod", other, b)
    return apply("fmod", a, b)


def trunc(input: Tensor) -> Tensor:
    """The input without its fraction."""
    (x,) = operands([input])
    refuse_bool("trunc", x)
    return apply("trunc", x)


def frac(input: Tensor) -> Tensor:
    """The fraction of the input, with its sign."""
    if not need_tensor("frac", input).dtype.is_floating_point:
        raise DTypeError(f"frac takes floating tensors, not {input.dtype.name}")
    return sub(input, trunc(input))


# ---- larger, smaller -----------------------------------------------------------------------


def fmax(input: Any, other: Any) -> Tensor:
    """The larger; a NaN loses against a number."""
    refuse_numbers("fmax", input, other)
    a, b = operands([input, other])
    return where(logical_or(ge(a, b), isnan(b)), a, b)


def fmin(input: Any, other: Any) -> Tensor:
    """The smaller; a NaN loses against a number."""
    refuse_numbers("fmin", input, other)
    a, b = operands([input, other])
    return where(logical_or(le(a, b), isnan(b)), a, b)


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """``input``, or ``min`` where it is below."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """``input``, or ``max`` where it is above."""
    return clamp(input, max=max)


# ---- signs and kinds of numbers --------------------------------------------------------------


def copysign(input: Any, other: Any) -> Tensor:
    """The size of ``input`` with the sign of ``other``."""
    need_tensor("copysign", input)
    return apply("copysign", *operands([input, other], floating=True))


def signbit(input: Tensor) -> Tensor:
    """True where the sign is minus, -0.0 included."""
    if not need_tensor("signbit", input).dtype.is_floating_point:
        return lt(input, 0)
    return lt(apply("copysign", as_operand(1.0, input.dtype), input), 0)


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``other - alpha * input``."""
    refuse_numbers("rsub", input)
    return sub(other, input, alpha=alpha)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below 0, 1 above, ``values`` at 0."""
    if need_tensor("heaviside", input).dtype is not need_tensor("heaviside", values).dtype:
        raise DTypeError(
            f"heaviside: input and values have different dtypes, {input.dtype.name} and "
            f"{values.dtype.name}"
        )
    step = cast(gt(input.detach(), 0), input.dtype)
    return where(eq(input.detach(), 0), values.detach(), step)


def isposinf(input: Tensor) -> Tensor:
    """True where the input is positive infinity."""
    return eq(need_tensor("isposinf", input), math.inf)


def isneginf(input: Tensor) -> Tensor:
    """True where the input is negative infinity."""
    return eq(need_tensor("isneginf", input), -math.inf)


def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Other numbers for NaN and infinities; by default 0 and the ends of the format."""
    if not need_tensor("nan_to_num", input).dtype.is_floating_point:
        return apply("copy", input)
    largest = _largest(input.dtype)
    out = where(isnan(input), 0.0 if nan is None else nan, input)
    out = where(isposinf(input), largest if posinf is None else posinf, out)
    return where(isneginf(input), -largest if neginf is None else neginf, out)


def _largest(dtype: T.DType) -> float:
    if dtype is T.bfloat16:
        return 3.3895313892515355e38
    return float(np.finfo(dtype.numpy).max)


# ---- whole numbers --------------------------------------------------------------------------


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """Greatest common divisor."""
    return apply("gcd", *_whole("gcd", input, other))


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """Least common multiple."""
    a, b = _whole("lcm", input, other)
    divisor = apply("gcd", a, b)
    safe = where(eq(divisor, 0), 1, divisor)
    return abs(mul(apply("floor_divide", a, safe), b))


def _whole(name: str, *values: Any) -> list[Tensor]:
    refuse_numbers(name, *values)
    found = operands(values)
    if found[0].dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name} takes integer tensors, not {found[0].dtype.name}")
    return found


# ---- closeness ------------------------------------------------------------------------------


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """True where ``|input - other| <= atol + rtol * |other|``."""
    a, b = need_tensor("isclose", input), need_tensor("isclose", other, "other")
    if a.dtype is not b.dtype:
        raise DTypeError(
            f"isclose: the operands have different dtypes, {a.dtype.name} and {b.dtype.name}"
        )
    if rtol < 0 or atol < 0:
        raise GraphFlowError(f"isclose needs rtol, atol >= 0, not {rtol} and {atol}")
    close = eq(a, b)
    if equal_nan:
        close = logical_or(close, logical_and(isnan(a), isnan(b)))
    if rtol == 0 and atol == 0:
        return close
    if not (a.dtype.is_floating_point or a.dtype.is_complex):
        a, b = cast(a, T.float64), cast(b, T.float64)
    gap = abs(sub(a, b))
    near = logical_and(isfinite(gap), le(gap, add(mul(abs(b), rtol), atol)))
    return logical_or(close, near)


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """True when every element is close, see :func:`isclose` (a run-time number if compiled)."""
    return truth(isclose(input, other, rtol, atol, equal_nan).all())  # type: ignore[no-any-return]


fix = trunc
