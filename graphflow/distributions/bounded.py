"""Distributions of shares, ratios of variances, and angles.

Densities and moments as in Johnson, Kotz and Balakrishnan, *Continuous Univariate
Distributions* (2nd edition, 1995), P. Kumaraswamy, "A generalized probability density function
for double-bounded random processes" (1980), G. Loaiza-Ganem and J. Cunningham, "The continuous
Bernoulli" (2019), and K. Mardia and P. Jupp, *Directional Statistics* (2000).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.autograd.modes import no_grad
from graphflow.distributions import constraints
from graphflow.distributions.counts import OfTrials
from graphflow.distributions.distribution import EULER, Distribution, as_parameters
from graphflow.distributions.more_univariate import unit_numbers
from graphflow.distributions.quotients import (
    log1p_quotient,
    log_expm1_quotient,
    tilted_mean,
    tilted_variance,
)
from graphflow.functions.elementwise import cos, expm1, log1p, remainder, where
from graphflow.functions.rejection import standard_gamma, von_mises_angles
from graphflow.functions.special import digamma, i0e, i1e, lgamma, xlogy
from graphflow.tensor import Tensor


class Kumaraswamy(Distribution):
    """Of the distribution function ``1 - (1 - x^a)^b`` on (0, 1); a, b: the concentrations 1, 0."""

    has_rsample = True
    parameters = ("concentration1", "concentration0")
    arg_constraints: ClassVar = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = constraints.unit_interval

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        self.concentration1, self.concentration0 = as_parameters(concentration1, concentration0)
        super().__init__(self.concentration1.shape, (), validate_args)

    def _moment(self, order: int) -> Tensor:
        """The mean of ``x^order``: ``b B(1 + order / a, b)`` of Euler's beta function."""
        power, b = 1 + order / self.concentration1, self.concentration0
        return b * (lgamma(power) + lgamma(b) - lgamma(power + b)).exp()

    @property
    def mean(self) -> Tensor:
        """``b B(1 + 1 / a, b)``."""
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        """``((a - 1) / (a b - 1))^(1 / a)``; NaN where a or b is below 1, or both are 1."""
        a, b = self.concentration1, self.concentration0
        inside = (a >= 1).logical_and(b >= 1).logical_and(a * b > 1)
        return where(inside, ((a - 1) / (a * b - 1)) ** a.reciprocal(), math.nan)

    @property
    def variance(self) -> Tensor:
        """The mean square, less the square of the mean."""
        return self._moment(2) - self._moment(1).square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(unit_numbers(self.concentration1, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        a, b = self.concentration1, self.concentration0
        return a.log() + b.log() + xlogy(a - 1, value) + (b - 1) * log1p(-(value**a))

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return -expm1(self.concentration0 * log1p(-(value**self.concentration1)))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        power = -expm1(log1p(-value) / self.concentration0)
        return power ** self.concentration1.reciprocal()

    def entropy(self) -> Tensor:
        """``1 - 1 / b + (1 - 1 / a) (digamma(b + 1) + Euler's constant) - log(a b)``."""
        a, b = self.concentration1, self.concentration0
        harmonic = digamma(b + 1) + EULER
        return 1 - 1 / b + (1 - 1 / a) * harmonic - a.log() - b.log()


class ContinuousBernoulli(OfTrials):
    """Density proportional to ``probs^x (1 - probs)^(1 - x)`` on [0, 1]: to ``exp(logits x)``.

    ``lims`` is taken and has no effect: PyTorch uses series for ``probs`` between them, and the
    formulas here are exact for all.
    """

    has_rsample = True
    parameters = ("probs",)
    support = constraints.unit_interval

    def __init__(
        self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._take(probs, logits)
        self._lims = lims
        super().__init__(self._given.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``probs / (2 probs - 1) - 1 / logits``; a half at ``probs = 1 / 2``."""
        return tilted_mean(self.logits)

    @property
    def variance(self) -> Tensor:
        """``1 / logits^2 - probs (1 - probs) / (1 - 2 probs)^2``."""
        return tilted_variance(self.logits)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(unit_numbers(self._given, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        return self.logits * value - log_expm1_quotient(self.logits)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        inside = value.clamp(0, 1)
        logs = log_expm1_quotient(self.logits * inside) - log_expm1_quotient(self.logits)
        return inside * logs.exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        falling = self.logits <= 0  # the others are the mirror image of such a density
        slope = where(falling, self.logits, -self.logits)
        below = where(falling, value, 1 - value)
        found = below * log_expm1_quotient(slope).exp() * log1p_quotient(below * expm1(slope))
        return where(falling, found, 1 - found).clamp(0, 1)

    def entropy(self) -> Tensor:
        """In nats; at most 0."""
        return log_expm1_quotient(self.logits) - self.logits * self.mean


class FisherSnedecor(Distribution):
    """The ratio of two means of squares, of ``df1`` and ``df2`` standard normal variables."""

    has_rsample = True
    parameters = ("df1", "df2")
    arg_constraints: ClassVar = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = as_parameters(df1, df2)
        super().__init__(self.df1.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``df2 / (df2 - 2)``; NaN up to 2."""
        return where(self.df2 > 2, self.df2 / (self.df2 - 2), math.nan)

    @property
    def mode(self) -> Tensor:
        """``(df1 - 2) df2 / (df1 (df2 + 2))``; NaN up to ``df1 = 2``."""
        inside = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return where(self.df1 > 2, inside, math.nan)

    @property
    def variance(self) -> Tensor:
        """``2 df2^2 (df1 + df2 - 2) / (df1 (df2 - 2)^2 (df2 - 4))``; NaN up to ``df2 = 4``."""
        n, m = self.df1, self.df2
        finite = 2 * m.square() * (n + m - 2) / (n * (m - 2).square() * (m - 4))
        return where(m > 4, finite, math.nan)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The ratio of two gamma variables."""
        shape = self._extended_shape(sample_shape)
        upper = standard_gamma((0.5 * self.df1).expand(shape)) / self.df1
        return upper / (standard_gamma((0.5 * self.df2).expand(shape)) / self.df2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        n, m, ratio = 0.5 * self.df1, 0.5 * self.df2, self.df1 / self.df2
        factor = lgamma(n + m) - lgamma(n) - lgamma(m) + n * ratio.log()
        return factor + xlogy(n - 1, value) - (n + m) * log1p(ratio * value)


class VonMises(Distribution):
    """Angles in [-pi, pi), of density proportional to ``exp(concentration cos(x - loc))``."""

    parameters = ("loc", "concentration")
    arg_constraints: ClassVar = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = as_parameters(loc, concentration)
        super().__init__(self.loc.shape, (), validate_args)

    def _resultant(self) -> Tensor:
        """``I1 / I0`` of the concentration: the mean of the cosines of angles from ``loc``."""
        return i1e(self.concentration) / i0e(self.concentration)

    def _log_bessel(self) -> Tensor:
        return i0e(self.concentration).log() + self.concentration

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The circular variance: 1 less the mean of the cosines of angles from ``loc``."""
        return 1 - self._resultant()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Angles in [-pi, pi)."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            away = von_mises_angles(self.concentration.expand(shape))
            return remainder(self.loc + away + math.pi, 2 * math.pi) - math.pi

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        away = self.concentration * cos(value - self.loc)
        return away - math.log(2 * math.pi) - self._log_bessel()

    def entropy(self) -> Tensor:
        """``log(2 pi I0) - concentration I1 / I0``."""
        mean = self.concentration * self._resultant()
        return math.log(2 * math.pi) + self._log_bessel() - mean
