"""Distributions that are made of others: transformed ones, mixtures, relaxed choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.autograd.modes import no_grad
from graphflow.distributions import constraints
from graphflow.distributions.categorical import Categorical, OfCategories
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.counts import OfTrials
from graphflow.distributions.distribution import Distribution, as_parameters
from graphflow.distributions.more_univariate import unit_numbers
from graphflow.distributions.transform import ComposeTransform, Transform, summed
from graphflow.distributions.transforms import StickBreakingTransform
from graphflow.distributions.univariate import Normal
from graphflow.functions.elementwise import log1p, sigmoid
from graphflow.functions.picking import gather
from graphflow.functions.reductions import log_softmax, logsumexp, softmax
from graphflow.nn.functional.activation import softplus
from graphflow.tensor import Tensor


class TransformedDistribution(Distribution):
    """``transforms``, one after another, of a draw of ``base_distribution``."""

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform],
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        given = [transforms] if isinstance(transforms, Transform) else list(transforms)
        self.transforms: list[Transform] = given
        self.base_dist = base_distribution
        whole = ComposeTransform(self.transforms)
        shape = tuple(base_distribution.batch_shape) + tuple(base_distribution.event_shape)
        made = whole.forward_shape(shape)
        dims = max(whole.event_dim, len(base_distribution.event_shape))
        self.has_rsample = base_distribution.has_rsample  # type: ignore[misc]
        super().__init__(made[: len(made) - dims], made[len(made) - dims :], validate_args)

    @constraints.dependent_property
    def support(self) -> Constraint:
        """What the last transform leads to, over the axes of an event."""
        if not self.transforms:
            return self.base_dist.support
        reached = self.transforms[-1].codomain
        extra = len(self.event_shape) - reached.event_dim
        return constraints.independent(reached, extra) if extra else reached

    def expand(self, batch_shape: Sequence[int]) -> TransformedDistribution:
        """The same with parameters repeated to ``batch_shape``."""
        extra = len(self.event_shape) - len(self.base_dist.event_shape)
        shape = tuple(self.base_dist.batch_shape)
        inner = shape[len(shape) - extra :] if extra else ()
        base = self.base_dist.expand((*batch_shape, *inner))
        return TransformedDistribution(base, self.transforms, self._validate_args)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, without gradients."""
        with no_grad():
            return self._transformed(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, with gradients."""
        return self._transformed(self.base_dist.rsample(sample_shape))

    def _transformed(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's, less the logarithm of how the transforms stretch."""
        dims, found, y = len(self.event_shape), 0.0, value
        for transform in reversed(self.transforms):
            x = transform._inv_call(y)
            stretch = transform.log_abs_det_jacobian(x, y)
            found = found - summed(stretch, dims - transform.event_dim)
            y = x
        return found + summed(self.base_dist.log_prob(y), dims - len(self.base_dist.event_shape))

    def _rises(self, what: str) -> bool:
        if self.event_shape:
            raise self._missing(what)
        sign = math.prod(transform.sign for transform in self.transforms)
        if not sign:
            raise NotImplementedError("a transform does not say whether it rises or falls")
        return sign > 0

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``; of single numbers."""
        rises = self._rises("cdf")
        for transform in reversed(self.transforms):
            value = transform._inv_call(value)
        below = self.base_dist.cdf(value)
        return below if rises else 1 - below

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability ``value``; of single numbers."""
        return self._transformed(self.base_dist.icdf(value if self._rises("icdf") else 1 - value))

    def __repr__(self) -> str:
        return f"TransformedDistribution({self.base_dist}, {self.transforms})"


class LogisticNormal(TransformedDistribution):
    """Shares [n + 1], by breaking sticks at n normal variables of ``loc`` and ``scale`` [..., n].

    J. Aitchison and S. Shen, "Logistic-normal distributions: some properties and uses" (1980).
    """

    has_rsample = True
    parameters = ("loc", "scale")
    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args)
        base = base if base.batch_shape else base.expand([1])
        super().__init__(base, StickBreakingTransform(), validate_args)

    @property
    def loc(self) -> Tensor:
        """The means of the normal variables."""
        return self._normal.loc

    @property
    def scale(self) -> Tensor:
        """The standard deviations of the normal variables."""
        return self._normal.scale

    @property
    def _normal(self) -> Any:
        return self.base_dist

    def expand(self, batch_shape: Sequence[int]) -> LogisticNormal:
        """The same with parameters repeated to ``batch_shape``."""
        shape = (*batch_shape, self.loc.shape[-1])
        return LogisticNormal(self.loc.expand(shape), self.scale.expand(shape), False)

    def __repr__(self) -> str:
        return Distribution.__repr__(self)


