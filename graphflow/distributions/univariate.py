"""Distributions of single numbers.

Densities, moments and entropies as in Johnson, Kotz and Balakrishnan, *Continuous Univariate
Distributions* (2nd edition, 1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.autograd.modes import no_grad
from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import Distribution, as_parameters, inside, one_of
from graphflow.functions.creation import tensor
from graphflow.functions.elementwise import erf, log1p, sigmoid, where
from graphflow.functions.special import erfinv
from graphflow.nn.functional.loss import binary_cross_entropy_with_logits
from graphflow.rng import bernoulli, rand, randn
from graphflow.tensor import Size, Tensor

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


class _LocationScale(Distribution):
    """Of one shape, about ``loc``, ``scale`` times as wide."""

    has_rsample = True
    parameters = ("loc", "scale")
    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = as_parameters(loc, scale)
        super().__init__(self.loc.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc


class Normal(_LocationScale):
    """The normal distribution of mean ``loc`` and standard deviation ``scale``."""

    @property
    def stddev(self) -> Tensor:
        """``scale``."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The square of ``scale``."""
        return self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """``loc + scale * e`` of standard normal ``e``."""
        shape = self._extended_shape(sample_shape)
        unit = randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + unit * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        away = (value - self.loc) / self.scale
        return -0.5 * away.square() - self.scale.log() - _LOG_ROOT_2PI

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return 0.5 * (1 + erf((value - self.loc) / (self.scale * math.sqrt(2))))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return self.loc + self.scale * erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        """``log(scale * sqrt(2 pi e))``."""
        return 0.5 + _LOG_ROOT_2PI + self.scale.log()


