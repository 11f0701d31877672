"""Bessel functions of the first and second kind, of order 0 and 1.

Up to 8 the first kind is a polynomial in ``x^2`` times its factors of the first two zeros, and
the second kind what its logarithm leaves; above, Hankel's form with polynomials in ``64 / x^2``
(M. Abramowitz and I. Stegun, *Handbook of Mathematical Functions*, 1964, 9.1.13 and 9.2.5 to
9.2.10).  The coefficients interpolate at Chebyshev nodes, computed with 60 digits.
"""

from __future__ import annotations

import math

from graphflow.ir.formulas.maths import Maths, Number

_NEAR = 8.0
# The first two positive zeros of J0 and J1, each in two parts.
_ZEROS_0 = ((2.404825557695773, -1.176691651530894e-16), (5.520078110286311, 8.088597146146722e-17))
_ZEROS_1 = (
    (3.8317059702075125, -1.5269184090088067e-16),
    (7.015586669815619, -9.414165653410389e-17),
)
# J0(x) and J1(x) / x over the factors of the zeros, in x^2 / 32 - 1: relative error 2^-50
_J0 = (
    0.0011434937743762545, -0.002119794289479692, 0.0015636431645931613, -0.0006415390646406125,
    0.00016977200714005512, -3.157342540223342e-05, 4.366932324180548e-06, -4.6771280213699704e-07,
    3.998839476942668e-08, -2.7948629562951916e-09, 1.6276296665367894e-10, -8.023481832231613e-12,
    3.406353846386501e-13, -1.248012691980731e-14,
)  # fmt: skip
_J1 = (
    0.00019498936985895625, -0.0002697522746716368, 0.00015860016799369858,
    -5.4080032390855064e-05, 1.224217365301787e-05, -1.9890935159142006e-06, 2.442522260616403e-07,
    -2.352192254597121e-08, 1.8268548082869076e-09, -1.169693248966763e-10, 6.2846769866729685e-12,
    -2.8755334378568987e-13, 1.1384465070771561e-14, -3.9096323215705757e-16,
)  # fmt: skip
# Y0 - (2 / pi) log(x) J0 and (Y1 - (2 / pi) (log(x) J1 - 1 / x)) / x, likewise: error 2^-53 of
# the largest
_Y0 = (
    -0.382250654459425, -0.8284358903604587, 1.6470964788745466, 0.14412632369302475,
    -1.0775477338215995, 0.6721770783431679, -0.2189574709617164, 0.046367047681375125,
    -0.007025741057270546, 0.00080615860596164, -7.279541882544516e-05, 5.321318810394401e-06,
    -3.218507833909702e-07, 1.6390875017619395e-08, -7.130468040126112e-10, 2.6926937109987802e-11,
    -8.838468394309022e-13,
)  # fmt: skip
_Y1 = (
    0.07075985882118005, -0.24337743079193114, 0.023367571720993584, 0.23507209206669755,
    -0.19639839859930425, 0.07854786922242532, -0.019628756833099427, 0.0034224907399188495,
    -0.00044381734351148726, 4.4674330126463756e-05, -3.6009998743823114e-06,
    2.3804930420500538e-07, -1.3153322522176987e-08, 6.169688029976363e-10,
    -2.4887527719058385e-11, 8.760000901470383e-13, -2.6946935633741497e-14,
)  # fmt: skip
# Hankel's P and x Q of order 0 and 1, in 128 / x^2 - 1: relative error 2^-55 and 2^-51
_P0 = (
    0.9994572757882519, -0.0005363673192129684, 6.137416080147722e-06, -2.0527448258799454e-07,
    1.2803760990761632e-08, -1.2121099519052884e-09, 1.5500758850965851e-10,
    -2.4911156906092825e-11, 4.7832464504070676e-12, -1.0160586409351026e-12,
    2.486651879170221e-13, -1.0240462527458219e-13, 3.2274659236696375e-14,
)  # fmt: skip
_Q0 = (
    -0.12444091103610815, 0.0005466519279472145, -1.1817110661060929e-05, 5.684971970025582e-07,
    -4.534973207071527e-08, 5.14616046007418e-09, -7.576039459098778e-10, 1.3648031992020618e-10,
    -2.8806407842213743e-11, 6.540951694630104e-12, -1.7086888259958598e-12, 7.904491537683217e-13,
    -2.632409683663596e-13,
)  # fmt: skip
_P1 = (
    1.0009070262780821, 0.0008988049416705195, -7.959694698478657e-06, 2.45367663311693e-07,
    -1.470851251614582e-08, 1.360297066536911e-09, -1.713127898085761e-10, 2.7234187811287063e-11,
    -5.1871998149145174e-12, 1.0958092927251801e-12, -2.668914316041983e-13,
    1.0911783467601572e-13, -3.4273425511664546e-14,
)  # fmt: skip
_Q1 = (
    0.3742149922195918, -0.0007697167057640408, 1.456961480970388e-05, -6.633568654309039e-07,
    5.1361063866241454e-08, -5.720815729915534e-09, 8.315770668743603e-10, -1.4842507670096497e-10,
    3.110817879111466e-11, -7.031097818821853e-12, 1.828906065466445e-12, -8.401208738069145e-13,
    2.789203537560468e-13,
)  # fmt: skip


