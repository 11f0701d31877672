"""What the elementwise operations mean for single numbers, in plain Python.

Written apart from the records: Python's ``math`` for floats, unbounded
integers for integers (wrapped by the test), PyTorch's conventions at the edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import scipy.special

Number = Any


def _guard(function: Callable[..., float]) -> Callable[..., float]:
    """Python raises where IEEE arithmetic has a value; only called inside domains."""

    def guarded(*arguments: float) -> float:
        try:
            return function(*arguments)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return guarded


def divide(a: float, b: float) -> float:
    """IEEE division."""
    if b != 0 or math.isnan(b):
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def logarithm(x: float) -> float:
    """-inf at 0, NaN below."""
    return -math.inf if x == 0 else math.log(x) if x > 0 else math.nan


def remainder(a: Number, b: Number) -> Number:
    """Python's ``%``: the sign of the divisor; integers give 0 at 0."""
    if isinstance(a, int):
        return a % b if b else 0
    if b == 0 or math.isinf(a) or math.isnan(a) or math.isnan(b):
        return math.nan
    return a % b


def floor_divide(a: Number, b: Number) -> Number:
    """Python's ``//``; integers give 0 at 0, floats divide as IEEE does."""
    if isinstance(a, int):
        return a // b if b else 0
    if b == 0:
        return divide(a, b)
    if math.isinf(a) or math.isnan(a) or math.isnan(b):
        return math.nan
    return a // b


def power(a: Number, b: Number) -> Number:
    """``a ** b``; a negative power of a whole number truncates."""
    if isinstance(a, int):
        if b >= 0:
            return a**b
        return {1: 1, -1: 1 if b % 2 == 0 else -1}.get(a, 0)
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        if a == 0:
            return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
        return math.nan


def larger(a: Number, b: Number) -> Number:
    """NaN if either is NaN."""
    return a if a != a or a > b else b


def smaller(a: Number, b: Number) -> Number:
    """NaN if either is NaN."""
    return a if a != a or a < b else b


def shift_left(a: int, b: int, width: int) -> int:
    """0 for counts outside ``0 .. width - 1``."""
    return a << b if 0 <= b < width else 0


def shift_right(a: int, b: int, width: int) -> int:
    """The sign for counts outside ``0 .. width - 1``."""
    return a >> b if 0 <= b < width else -(a < 0)


def nearest(x: Number) -> Number:
    """Halves to even; keeps the sign of zero."""
    return math.copysign(float(round(x)), x) if isinstance(x, float) and math.isfinite(x) else x


def rounded(function: Callable[[float], int]) -> Callable[[Number], Number]:
    """A rounding of floats that leaves integers, infinities and NaN alone."""
    return lambda x: float(function(x)) if isinstance(x, float) and math.isfinite(x) else x


def modulus(a: Number, b: Number) -> Number:
    """C's fmod; whole numbers give 0 at 0."""
    if isinstance(a, int):
        return (abs(a) % abs(b)) * (1 if a >= 0 else -1) if b else 0
    if b == 0 or math.isinf(a) or math.isnan(a) or math.isnan(b):
        return math.nan
    return math.fmod(a, b)


ORACLES: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "after": lambda a, b: a,
    "add": lambda a, b: a + b,
    "asinh": math.asinh,
    "atan2": math.atan2,
    "bitwise_and": lambda a, b: a & b,
    "bitwise_or": lambda a, b: a | b,
    "bitwise_xor": lambda a, b: a ^ b,
    "ceil": rounded(math.ceil),
    "copy": lambda x: x,
    "copysign": math.copysign,
    "cos": math.cos,
    "digamma": lambda x: float(scipy.special.digamma(x)),
    "div": divide,
    "eq": lambda a, b: a == b,
    "erf": math.erf,
    "erfc": math.erfc,
    "erfcx": lambda x: float(scipy.special.erfcx(x)),
    "erfinv": lambda x: float(scipy.special.erfinv(x)),
    "exp": _guard(math.exp),
    "exp2": lambda x: 2.0**x,
    "expm1": _guard(math.expm1),
    "floor": rounded(math.floor),
    "floor_divide": floor_divide,
    "fmod": modulus,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "hypot": math.hypot,
    "i0": lambda x: float(scipy.special.i0(x)),
    "i0e": lambda x: float(scipy.special.i0e(x)),
    "i1": lambda x: float(scipy.special.i1(x)),
    "i1e": lambda x: float(scipy.special.i1e(x)),
    "airy_ai": lambda x: float(scipy.special.airy(x)[0]),
    "airy_ai_slope": lambda x: float(scipy.special.airy(x)[1]),
    "j0": lambda x: float(scipy.special.j0(x)),
    "j1": lambda x: float(scipy.special.j1(x)),
    "k0": lambda x: float(scipy.special.k0(x)),
    "k0e": lambda x: float(scipy.special.k0e(x)),
    "k1": lambda x: float(scipy.special.k1(x)),
    "k1e": lambda x: float(scipy.special.k1e(x)),
    "y0": lambda x: float(scipy.special.y0(x)),
    "y1": lambda x: float(scipy.special.y1(x)),
    "isnan": lambda x: x != x,
    "le": lambda a, b: a <= b,
    "lgamma": math.lgamma,
    "log": logarithm,
    "log10": math.log10,
    "log1p": math.log1p,
    "igamma": lambda a, x: float(scipy.special.gammainc(a, x)),
    "igammac": lambda a, x: float(scipy.special.gammaincc(a, x)),
    "log2": math.log2,
    "logical_and": lambda a, b: bool(a) and bool(b),
    "logical_not": lambda x: not x,
    "logical_or": lambda a, b: bool(a) or bool(b),
    "logical_xor": lambda a, b: bool(a) != bool(b),
    "lt": lambda a, b: a < b,
    "maximum": larger,
    "minimum": smaller,
    "mul": lambda a, b: a * b,
    "ndtri": lambda x: float(scipy.special.ndtri(x)),
    "ne": lambda a, b: a != b,
    "neg": lambda x: -x,
    "conj": lambda x: x.conjugate(),
    "phi": lambda x: 0.5 + 0.5 * math.erf(x * math.sqrt(0.5)),
    "pow": power,
    "reciprocal": lambda x: divide(1.0, x),
    "relu": lambda x: larger(x, x * 0),
    "remainder": remainder,
    "round": nearest,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "sign": lambda x: (x > 0) - (x < 0),
    "sin": math.sin,
    "sqrt": math.sqrt,
    "stop_gradient": lambda x: x,
    "sub": lambda a, b: a - b,
    "tanh": math.tanh,
    "trunc": rounded(math.trunc),
    "where": lambda c, a, b: a if c else b,
}
"""One number in, one number out; the shifts need the width and stand apart."""
