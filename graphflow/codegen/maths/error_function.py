"""erf: an odd polynomial near zero; above, ``1 - p(|x|)^8`` or (f64) ``1 - exp(-Q(|x| - 1))``.

The far half needs no relative accuracy of what it takes from 1, so a power of a short
polynomial is enough in single precision: ``erfc^(1/8)`` is nearly straight.  ``Q(u) =
-log(erfc(1 + u))`` is fitted in ``u`` because its terms then do not cancel near 1, where
its error matters most.

The normal distribution function, which GELU wants, needs no relative accuracy of erf, so a power
of one short polynomial serves all of single precision: half the multiplications.
"""

from __future__ import annotations

import math

from graphflow.codegen.llvm_expr import Value, lookup, mad, polynomial, select, split_polynomial
from graphflow.codegen.maths.exponential import exp

# erf(x) / x - 1 in x^2 - 1.25, |x| <= 1.48: around the middle, so that rounding errors
# of large terms do not add up
_NEAR_SINGLE = (
    -0.20740003883838654, -0.1877255141735077, 0.047978274524211884, -0.010433564893901348,
    0.001914375345222652, -0.00029997609090059996, 4.228492980473675e-05,
    -5.802985924674431e-06,
)  # fmt: skip
_SINGLE_MIDDLE, _SINGLE_SWITCH, _SINGLE_LIMIT = 1.25, 1.48, 4.05  # at the limit erf rounds to 1
# erfc(t)^(1/8), 1.48 <= t <= 4.05
_FAR_SINGLE = (
    0.9900994896888733, -0.11241500079631805, -0.10229092091321945, 0.015561905689537525,
    0.003071580780670047, -0.0005735448794439435,
)  # fmt: skip
# ((2 Phi(-t))^(1/8) - 1) / t, 0 <= t <= 4 sqrt(2), fitted for the error of Phi
_ROOT_SINGLE = (
    -0.09973554768309921, -0.03481542811691665, -0.0007377291231013828, 0.0016459724716580242,
    3.403603194990628e-05, -6.455094038034146e-05, 7.948268329753686e-06, -3.07599973545509e-07,
)  # fmt: skip
_ROOT_LIMIT = 5.656854249492381  # from here on Phi rounds to 1, or is less than 2^-25
# Phi(t) - 1/2 in t - k / 4, where t is nearest to k / 4: constant terms for k = 0, 1, ..., then
# those of degree 1, ...  The last is where Phi rounds to 1, or is less than 2^-26.
_TABLES = (
    (
        0.0, 0.09870633, 0.19146246, 0.27337265, 0.34134474, 0.39435023, 0.4331928, 0.45994085,
        0.47724986, 0.48777553, 0.49379033, 0.49702024, 0.4986501, 0.49942297, 0.49976736,
        0.49991158, 0.49996832, 0.4999893, 0.4999966, 0.499999, 0.4999997, 0.4999999, 0.49999997,
        0.5,
    ),
    (
        0.3989421, 0.38666746, 0.35206497, 0.30113745, 0.24197103, 0.18264954, 0.12951805,
        0.08627765, 0.05399114, 0.031739686, 0.01752825, 0.009093477, 0.004431764, 0.0020289822,
        0.0008726385, 0.00035256954, 0.00013381631, 4.771191e-05, 1.5980762e-05, 5.0282947e-06,
        1.4862638e-06, 4.1268888e-07, 1.0764564e-07, 0.0,
    ),
    (
        1.3102925e-05, -0.048333135, -0.08801573, -0.112926036, -0.120984964, -0.11415556,
        -0.09713832, -0.07549291, -0.053991232, -0.035707302, -0.021910477, -0.012503672,
        -0.0066477507, -0.0032971653, -0.0015271589, -0.0006610906, -0.00026764406,
        -0.00010139309, -3.5958972e-05, -1.1943095e-05, -3.7159841e-06, -1.0834231e-06,
        -2.9608756e-07, 0.0,
    ),
    (
        -0.06680742, -0.06025176, -0.043918774, -0.021960406, -7.84931e-05, 0.017006688,
        0.026868396, 0.02957369, 0.02695152, 0.021481311, 0.015350185, 0.009967953, 0.0059307427,
        0.0032506967, 0.0016475882, 0.0007743187, 0.00033813415, 0.0001374208, 5.2042804e-05,
        1.8384722e-05, 6.0632815e-06, 1.8681279e-06, 5.38162e-07, 0.0,
    ),
    (
        0.003025591, 0.011778983, 0.020086663, 0.022860898, 0.020109165, 0.013659112, 0.006089024,
        -0.00035747746, -0.0044624163, -0.006110117, -0.0059200204, -0.0047507044, -0.0033268926,
        -0.0020831565, -0.001182146, -0.00061308965, -0.0002922251, -0.00012852179,
        -5.2308635e-05, -1.974559e-05, -6.9256675e-06, -2.2595657e-06, -6.848773e-07, 0.0,
    ),
)  # fmt: skip
_LAST = 5.75
_QUARTERS = 1.5 * 2.0**21  # numbers as large as this are multiples of 1/4
# erf(x) / x - 1 in x^2, |x| <= 1
_NEAR_DOUBLE = (
    0.1283791670955126, -0.37612638903183754, 0.1128379167095512, -0.02686617064512984,
    0.0052239776254232985, -0.000854832702193483, 0.00012055332902888736,
    -1.4925647567519332e-05, 1.6462045441468418e-06, -1.6364642158167616e-07,
    1.4792401209404813e-08, -1.216456005728345e-09, 8.709045129053106e-11,
    -4.230945824295338e-12,
)  # fmt: skip
# -log(erfc(1 + u)), 0 <= u <= 5
_FAR_DOUBLE = (
    1.8496055099332482, 2.638967514234795, 0.8431072563583275, 0.04156109804938037,
    -0.010033825462634972, 0.0019779031986228326, -0.00023732547115646525,
    -2.6267990577569252e-05, 2.713550927299477e-05, -9.567176249351182e-06,
    2.0042076999507634e-06, -8.646472354339328e-08, -1.4152970860425964e-07,
    7.846484305037978e-08, -2.7148106745723257e-08, 7.217267174036438e-09,
    -1.5518802262158816e-09, 2.733640797285654e-10, -3.930970685424521e-11,
    4.550533230853445e-12, -4.139267766144228e-13, 2.847812684810216e-14,
    -1.3920849232129402e-15, 4.304840113498005e-17, -6.325520588718493e-19,
)  # fmt: skip


