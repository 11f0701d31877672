"""Rarer distributions of single numbers, drawn by the inverse of the distribution function.

Densities, moments and entropies as in Johnson, Kotz and Balakrishnan, *Continuous Univariate
Distributions* (2nd edition, 1994 and 1995), and J. Pickands, "Statistical inference using
extreme order statistics" (1975).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import EULER, LOG_PI, Distribution, as_parameters
from graphflow.distributions.quotients import expm1_quotient, log1p_quotient
from graphflow.distributions.univariate import Normal, _LocationScale
from graphflow.functions.elementwise import expm1, log1p, where
from graphflow.functions.special import lgamma, xlogy
from graphflow.functions.trigonometry import atan, tan
from graphflow.number_formats import finfo
from graphflow.rng import rand
from graphflow.tensor import Tensor


def unit_numbers(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform numbers inside (0, 1), at neither end."""
    info = finfo(like.dtype)
    drawn = rand(tuple(shape), dtype=like.dtype, device=like.device)
    return drawn.clamp(info.tiny, 1 - info.eps)


class Cauchy(_LocationScale):
    """The ratio of two normal variables, times ``scale``, about ``loc``; it has no moments."""

    @property
    def mean(self) -> Tensor:
        """NaN."""
        return self.loc.detach() * 0 + math.nan

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return self.loc.detach() * 0 + math.inf

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(unit_numbers(self.loc, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        away = (value - self.loc) / self.scale
        return -LOG_PI - self.scale.log() - log1p(away.square())

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return atan((value - self.loc) / self.scale) / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return tan(math.pi * (value - 0.5)) * self.scale + self.loc

    def entropy(self) -> Tensor:
        """``log(4 pi scale)``."""
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(_LocationScale):
    """The largest of many: ``loc - scale log(-log(u))`` of uniform u."""

    @property
    def mean(self) -> Tensor:
        """``loc`` and Euler's constant times ``scale``."""
        return self.loc + self.scale * EULER

    @property
    def stddev(self) -> Tensor:
        """``pi / sqrt(6) * scale``."""
        return (math.pi / math.sqrt(6)) * self.scale

    @property
    def variance(self) -> Tensor:
        """The square of the standard deviation."""
        return self.stddev.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(unit_numbers(self.loc, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        y = (self.loc - value) / self.scale
        return (y - y.exp()) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return (-((self.loc - value) / self.scale).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        """``log(scale) + 1`` and Euler's constant."""
        return self.scale.log() + (1 + EULER)


class _Half(Distribution):
    """The size of a variable that is symmetric about 0, of width ``scale``."""

    has_rsample = True
    parameters = ("scale",)
    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative
    _of: type[_LocationScale]

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (width,) = as_parameters(scale)
        self.base_dist = self._of(0.0, width, validate_args)
        super().__init__(self.base_dist.batch_shape, (), validate_args)

    @property
    def scale(self) -> Tensor:
        """Of the whole variable."""
        return self.base_dist.scale

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.scale.detach() * 0

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The size of a draw of the whole."""
        return self.base_dist.rsample(sample_shape).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density; minus infinity below 0."""
        self._check_value(value)
        return where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """That of the whole, less ``log(2)``."""
        return self.base_dist.entropy() - math.log(2)


class HalfNormal(_Half):
    """The size of a normal variable of mean 0 and standard deviation ``scale``."""

    _of = Normal

    @property
    def mean(self) -> Tensor:
        """``scale * sqrt(2 / pi)``."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """``scale**2 * (1 - 2 / pi)``."""
        return self.scale.square() * (1 - 2 / math.pi)


class HalfCauchy(_Half):
    """The size of a Cauchy variable about 0."""

    _of = Cauchy

    @property
    def mean(self) -> Tensor:
        """Infinite."""
        return self.scale.detach() * 0 + math.inf

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return self.mean


class Weibull(Distribution):
    """``scale * e ** (1 / concentration)`` of exponential e."""

    has_rsample = True
    parameters = ("scale", "concentration")
    arg_constraints: ClassVar = {
        "scale": constraints.positive,
        "concentration": constraints.positive,
    }
    support = constraints.positive

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = as_parameters(scale, concentration)
        super().__init__(self.scale.shape, (), validate_args)

    def _moment(self, order: int) -> Tensor:
        return lgamma(1 + order / self.concentration).exp()

    @property
    def mean(self) -> Tensor:
        """``scale * gamma(1 + 1 / concentration)``."""
        return self.scale * self._moment(1)

    @property
    def mode(self) -> Tensor:
        """``scale * ((k - 1) / k) ** (1 / k)`` of concentration k; 0 up to 1."""
        k = self.concentration
        return self.scale * (((k - 1) / k).clamp(min=0) ** (1 / k))

    @property
    def variance(self) -> Tensor:
        """``scale**2 * (gamma(1 + 2 / k) - gamma(1 + 1 / k)**2)`` of concentration k."""
        return self.scale.square() * (self._moment(2) - self._moment(1).square())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(unit_numbers(self.scale, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        k, away = self.concentration, value / self.scale
        return k.log() - self.scale.log() + xlogy(k - 1, away) - away**k

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return -expm1(-((value / self.scale) ** self.concentration))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return self.scale * (-log1p(-value)) ** self.concentration.reciprocal()

    def entropy(self) -> Tensor:
        """In nats."""
        k = self.concentration
        return EULER * (1 - 1 / k) + (self.scale / k).log() + 1


class Pareto(Distribution):
    """Density proportional to ``x ** -(alpha + 1)`` from ``scale`` on."""

    has_rsample = True
    parameters = ("scale", "alpha")
    arg_constraints: ClassVar = {"scale": constraints.positive, "alpha": constraints.positive}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = as_parameters(scale, alpha)
        super().__init__(self.scale.shape, (), validate_args)

    @constraints.dependent_property
    def support(self) -> Constraint:
        """Which values can be drawn."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        """``alpha scale / (alpha - 1)``; infinite up to 1."""
        return where(self.alpha > 1, self.alpha * self.scale / (self.alpha - 1), math.inf)

    @property
    def mode(self) -> Tensor:
        """``scale``."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """``scale**2 alpha / ((alpha - 1)**2 (alpha - 2))``; infinite up to 2."""
        a = self.alpha
        finite = self.scale.square() * a / ((a - 1).square() * (a - 2))
        return where(a > 2, finite, math.inf)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(unit_numbers(self.scale, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        return self.alpha.log() + self.alpha * self.scale.log() - (self.alpha + 1) * value.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return 1 - (self.scale / value) ** self.alpha

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return self.scale * (1 - value) ** -self.alpha.reciprocal()

    def entropy(self) -> Tensor:
        """``log(scale / alpha) + 1 + 1 / alpha``."""
        return (self.scale / self.alpha).log() + (1 + self.alpha.reciprocal())


class GeneralizedPareto(Distribution):
    """``loc + scale ((1 - u)^-k - 1) / k`` of uniform u and ``concentration`` k, of any sign.

    For k = 0 exponential, for k = -1 uniform.
    """

    has_rsample = True
    parameters = ("loc", "scale", "concentration")
    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "concentration": constraints.real,
    }

    def __init__(
        self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale, self.concentration = as_parameters(loc, scale, concentration)
        super().__init__(self.loc.shape, (), validate_args)

    @constraints.dependent_property
    def support(self) -> Constraint:
        """From ``loc`` on; for negative concentrations k up to ``loc - scale / k``."""
        k = self.concentration
        return constraints.interval(self.loc, where(k < 0, self.loc - self.scale / k, math.inf))

    @property
    def mean(self) -> Tensor:
        """``loc + scale / (1 - k)``; NaN from concentrations k of 1 on."""
        k = self.concentration
        return where(k < 1, self.loc + self.scale / (1 - k), math.nan)

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``scale^2 / ((1 - k)^2 (1 - 2 k))``; NaN from concentrations k of 1/2 on."""
        k = self.concentration
        return where(k < 0.5, self.scale.square() / ((1 - k).square() * (1 - 2 * k)), math.nan)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(unit_numbers(self.loc, self._extended_shape(sample_shape)))

    def _away(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return (value - self.loc) / self.scale

    def log_survival_function(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of a draw above ``value``: ``-log(1 + k z) / k``."""
        z = self._away(value)
        return -z * log1p_quotient(self.concentration * z)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        stretch = log1p(self.concentration * self._away(value))
        return self.log_survival_function(value) - stretch - self.scale.log()

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of :meth:`cdf`."""
        return self.cdf(value).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        return -expm1(self.log_survival_function(value))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        waited = -log1p(-value)
        return self.loc + self.scale * waited * expm1_quotient(self.concentration * waited)

    def entropy(self) -> Tensor:
        """``log(scale) + concentration + 1``."""
        return self.scale.log() + self.concentration + 1