def j0(m: Maths, x: Number) -> Number:
    """``J0(x)``."""
    size = m.absolute(x)
    p, q, plus, minus = _hankel(m, size, _P0, _Q0)
    return m.select(size < _NEAR, _near_j0(m, size), p * plus - q * minus)


def j1(m: Maths, x: Number) -> Number:
    """``J1(x)``."""
    size = m.absolute(x)
    p, q, plus, minus = _hankel(m, size, _P1, _Q1)
    far = p * minus + q * plus
    return m.select(size < _NEAR, _near_j1(m, x), m.select(x < 0.0, -far, far))


def y0(m: Maths, x: Number) -> Number:
    """``Y0(x)``; NaN below 0."""
    p, q, plus, minus = _hankel(m, x, _P0, _Q0)
    rest = m.polynomial(x * x * 0.03125 - 1.0, _Y0)
    near = rest + m.log(x) * _near_j0(m, x) * (2 / math.pi)
    value = m.select(x < _NEAR, near, p * minus + q * plus)
    return m.select(x < 0.0, math.nan, value)


def y1(m: Maths, x: Number) -> Number:
    """``Y1(x)``; NaN below 0."""
    p, q, plus, minus = _hankel(m, x, _P1, _Q1)
    rest = x * m.polynomial(x * x * 0.03125 - 1.0, _Y1)
    positive = m.select(x > 0.0, x, 1.0)
    near = rest + (m.log(positive) * _near_j1(m, x) - 1.0 / positive) * (2 / math.pi)
    value = m.select(x < _NEAR, near, q * minus - p * plus)
    value = m.select(m.equals(x, 0.0), -math.inf, value)
    return m.select(x < 0.0, math.nan, value)


def _near_j0(m: Maths, size: Number) -> Number:
    return _factors(size, _ZEROS_0) * m.polynomial(size * size * 0.03125 - 1.0, _J0)


def _near_j1(m: Maths, x: Number) -> Number:
    size = m.absolute(x)
    return x * _factors(size, _ZEROS_1) * m.polynomial(size * size * 0.03125 - 1.0, _J1)


def _factors(size: Number, zeros: tuple[tuple[float, float], ...]) -> Number:
    """``x^2 - z^2`` of all zeros z, exact to rounding also near them."""
    product: Number = 1.0
    for high, low in zeros:
        product = ((size - high) - low) * (size + high) * product
    return product


def _hankel(
    m: Maths, size: Number, even: tuple[float, ...], odd: tuple[float, ...]
) -> tuple[Number, Number, Number, Number]:
    """P and Q over the root of ``pi x``, and the sum and difference of sine and cosine."""
    x = m.select(size < _NEAR, _NEAR, size)  # NaN stays
    # From there on the results are below 1e-15, and at infinity 0, whatever the angle is.
    angle = m.select(x > 1e30, 0.0, x)
    sine, cosine = m.sin(angle), m.cos(angle)
    inverse = 1.0 / x
    t = inverse * inverse * 128.0 - 1.0
    scale = 1.0 / m.sqrt(x * math.pi)
    p, q = m.polynomial(t, even) * scale, m.polynomial(t, odd) * inverse * scale
    return p, q, sine + cosine, sine - cosine
