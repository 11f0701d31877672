"""Distributions of whole numbers, drawn as floats.

Probabilities and moments as in Johnson, Kemp and Kotz, *Univariate Discrete Distributions*
(3rd edition, 2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.autograd.modes import no_grad
from graphflow.distributions import constraints
from graphflow.distributions.categorical import Categorical, OfCategories
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import Distribution, as_parameters, inside, one_of
from graphflow.functions.creation import arange, zeros
from graphflow.functions.elementwise import floor, log1p, logical_and, sigmoid, where
from graphflow.functions.manipulation import one_hot
from graphflow.functions.reductions import sum as total
from graphflow.functions.rejection import poisson_variables, standard_gamma
from graphflow.functions.special import lgamma, xlogy
from graphflow.mode import mode as tracing
from graphflow.nn.functional.activation import logsigmoid, softplus
from graphflow.rng import rand
from graphflow.tensor import Size, Tensor


class _Counts(Distribution):
    """Of whole numbers from 0 on."""

    support = constraints.nonnegative_integer


class Poisson(_Counts):
    """How many events happen of which ``rate`` are expected."""

    parameters = ("rate",)
    arg_constraints: ClassVar = {"rate": constraints.nonnegative}

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = as_parameters(rate)
        super().__init__(self.rate.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``rate``."""
        return self.rate

    @property
    def mode(self) -> Tensor:
        """``rate``, rounded down."""
        return floor(self.rate)

    @property
    def variance(self) -> Tensor:
        """``rate``."""
        return self.rate

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Whole numbers."""
        with no_grad():
            return poisson_variables(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._check_value(value)
        return xlogy(value, self.rate) - self.rate - lgamma(value + 1)


class OfTrials(_Counts):
    """Whose parameter is the probability of a success, or the logarithm of its odds."""

    arg_constraints: ClassVar = {"probs": constraints.unit_interval, "logits": constraints.real}

    def _take(self, probs: Any, logits: Any, *others: Any) -> list[Tensor]:
        name = type(self).__name__
        one_of(name, probs, logits)
        given = "probs" if logits is None else "logits"
        self.parameters = (*self.parameters[:-1], given)  # type: ignore[misc]
        self._given, *rest = as_parameters(probs if logits is None else logits, *others)
        return rest

    @property
    def probs(self) -> Tensor:
        """The probability of a success."""
        return self._given if self.parameters[-1] == "probs" else sigmoid(self._given)

    @property
    def logits(self) -> Tensor:
        """The logarithm of the odds of a success; finite."""
        if self.parameters[-1] == "logits":
            return self._given
        probs = inside(self._given)
        return probs.log() - log1p(-probs)

    @property
    def param_shape(self) -> Size:
        """The shape of ``probs`` and ``logits``."""
        return self._given.shape


class Geometric(OfTrials):
    """How many trials fail before the first success."""

    parameters = ("probs",)

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._take(probs, logits)
        super().__init__(self._given.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``1 / probs - 1``."""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.probs.detach() * 0

    @property
    def variance(self) -> Tensor:
        """``(1 - probs) / probs**2``."""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Whole numbers, by the inverse of the distribution function."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            unit = 1 - rand(shape, dtype=self._given.dtype, device=self._given.device)
            return floor(unit.log() / log1p(-inside(self.probs)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._check_value(value)
        return value * -softplus(self.logits) + logsigmoid(self.logits)

    def entropy(self) -> Tensor:
        """In nats."""
        p, logits = self.probs, self.logits
        return (softplus(logits) * (1 - p) - logsigmoid(logits) * p) / p


class _ManyTrials(OfTrials):
    """With a number of trials, or of those that may fail."""

    parameters = ("total_count", "probs")

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        (self.total_count,) = self._take(probs, logits, total_count)
        super().__init__(self._given.shape, (), validate_args)


class Binomial(_ManyTrials):
    """How many of ``total_count`` trials succeed."""

    has_enumerate_support = True
    arg_constraints: ClassVar = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(total_count, probs, logits, validate_args)
        self._most = total_count if isinstance(total_count, int) else None
        if self._most is None and tracing.tracer is None and self.total_count.numel():
            self._most = int(self.total_count.detach().max().item())

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Constraint:
        """Which values can be drawn."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """``total_count * probs``."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """The most probable number of successes."""
        likely = floor((self.total_count + 1) * self.probs)
        return likely.minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        """``total_count * probs * (1 - probs)``."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Successes counted one trial at a time: memory for as many as the largest count."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            most = self._largest()
            number = arange(most, dtype=self._given.dtype, device=self._given.device)
            unit = rand((*shape, most), dtype=self._given.dtype, device=self._given.device)
            hit = logical_and(
                unit < self.probs.unsqueeze(-1), number < self.total_count.unsqueeze(-1)
            )
            return total(hit.to(self._given.dtype), -1)

    def _largest(self) -> int:
        """The largest count, which has to be known before it is traced."""
        if self._most is None:
            self._most = int(self.total_count.max().item()) if self.total_count.numel() else 0
        return self._most

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._check_value(value)
        return self._log_prob(value)

    def _log_prob(self, value: Tensor) -> Tensor:
        n, logits = self.total_count, self.logits
        ways = lgamma(n + 1) - lgamma(value + 1) - lgamma(n - value + 1)
        return ways + value * logits - n * softplus(logits)

    def entropy(self) -> Tensor:
        """In nats: the sum over all values up to the largest count."""
        values = self._values()
        possible = values <= self.total_count
        logs = self._log_prob(where(possible, values, 0.0))
        return -total(where(possible, logs.exp() * logs, 0.0), 0)

    def _values(self) -> Tensor:
        """0 to the largest count, along a new first axis."""
        values = arange(self._largest() + 1, dtype=self._given.dtype, device=self._given.device)
        return values.reshape(-1, *(1 for _ in self.batch_shape))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 to ``total_count``, one number for all, along a new first axis."""
        most = self._largest()
        if int(self.total_count.min().item()) != most:
            raise NotImplementedError(
                "Inhomogeneous total count not supported by `enumerate_support`."
            )
        values = self._values()
        return values.expand((most + 1, *self.batch_shape)) if expand else values


class NegativeBinomial(_ManyTrials):
    """How many trials succeed before ``total_count`` failed."""

    arg_constraints: ClassVar = {
        "total_count": constraints.nonnegative,
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }

    @property
    def mean(self) -> Tensor:
        """``total_count * exp(logits)``."""
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Tensor:
        """The most probable number."""
        return floor((self.total_count - 1) * self.logits.exp()).clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        """The mean over ``1 - probs``."""
        return self.mean / sigmoid(-self.logits)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Poisson variables whose rate is a gamma variable."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            drawn = standard_gamma(self.total_count.detach().expand(shape))
            return poisson_variables(drawn * self.logits.exp())

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._check_value(value)
        n = self.total_count
        ways = lgamma(n + value) - lgamma(value + 1) - lgamma(n)
        ways = where(n + value == 0, 0.0, ways)
        return n * logsigmoid(-self.logits) + value * logsigmoid(self.logits) + ways


class Multinomial(OfCategories, _Counts):
    """How often each of the categories in the last axis comes in ``total_count`` draws."""

    parameters = ("probs",)
    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(
        self, total_count: int = 1, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._choice = Categorical(probs, logits, validate_args)
        self.parameters = ("probs",) if logits is None else ("logits",)  # type: ignore[misc]
        size = self._choice.probs.shape[-1]
        super().__init__(self._choice.batch_shape, (size,), validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Constraint:
        """Which values can be drawn."""
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        """``total_count * probs``."""
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        """``total_count * probs * (1 - probs)``."""
        return self.total_count * self.probs * (1 - self.probs)

    def expand(self, batch_shape: Sequence[int]) -> Multinomial:
        """The same with parameters repeated to ``batch_shape``."""
        tail = (*batch_shape, *self.event_shape)
        return Multinomial(self.total_count, logits=self.logits.expand(tail))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts that sum to ``total_count``."""
        with no_grad():
            if not self.total_count:
                return zeros(self._extended_shape(sample_shape), dtype=self.probs.dtype)
            drawn = self._choice.sample((self.total_count, *sample_shape))
            hits = one_hot(drawn, self.event_shape[0]).to(self.probs.dtype)
            return total(hits, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._check_value(value)
        terms = where(logical_and(value == 0, self.probs == 0), 0.0, value * self.logits)
        ways = lgamma(total(value, -1) + 1) - total(lgamma(value + 1), -1)
        return ways + total(terms, -1)

    def entropy(self) -> Tensor:
        """In nats: that of the draws in order, less that of the order."""
        n = self.total_count
        each = Binomial(n, self.probs)
        values = arange(1, n + 1, dtype=self.probs.dtype, device=self.probs.device)
        values = values.reshape(-1, *(1 for _ in self.probs.shape))
        orders = total(each.log_prob(values).exp() * lgamma(values + 1), (0, -1))
        return n * self._choice.entropy() - math.lgamma(n + 1) + orders
