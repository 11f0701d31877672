"""log, log2, log10, log1p, asinh.

``x = 2^k m`` with ``sqrt(1/2) <= m < sqrt(2)`` and ``f = m - 1``.  f32 uses a
polynomial in ``f``; f64 one in ``s^2`` with ``s = f / (2 + f)``, because
``log(1 + f) = 2 atanh(s)`` converges faster.  The k ln 2 term is added in two
parts.
"""

from __future__ import annotations

import math

from graphflow.codegen.llvm_expr import Value, mad, polynomial, select, two_product, two_sum
from graphflow.codegen.maths.exponential import LOG2_E, format_of

_LOG2_E_LOW = {"f32": 1.925963033500011e-08, "f64": 2.0355273740931033e-17}
_LOG10_E, _LOG10_E_LOW = 0.4342944819032518, 1.098319650216765e-17
# log10(2) with so few bits that products with an exponent are exact, and the rest.
_LOG10_2, _LOG10_2_LOW = 0.301029995663157, 8.241712586023572e-13
_SQRT_HALF_BITS = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}
_SMALLEST_NORMAL = {"f32": 2.0**-126, "f64": 2.0**-1022}
_SUBNORMAL_SHIFT = {"f32": 24, "f64": 54}
# (log(1+f) - f + f^2/2) / f^3, relative error 2^-28
_F32_TAIL = (
    0.3333333134651184, -0.2499999701976776, 0.20000715553760529, -0.1666780263185501,
    0.14249040186405182, -0.12425654381513596, 0.11685580015182495, -0.11480068415403366,
    0.06971585005521774,
)  # fmt: skip
# (2 atanh(s) / s - 2) / s^2 in s^2, relative error 2^-63
_F64_TAIL = (
    0.6666666666666666, 0.40000000000000885, 0.28571428570799784, 0.22222222392581045,
    0.18181795547521137, 0.15386244737621665, 0.13268638369266825, 0.13088034850927555,
)  # fmt: skip


def split(x: Value) -> tuple[Value, Value]:
    """``k`` (a float) and ``m`` for positive finite ``x``, subnormals included."""
    form = format_of(x)
    subnormal = x < _SMALLEST_NORMAL[x.type]
    shift = _SUBNORMAL_SHIFT[x.type]
    x = select(subnormal, x * 2.0**shift, x)
    origin = _SQRT_HALF_BITS[x.type]
    offset = x.bitcast(form.integer) - origin
    # Biased so that the shift is of a positive number (AVX2 lacks the other for 64 bits).
    bias = 2 * form.bias
    biased = (offset + (bias << form.mantissa_bits)).bitcast(form.integer.replace("i", "u"))
    exponent = (biased >> form.mantissa_bits).bitcast(form.integer)
    fraction = offset & ((1 << form.mantissa_bits) - 1)
    k = small_integer(exponent, x.type) - bias
    return select(subnormal, k - float(shift), k), (fraction + origin).bitcast(x.type)


def small_integer(n: Value, type: str) -> Value:
    """``0 <= n < 2^mantissa`` as a float of ``type``, without a 64-bit conversion instruction."""
    if type == "f32":
        return n.convert(type)
    two52 = 0x4330000000000000
    return (n | two52).bitcast(type) - 2.0**52


def _below(f: Value) -> Value:
    """``f - log(1 + f)``, about ``f^2 / 2``."""
    half_square = f * f * 0.5
    if f.type == "f32":
        return half_square - f * (f * f) * polynomial(f, _F32_TAIL)
    s = f / (f + 2.0)
    z = s * s
    return half_square - s * mad(z, polynomial(z, _F64_TAIL), half_square)


def _edges(x: Value, result: Value) -> Value:
    """The values of a logarithm at 0, infinity, NaN and below zero."""
    infinity = x.constant(float("inf"))
    result = select(x < infinity, result, x)
    result = select(x.equals(0), -infinity, result)
    return select(x < 0, x.constant(float("nan")), result)


def _assemble(k: Value, f: Value) -> Value:
    form = format_of(f)
    return mad(k, form.ln2_high, f - (_below(f) - k * form.ln2_low))


def log(x: Value) -> Value:
    """Natural logarithm."""
    k, m = split(x)
    return _edges(x, _assemble(k, m - 1.0))


def log2(x: Value) -> Value:
    """Logarithm to base 2; exact at powers of two."""
    k, m = split(x)
    f = m - 1.0
    high, low = two_product(f, f.constant(LOG2_E))
    low = low + f * _LOG2_E_LOW[x.type] - _below(f) * LOG2_E
    total, rest = two_sum(k, high)
    return _edges(x, total + (rest + low))


def log10(x: Value) -> Value:
    """Logarithm to base 10, in f64; exact at powers of ten that are."""
    if x.type == "f32":
        return log10(x.convert("f64")).convert("f32")
    k, m = split(x)
    f = m - 1.0
    high, low = two_product(f, f.constant(_LOG10_E))
    low = low + f * _LOG10_E_LOW - _below(f) * _LOG10_E
    total, rest = two_sum(k * _LOG10_2, high)
    return _edges(x, total + (rest + (low + k * _LOG10_2_LOW)))


def log1p(x: Value) -> Value:
    """``log(1 + x)``, accurate near zero."""
    form = format_of(x)
    u = x + 1.0
    k, m = split(u)
    # What rounding u lost, brought to the scale of m; it vanishes beyond 2^mantissa.
    lost = select(x > 1.0, 1.0 - (u - x), x - (u - 1.0))
    inverse = ((float(form.bias) - k) * 2.0**form.mantissa_bits).convert(form.integer)
    correction = lost * inverse.bitcast(x.type)
    near = k < float(form.mantissa_bits + 2)
    f = (m - 1.0) + select(near, correction, x.constant(0.0))
    result = _edges(u, _assemble(k, f))
    return select(x.call("abs") < form.tiny, x, result)


_WITHOUT_ONE = 2.0**28  # from here x^2 + 1 is x^2


def asinh(x: Value) -> Value:
    """The inverse of sinh: ``log1p(x + x^2 / (1 + sqrt(1 + x^2)))`` of the size; in f64."""
    if x.type == "f32":
        return asinh(x.convert("f64")).convert("f32")
    size = x.call("abs")
    large = size > _WITHOUT_ONE
    inner = select(large, x.constant(1.0), size)
    square = inner * inner
    near = log1p(inner + square / ((square + 1.0).call("sqrt") + 1.0))
    far = log(size) + math.log(2.0)
    return select(large, far, near).call("copysign", x)
