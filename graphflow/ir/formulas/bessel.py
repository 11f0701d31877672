"""Modified Bessel functions of the first kind, of order 0 and 1, and scaled by ``exp(-|x|)``."""

from __future__ import annotations

import math

from graphflow.ir.formulas.maths import Maths, Number

_TERMS = 23
# I0(x) and 2 I1(x) / x as power series in (x / 2)^2, relative error below 2^-60 for x <= 8
_SERIES_0 = tuple(1 / math.factorial(k) ** 2 for k in range(_TERMS))
_SERIES_1 = tuple(1 / (math.factorial(k) * math.factorial(k + 1)) for k in range(_TERMS))
# sqrt(x) exp(-x) I(x) in 16 / x - 1, x >= 8; interpolated at Chebyshev nodes with 60 digits,
# relative error 2^-53
_I0_FAR = (
    0.4021765094450081, 0.0033605519836678944, 0.00013621607439186705, 1.1143033787545386e-05,
    1.4838475687894938e-06, 2.9735996224521226e-07, 8.872214307451732e-08, 3.932437699533459e-08,
    2.15488936175863e-08, 7.566352487698237e-09, -6.750552282740284e-09, -1.346629294837396e-08,
    -5.394456734259438e-09, 7.737147033780934e-09, 7.406235049001522e-09, -3.905230623712341e-09,
    -5.91556056510856e-09, 2.1053080134403423e-09, 3.5985362919394714e-09,
    -1.1448789558755036e-09, -1.5930354799216344e-09, 5.122212147228388e-10,
    4.4789181847911815e-10, -1.5066113686101474e-10, -5.905024573995148e-11,
    2.0820835852793106e-11,
)  # fmt: skip
_I1_FAR = (
    0.38939845902587233, -0.009749577193235768, -0.00021923576383382282, -1.5038547197358572e-05,
    -1.8349101357991557e-06, -3.4838567401229716e-07, -1.0001282610189342e-07,
    -4.312778920167609e-08, -2.337446787242448e-08, -8.43880090582137e-09, 6.737493433374833e-09,
    1.408852075202545e-08, 5.963645798166707e-09, -7.816968266767898e-09, -7.863004697555056e-09,
    3.803814960536081e-09, 6.202984113000443e-09, -1.992076551203188e-09, -3.75344338735913e-09,
    1.0715528639398075e-09, 1.657764699456319e-09, -4.798751536934023e-10,
    -4.6561597954216946e-10, 1.417650842869536e-10, 6.135932778393812e-11,
    -1.9677083272584384e-11,
)  # fmt: skip
_NEAR = 8.0


def i0e(m: Maths, x: Number) -> Number:
    """``exp(-|x|) I0(x)``."""
    size = m.absolute(x)
    return m.select(size < _NEAR, _series_0(m, x) * m.exp(-size), _far(m, size, _I0_FAR))


def i0(m: Maths, x: Number) -> Number:
    """``I0(x)``."""
    size = m.absolute(x)
    return m.select(size < _NEAR, _series_0(m, x), _unscaled(m, size, _I0_FAR))


def i1e(m: Maths, x: Number) -> Number:
    """``exp(-|x|) I1(x)``."""
    size = m.absolute(x)
    far = m.copysign(_far(m, size, _I1_FAR), x)
    return m.select(size < _NEAR, _series_1(m, x) * m.exp(-size), far)


def i1(m: Maths, x: Number) -> Number:
    """``I1(x)``."""
    size = m.absolute(x)
    far = m.copysign(_unscaled(m, size, _I1_FAR), x)
    return m.select(size < _NEAR, _series_1(m, x), far)


def _series_0(m: Maths, x: Number) -> Number:
    return m.polynomial(x * x * 0.25, _SERIES_0)


def _series_1(m: Maths, x: Number) -> Number:
    return x * 0.5 * m.polynomial(x * x * 0.25, _SERIES_1)


def _far(m: Maths, size: Number, coefficients: tuple[float, ...]) -> Number:
    return m.polynomial(16.0 / size - 1.0, coefficients) / m.sqrt(size)


def _unscaled(m: Maths, size: Number, coefficients: tuple[float, ...]) -> Number:
    """Half of the exponential on either side: it alone overflows before the result does."""
    size = m.select(size > 720.0, 720.0, size)
    half = m.exp(size * 0.5)
    return half * _far(m, size, coefficients) * half
