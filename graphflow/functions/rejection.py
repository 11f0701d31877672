"""Draws by rejection, with so many candidates that one is accepted.

The first candidate that is accepted is taken, and the last if none is, which has a probability
below 1e-9.  So the number of steps is fixed, and a compiled draw is one kernel.
"""

from __future__ import annotations

import math

from graphflow.functions.elementwise import (
    abs,
    add,
    clamp,
    div,
    exp,
    floor,
    ge,
    gt,
    le,
    log,
    logical_and,
    logical_or,
    lt,
    mul,
    rsqrt,
    sin,
    sqrt,
    sub,
    where,
)
from graphflow.functions.special import igamma, lgamma
from graphflow.functions.trigonometry import asin
from graphflow.ir import types as T
from graphflow.number_formats import finfo
from graphflow.promotion import cast
from graphflow.rng import Generator, draw
from graphflow.tensor import Tensor

_GAMMA_CANDIDATES, _POISSON_CANDIDATES, _ANGLE_CANDIDATES = 8, 12, 20
_FEW, _TERMS = 10.0, 60
"""Below this rate Poisson variables are found by adding up so many probabilities."""


def _first(candidates: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Of pairs (accepted, value) the first value that is accepted, elementwise."""
    value = candidates[-1][1]
    for accepted, earlier in reversed(candidates[:-1]):
        value = where(accepted, earlier, value)
    return value


def standard_gamma(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma variables of rate 1, of the shape of ``concentration``, which gets a gradient.

    Marsaglia and Tsang 2000, "A simple method for generating gamma variables"; a candidate is
    refused with a probability of at most 0.049.  The gradient keeps the value of the
    distribution function of each draw (Figurnov, Mohamed and Mnih 2018, "Implicit
    Reparameterization Gradients").
    """
    shape, dtype = tuple(concentration.shape), concentration.dtype
    alpha = cast(concentration.detach(), T.float64)
    small = lt(alpha, 1.0)
    d = sub(where(small, add(alpha, 1.0), alpha), 1.0 / 3.0)
    c = rsqrt(mul(d, 9.0))
    candidates = []
    for _ in range(_GAMMA_CANDIDATES):
        x = draw(generator).normal(shape, T.float64)
        unit = sub(1.0, draw(generator).uniform(shape, T.float64))
        root = add(mul(x, c), 1.0)
        v = mul(mul(root, root), root)
        positive = clamp(v, min=1e-300)
        limit = add(mul(mul(x, x), 0.5), mul(d, add(sub(1.0, v), log(positive))))
        candidates.append((logical_and(gt(v, 0.0), lt(log(unit), limit)), mul(d, positive)))
    lift = div(log(sub(1.0, draw(generator).uniform(shape, T.float64))), alpha)
    made = mul(_first(candidates), where(small, exp(lift), 1.0))
    made = clamp(made, min=finfo(dtype).tiny)
    if concentration.requires_grad:
        made = _following(cast(concentration, T.float64), made)
    return cast(made, dtype)


def _following(alpha: Tensor, z: Tensor) -> Tensor:
    """``z``, whose slope in ``alpha`` is that of the quantile that it is."""
    below = igamma(alpha, z)
    known = alpha.detach()
    density = exp(sub(sub(mul(log(z), sub(known, 1.0)), z), lgamma(known)))
    return sub(z, div(sub(below, below.detach()), clamp(density, min=1e-300)))


def poisson_variables(rate: Tensor, generator: Generator | None = None) -> Tensor:
    """Whole numbers, as floats in the dtype of ``rate``, whose mean is ``rate``, each.

    Small rates by adding up probabilities until they pass a uniform number; others by
    Hörmann's transformed rejection ("The transformed rejection method for generating Poisson
    random variables", 1993), a candidate of which is refused with a probability below 0.2.
    """
    shape = tuple(rate.shape)
    mean = cast(rate.detach(), T.float64)
    few = lt(mean, _FEW)
    low, high = where(few, mean, 1.0), where(few, _FEW, mean)
    unit = draw(generator).uniform(shape, T.float64)
    share = exp(mul(low, -1.0))
    passed, number = share, mul(share, 0.0)
    for n in range(1, _TERMS):
        number = add(number, cast(ge(unit, passed), T.float64))
        share = mul(share, div(low, float(n)))
        passed = add(passed, share)
    b = add(mul(sqrt(high), 2.53), 0.931)
    a = add(mul(b, 0.02483), -0.059)
    inverse = add(div(1.1328, sub(b, 3.4)), 1.1239)
    bound = sub(0.9277, div(3.6224, sub(b, 2.0)))
    candidates = []
    for _ in range(_POISSON_CANDIDATES):
        u = sub(draw(generator).uniform(shape, T.float64), 0.5)
        v = sub(1.0, draw(generator).uniform(shape, T.float64))
        away = clamp(sub(0.5, abs(u)), min=1e-17)
        k = floor(add(add(mul(add(div(mul(a, 2.0), away), b), u), high), 0.43))
        count = clamp(k, min=0.0)
        left = sub(add(log(v), log(inverse)), log(add(div(a, mul(away, away)), b)))
        right = sub(sub(mul(count, log(high)), high), lgamma(add(count, 1.0)))
        quickly = logical_and(ge(away, 0.07), le(v, bound))
        inside = logical_and(ge(k, 0.0), logical_or(ge(away, 0.013), le(v, away)))
        candidates.append((logical_or(quickly, logical_and(inside, le(left, right))), count))
    return cast(where(few, number, _first(candidates)), rate.dtype)


def von_mises_angles(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """Angles in [-pi, pi] about 0 of density proportional to ``exp(concentration cos(x))``.

    Best and Fisher 1979, "Efficient simulation of the von Mises distribution": a candidate from
    a wrapped Cauchy distribution, whose parameter is ``rho``, is refused with a probability of
    at most 0.343.  Their formulas are written so that nothing cancels at either end.
    """
    shape = tuple(concentration.shape)
    kappa = cast(concentration.detach(), T.float64)
    root = sqrt(add(sqrt(add(mul(mul(kappa, kappa), 4.0), 1.0)), 1.0))
    ratio = mul(root, add(root, math.sqrt(2.0)))  # 2 kappa / rho
    rho = div(mul(kappa, 2.0), ratio)
    square = mul(rho, rho)
    near, rest = sub(1.0, rho), sub(1.0, square)
    candidates = []
    for _ in range(_ANGLE_CANDIDATES):
        half = mul(draw(generator).uniform(shape, T.float64), math.pi / 2)
        share = mul(sin(half), sin(half))  # (1 - cos) / 2 of the uniform angle
        below = add(add(square, 1.0), mul(rho, sub(2.0, mul(share, 4.0))))
        c = mul(div(mul(rest, rest), below), mul(ratio, 0.25))
        unit = sub(1.0, draw(generator).uniform(shape, T.float64))
        sine = mul(near, sqrt(div(share, below)))  # of half the candidate
        accepted = ge(add(sub(log(c), log(unit)), sub(1.0, c)), 0.0)
        candidates.append((accepted, mul(asin(clamp(sine, max=1.0)), 2.0)))
    size = _first(candidates)
    left = lt(draw(generator).uniform(shape, T.float64), 0.5)
    return cast(where(left, mul(size, -1.0), size), concentration.dtype)
