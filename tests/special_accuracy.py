"""Measures the error of the special functions of ``vm`` against mpmath.

The oracle takes a millisecond a number, so there are hundreds of arguments, not hundreds of
thousands: random bit patterns inside the stated domain and uniform numbers where the function
is interesting.  ``python tests/vector_math_accuracy.py`` writes these rows of the table too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import vector_math_accuracy as accuracy

BITS = 160
"""Precision of the oracle, far beyond the cancellation of any formula in it."""
COUNT = 150


@dataclass(frozen=True)
class Special:
    """A function, its exact value, and where its error is stated."""

    name: str
    oracle: Callable[..., Any]
    domains: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float], ...]
    stated: str
    bound: float = 8.0
    """On the error in f64; in f32 all are correctly rounded but for near-ties."""


def _scaled_bessel(order: int) -> Callable[[Any], Any]:
    return lambda x: mpmath.exp(-abs(x)) * mpmath.besseli(order, x)


def _second(order: int) -> Callable[[Any], Any]:
    """K0 and K1: up to 80 by K0's series, where mpmath takes limits (20 to 80 ms).

    K0 is the small difference of two numbers of the size of I0, which is ``exp(2 x)`` times K0; K1
    follows from the Wronskian.
    """

    def value(x: Any) -> Any:
        if x > 80:
            return mpmath.besselk(order, x)
        with mpmath.extraprec(int(3 * x) + 20):
            total, term, harmonic, k = mpmath.mpf(0), mpmath.mpf(1), mpmath.mpf(0), 0
            while k <= x or term > mpmath.eps:
                k += 1
                term *= (x / (2 * k)) ** 2
                harmonic += mpmath.mpf(1) / k
                total += term * harmonic
            first = mpmath.besseli(0, x)
            zeroth = total - (mpmath.log(x / 2) + mpmath.euler) * first
            return (1 / x - mpmath.besseli(1, x) * zeroth) / first if order else zeroth

    return value


def _scaled_second(order: int) -> Callable[[Any], Any]:
    return lambda x: mpmath.exp(x) * _second(order)(x)


def _quantile(p: Any) -> Any:
    """Of the normal distribution; both halves, so that nothing cancels."""
    return -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * p)


SPECIALS = (
    Special("lgamma", mpmath.loggamma, ((1e-30, 1e30),), ((0, 60), (0.5, 3)), "from 0"),
    Special("digamma", mpmath.digamma, ((2, 1e30),), ((2, 60),), "from 2"),
    Special("zeta", mpmath.zeta, ((1.1, 40), (0.5, 40)), ((1.1, 8), (0.5, 8)),
            "both from about 1 to 40", 50.0),
    Special("igamma", lambda a, x: mpmath.gammainc(a, 0, x, regularized=True),
            ((0.5, 60), (0.5, 60)), ((0.5, 60), (0.5, 60)), "both from 1/2 to 60", 400.0),
    Special("igammac", lambda a, x: mpmath.gammainc(a, x, mpmath.inf, regularized=True),
            ((0.5, 60), (0.5, 60)), ((0.5, 60), (0.5, 60)), "both from 1/2 to 60", 400.0),
    Special("erfc", mpmath.erfc, ((-1e30, 26),), ((-6, 10), (-1, 26)), "normal results"),
    Special("erfcx", lambda x: mpmath.exp(x * x) * mpmath.erfc(x), ((0, 1e3),), ((0, 30),),
            "from 0"),
    Special("erfinv", mpmath.erfinv, ((-1, 1),), ((-1, 1), (0.99, 1)), "all"),
    Special("ndtri", _quantile, ((1e-30, 1),), ((0, 1), (0, 0.01)), "from 1e-30"),
    Special("i0", lambda x: mpmath.besseli(0, x), ((-80, 80),), ((-80, 80), (-9, 9)), "up to 80"),
    Special("i0e", _scaled_bessel(0), ((-300, 300),), ((-80, 80), (-9, 9)), "up to 300"),
    Special("i1", lambda x: mpmath.besseli(1, x), ((-80, 80),), ((-80, 80), (-9, 9)), "up to 80"),
    Special("i1e", _scaled_bessel(1), ((-300, 300),), ((-80, 80), (-9, 9)), "up to 300"),
    Special("k0", _second(0), ((1e-30, 80),), ((0, 80), (0, 3)), "up to 80"),
    Special("k0e", _scaled_second(0), ((1e-30, 1e30),), ((0, 80), (0, 3)), "from 0"),
    Special("k1", _second(1), ((1e-30, 80),), ((0, 80), (0, 3)), "up to 80"),
    Special("k1e", _scaled_second(1), ((1e-30, 1e30),), ((0, 80), (0, 3)), "from 0"),
)  # fmt: skip


def arguments(case: Special, element: str) -> tuple[Any, ...]:
    """Bit patterns inside the domain and uniform numbers, normal ones only."""
    rng = np.random.default_rng(accuracy.SEED)
    kind = accuracy.NARROW[element]
    columns = []
    for low, high in case.domains:
        raw = rng.integers(0, 2 ** (8 * np.dtype(kind).itemsize), 60 * COUNT,
                           dtype=accuracy.BITS[element]).view(kind)  # fmt: skip
        with np.errstate(all="ignore"):
            inside = (raw > low) & (raw < high) & (np.abs(raw) >= np.finfo(kind).tiny)
        columns.append(np.resize(raw[inside], COUNT))
    if len(columns) == 1:
        ranges = [rng.uniform(*bounds, COUNT).astype(kind) for bounds in case.intervals]
        columns = [np.concatenate([columns[0], *ranges])]
    else:
        columns = [
            np.concatenate([c, rng.uniform(*bounds, COUNT).astype(kind)])
            for c, bounds in zip(columns, case.intervals, strict=True)
        ]
    return tuple(columns)


def _unit(value: Any, element: str) -> Any:
    """One in the last place of the format at ``value``."""
    digits = np.finfo(accuracy.NARROW[element]).nmant
    lowest = int(np.finfo(accuracy.NARROW[element]).minexp)
    exponent = mpmath.frexp(value)[1] - 1 if value else lowest
    return mpmath.mpf(2) ** (max(exponent, lowest) - digits)


def measure(case: Special, element: str) -> tuple[float, tuple[float, ...]]:
    """The largest error in units in the last place, and where it is."""
    columns = arguments(case, element)
    got = accuracy.compiled(case.name, element, len(columns))(*columns)
    worst, where = 0.0, tuple(float(c[0]) for c in columns)
    with mpmath.workprec(BITS):
        for result, *point in zip(got, *columns, strict=True):
            exact = mpmath.re(case.oracle(*(mpmath.mpf(float(p)) for p in point)))
            if not mpmath.isfinite(exact) or abs(exact) > np.finfo(got.dtype).max:
                continue
            error = float(abs(mpmath.mpf(float(result)) - exact) / _unit(exact, element))
            if not error <= worst:
                worst, where = error, tuple(map(float, point))
    return worst, where


def rows(cases: Sequence[Special] = SPECIALS) -> list[str]:
    """These functions' rows of the table."""
    found = []
    for case in cases:
        f32, f64 = (measure(case, element)[0] for element in ("f32", "f64"))
        found.append(f"| `{case.name}` | {f32:.2f} | {f64:.2f} | {case.stated} |")
    return found
