"""sin, cos, atan2.

Arguments of sin and cos are reduced by multiples of pi/2 in f64, with pi/2 in
three parts (Cody and Waite): exact for ``|x| < 2^20``, and for f32 good to
``2^28``.  Beyond that finite arguments have results that are only known to lie in [-1, 1].
"""

from __future__ import annotations

from graphflow.codegen.llvm_expr import Value, mad, polynomial, select, two_sum
from graphflow.codegen.maths.exponential import format_of

_TWO_OVER_PI = 0.6366197723675814
# 33 bits each, so that products with n < 2^20 are exact, and the rest.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
_LAST = 2.0**50
# (sin(x) / x - 1) / x^2 and (cos(x) - 1 + x^2/2) / x^4, both in x^2, |x| <= pi/4
_SIN = {
    "f32": (
        -0.1666666716337204, 0.008333331905305386, -0.00019840082677546889,
        2.7249313916399842e-06,
    ),
    "f64": (
        -0.16666666666666666, 0.008333333333330925, -0.00019841269836722418,
        2.755731608381636e-06, -2.5051127944014188e-08, 1.5917848524808262e-10,
    ),
}  # fmt: skip
_COS = {
    "f32": (
        0.0416666679084301, -0.00138888880610466, 2.480059629306197e-05,
        -2.730044741383608e-07,
    ),
    "f64": (
        0.041666666666666664, -0.0013888888888887382, 2.480158729874307e-05,
        -2.7557317260008837e-07, 2.0876143827993133e-09, -1.1382456778061306e-11,
    ),
}  # fmt: skip
# (atan(x) / x - 1) / x^2 in x^2, |x| <= tan(pi/8)
_ATAN = {
    "f32": (
        -0.3333333134651184, 0.19999536871910095, -0.14263838529586792, 0.10742466896772385,
        -0.06447741389274597,
    ),
    "f64": (
        -0.3333333333333333, 0.199999999999998, -0.14285714285658824, 0.1111111110505757,
        -0.09090908748635232, 0.07692296234491514, -0.06666422364033206, 0.05878900032342983,
        -0.052302411507894, 0.045506220391755364, -0.034545610104858494, 0.016258132064979208,
    ),
}  # fmt: skip
_TAN_PI_8 = 0.41421356237309503
# pi, pi/2 and pi/4 as a rounded value and what rounding lost.
_PI = {
    "f32": (3.1415927410125732, -8.742277657347586e-08),
    "f64": (3.141592653589793, 1.2246467991473532e-16),
}
_LARGE = {"f32": 2.0**120, "f64": 2.0**1000}


def _reduce(x: Value) -> tuple[Value, Value, Value]:
    """``x = n pi/2 + r + rest``: r and rest of the type of ``x``, and n as an i64.

    ``|x|`` above ``_LAST``, where n would not fit, count as 0, infinities as NaN.
    """
    x = select(x.call("abs") > _LAST, x - x, x)
    wide = x.convert("f64")
    form = format_of(wide)
    shifted = mad(wide, _TWO_OVER_PI, wide.constant(form.magic))
    quadrant = shifted.bitcast("i64")
    n = -(shifted - form.magic)
    first = mad(n, _HALF_PI[0], wide)
    second, error = two_sum(first, n * _HALF_PI[1])
    error = mad(n, _HALF_PI[2], error)
    r = second + error
    rest = (second - r) + error
    if x.type == "f32":
        narrow = r.convert("f32")
        return narrow, (r - narrow.convert("f64")).convert("f32"), quadrant
    return r, rest, quadrant


def _sin_part(r: Value, rest: Value) -> Value:
    z = r * r
    # sin(r + rest) = sin(r) + rest cos(r)
    tail = mad(z * r, polynomial(z, _SIN[r.type]), mad(rest, z * -0.5, rest))
    return r + tail


def _cos_part(r: Value, rest: Value) -> Value:
    z = r * r
    half = z * 0.5
    w = 1.0 - half
    return w + (((1.0 - w) - half) + mad(z * z, polynomial(z, _COS[r.type]), -(r * rest)))


def _sin_or_cos(x: Value, shift: int) -> Value:
    r, rest, quadrant = _reduce(x)
    if x.type == "f32":
        quadrant = quadrant.convert("i32")
    quadrant = quadrant + shift
    odd = (quadrant & 1).differs(0)
    value = select(odd, _cos_part(r, rest), _sin_part(r, rest))
    return select((quadrant & 2).differs(0), -value, value)


def sin(x: Value) -> Value:
    """Sine of an angle in radians."""
    return select(x.equals(0), x, _sin_or_cos(x, 0))  # -0.0 stays


def cos(x: Value) -> Value:
    """Cosine of an angle in radians."""
    return _sin_or_cos(x, 1)


def atan2(y: Value, x: Value) -> Value:
    """Angle of the point ``(x, y)``, in (-pi, pi]."""
    high, low = _PI[x.type]
    size_x, size_y = x.call("abs"), y.call("abs")
    steep = size_y > size_x
    small, large = select(steep, size_x, size_y), select(steep, size_y, size_x)
    large_enough = large > _LARGE[x.type]
    small = select(large_enough, small * 2.0**-4, small)
    large = select(large_enough, large * 2.0**-4, large)
    endless = large.equals(float("inf"))
    both = endless & small.equals(float("inf"))
    small = select(both, x.constant(1.0), select(endless, x.constant(0.0), small))
    large = select(endless | large.equals(0), x.constant(1.0), large)
    # Above tan(pi/8) take pi/4 off the angle; one division either way.
    wide = small > large * _TAN_PI_8
    t = select(wide, small - large, small) / select(wide, small + large, large)
    z = t * t
    angle_low = t * z * polynomial(z, _ATAN[x.type])
    angle_low = angle_low + select(wide, x.constant(low * 0.25), x.constant(0.0))
    base = select(wide, x.constant(high * 0.25), x.constant(0.0))
    # angle = base + t + angle_low, then pi/2 - angle and pi - angle where due.
    sign, low_sign = x.constant(1.0), x.constant(0.0)
    base = select(steep, high * 0.5 - base, base)
    sign = select(steep, -sign, sign)
    low_sign = select(steep, low_sign + low * 0.5, low_sign)
    left = x.constant(1.0).call("copysign", x) < 0
    base = select(left, high - base, base)
    sign = select(left, -sign, sign)
    low_sign = select(left, low - low_sign, low_sign)
    total, rest = two_sum(base, sign * t)
    angle = total + (rest + mad(sign, angle_low, low_sign))
    result = angle.call("copysign", y)
    unordered = x.differs(x) | y.differs(y)
    return select(unordered, x + y, result)
