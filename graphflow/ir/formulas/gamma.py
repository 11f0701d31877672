"""The gamma function's logarithm and its derivatives.

The coefficients interpolate at Chebyshev nodes, computed with 60 digits; the
error noted is that of the polynomial, relative.
"""

from __future__ import annotations

import math

from graphflow.ir.formulas.maths import Maths, Number

# lgamma(2 + u) / (u (u + 1)), -1 <= u <= 1: 2^-55
_LGAMMA_MIDDLE = (
    0.42278433509846713, -0.10031730167435392, 0.03296500062115574, -0.012384192193371238,
    0.004998641164703528, -0.002108130833958805, 0.0009153769220696921, -0.00040570739742046497,
    0.00018255264185594036, -8.30951276372239e-05, 3.8168863787885225e-05, -1.766166422556033e-05,
    8.222342452139818e-06, -3.847396648270243e-06, 1.8074775340912791e-06, -8.526588188526563e-07,
    4.0551922127948146e-07, -1.9252286332850674e-07, 8.75360413423732e-08, -4.17254430301382e-08,
    2.615457216445561e-08, -1.2569945435720683e-08, -6.830399052794191e-10, 3.613371593815743e-10,
    4.885761922683655e-09, -2.372580625023415e-09, -1.3764318718154119e-09, 6.705737026247826e-10,
    4.226016675377439e-10, -2.0542420991550905e-10,
)  # fmt: skip
# x (lgamma(x) - Stirling's formula) in 1 / x^2, x >= 3: 2^-54
_STIRLING = (
    0.08333333333333333, -0.002777777777767353, 0.0007936507891020488, -0.0005952373063227016,
    0.000841678862598761, -0.0019135564194573535, 0.006266355072207451, -0.02591763548428459,
    0.11229667461420963, -0.41302940091672014, 1.0364376287210755, -1.2591741378706647,
)  # fmt: skip
# z^2 (log(z) - 1 / (2 z) - digamma(z)) in 1 / z^2, z >= 6: 2^-54
_DIGAMMA = (
    0.08333333333333333, -0.008333333333333073, 0.003968253967943307, -0.0041666665215518255,
    0.007575722872081581, -0.021087974182608424, 0.08291804608225757, -0.4204131808217539,
    2.24488624415155, -8.02227824202989,
)  # fmt: skip
_STIRLING_CONSTANT = 0.5 * math.log(2 * math.pi) - 0.5
# x (x + 1) … (x + 5) and its derivative: their quotient is the sum of 1 / (x + k)
_RISING = (0.0, 120.0, 274.0, 225.0, 85.0, 15.0, 1.0)
_RISING_SLOPE = (120.0, 548.0, 675.0, 340.0, 75.0, 6.0)
_SHIFT = 6
_BERNOULLI = (  # B(2j) / (2j)!
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000, 43867 / 5109094217170944000,
    -174611 / 802857662698291200000,
)  # fmt: skip


def lgamma(m: Maths, x: Number) -> Number:
    """``log |gamma(x)|``: a polynomial up to 3, Stirling's formula above, Euler's reflection."""
    negative = x < 0.0
    a = m.select(negative, 1.0 - x, x)
    small = a < 1.0
    b = m.select(small, a + 1.0, a)
    u = a - m.select(small, 1.0, 2.0)  # b - 2, but exact: near a zero of lgamma that matters
    middle = u * (u + 1.0) * m.polynomial(u, _LGAMMA_MIDDLE)
    inverse = 1.0 / b
    tail = inverse * m.polynomial(inverse * inverse, _STIRLING) + _STIRLING_CONSTANT
    large = (b - 0.5) * (m.log(b) - 1.0) + tail
    value = m.select(b < 3.0, middle, large) - m.select(small, m.log(a), 0.0)
    sine = m.absolute(m.sin((x - m.nearest(x)) * math.pi))
    value = m.select(negative, m.log(math.pi / sine) - value, value)
    return m.select(m.equals(m.absolute(x), math.inf), math.inf, value)


def digamma(m: Maths, x: Number) -> Number:
    """The derivative of :func:`lgamma`; NaN at -1, -2, …, an infinity at zero."""
    negative = x < 0.0
    a = m.select(negative, 1.0 - x, x)
    small = a < float(_SHIFT)
    z = m.select(small, a + float(_SHIFT), a)
    inverse = 1.0 / z
    square = inverse * inverse
    value = m.log(z) - inverse * 0.5 - square * m.polynomial(square, _DIGAMMA)
    steps = m.polynomial(a, _RISING_SLOPE) / m.polynomial(a, _RISING)
    value = value - m.select(small, steps, 0.0)
    angle = (x - m.nearest(x)) * math.pi
    sine = m.select(m.equals(angle, 0.0), math.nan, m.sin(angle))
    value = m.select(negative, value - m.cos(angle) / sine * math.pi, value)
    return m.select(m.equals(x, 0.0), m.copysign(x * 0.0 + math.inf, -x), value)


def zeta(m: Maths, s: Number, x: Number) -> Number:
    """Hurwitz's zeta function, the sum of ``(x + k)^-s`` over k >= 0, for ``s > 1``, ``x >= 0``.

    Six terms and Euler and Maclaurin's formula for the rest.
    """
    total = x * 0.0
    for k in range(_SHIFT):
        total = total + m.exp(-s * m.log(x + float(k)))
    z = x + float(_SHIFT)
    inverse = 1.0 / z
    square = inverse * inverse
    rest = z / (s - 1.0) + 0.5
    rising, power = s, inverse
    for j, number in enumerate(_BERNOULLI):
        rest = rest + rising * power * number
        rising = rising * (s + float(2 * j + 1)) * (s + float(2 * j + 2))
        power = power * square
    total = total + m.exp(-s * m.log(z)) * rest
    total = m.select(m.equals(x, math.inf), 0.0, total)
    return m.select((x < 0.0) | (s < 1.0), math.nan, total)
