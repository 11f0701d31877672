"""What floating-point numbers are made of: ``frexp``, ``nextafter``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflow.checks import need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply
from graphflow.errors import DTypeError
from graphflow.functions.elementwise import (
    abs,
    add,
    bitwise_and,
    bitwise_left_shift,
    bitwise_right_shift,
    eq,
    gt,
    isfinite,
    isnan,
    logical_and,
    logical_or,
    lt,
    mul,
    ne,
    neg,
    refuse_numbers,
    sub,
    where,
)
from graphflow.functions.joining import broadcast_tensors
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.promotion import cast, operands
from graphflow.records import NamedTuple

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = ["frexp", "nextafter"]
METHODS = __all__
IN_PLACE = ["nextafter"]


class _Format(NamedTuple):
    """An integer as wide as the number, bits of its fraction, what is added to its exponent."""

    whole: DType
    fraction: int
    bias: int


_FORMATS = {
    T.float16: _Format(T.int16, 10, 15), T.bfloat16: _Format(T.int16, 7, 127),
    T.float32: _Format(T.int32, 23, 127), T.float64: _Format(T.int64, 52, 1023),
}  # fmt: skip


class MantissaAndExponent(NamedTuple):
    """What :func:`frexp` returns."""

    mantissa: Tensor
    exponent: Tensor


def _format(name: str, dtype: DType) -> _Format:
    if dtype not in _FORMATS:
        raise DTypeError(f"{name} takes floating tensors, not {dtype.name}")
    return _FORMATS[dtype]


def _bits(x: Tensor, format: _Format) -> Tensor:
    """The bytes as whole numbers, in int64."""
    return cast(apply("bitcast", x, dtype=format.whole), T.int64)


def _number(bits: Tensor, dtype: DType) -> Tensor:
    return apply("bitcast", cast(bits, _FORMATS[dtype].whole), dtype=dtype)


@beside_operands
def frexp(input: Tensor) -> MantissaAndExponent:
    """``input = mantissa * 2 ** exponent``, the mantissa's size in [1/2, 1).

    Exponents are int32.  Zeros, infinities and NaN are their own mantissas, of exponent 0.
    """
    format = _format("frexp", need_tensor("frexp", input).dtype)
    x = input.detach()
    lift = format.fraction + 1  # makes the numbers below the smallest normal one normal
    low = lt(abs(x), 2.0 ** (1 - format.bias))
    bits = _bits(where(low, mul(x, 2.0**lift), x), format)
    field = bitwise_and(bitwise_right_shift(bits, format.fraction), 2 * format.bias + 1)
    found = sub(sub(field, format.bias - 1), mul(cast(low, T.int64), lift))
    usual = logical_and(ne(x, 0.0), isfinite(x))
    exponent = where(usual, found, 0)
    # Two powers of 2, either of which is a normal number, whatever the exponent.
    down = neg(exponent)
    first = bitwise_right_shift(down, 1)
    mantissa = mul(mul(input, _power(first, input)), _power(sub(down, first), input))
    return MantissaAndExponent(mantissa, cast(exponent, T.int32))


def _power(exponent: Tensor, like: Tensor) -> Tensor:
    """2 to the power ``exponent``, exactly."""
    format = _FORMATS[like.dtype]
    return _number(bitwise_left_shift(add(exponent, format.bias), format.fraction), like.dtype)


@beside_operands
def nextafter(input: Any, other: Any) -> Tensor:
    """The number next to ``input`` on the way to ``other``.

    The gradient goes to ``input`` where the two differ.
    """
    refuse_numbers("nextafter", input, other)
    a, b = broadcast_tensors(*operands([input, other]))
    format = _format("nextafter", a.dtype)
    source, a, b = a, a.detach(), b.detach()
    bits = _bits(a, format)
    outwards = eq(gt(b, a), gt(a, 0.0))
    moved = add(bits, sub(mul(cast(outwards, T.int64), 2), 1))
    sign = -(1 << (8 * a.dtype.itemsize - 1))
    smallest = where(gt(b, 0.0), 1, sign + 1)
    found = _number(where(eq(a, 0.0), smallest, moved), a.dtype)
    strange = logical_or(isnan(a), isnan(b))
    found = where(strange, add(a, b), where(eq(a, b), b, found))
    if not source.requires_grad:
        return found
    moves = logical_and(ne(a, b), isfinite(a))
    return add(found, where(moves, sub(source, a), 0.0))  # adds 0, but lets the gradient through
