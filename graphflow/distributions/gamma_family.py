"""Distributions that are made of gamma variables.

Densities, moments and entropies as in Johnson, Kotz and Balakrishnan, *Continuous Univariate
Distributions* (2nd edition, 1994 and 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.distributions import constraints
from graphflow.distributions.distribution import LOG_PI, Distribution, as_parameters
from graphflow.functions.elementwise import log1p, where
from graphflow.functions.manipulation import one_hot
from graphflow.functions.reductions import sum as total
from graphflow.functions.rejection import standard_gamma
from graphflow.functions.shaping import stack
from graphflow.functions.special import digamma, igamma, lgamma, xlogy
from graphflow.rng import randn
from graphflow.tensor import Tensor


class Gamma(Distribution):
    """Density proportional to ``x^(concentration - 1) exp(-rate x)``."""

    has_rsample = True
    parameters: ClassVar[tuple[str, ...]] = ("concentration", "rate")
    arg_constraints: ClassVar = {
        "concentration": constraints.positive,
        "rate": constraints.positive,
    }
    support = constraints.nonnegative

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = as_parameters(concentration, rate)
        super().__init__(self.concentration.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``concentration / rate``."""
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        """``(concentration - 1) / rate``, at least 0."""
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        """``concentration / rate**2``."""
        return self.concentration / self.rate.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Gamma variables over ``rate``."""
        shape = self._extended_shape(sample_shape)
        return standard_gamma(self.concentration.expand(shape)) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        a, b = self.concentration, self.rate
        return xlogy(a, b) + xlogy(a - 1, value) - b * value - lgamma(a)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return igamma(self.concentration, self.rate * value)

    def entropy(self) -> Tensor:
        """``a - log(rate) + lgamma(a) + (1 - a) digamma(a)`` of concentration a."""
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1 - a) * digamma(a)


class Chi2(Gamma):
    """The sum of the squares of ``df`` standard normal variables."""

    parameters: ClassVar[tuple[str, ...]] = ("df",)
    arg_constraints: ClassVar = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (df,) = as_parameters(df)
        super().__init__(0.5 * df, df.detach() * 0 + 0.5, validate_args)

    @property
    def df(self) -> Tensor:
        """Degrees of freedom."""
        return self.concentration * 2


class InverseGamma(Distribution):
    """The reciprocal of a gamma variable."""

    has_rsample = True
    parameters = ("concentration", "rate")
    arg_constraints: ClassVar = {
        "concentration": constraints.positive,
        "rate": constraints.positive,
    }
    support = constraints.positive

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.base_dist = Gamma(concentration, rate, validate_args)
        super().__init__(self.base_dist.batch_shape, (), validate_args)

    @property
    def concentration(self) -> Tensor:
        """Of the gamma variable."""
        return self.base_dist.concentration

    @property
    def rate(self) -> Tensor:
        """Of the gamma variable."""
        return self.base_dist.rate

    @property
    def mean(self) -> Tensor:
        """``rate / (concentration - 1)``; infinite up to 1."""
        a = self.concentration
        return where(a > 1, self.rate / (a - 1), math.inf)

    @property
    def mode(self) -> Tensor:
        """``rate / (concentration + 1)``."""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        """``rate^2 / ((a - 1)^2 (a - 2))``; infinite up to 2."""
        a = self.concentration
        finite = self.rate.square() / ((a - 1).square() * (a - 2))
        return where(a > 2, finite, math.inf)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One over a gamma variable."""
        return self.base_dist.rsample(sample_shape).reciprocal()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        return self.base_dist.log_prob(value.reciprocal()) - 2 * value.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        return 1 - self.base_dist.cdf(value.reciprocal())

    def entropy(self) -> Tensor:
        """``a + log(rate) + lgamma(a) - (1 + a) digamma(a)`` of concentration a."""
        a = self.concentration
        return a + self.rate.log() + lgamma(a) - (1 + a) * digamma(a)