_DOUBLE_LIMIT = 6.0


def erf(x: Value) -> Value:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to x."""
    return _single(x) if x.type == "f32" else _double(x)


def normal_share(x: Value) -> Value:
    """``(1 + erf(x / sqrt(2))) / 2``; what it loses for large negative ``x`` is what the sum
    would lose."""
    if x.type == "f32" and x.machine.has_avx512:
        return _from_tables(x)
    erf_of = _loosely(x) if x.type == "f32" else _double(x * math.sqrt(0.5))
    return mad(erf_of, 0.5, 0.5)


def _from_tables(x: Value) -> Value:
    """Phi within ``2^-24`` by a polynomial of degree 4 whose coefficients are looked up.

    Half the multiplications of one for all arguments; where Phi ends it is exactly 0.
    """
    size = x.call("abs")
    limited = select(size > _LAST, x.constant(_LAST), size)
    shifted = limited + _QUARTERS
    index, rest = shifted.bitcast("i32"), limited - (shifted - _QUARTERS)
    above = lookup(_TABLES[-1], index)
    for table in reversed(_TABLES[:-1]):
        above = mad(above, rest, lookup(table, index))
    return above.call("copysign", x) + 0.5


def _loosely(x: Value) -> Value:
    """``erf(x / sqrt(2))`` within ``2^-22``.  With ``e`` the root minus one, ``(1 + e)^2 - 1`` is
    ``e^2 + 2 e``: three times this, instead of squaring, keeps what is small exact, rounds once a
    step, and is exactly -1 in the end, so that Phi is 0 there."""
    size = x.call("abs")
    limited = select(size > _ROOT_LIMIT, x.constant(_ROOT_LIMIT), size)
    less = limited * polynomial(limited, _ROOT_SINGLE)
    for _ in range(3):
        less = mad(less, less, less + less)
    return less.call("copysign", x)


def _single(x: Value) -> Value:
    size = x.call("abs")
    limited = select(size > _SINGLE_LIMIT, x.constant(_SINGLE_LIMIT), size)
    near = mad(x, split_polynomial(mad(x, x, -_SINGLE_MIDDLE), _NEAR_SINGLE), x)
    root = split_polynomial(limited, _FAR_SINGLE)
    for _ in range(3):
        root = root * root
    return select(size > _SINGLE_SWITCH, (1.0 - root).call("copysign", x), near)


def _double(x: Value) -> Value:
    size = x.call("abs")
    size = select(size > _DOUBLE_LIMIT, x.constant(_DOUBLE_LIMIT), size)
    near = mad(size, polynomial(size * size, _NEAR_DOUBLE), size)
    far = 1.0 - exp(-polynomial(size - 1.0, _FAR_DOUBLE))
    return select(size > 1.0, far, near).call("copysign", x)
