"""The error function's complement, and the inverses of it and of the normal distribution."""

from __future__ import annotations

import math

from graphflow.ir.formulas.maths import Maths, Number, exp_of_square

_CENTRE = 3.75
# (1 + 2 x) exp(x^2) erfc(x) in (x - 3.75) / (x + 3.75), x >= 0 (the variables are those of
# M. M. Shepherd and J. G. Laframboise, Mathematics of Computation 36, 1981); interpolated at
# Chebyshev nodes with 60 digits, relative error 2^-53
_ERFCX = (
    1.2375126308378275, -0.14024059858554702, 0.003585415485479575, 0.08227673849014977,
    -0.10880393014246645, 0.09230432116025894, -0.05869339857631061, 0.028362277420377335,
    -0.00974657968596217, 0.001755625843431864, 0.000293714390578856, -0.00029015404203352704,
    5.164649341002877e-05, 2.2384138525656757e-05, -1.1437980374495534e-05,
    -9.733875167494142e-07, 1.7419011945194367e-06, -5.741076073013916e-08,
    -2.4851108650210706e-07, 2.3398534313040898e-08, 3.195398612057818e-08,
    -3.798189797736207e-09, -2.618520156503145e-09, 3.2052623379289157e-10,
)  # fmt: skip
# M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied
# Statistics 37, 1988: numerator and denominator, constant term first
_CENTRAL = (
    (
        3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
        1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
        3.3430575583588128105e4, 2.5090809287301226727e3,
    ),
    (
        1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
        2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)  # fmt: skip
_NEAR = (
    (
        1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
        3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
        2.27238449892691845833e-2, 7.74545014278341407640e-4,
    ),
    (
        1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
        1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)  # fmt: skip
_FAR = (
    (
        6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
        2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
        2.71155556874348757815e-5, 2.01033439929228813265e-7,
    ),
    (
        1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
        7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)  # fmt: skip


def _scaled(m: Maths, size: Number) -> Number:
    """``exp(x^2) erfc(x)`` for ``x >= 0``."""
    t = 1.0 - 2.0 * _CENTRE / (size + _CENTRE)
    return m.polynomial(t, _ERFCX) / (size * 2.0 + 1.0)


def erfcx(m: Maths, x: Number) -> Number:
    """``exp(x^2) erfc(x)``."""
    size = m.absolute(x)
    value = _scaled(m, size)
    return m.select(x < 0.0, exp_of_square(m, size, 1.0) * 2.0 - value, value)


def erfc(m: Maths, x: Number) -> Number:
    """``1 - erf(x)``, exact where erf is close to 1."""
    size = m.absolute(x)
    value = _scaled(m, size) * exp_of_square(m, size, -1.0)
    return m.select(x < 0.0, 2.0 - value, value)


def _quantile(m: Maths, q: Number, tail: Number) -> Number:
    """The normal quantile of ``q + 1/2``; ``tail`` is the smaller probability, exactly."""
    central = q * _ratio(m, 0.180625 - q * q, _CENTRAL)
    r = m.sqrt(-m.log(tail))
    size = m.select(r <= 5.0, _ratio(m, r - 1.6, _NEAR), _ratio(m, r - 5.0, _FAR))
    size = m.select(m.equals(tail, 0.0), math.inf, size)
    return m.select(m.absolute(q) <= 0.425, central, m.copysign(size, q))


def _ratio(
    m: Maths, x: Number, coefficients: tuple[tuple[float, ...], tuple[float, ...]]
) -> Number:
    above, below = coefficients
    return m.polynomial(x, above) / m.polynomial(x, below)


def ndtri(m: Maths, p: Number) -> Number:
    """The standard normal quantile; NaN outside [0, 1]."""
    return _quantile(m, p - 0.5, m.select(p < 0.5, p, 1.0 - p))


def erfinv(m: Maths, x: Number) -> Number:
    """The inverse of erf; NaN outside [-1, 1]."""
    return _quantile(m, x * 0.5, (1.0 - m.absolute(x)) * 0.5) * math.sqrt(0.5)