class MixtureSameFamily(Distribution):
    """One of the distributions along the last batch axis, chosen by ``mixture_distribution``."""

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError("The Mixture distribution needs to be a Categorical")
        batch = component_distribution.batch_shape
        number = mixture_distribution.probs.shape[-1]
        if not batch or batch[-1] != number:
            raise ValueError(
                f"the last batch axis of the components {tuple(batch)} must have the {number} "
                "entries of the mixture"
            )
        self.mixture_distribution = mixture_distribution
        self.component_distribution = component_distribution
        super().__init__(batch[:-1], component_distribution.event_shape, validate_args)

    @constraints.dependent_property
    def support(self) -> Constraint:
        """Values that all components can have."""
        return constraints.MixtureSameFamilyConstraint(self.component_distribution.support)

    def _weights(self) -> Tensor:
        probs = self.mixture_distribution.probs
        return probs.reshape(tuple(probs.shape) + (1,) * len(self.event_shape))

    def _axis(self) -> int:
        return -1 - len(self.event_shape)

    @property
    def mean(self) -> Tensor:
        """The components' means, weighted."""
        return (self._weights() * self.component_distribution.mean).sum(self._axis())

    @property
    def variance(self) -> Tensor:
        """Within the components and between them."""
        own, weights = self.component_distribution, self._weights()
        axis = self._axis()
        inside = (weights * own.variance).sum(axis)
        away = own.mean - self.mean.unsqueeze(axis)
        return inside + (weights * away.square()).sum(axis)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        below = self.component_distribution.cdf(value.unsqueeze(self._axis()))
        return (below * self.mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the weighted sum of densities."""
        logs = self.component_distribution.log_prob(value.unsqueeze(self._axis()))
        return logsumexp(logs + log_softmax(self.mixture_distribution.logits, -1), -1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw of the component that is chosen."""
        with no_grad():
            chosen = self.mixture_distribution.sample(sample_shape)
            drawn = self.component_distribution.sample(sample_shape)
            axis, tail = self._axis(), (1,) * len(self.event_shape)
            index = chosen.reshape((*chosen.shape, 1, *tail))
            shape = list(drawn.shape)
            shape[drawn.ndim + axis] = 1
            return gather(drawn, drawn.ndim + axis, index.expand(shape)).squeeze(axis)

    def expand(self, batch_shape: Sequence[int]) -> MixtureSameFamily:
        """The same with parameters repeated to ``batch_shape``."""
        number = self.mixture_distribution.probs.shape[-1]
        component = self.component_distribution.expand((*batch_shape, number))
        return MixtureSameFamily(self.mixture_distribution.expand(batch_shape), component)

    def __repr__(self) -> str:
        parts = f"{self.mixture_distribution}, {self.component_distribution}"
        return f"MixtureSameFamily({parts})"


class RelaxedBernoulli(OfTrials):
    """Numbers in (0, 1), the nearer its ends the lower ``temperature``.

    Maddison, Mnih and Teh 2017, "The Concrete Distribution"; Jang, Gu and Poole 2017.
    """

    has_rsample = True
    parameters = ("probs",)
    support = constraints.unit_interval

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._take(probs, logits)
        (self.temperature,) = as_parameters(temperature)
        super().__init__(self._given.shape, (), validate_args)

    def expand(self, batch_shape: Sequence[int]) -> RelaxedBernoulli:
        """The same with parameters repeated to ``batch_shape``."""
        given = {self.parameters[-1]: self._given.expand(tuple(batch_shape))}
        return RelaxedBernoulli(self.temperature, **given, validate_args=self._validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The sigmoid of logistic noise about the logits, over the temperature."""
        unit = unit_numbers(self._given, self._extended_shape(sample_shape))
        noise = unit.log() - log1p(-unit)
        return sigmoid((noise + self.logits) / self.temperature)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        inner = value.log() - log1p(-value)
        away = self.logits - inner * self.temperature
        logs = self.temperature.log() + away - 2 * softplus(away)
        return logs + softplus(-inner) + softplus(inner)


class RelaxedOneHotCategorical(OfCategories, Distribution):
    """Positive numbers that sum to 1, the nearer a corner the lower ``temperature``."""

    has_rsample = True
    arg_constraints: ClassVar = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._choice = Categorical(probs, logits, validate_args)
        self.parameters = self._choice.parameters  # type: ignore[misc]
        (self.temperature,) = as_parameters(temperature)
        size = self._choice.probs.shape[-1]
        super().__init__(self._choice.batch_shape, (size,), validate_args)

    def expand(self, batch_shape: Sequence[int]) -> RelaxedOneHotCategorical:
        """The same with parameters repeated to ``batch_shape``."""
        logits = self.logits.expand((*batch_shape, *self.event_shape))
        return RelaxedOneHotCategorical(self.temperature, logits=logits)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The softmax of the logits with Gumbel noise, over the temperature."""
        unit = unit_numbers(self.logits, self._extended_shape(sample_shape))
        return softmax((self.logits - (-unit.log()).log()) / self.temperature, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        size, logs = self.event_shape[0], value.log()
        score = self.logits - logs * self.temperature
        score = (score - logsumexp(score, -1, keepdim=True)).sum(-1)
        scale = (size - 1) * self.temperature.log() + math.lgamma(size)
        return score + scale - logs.sum(-1)