class Dirichlet(Distribution):
    """Positive numbers that sum to 1 over the last axis."""

    has_rsample = True
    parameters = ("concentration",)
    arg_constraints: ClassVar = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex

    def __init__(self, concentration: Any, validate_args: bool | None = None) -> None:
        (self.concentration,) = as_parameters(concentration)
        if self.concentration.ndim < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        *batch, size = self.concentration.shape
        super().__init__(batch, (size,), validate_args)

    @property
    def mean(self) -> Tensor:
        """The concentrations over their sum."""
        return self.concentration / self._total()

    def _total(self) -> Tensor:
        return total(self.concentration, -1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        """``(a - 1) / sum(a - 1)``, at an end where all are below 1."""
        less = (self.concentration - 1).clamp(min=0.0)
        mode = less / total(less, -1, keepdim=True)
        flat = (self.concentration < 1).all(-1)
        size = self.concentration.shape[-1]
        corner = one_hot(self.concentration.argmax(-1), size).to(mode.dtype)
        return where(flat.unsqueeze(-1), corner, mode)

    @property
    def variance(self) -> Tensor:
        """``a (s - a) / (s^2 (s + 1))`` of concentrations a with sum s."""
        a, s = self.concentration, self._total()
        return a * (s - a) / (s.square() * (s + 1))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Gamma variables over their sum."""
        shape = self._extended_shape(sample_shape)
        drawn = standard_gamma(self.concentration.expand(shape))
        return drawn / total(drawn, -1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        a = self.concentration
        return total(xlogy(a - 1, value), -1) + lgamma(total(a, -1)) - total(lgamma(a), -1)

    def entropy(self) -> Tensor:
        """In nats, of the density over all but one of the numbers."""
        a, k = self.concentration, self.concentration.shape[-1]
        s = total(a, -1)
        inner = total((a - 1) * digamma(a), -1)
        return total(lgamma(a), -1) - lgamma(s) - (k - s) * digamma(s) - inner


class Beta(Distribution):
    """Density proportional to ``x^(c1 - 1) (1 - x)^(c0 - 1)`` on (0, 1)."""

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
        both = as_parameters(concentration1, concentration0)
        self._dirichlet = Dirichlet(stack(both, -1), validate_args)
        super().__init__(both[0].shape, (), validate_args)

    @property
    def concentration1(self) -> Tensor:
        """The exponent of x, and 1."""
        return self._dirichlet.concentration[..., 0]

    @property
    def concentration0(self) -> Tensor:
        """The exponent of 1 - x, and 1."""
        return self._dirichlet.concentration[..., 1]

    @property
    def mean(self) -> Tensor:
        """``c1 / (c1 + c0)``."""
        return self._dirichlet.mean[..., 0]

    @property
    def mode(self) -> Tensor:
        """The most probable value; an end where both are below 1."""
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Tensor:
        """``c1 c0 / ((c1 + c0)^2 (c1 + c0 + 1))``."""
        return self._dirichlet.variance[..., 0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One of two gamma variables over their sum."""
        return self._dirichlet.rsample(sample_shape)[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        a, b = self.concentration1, self.concentration0
        inside = xlogy(a - 1, value) + (b - 1) * log1p(-value)
        return inside + lgamma(a + b) - lgamma(a) - lgamma(b)

    def entropy(self) -> Tensor:
        """In nats."""
        return self._dirichlet.entropy()


class StudentT(Distribution):
    """``loc + scale * t`` of Student's t with ``df`` degrees of freedom."""

    has_rsample = True
    parameters = ("df", "loc", "scale")
    arg_constraints: ClassVar = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real

    def __init__(
        self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        self.df, self.loc, self.scale = as_parameters(df, loc, scale)
        super().__init__(self.df.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``loc``; NaN up to one degree of freedom."""
        return where(self.df > 1, self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``scale^2 df / (df - 2)``; infinite up to 2, NaN up to 1."""
        finite = self.scale.square() * self.df / (self.df - 2)
        return where(self.df > 2, finite, where(self.df > 1, math.inf, math.nan))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A normal variable over the root of a mean of squares."""
        shape = self._extended_shape(sample_shape)
        normal = randn(shape, dtype=self.df.dtype, device=self.df.device)
        squares = 2 * standard_gamma((0.5 * self.df).expand(shape))
        return self.loc + self.scale * normal * (squares / self.df).rsqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        away, df = (value - self.loc) / self.scale, self.df
        factor = self.scale.log() + 0.5 * df.log() + 0.5 * LOG_PI + lgamma(0.5 * df)
        return -0.5 * (df + 1) * log1p(away.square() / df) - factor + lgamma(0.5 * (df + 1))

    def entropy(self) -> Tensor:
        """In nats."""
        df, half = self.df, 0.5 * (self.df + 1)
        beta = lgamma(0.5 * df) + lgamma(df * 0 + 0.5) - lgamma(half)
        return self.scale.log() + half * (digamma(half) - digamma(0.5 * df)) + 0.5 * df.log() + beta
