"""Circular and hyperbolic functions: formulas over a few primitives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphflow.autocasting import in_float32
from graphflow.dispatch import apply
from graphflow.functions.complex_numbers import joined
from graphflow.functions.elementwise import (
    add,
    atan2,
    cos,
    div,
    eq,
    expm1,
    log1p,
    lt,
    mul,
    neg,
    of_one,
    of_two_tensors,
    sin,
    sqrt,
    sub,
    where,
)
from graphflow.promotion import as_operand

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
    "arctanh", "asin", "asinh", "atan", "atanh", "cosh", "deg2rad", "hypot", "rad2deg", "sinc",
    "sinh", "tan",
]  # fmt: skip
METHODS = __all__
IN_PLACE = """
acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atanh cosh deg2rad
hypot rad2deg sinc sinh tan
""".split()


@in_float32
@of_one
def tan(x: Tensor) -> Tensor:
    """Tangent of radians."""
    return div(sin(x), cos(x))


@in_float32
@of_one
def asin(x: Tensor) -> Tensor:
    """Inverse sine; NaN outside [-1, 1]."""
    if x.dtype.is_complex:
        return _turned_back(_complex_asinh(_turned(x)))
    return atan2(x, _opposite(x))


@in_float32
@of_one
def acos(x: Tensor) -> Tensor:
    """Inverse cosine; NaN outside [-1, 1]."""
    if x.dtype.is_complex:
        below = sqrt(joined(sub(1.0, x.real), neg(x.imag)))  # 1 - x, with the sign of its zeros
        above = sqrt(joined(add(x.real, 1.0), x.imag))
        angle = mul(atan2(below.real, above.real), 2.0)
        crossed = sub(mul(above.real, below.imag), mul(above.imag, below.real))
        return joined(angle, apply("asinh", crossed))
    return atan2(_opposite(x), x)


def _opposite(x: Tensor) -> Tensor:
    """``sqrt(1 - x * x)``, exact near the ends."""
    return sqrt(mul(sub(1.0, x), add(1.0, x)))


@of_one
def atan(x: Tensor) -> Tensor:
    """Inverse tangent."""
    if x.dtype.is_complex:
        return _complex_atan(x)
    return apply("atan2", x, as_operand(1.0, x.dtype))


@in_float32
@of_one
def sinh(x: Tensor) -> Tensor:
    """Hyperbolic sine."""
    # 2 sinh(x/2) cosh(x/2): exact near 0, and no overflow before the result's own.
    up, down = _halves(x)
    return mul(mul(sub(up, down), 0.5), add(add(up, down), 2.0))


@in_float32
@of_one
def cosh(x: Tensor) -> Tensor:
    """Hyperbolic cosine."""
    up, down = _halves(x)  # 1 + 2 sinh(x/2)^2
    difference = sub(up, down)
    return add(mul(mul(difference, 0.5), difference), 1.0)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    half = mul(x, 0.5)
    return expm1(half), expm1(mul(half, -1.0))


@of_one
def asinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine."""
    if x.dtype.is_complex:
        return _complex_asinh(x)
    return apply("asinh", x)


def _turned(z: Tensor) -> Tensor:
    """``i z``."""
    return joined(neg(z.imag), z.real)


def _turned_back(z: Tensor) -> Tensor:
    """``-i z``."""
    return joined(z.imag, neg(z.real))


def _complex_atan(z: Tensor) -> Tensor:
    """The parts by themselves; the imaginary one is odd, so that none cancels near -i."""
    x, y = z.real, z.imag
    side = where(lt(y, 0.0), -1.0, 1.0)
    size = mul(y, side)
    angle = atan2(mul(x, 2.0), sub(mul(sub(1.0, size), add(size, 1.0)), mul(x, x)))
    gap = sub(size, 1.0)
    ratio = div(mul(size, 4.0), add(mul(x, x), mul(gap, gap)))
    return joined(mul(angle, 0.5), mul(mul(log1p(ratio), side), 0.25))


def _complex_asinh(z: Tensor) -> Tensor:
    """Kahan 1987, "Branch cuts for complex elementary functions": no part cancels."""
    low = sqrt(joined(add(z.imag, 1.0), neg(z.real)))  # 1 - i z
    high = sqrt(joined(sub(1.0, z.imag), z.real))
    size = sub(mul(high.imag, low.real), mul(high.real, low.imag))
    along = sub(mul(low.real, high.real), mul(low.imag, high.imag))
    return joined(apply("asinh", size), atan2(z.imag, along))


@of_one
def acosh(x: Tensor) -> Tensor:
    """Inverse hyperbolic cosine; NaN below 1."""
    above = sub(x, 1.0)
    return log1p(add(above, mul(sqrt(above), sqrt(add(above, 2.0)))))


@of_one
def atanh(x: Tensor) -> Tensor:
    """Inverse hyperbolic tangent; NaN outside [-1, 1]."""
    if x.dtype.is_complex:
        return _turned_back(_complex_atan(_turned(x)))
    return mul(sub(log1p(x), log1p(mul(x, -1.0))), 0.5)


@of_one
def sinc(x: Tensor) -> Tensor:
    """``sin(pi x) / (pi x)``, and 1 at 0."""
    zero = eq(x, 0)
    turn = mul(where(zero, 1.0, x), math.pi)
    return where(zero, 1.0, div(sin(turn), turn))


@of_two_tensors
def hypot(x: Tensor, y: Tensor) -> Tensor:
    """``sqrt(input ** 2 + other ** 2)`` without overflow on the way."""
    return apply("hypot", x, y)


def deg2rad(input: Any) -> Tensor:
    """Degrees in radians."""
    return mul(input, math.pi / 180.0)


def rad2deg(input: Any) -> Tensor:
    """Radians in degrees."""
    return mul(input, 180.0 / math.pi)


arccos, arccosh, arcsin, arcsinh = acos, acosh, asin, asinh
arctan, arctan2, arctanh = atan, atan2, atanh
