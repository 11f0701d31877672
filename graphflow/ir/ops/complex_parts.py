"""Complex arithmetic on real and imaginary parts: what compiled code computes.

Kernels know real numbers only.  A rule has the form ``rule(b, op, n)``: it gets an
application whose complex operands are pairs ``(real, imaginary)`` of real values (other
operands are as they are) and returns such a pair, or one value where the result is real.
"""

from __future__ import annotations

import math
from typing import Any

from graphflow.ir.op import Application, Builder, OpDef, PartsRule
from graphflow.ir.ops.gradients import scalar, zeros_like

Pair = tuple[Any, Any]


def each(b: Builder, op: OpDef, n: Application) -> Pair:
    """An operation that treats both parts alike: sums, choices, everything that moves."""
    real, imaginary = (
        [operand[part] if isinstance(operand, tuple) else operand for operand in n.inputs]
        for part in (0, 1)
    )
    return b.emit(op.name, *real, **n.attrs), b.emit(op.name, *imaginary, **n.attrs)


def padded(b: Builder, op: OpDef, n: Application) -> Pair:
    """The fill value is real."""
    ((real, imaginary),) = n.inputs
    return b.emit(op.name, real, **n.attrs), b.emit(op.name, imaginary, **{**n.attrs, "value": 0})