class LogNormal(Distribution):
    """``exp`` of a normal variable of mean ``loc`` and standard deviation ``scale``."""

    has_rsample = True
    parameters = ("loc", "scale")
    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.base_dist = Normal(loc, scale, validate_args)
        super().__init__(self.base_dist.batch_shape, (), validate_args)

    @property
    def loc(self) -> Tensor:
        """The mean of the logarithm."""
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the logarithm."""
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        """``exp(loc + scale**2 / 2)``."""
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self) -> Tensor:
        """``exp(loc - scale**2)``."""
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        """``(exp(scale**2) - 1) * exp(2 loc + scale**2)``."""
        square = self.scale.square()
        return square.expm1() * (2 * self.loc + square).exp()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """``exp`` of a normal sample."""
        return self.base_dist.rsample(sample_shape).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        return self.base_dist.log_prob(value.log()) - value.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return self.base_dist.cdf(value.log())

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return self.base_dist.icdf(value).exp()

    def entropy(self) -> Tensor:
        """That of the normal variable, and ``loc``."""
        return self.base_dist.entropy() + self.loc


class Uniform(Distribution):
    """Equal density on [``low``, ``high``)."""

    has_rsample = True
    parameters = ("low", "high")
    arg_constraints: ClassVar = {"low": constraints.dependent, "high": constraints.dependent}

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = as_parameters(low, high)
        super().__init__(self.low.shape, (), validate_args)
        if self._validate_args:
            self._require(self.low < self.high, "high", "greater than low", self.high)

    @constraints.dependent_property
    def support(self) -> Constraint:
        """Which values can be drawn."""
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return (self.low + self.high) / 2

    @property
    def mode(self) -> Tensor:
        """NaN: no value is more probable than others."""
        return self.high.detach() * math.nan

    @property
    def variance(self) -> Tensor:
        """A twelfth of the squared length."""
        return (self.high - self.low).square() / 12

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """``low + (high - low) * u`` of uniform ``u``."""
        shape = self._extended_shape(sample_shape)
        unit = rand(shape, dtype=self.low.dtype, device=self.low.device)
        return self.low + unit * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """``-log(high - low)``, and minus infinity outside."""
        self._check_value(value)
        within = (value >= self.low).logical_and(value < self.high)
        return within.to(self.low.dtype).log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        """``log(high - low)``."""
        return (self.high - self.low).log()


class Exponential(Distribution):
    """Waiting times of events that come ``rate`` times a unit of time."""

    has_rsample = True
    parameters = ("rate",)
    arg_constraints: ClassVar = {"rate": constraints.positive}
    support = constraints.nonnegative

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = as_parameters(rate)
        super().__init__(self.rate.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``1 / rate``."""
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.rate * 0

    @property
    def stddev(self) -> Tensor:
        """``1 / rate``."""
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        """``1 / rate**2``."""
        return self.rate.square().reciprocal()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """``-log(1 - u) / rate`` of uniform ``u``."""
        shape = self._extended_shape(sample_shape)
        unit = rand(shape, dtype=self.rate.dtype, device=self.rate.device)
        return -log1p(-unit) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """``log(rate) - rate * value``."""
        self._check_value(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        return 1 - (-self.rate * value).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        return -log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        """``1 - log(rate)``."""
        return 1 - self.rate.log()


class Laplace(_LocationScale):
    """Density ``exp(-|x - loc| / scale) / (2 scale)``."""

    @property
    def variance(self) -> Tensor:
        """``2 scale**2``."""
        return 2 * self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        shape = self._extended_shape(sample_shape)
        # In (-0.5, 0.5), both ends apart from which the logarithm is finite.
        unit = rand(shape, dtype=self.loc.dtype, device=self.loc.device) - 0.5
        return self.loc - self.scale * unit.sign() * log1p((-2 * unit.abs()).clamp(min=-1 + 1e-7))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        return -(2 * self.scale).log() - (value - self.loc).abs() / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        self._check_value(value)
        away = value - self.loc
        return 0.5 - 0.5 * away.sign() * (-away.abs() / self.scale).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``."""
        middle = value - 0.5
        return self.loc - self.scale * middle.sign() * log1p(-2 * middle.abs())

    def entropy(self) -> Tensor:
        """``1 + log(2 scale)``."""
        return 1 + (2 * self.scale).log()


class Bernoulli(Distribution):
    """1 with probability ``probs``, else 0; ``logits``: the logarithm of the odds."""

    arg_constraints: ClassVar = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        one_of("Bernoulli", probs, logits)
        self.parameters = ("probs",) if logits is None else ("logits",)  # type: ignore[misc]
        (self._given,) = as_parameters(probs if logits is None else logits)
        super().__init__(self._given.shape, (), validate_args)

    @property
    def probs(self) -> Tensor:
        """The probability of 1."""
        return self._given if self.parameters == ("probs",) else sigmoid(self._given)

    @property
    def logits(self) -> Tensor:
        """The logarithm of the odds of 1; finite."""
        if self.parameters == ("logits",):
            return self._given
        probs = inside(self._given)
        return probs.log() - log1p(-probs)

    @property
    def param_shape(self) -> Size:
        """The shape of ``probs`` and ``logits``."""
        return self._given.shape

    @property
    def mean(self) -> Tensor:
        """``probs``."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """1 or 0, and NaN where both are as probable."""
        probs = self.probs
        return where(probs == 0.5, math.nan, (probs > 0.5).to(probs.dtype))

    @property
    def variance(self) -> Tensor:
        """``probs * (1 - probs)``."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Zeros and ones."""
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._check_value(value)
        logits, value = self.logits, value.to(self._given.dtype)
        shape = (logits + value).shape
        return -binary_cross_entropy_with_logits(
            logits.expand(shape), value.expand(shape), reduction="none"
        )

    def entropy(self) -> Tensor:
        """``-p log(p) - (1 - p) log(1 - p)``."""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1, along a new first axis."""
        values = tensor([0.0, 1.0], dtype=self._given.dtype, device=self._given.device)
        values = values.reshape(2, *(1 for _ in self.batch_shape))
        return values.expand((2, *self.batch_shape)) if expand else values
