"""The incomplete gamma functions, regularised.

Up to an ``a`` of 24: below ``a + 3`` the series of P, above it Legendre's continued fraction
for Q (Abramowitz and Stegun, 6.5.29 and 6.5.31), both of fixed length.  Beyond, the density is
integrated from ``x`` outwards by Gauss and Legendre's rule, as in Press et al., "Numerical
Recipes" (3rd edition, 6.2.1), with Stirling's series for its factor.
"""

from __future__ import annotations

import math

from graphflow.ir.formulas.gamma import lgamma
from graphflow.ir.formulas.maths import Maths, Number

_SERIES, _FRACTION, _FROM, _BEYOND = 64, 40, 24.0, 3.0
# Gauss and Legendre's rule of 32 nodes: the half that is positive
_NODES = (
    0.048307665687738324, 0.1444719615827965, 0.23928736225213706, 0.33186860228212767,
    0.42135127613063533, 0.5068999089322294, 0.5877157572407623, 0.6630442669302152,
    0.7321821187402897, 0.7944837959679424, 0.84936761373257, 0.8963211557660521,
    0.9349060759377397, 0.9647622555875064, 0.9856115115452684, 0.9972638618494816,
)  # fmt: skip
_WEIGHTS = (
    0.09654008851472766, 0.09563872007927471, 0.09384439908080451, 0.09117387869576378,
    0.08765209300440378, 0.08331192422694671, 0.07819389578707023, 0.07234579410884834,
    0.06582222277636168, 0.058684093478535565, 0.05099805926237609, 0.042835898022226836,
    0.034273862913021765, 0.025392065309262024, 0.016274394730905743, 0.007018610009470506,
)  # fmt: skip
_STIRLING = (-1 / 12, 1 / 360, -1 / 1260, 1 / 1680, -1 / 1188)


def igamma(m: Maths, a: Number, x: Number) -> Number:
    """P(a, x), the integral of ``t^(a-1) exp(-t) / gamma(a)`` up to x; NaN below 0."""
    part, lower = _smaller(m, a, x)
    return _edges(m, a, x, m.select(lower, part, 1.0 - part), 1.0)


def igammac(m: Maths, a: Number, x: Number) -> Number:
    """Q(a, x) = 1 - P(a, x), the integral from x on; NaN below 0."""
    part, lower = _smaller(m, a, x)
    return _edges(m, a, x, m.select(lower, 1.0 - part, part), 0.0)


def _edges(m: Maths, a: Number, x: Number, value: Number, all_below: float) -> Number:
    """``value`` inside, and what is known where ``a`` or ``x`` is 0 or infinite."""
    far_x, far_a = m.equals(x, math.inf), m.equals(a, math.inf)
    value = m.select(far_x, all_below, value)
    value = m.select(far_a | m.equals(x, 0.0), 1.0 - all_below, value)
    value = m.select(m.equals(a, 0.0), m.select(x > 0.0, all_below, math.nan), value)
    value = m.select(m.equals(a, a) & m.equals(x, x), value, math.nan)
    return m.select((far_a & far_x) | (a < 0.0) | (x < 0.0), math.nan, value)


def _smaller(m: Maths, a: Number, x: Number) -> tuple[Number, Number]:
    """P or Q, the one that is computed here, and whether it is P."""
    series, fraction = _by_series(m, a, x)
    near = x < a + _BEYOND
    mode = m.select(a > _FROM, a, _FROM) - 1.0
    below = x < mode
    few = a < _FROM
    part = m.select(few, m.select(near, series, fraction), _by_quadrature(m, mode, x, below))
    lower = (few & near) | ((a > _FROM) & below) | (m.equals(a, _FROM) & below)
    return part, lower


def _by_series(m: Maths, a: Number, x: Number) -> tuple[Number, Number]:
    """P by its series in x and Q by its continued fraction, from the last term on."""
    head = m.exp(a * m.log(x) - x - lgamma(m, a + 1.0))
    total = x * 0.0 + 1.0
    for n in range(_SERIES, 0, -1):
        total = total * x / (a + float(n)) + 1.0
    tail = x + float(2 * _FRACTION + 1) - a
    for k in range(_FRACTION, 0, -1):
        tail = x + float(2 * k - 1) - a - (float(k) - a) * float(k) / tail
    return head * total, head * a / tail


def _by_quadrature(m: Maths, mode: Number, x: Number, below: Number) -> Number:
    """The density's integral from x to where it is nothing, away from its ``mode`` = a - 1."""
    width = m.sqrt(mode)
    up = m.select(x > mode, x, mode) + width * 9.0 + 30.0
    down = m.select(below, x, mode) - width * 8.0
    end = m.select(below, m.select(down > 0.0, down, 0.0), up)
    half, middle = (end - x) * 0.5, (end + x) * 0.5
    total = x * 0.0
    for node, weight in (*zip(_NODES, _WEIGHTS), *((-n, w) for n, w in zip(_NODES, _WEIGHTS))):
        away = (middle + half * node) / mode - 1.0
        # log(1 + away) - away: the logarithm of 1 + away as it is rounded, put right.
        rounded = away + 1.0
        exact = m.equals(rounded, 1.0)
        step = m.select(exact, 1.0, rounded - 1.0)
        log = m.select(exact, away, m.log(rounded) * away / step)
        total = total + m.exp(mode * (log - away)) * weight
    inverse = 1.0 / mode
    factor = m.exp(inverse * m.polynomial(inverse * inverse, _STIRLING))
    return total * m.absolute(half) * factor / (width * math.sqrt(2 * math.pi))