def product(b: Builder, op: OpDef, n: Application) -> Pair:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i, for any bilinear operation."""
    (ar, ai), (br, bi) = n.inputs

    def times(x: Any, y: Any) -> Any:
        return b.emit(op.name, x, y, **n.attrs)

    return times(ar, br) - times(ai, bi), times(ar, bi) + times(ai, br)


def conjugate(b: Builder, op: OpDef, n: Application) -> Pair:
    """a - bi."""
    ((real, imaginary),) = n.inputs
    return real, -imaginary


def inverse(b: Builder, op: OpDef, n: Application) -> Pair:
    """1 / z."""
    ((real, imaginary),) = n.inputs
    one = scalar(b, 1, real.dtype)
    return _divided(b, (one, scalar(b, 0, real.dtype)), (real, imaginary))


def quotient(b: Builder, op: OpDef, n: Application) -> Pair:
    """z / w by Smith's method, which scales by the larger part of w: no needless overflow.

    Source: R. Smith, "Algorithm 116: complex division", CACM 5 (1962).
    """
    return _divided(b, *n.inputs)


def _divided(b: Builder, z: Pair, w: Pair) -> Pair:
    (ar, ai), (br, bi) = z, w
    wide = b.ge(b.abs(br), b.abs(bi))
    large, small = b.where(wide, br, bi), b.where(wide, bi, br)
    zero = b.eq(large, 0)
    ratio = small / b.where(zero, scalar(b, 1, large.dtype), large)
    scale = large + small * ratio
    sign = b.where(wide, scalar(b, 1, large.dtype), scalar(b, -1, large.dtype))
    first, second = b.where(wide, ar, ai), b.where(wide, ai, ar)
    return (first + second * ratio) / scale, (second - first * ratio) * sign / scale


def exponential(b: Builder, op: OpDef, n: Application) -> Pair:
    """exp(a) (cos b + i sin b)."""
    return _exponential(b, n.inputs[0])


def _exponential(b: Builder, z: Pair) -> Pair:
    real, imaginary = z
    size = b.exp(real)
    return size * b.cos(imaginary), size * b.sin(imaginary)


def size(b: Builder, op: OpDef, n: Application) -> Any:
    """The distance from 0, scaled by the larger part so that squares cannot overflow."""
    return _size(b, n.inputs[0])


def _size(b: Builder, z: Pair) -> Any:
    real, imaginary = b.abs(z[0]), b.abs(z[1])
    large, small = b.maximum(real, imaginary), b.minimum(real, imaginary)
    flat = b.logical_or(b.eq(large, 0), b.eq(large, float("inf")))
    ratio = small / b.where(flat, scalar(b, 1, large.dtype), large)
    return b.where(flat, large, large * b.sqrt(ratio * ratio + 1.0))


def logarithm(b: Builder, op: OpDef, n: Application) -> Pair:
    """log |z| + i arg z, the principal branch."""
    ((real, imaginary),) = n.inputs
    return b.log(_size(b, (real, imaginary))), b.atan2(imaginary, real)


def logarithm_to(base: float) -> PartsRule:
    """log z over the logarithm of ``base``."""
    factor = 1.0 / math.log(base)

    def rule(b: Builder, op: OpDef, n: Application) -> Pair:
        real, imaginary = logarithm(b, op, n)
        return real * factor, imaginary * factor

    return rule


def power_of(base: float) -> PartsRule:
    """exp(z log base)."""
    factor = math.log(base)

    def rule(b: Builder, op: OpDef, n: Application) -> Pair:
        ((real, imaginary),) = n.inputs
        return _exponential(b, (real * factor, imaginary * factor))

    return rule


def power(b: Builder, op: OpDef, n: Application) -> Pair:
    """exp(w log z); 0 to any power is 0, but for 0, which gives 1."""
    (ar, ai), (br, bi) = n.inputs
    zero = b.logical_and(b.eq(ar, 0), b.eq(ai, 0))
    size = b.log(_size(b, (b.where(zero, scalar(b, 1, ar.dtype), ar), ai)))
    turn = b.atan2(ai, ar)
    real, imaginary = _exponential(b, (br * size - bi * turn, br * turn + bi * size))
    none = b.logical_and(b.eq(br, 0), b.eq(bi, 0))
    at_zero = b.cast(none, dtype=ar.dtype)
    return b.where(zero, at_zero, real), b.where(zero, scalar(b, 0, ar.dtype), imaginary)


def inverse_root(b: Builder, op: OpDef, n: Application) -> Pair:
    """1 / sqrt(z)."""
    one = scalar(b, 1, n.inputs[0][0].dtype)
    return _divided(b, (one, scalar(b, 0, one.dtype)), root(b, op, n))


def logistic(b: Builder, op: OpDef, n: Application) -> Pair:
    """1 / (1 + exp(-z))."""
    ((real, imaginary),) = n.inputs
    er, ei = _exponential(b, (-real, -imaginary))
    one = scalar(b, 1, real.dtype)
    return _divided(b, (one, scalar(b, 0, one.dtype)), (er + 1.0, ei))


def root(b: Builder, op: OpDef, n: Application) -> Pair:
    """The principal root: the half-plane of positive real parts."""
    ((real, imaginary),) = n.inputs
    larger = b.sqrt((_size(b, (real, imaginary)) + b.abs(real)) * 0.5)
    zero = b.eq(larger, 0)
    other = b.abs(imaginary) * 0.5 / b.where(zero, scalar(b, 1, real.dtype), larger)
    right = b.ge(real, 0)
    up = b.where(right, other, larger)
    return b.where(right, larger, other), b.copysign(up, imaginary)


def sine(b: Builder, op: OpDef, n: Application) -> Pair:
    """sin a cosh b + i cos a sinh b."""
    ((real, imaginary),) = n.inputs
    cosh, sinh = _hyperbolic(b, imaginary)
    return b.sin(real) * cosh, b.cos(real) * sinh


def cosine(b: Builder, op: OpDef, n: Application) -> Pair:
    """cos a cosh b - i sin a sinh b."""
    ((real, imaginary),) = n.inputs
    cosh, sinh = _hyperbolic(b, imaginary)
    return b.cos(real) * cosh, -(b.sin(real) * sinh)


def _hyperbolic(b: Builder, x: Any) -> Pair:
    grown = b.expm1(b.abs(x))
    sinh = (grown + grown / (grown + 1.0)) * 0.5
    cosh = (grown + 1.0 + b.reciprocal(grown + 1.0)) * 0.5
    return cosh, b.where(b.lt(x, 0), -sinh, sinh)


def equal(b: Builder, op: OpDef, n: Application) -> Any:
    """Both parts are equal."""
    (ar, ai), (br, bi) = n.inputs
    return b.logical_and(b.eq(ar, br), b.eq(ai, bi))


def different(b: Builder, op: OpDef, n: Application) -> Any:
    """Some part differs."""
    (ar, ai), (br, bi) = n.inputs
    return b.logical_or(b.ne(ar, br), b.ne(ai, bi))


def is_zero(b: Builder, op: OpDef, n: Application) -> Any:
    """Both parts are 0."""
    ((real, imaginary),) = n.inputs
    return b.logical_and(b.eq(real, 0), b.eq(imaginary, 0))


def is_nan(b: Builder, op: OpDef, n: Application) -> Any:
    """Some part is NaN."""
    ((real, imaginary),) = n.inputs
    return b.logical_or(b.isnan(real), b.isnan(imaginary))


def conversion(b: Builder, op: OpDef, n: Application) -> Any:
    """Between real and complex dtypes, and among complex ones."""
    (operand,), target = n.inputs, n.attrs["dtype"]
    if not isinstance(operand, tuple):
        real = b.cast(operand, dtype=target.real)
        return real, zeros_like(b, real)
    if target.is_complex:
        return tuple(b.cast(part, dtype=target.real) for part in operand)
    if target.kind == "bool":
        return b.logical_or(*(b.cast(part, dtype=target) for part in operand))
    return b.cast(operand[0], dtype=target)
