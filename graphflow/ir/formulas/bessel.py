"""Modified Bessel functions of order 0 and 1, and scaled: the first kind by ``exp(-|x|)``, the
second by ``exp(x)``."""

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
# sqrt(x) exp(x) K(x) in 4 / x - 1, x >= 2; likewise, relative error 2^-55
_K0_FAR = (
    1.2185953385133905, -0.031071461824889554, 0.0030328918102751935, -0.0004797690567629981,
    9.956054742546008e-05, -2.473520464665274e-05, 7.002245564109627e-06, -2.1911767539401716e-06,
    7.427807838466459e-07, -2.689135887009184e-07, 1.0295120376495239e-07, -4.131061283701578e-08,
    1.7056674605334674e-08, -7.3618275080282515e-09, 3.791192703615846e-09,
    -1.8006773523392004e-09, 6.837018659348517e-11, 3.233433692180319e-11, 7.977983533091815e-10,
    -4.506683106759898e-10, -3.0539020868001565e-10, 1.7977981899954878e-10,
    1.0806290149518295e-10, -6.183509185741941e-11,
)  # fmt: skip
_K1_FAR = (
    1.363151890371342, 0.10334973775386527, -0.005566729880074451, 0.0007357241549046456,
    -0.00013959021956830856, 3.284386565057862e-05, -8.961207299463647e-06, 2.730040312895642e-06,
    -9.067094776630646e-07, 3.2298873862640425e-07, -1.220284967173793e-07, 4.843094038201199e-08,
    -1.9827457966367164e-08, 8.49114322410236e-09, -4.313336112817399e-09, 2.0346220468711174e-09,
    -1.0584430289297026e-10, -2.104015257574649e-11, -8.740019154894709e-10, 4.921710202548386e-10,
    3.3153918291421876e-10, -1.948680720152238e-10, -1.1801191034535537e-10, 6.73716173849808e-11,
)  # fmt: skip
_NEAR_K = 2.0
_K_TERMS = 13


def _psi(k: int) -> float:
    """``digamma(k + 1)``: a sum of reciprocals, less Euler's constant."""
    return math.fsum(1 / j for j in range(1, k + 1)) - 0.57721566490153286


# K0(x) + log(x / 2) I0(x) and (1 / x + log(x / 2) I1(x) - K1(x)) * 4 / x in (x / 2)^2, x <= 2
# (M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 1964, 9.6.11 and 9.6.13)
_K0_NEAR = tuple(_psi(k) * _SERIES_0[k] for k in range(_K_TERMS))
_K1_NEAR = tuple((_psi(k) + _psi(k + 1)) * _SERIES_1[k] for k in range(_K_TERMS))


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


def k0(m: Maths, x: Number) -> Number:
    """``K0(x)``; NaN below 0, infinite at 0."""
    return _second_kind(m, x, _near_k0(m, x), m.exp(-x) * _far_k(m, x, _K0_FAR))


def k0e(m: Maths, x: Number) -> Number:
    """``exp(x) K0(x)``."""
    return _second_kind(m, x, _near_k0(m, x) * m.exp(_near_only(m, x)), _far_k(m, x, _K0_FAR))


def k1(m: Maths, x: Number) -> Number:
    """``K1(x)``; NaN below 0, infinite at 0."""
    return _second_kind(m, x, _near_k1(m, x), m.exp(-x) * _far_k(m, x, _K1_FAR))


def k1e(m: Maths, x: Number) -> Number:
    """``exp(x) K1(x)``."""
    return _second_kind(m, x, _near_k1(m, x) * m.exp(_near_only(m, x)), _far_k(m, x, _K1_FAR))


def _second_kind(m: Maths, x: Number, near: Number, far: Number) -> Number:
    value = m.select(x < _NEAR_K, near, far)
    value = m.select(m.equals(x, 0.0), math.inf, value)
    return m.select(x < 0.0, math.nan, value)


def _near_only(m: Maths, x: Number) -> Number:
    """``x`` where the series are good, else an end of it."""
    return m.select(x < _NEAR_K, m.select(x > 0.0, x, 1.0), _NEAR_K)


def _near_k0(m: Maths, x: Number) -> Number:
    x = _near_only(m, x)
    return m.polynomial(x * x * 0.25, _K0_NEAR) - m.log(x * 0.5) * _series_0(m, x)


def _near_k1(m: Maths, x: Number) -> Number:
    x = _near_only(m, x)
    rest = m.log(x * 0.5) * _series_1(m, x) - x * 0.25 * m.polynomial(x * x * 0.25, _K1_NEAR)
    return 1.0 / x + rest


def _far_k(m: Maths, x: Number, coefficients: tuple[float, ...]) -> Number:
    x = m.select(x < _NEAR_K, _NEAR_K, x)  # NaN stays
    return m.polynomial(4.0 / x - 1.0, coefficients) / m.sqrt(x)
