"""Several independent draws as one draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import Distribution
from graphflow.tensor import Tensor


class Independent(Distribution):
    """``base_distribution`` with its last ``reinterpreted_batch_ndims`` batch axes in the event:
    their log-probabilities and entropies are summed."""

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        batch = base_distribution.batch_shape
        if reinterpreted_batch_ndims > len(batch):
            raise ValueError(
                f"Independent: {reinterpreted_batch_ndims} batch axes should move into the event, "
                f"but {base_distribution} has {len(batch)}"
            )
        self.base_dist, self.reinterpreted_batch_ndims = (
            base_distribution,
            reinterpreted_batch_ndims,
        )
        kept = len(batch) - reinterpreted_batch_ndims
        event = (*batch[kept:], *base_distribution.event_shape)
        super().__init__(batch[:kept], event, validate_args)

    @constraints.dependent_property
    def support(self) -> Constraint:
        """Blocks of values of the base distribution."""
        return constraints.independent(self.base_dist.support, self.reinterpreted_batch_ndims)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether all values are listed: those of a base whose axes stay as they are."""
        return self.base_dist.has_enumerate_support and not self.reinterpreted_batch_ndims

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether samples carry gradients to the parameters."""
        return self.base_dist.has_rsample

    @property
    def mean(self) -> Tensor:
        """That of the base distribution."""
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        """That of the base distribution."""
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        """That of the base distribution."""
        return self.base_dist.variance

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A sample of the base distribution."""
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A differentiable sample of the base distribution."""
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the axes of the event."""
        return self._summed(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        """The sum over the axes of the event."""
        return self._summed(self.base_dist.entropy())

    def _summed(self, x: Tensor) -> Tensor:
        axes = tuple(range(-self.reinterpreted_batch_ndims, 0))
        return x.sum(axes) if axes else x

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Of no axes only: the values of several draws together are too many."""
        if self.reinterpreted_batch_ndims:
            raise NotImplementedError("Independent: the values of several draws are not listed")
        return self.base_dist.enumerate_support(expand)

    def expand(self, batch_shape: Sequence[int]) -> Self:
        """The same with parameters repeated to ``batch_shape``."""
        moved = self.event_shape[: self.reinterpreted_batch_ndims]
        base = self.base_dist.expand((*batch_shape, *moved))
        return type(self)(base, self.reinterpreted_batch_ndims, self._validate_args)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"
