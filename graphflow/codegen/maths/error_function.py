"""erf: an odd polynomial near zero; above, ``1 - p(|x|)^8`` or (f64) ``1 - exp(-Q(|x| - 1))``.

The far half needs no relative accuracy of what it takes from 1, so a power of a short
polynomial is enough in single precision: ``erfc^(1/8)`` is nearly straight.  ``Q(u) =
-log(erfc(1 + u))`` is fitted in ``u`` because its terms then do not cancel near 1, where
its error matters most.

``1 + erf(x)``, which GELU wants, needs no relative accuracy of erf, so a power of one short
polynomial serves all of single precision: half the multiplications.
"""

from __future__ import annotations

from graphflow.codegen.llvm_expr import Value, mad, polynomial, select, split_polynomial
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
# (erfc(t)^(1/8) - 1) / t, 0 <= t <= 4, fitted for the error of erf
_ROOT_SINGLE = (
    -0.1410473883152008, -0.06963036954402924, -0.0020890170708298683, 0.006589155178517103,
    0.00018668918346520513, -0.0005129918572492898, 8.892880578059703e-05,
    -4.8079582484206185e-06,
)  # fmt: skip
_ROOT_LIMIT = 4.0  # from here on 1 + erf rounds to 2, or is less than 2^-24
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


def erf_plus_one(x: Value) -> Value:
    """``1 + erf(x)``; what it loses for large negative ``x`` is what the sum would lose."""
    return (_single_loosely(x) if x.type == "f32" else _double(x)) + 1.0


def _single_loosely(x: Value) -> Value:
    """erf within ``2^-23``.  With ``e`` the root minus one, ``(1 + e)^2 - 1 = e^2 + 2 e``: three
    times this, instead of squaring, keeps what is small exact, and rounds once a step."""
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
