"""pow for floats: ``2^(y log2 x)`` with a logarithm of more than working precision.

f32 computes in f64, where polynomials of moderate degree are more than enough.
f64 keeps the logarithm as an unevaluated sum of two numbers (about 65 bits).
"""

from __future__ import annotations

from graphflow.codegen.llvm_expr import (
    FLOATS,
    Value,
    fast_two_sum,
    mad,
    polynomial,
    select,
    two_product,
    two_sum,
)  # fmt: skip
from graphflow.codegen.maths import exponential
from graphflow.codegen.maths.basic import integer_power
from graphflow.codegen.maths.exponential import LOG2_E, format_of
from graphflow.codegen.maths.logarithm import split

_LOG2_E_LOW = 2.0355273740931033e-17
_TWO_THIRDS_LOW = 3.700743415417188e-17
# (2 atanh(s) / s - 2) / s^2 in s^2, relative error 2^-42: enough for an f32 result
_SHORT_TAIL = (
    0.6666666666737868, 0.3999999879244169, 0.28571755535032944, 0.22191337428065783,
    0.19363884986633198,
)  # fmt: skip
# (2 atanh(s) / s - 2 - 2/3 s^2) / s^4 in s^2, relative error 2^-70
_LONG_TAIL = (
    0.4, 0.2857142857142937, 0.22222222221652765, 0.18181818336099848, 0.1538459488700718,
    0.1333480879881234, 0.11706126464563398, 0.11724327060846747,
)  # fmt: skip
# (2^r - 1) / r, relative error 2^-45
_SHORT_EXP2 = (
    0.6931471805599453, 0.2402265069581221, 0.05550410866475993, 0.009618129159714186,
    0.00133335581792394, 0.00015403455553573818, 1.5252686658011347e-05,
    1.3255304503367413e-06, 1.0203171216524443e-07,
)  # fmt: skip
_EXPONENT_LIMIT = 2000.0  # beyond it 2^t overflows or vanishes in either format


def _short_log2(x: Value) -> Value:
    """log2 of a positive f64 to about 40 bits, relative."""
    k, m = split(x)
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    return mad(s * mad(z, polynomial(z, _SHORT_TAIL), z.constant(2.0)), LOG2_E, k)


def _long_log2(x: Value) -> tuple[Value, Value]:
    """log2 of a positive f64 as a sum of two."""
    k, m = split(x)
    f = m - 1.0
    bottom, bottom_rest = fast_two_sum(f.constant(2.0), f)
    s = f / bottom
    back, back_rest = two_product(s, bottom)
    s_low = (((f - back) - back_rest) - s * bottom_rest) / bottom
    z, z_low = two_product(s, s)
    z_low = mad(s, s_low + s_low, z_low)
    # c = 2/3 z + z^2 tail, then log(m) = s (2 + c)
    c, c_low = two_product(z, z.constant(2.0 / 3.0))
    c_low = c_low + z * _TWO_THIRDS_LOW + z_low * (2.0 / 3.0)
    c, c_rest = fast_two_sum(c, z * z * polynomial(z, _LONG_TAIL))
    sum_high, sum_low = fast_two_sum(c.constant(2.0), c)
    sum_low = sum_low + (c_rest + c_low)
    natural, natural_low = two_product(s, sum_high)
    natural_low = natural_low + s * sum_low + s_low * sum_high
    high, low = two_product(natural, natural.constant(LOG2_E))
    low = low + natural * _LOG2_E_LOW + natural_low * LOG2_E
    total, rest = two_sum(k, high)
    return fast_two_sum(total, rest + low)


def _size_f32(size: Value, y: Value) -> Value:
    """``size ** y`` computed in f64."""
    wide, power = size.convert("f64"), y.convert("f64")
    t = power * _short_log2(wide)
    t = select(t > _EXPONENT_LIMIT / 2, t.constant(1000.0), t)
    t = select(t < -_EXPONENT_LIMIT / 2, t.constant(-1000.0), t)
    form = format_of(t)
    shifted = t + form.magic
    whole = shifted.bitcast("i64") - (form.magic_bits - form.bias)
    r = t - (shifted - form.magic)
    value = mad(r, polynomial(r, _SHORT_EXP2), r.constant(1.0))
    return (value * (whole << form.mantissa_bits).bitcast("f64")).convert("f32")


def _size_f64(size: Value, y: Value) -> Value:
    """``size ** y`` with the exponent as a sum of two."""
    high, low = _long_log2(size)
    limit = 2.0**40  # keeps products finite; any such exponent overflows or vanishes
    y = select(y > limit * 2.0**30, y.constant(limit * 2.0**30), y)
    y = select(y < -limit * 2.0**30, y.constant(-limit * 2.0**30), y)
    t, t_low = two_product(y, high)
    t_low = mad(y, low, t_low)
    inside = t.call("abs") < _EXPONENT_LIMIT
    t_low = select(inside, t_low, t.constant(0.0))
    t = select(t > _EXPONENT_LIMIT, t.constant(_EXPONENT_LIMIT), t)
    t = select(t < -_EXPONENT_LIMIT, t.constant(-_EXPONENT_LIMIT), t)
    form = format_of(t)
    shifted = t + form.magic
    whole = shifted.bitcast("i64") - (form.magic_bits - 2 * form.bias)
    n = shifted - form.magic
    r = (t - n) + t_low
    value = mad(r, polynomial(r, form.exp2_tail), r.constant(1.0))
    # Exponents up to 2000 in size: two factors cover -2046 … 2046.
    return exponential.scale(value, n, whole)


def pow(x: Value, y: Value) -> Value:
    """``x ** y`` with C's special values; integers by repeated squaring."""
    if x.type not in FLOATS:
        return integer_power(x, y)
    size = x.call("abs")
    one, zero, infinity = x.constant(1.0), x.constant(0.0), x.constant(float("inf"))
    power = _size_f32(size, y) if x.type == "f32" else _size_f64(size, y)
    # log2 of 0 and infinity: the sign of y decides between the two ends.
    up = y > 0
    power = select(size.equals(0), select(up, zero, infinity), power)
    power = select(size.equals(infinity), select(up, infinity, zero), power)
    endless = y.call("abs").equals(infinity)
    grows = (size > 1.0) ^ (y < 0)
    at_infinity = select(size.equals(1.0), one, select(grows, infinity, zero))
    power = select(endless, at_infinity, power)
    whole = y.call("trunc").equals(y)
    half = y * 0.5
    odd = whole & half.call("trunc").differs(half) & ~endless
    negative = one.call("copysign", x) < 0
    power = select(negative & odd, -power, power)
    invalid = (x < 0) & ~whole & ~size.equals(infinity)
    power = select(invalid, x.constant(float("nan")), power)
    unordered = x.differs(x) | y.differs(y)
    power = select(unordered, x + y, power)
    return select(y.equals(0) | x.equals(1.0), one, power)
