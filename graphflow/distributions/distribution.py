"""What all distributions have in common: shapes, checks, and what follows from ``rsample``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from graphflow.autograd.modes import no_grad
from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint, is_dependent
from graphflow.functions.creation import as_tensor
from graphflow.functions.joining import broadcast_tensors
from graphflow.functions.reductions import logsumexp
from graphflow.mode import mode as tracing
from graphflow.number_formats import finfo
from graphflow.promotion import get_default_dtype
from graphflow.tensor import Size, Tensor

EULER = 0.57721566490153286
LOG_PI = math.log(math.pi)


class Distribution:
    """Base of distributions.

    A sample has the shape ``sample_shape + batch_shape + event_shape``: ``batch_shape`` counts
    distributions with parameters of their own, ``event_shape`` is the shape of one draw.
    Parameters and values are checked (``validate_args=False``: not), apart from compiled code,
    which does not know them while it is traced.
    """

    has_rsample: ClassVar[bool] = False
    """Whether samples carry gradients to the parameters."""
    parameters: ClassVar[tuple[str, ...]] = ()
    """The names under which the parameters are attributes and arguments."""
    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    """Which values parameters may have, those too that are other forms of ``parameters``."""
    has_enumerate_support: ClassVar[bool] = False
    """Whether :meth:`enumerate_support` lists all values."""
    _validates: ClassVar[bool] = True

    def __init__(
        self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        self._validate_args = self._validates if validate_args is None else validate_args
        if self._validate_args and tracing.tracer is None:
            for name in self.parameters:
                constraint = self.arg_constraints[name]
                if not is_dependent(constraint):
                    value = getattr(self, name)
                    self._require(constraint.check(value), name, constraint.demand, value)

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions check what they are given where they aren't told."""
        Distribution._validates = bool(value)

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters: one distribution an element."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one draw of one distribution."""
        return self._event_shape

    @constraints.dependent_property
    def support(self) -> Constraint:
        """Which values can be drawn."""
        raise self._missing("support")

    # ---- what a distribution is ----------------------------------------------------------

    @property
    def mean(self) -> Tensor:
        """The expected value, of batch and event shape."""
        raise self._missing("mean")

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        raise self._missing("mode")

    @property
    def variance(self) -> Tensor:
        """The variance, of batch and event shape."""
        raise self._missing("variance")

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A sample that is a differentiable function of the parameters."""
        raise self._missing("rsample")

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A sample, or a ``sample_shape`` of them, without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density (of the probability, if discrete) at ``value``."""
        raise self._missing("log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a draw of at most ``value``."""
        raise self._missing("cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`cdf`."""
        raise self._missing("icdf")

    def entropy(self) -> Tensor:
        """The entropy in nats, of batch shape."""
        raise self._missing("entropy")

    def perplexity(self) -> Tensor:
        """``exp`` of the entropy."""
        return self.entropy().exp()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, along a new first axis; for few values only."""
        raise self._missing("enumerate_support")

    def expand(self, batch_shape: Sequence[int]) -> Self:
        """The same with parameters repeated to ``batch_shape``."""
        given: dict[str, Any] = {}
        for name in self.parameters:
            value = getattr(self, name)
            inner = self.arg_constraints[name].event_dim
            tail = tuple(value.shape[value.ndim - inner :])
            given[name] = value.expand((*batch_shape, *tail))
        made = type(self)(**given, validate_args=False)  # these parameters were checked
        made._validate_args = self._validate_args
        return made

    # ---- for sub-classes -------------------------------------------------------------------

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _missing(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} has no {what}")

    def _require(self, holds: Tensor, name: str, demand: str, value: Tensor) -> None:
        """Raise if an element of ``holds`` is false (or NaN made it so)."""
        if tracing.tracer is None and not bool(holds.all()):
            raise ValueError(
                f"{type(self).__name__}: {name} should be {demand}, but got\n{value.detach()}"
            )

    def _check_value(self, value: Tensor) -> None:
        """Raise if ``value`` is no value of this distribution."""
        if not self._validate_args:
            return
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{type(self).__name__}: value should be a tensor, got {type(value).__name__}"
            )
        tail = self._extended_shape()
        for own, given in zip(reversed(tail), reversed(value.shape), strict=False):
            if own != given and own != 1 and given != 1:
                raise ValueError(
                    f"{type(self).__name__}: a value of shape {tuple(value.shape)} does not fit "
                    f"batch and event shape {tuple(tail)}"
                )
        if tracing.tracer is not None:
            return
        try:
            support = self.support
        except NotImplementedError:  # of a class that does not say what can be drawn
            return
        if not is_dependent(support):
            self._require(support.check(value), "value", support.demand, value)

    def __repr__(self) -> str:
        def shown(value: Tensor) -> str:
            if value.numel() == 1 and tracing.tracer is None:
                return str(value.detach().item())
            return f"{tuple(value.shape)}"

        inside = ", ".join(f"{n}: {shown(getattr(self, n))}" for n in self.parameters)
        return f"{type(self).__name__}({inside})"


def as_parameters(*values: Any) -> list[Tensor]:
    """Numbers and tensors as tensors of one shape."""
    like = next((v for v in values if isinstance(v, Tensor)), None)
    dtype = get_default_dtype() if like is None else like.dtype
    device = None if like is None else like.device
    made = [
        v if isinstance(v, Tensor) else as_tensor(v, dtype=dtype, device=device) for v in values
    ]
    return list(broadcast_tensors(*made))


def one_of(name: str, probs: Any, logits: Any) -> None:
    """Raise unless exactly one of the two is given."""
    if (probs is None) == (logits is None):
        raise ValueError(f"{name}: either probs or logits must be given, and not both")


def inside(probs: Tensor) -> Tensor:
    """Probabilities moved away from 0 and 1, so that logarithms are finite."""
    least = finfo(probs.dtype).eps
    return probs.clamp(least, 1 - least)


def normalised(logits: Tensor) -> Tensor:
    """Logarithms of probabilities that sum to 1 over the last axis."""
    return logits - logsumexp(logits, -1, keepdim=True)
