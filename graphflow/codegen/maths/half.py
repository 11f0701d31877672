"""Conversions of the 16-bit formats for processors without instructions for them.

Round to nearest, ties to even; NaN stays NaN.
"""

from __future__ import annotations

from graphflow.codegen.llvm_expr import Value, select

_MAGNITUDE = 0x7FFFFFFF
_EXPONENT = 0x7F800000  # of f32, all ones: infinity and NaN
_HALF_EXPONENT = 0x7C00
_REBIAS = 112  # 127 - 15


def f16_to_f32(x: Value) -> Value:
    """The f32 that the bits ``x`` (u16) of an f16 mean."""
    bits = x.convert("u32")
    magnitude = bits & 0x7FFF
    # As the exponent and fraction of an f32 the value is 2^112 too small, subnormals too.
    scaled = (magnitude << 13).bitcast("f32") * 2.0**_REBIAS
    special = (magnitude << 13) | _EXPONENT
    result = select(magnitude < _HALF_EXPONENT, scaled.bitcast("u32"), special)
    return (result | ((bits & 0x8000) << 16)).bitcast("f32")


def f32_to_f16(x: Value) -> Value:
    """The bits (u16) of f32 ``x`` rounded to f16."""
    bits = x.bitcast("u32")
    magnitude = bits & _MAGNITUDE
    odd = (magnitude >> 13) & 1
    normal = ((magnitude + 0xFFF + odd) >> 13) - (_REBIAS << 10)
    # The unit of f32 numbers from 0.5 to 1 is that of f16's subnormal numbers.
    tiny = (magnitude.bitcast("f32") + 0.5).bitcast("u32") - 0x3F000000
    finite = select(magnitude < (_REBIAS + 1) << 23, tiny, normal)
    overflow = magnitude >= 0x477FF000  # 65520, halfway to the next power of two
    result = select(overflow, finite.constant(_HALF_EXPONENT), finite)
    nan = ((magnitude >> 13) & 0x3FF) | (_HALF_EXPONENT | 0x200)
    result = select(magnitude > _EXPONENT, nan, result)
    return (result | ((bits >> 16) & 0x8000)).convert("u16")


def f32_to_bf16(x: Value) -> Value:
    """The bits (u16) of f32 ``x`` rounded to bfloat16."""
    bits = x.bitcast("u32")
    upper = bits >> 16
    rounded = (bits + 0x7FFF + (upper & 1)) >> 16
    return select(x.differs(x), upper | 0x40, rounded).convert("u16")


def bf16_to_f32(x: Value) -> Value:
    """The f32 that the bits ``x`` (u16) of a bfloat16 mean."""
    return (x.convert("u32") << 16).bitcast("f32")
