"""Quotients that are 0 / 0 at 0 and smooth there, with the right derivatives at 0, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphflow.functions.elementwise import expm1, log1p, where
from graphflow.tensor import Tensor

_NEAR = 0.03
"""Up to here the first terms of a series are exact to rounding, to second derivatives."""
_LOG1P = [(-1) ** k / (k + 1) for k in range(13)]
_EXPM1 = [1 / math.factorial(k + 1) for k in range(10)]

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
"""The Bernoulli numbers of even index, from the second on."""
_WIDE = 0.5
"""Up to here eight terms of the series of log(sinh(h) / h) are exact to rounding."""


def _series(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """The sum of ``coefficients[k] * x**k``, by Horner's rule."""
    found = x * 0 + coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        found = found * x + coefficient
    return found


def _either(
    x: Tensor, near: float, series: Callable[[Tensor], Tensor], formula: Callable[[Tensor], Tensor]
) -> Tensor:
    """``series(x)`` near 0 and ``formula(x)`` elsewhere; neither sees what it is not for."""
    small = x.abs() < near
    return where(small, series(where(small, x, 0.0)), formula(where(small, 1.0, x)))


def log1p_quotient(x: Tensor) -> Tensor:
    """``log(1 + x) / x`` for x from -1 on; 1 at 0."""
    return _either(x, _NEAR, lambda s: _series(_LOG1P, s), lambda w: log1p(w) / w)


def expm1_quotient(x: Tensor) -> Tensor:
    """``(exp(x) - 1) / x``; 1 at 0."""
    return _either(x, _NEAR, lambda s: _series(_EXPM1, s), lambda w: expm1(w) / w)


def log_expm1_quotient(x: Tensor) -> Tensor:
    """``log((exp(x) - 1) / x)``: the cumulants' generating function of a uniform number.

    Near 0 by ``x / 2 + sum of B(2 n) x**(2 n) / (2 n (2 n)!)`` of Bernoulli numbers B.
    """
    factors = [b / (2 * n * math.factorial(2 * n)) for n, b in enumerate(_BERNOULLI, 1)]
    return _either(
        x, _WIDE,
        lambda s: 0.5 * s + _series([0.0, *factors], s.square()),
        lambda w: w.clamp(min=0) + log1p(-(-w.abs()).exp()) - w.abs().log(),
    )  # fmt: skip


def tilted_mean(x: Tensor) -> Tensor:
    """The derivative of :func:`log_expm1_quotient`: the mean of a density ``exp(x y)`` of y
    on (0, 1)."""
    factors = [b / math.factorial(2 * n) for n, b in enumerate(_BERNOULLI, 1)]
    return _either(
        x, _WIDE,
        lambda s: 0.5 + s * _series(factors, s.square()),
        lambda w: -1 / expm1(-w) - 1 / w,
    )  # fmt: skip


def tilted_variance(x: Tensor) -> Tensor:
    """The second derivative of :func:`log_expm1_quotient`: the variance of that density."""
    factors = [
        b * (2 * n - 1) / math.factorial(2 * n) for n, b in enumerate(_BERNOULLI, 1)
    ]  # fmt: skip

    def formula(w: Tensor) -> Tensor:
        small = (-w.abs()).exp()  # 1 / (4 sinh(w / 2)^2) is small / (1 - small)^2
        return 1 / w.square() - small / (1 - small).square()

    return _either(x, _WIDE, lambda s: _series(factors, s.square()), formula)
