"""Distributions of a choice among several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.autograd.modes import no_grad
from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import (
    Distribution,
    as_parameters,
    inside,
    normalised,
    one_of,
)
from graphflow.functions.creation import arange, eye, full_like
from graphflow.functions.distributions import multinomial
from graphflow.functions.manipulation import one_hot
from graphflow.functions.reductions import softmax
from graphflow.number_formats import finfo
from graphflow.tensor import Tensor


class Categorical(Distribution):
    """One of the whole numbers below n, with ``probs`` [..., n] in proportion, or by the
    unnormalised logarithms ``logits`` [..., n]."""

    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        one_of("Categorical", probs, logits)
        self.parameters = ("probs",) if logits is None else ("logits",)  # type: ignore[misc]
        (given,) = as_parameters(probs if logits is None else logits)
        if given.ndim < 1:
            raise ValueError(f"Categorical: {self.parameters[0]} should have at least 1 dimension")
        if logits is None:
            self._given = given / given.sum(-1, keepdim=True)
        else:
            self._given = normalised(given)
        super().__init__(given.shape[:-1], (), validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Constraint:
        """Which values can be drawn."""
        return constraints.integer_interval(0, self._given.shape[-1] - 1)

    @property
    def probs(self) -> Tensor:
        """Probabilities [..., n]."""
        return self._given if self.parameters == ("probs",) else softmax(self._given, -1)

    @property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities [..., n]; finite if made of ``probs``."""
        return self._given if self.parameters == ("logits",) else inside(self._given).log()

    @property
    def param_shape(self) -> Any:
        """The shape of ``probs``."""
        return self._given.shape

    @property
    def mean(self) -> Tensor:
        """NaN: numbers of choices have no mean."""
        return full_like(self._given[..., 0], math.nan)

    @property
    def variance(self) -> Tensor:
        """NaN, likewise."""
        return full_like(self._given[..., 0], math.nan)

    @property
    def mode(self) -> Tensor:
        """The most probable choice (int64)."""
        return self._given.argmax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Choices (int64)."""
        with no_grad():
            rows = self.probs.reshape(-1, self._given.shape[-1])
            drawn = multinomial(rows, math.prod(sample_shape), True)
            return drawn.t().reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of a choice."""
        self._check_value(value)
        shape = (self._given[..., 0] + value).shape
        logits = self.logits.expand((*shape, self._given.shape[-1]))
        return logits.gather(-1, value.long().expand(shape).unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """``-sum(p log(p))``."""
        logits = self.logits.clamp(min=finfo(self._given.dtype).min)  # 0 * -inf would be NaN
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All choices, along a new first axis."""
        count = self._given.shape[-1]
        values = arange(count, device=self._given.device)
        values = values.reshape(count, *(1 for _ in self.batch_shape))
        return values.expand((count, *self.batch_shape)) if expand else values


class OfCategories:
    """What has a :class:`Categorical` inside, and shows its probabilities."""

    _choice: Categorical

    @property
    def probs(self) -> Tensor:
        """Probabilities [..., n]."""
        return self._choice.probs

    @property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities [..., n]."""
        return self._choice.logits


class OneHotCategorical(OfCategories, Distribution):
    """A choice as in :class:`Categorical`, as a vector [n] of zeros and a one."""

    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    support = constraints.one_hot

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._choice = Categorical(probs, logits, validate_args)
        self.parameters = self._choice.parameters  # type: ignore[misc]
        shape = self._choice.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        """``probs``."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The most probable choice."""
        return self._as_one_hot(self._choice.mode)

    @property
    def variance(self) -> Tensor:
        """``probs * (1 - probs)``."""
        return self.probs * (1 - self.probs)

    def _as_one_hot(self, choice: Tensor) -> Tensor:
        return one_hot(choice, self._event_shape[0]).to(self.probs.dtype)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Vectors of zeros and a one."""
        return self._as_one_hot(self._choice.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of a choice."""
        self._check_value(value)
        return self._choice.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        """``-sum(p log(p))``."""
        return self._choice.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All choices, along a new first axis."""
        count = self._event_shape[0]
        values = eye(count, dtype=self.probs.dtype, device=self.probs.device)
        values = values.reshape(count, *(1 for _ in self.batch_shape), count)
        return values.expand((count, *self.batch_shape, count)) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """The same, with the gradient of ``probs`` for that of a sample (Bengio et al. 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A sample to which the gradient of ``probs`` is lent."""
        return self.sample(sample_shape) + (self.probs - self.probs.detach())
