"""Which values parameters and draws may have, by the names of ``torch.distributions.constraints``.

``constraint.check(value)`` says it of every value, of which the last ``event_dim`` axes are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from graphflow.distributions.parts import Parts
from graphflow.functions.arithmetic import isclose
from graphflow.functions.diagonals import tril
from graphflow.functions.elementwise import floor, where
from graphflow.linalg import eigvalsh
from graphflow.number_formats import finfo
from graphflow.tensor import Tensor

__all__ = [
    "Constraint", "MixtureSameFamilyConstraint", "boolean", "cat", "corr_cholesky", "dependent",
    "dependent_property", "greater_than", "greater_than_eq", "half_open_interval", "independent",
    "integer_interval", "interval", "is_dependent", "less_than", "lower_cholesky",
    "lower_triangular", "multinomial", "nonnegative", "nonnegative_integer", "one_hot",
    "positive", "positive_definite", "positive_integer", "positive_semidefinite", "real",
    "real_vector", "simplex", "square", "stack", "symmetric", "unit_interval",
]  # fmt: skip


class Constraint:
    """A set of values."""

    is_discrete: bool = False
    event_dim: int = 0
    """How many of the last axes belong to one value."""
    demand: str = "allowed"
    """What a value should be, in words."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is in the set (bool, without the axes of the event)."""
        raise NotImplementedError(f"{type(self).__name__} does not define check()")

    def __repr__(self) -> str:
        own = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__.lstrip('_')}({own})"


# ---- of what is not known before there is a distribution -----------------------------


class _Dependent(Constraint):
    """Which values there are depends on other parameters: nothing is checked."""


dependent = _Dependent()


def is_dependent(constraint: Constraint) -> bool:
    """Whether a constraint depends on other parameters."""
    return isinstance(constraint, _Dependent)


class _DependentProperty(_Dependent):
    """A constraint that a distribution makes of its parameters; of its class, dependent."""

    def __init__(self, make: Callable[[Any], Constraint]) -> None:
        self._make = make

    def __get__(self, owner: Any, kind: type | None = None) -> Constraint:
        return self if owner is None else self._make(owner)


@overload
def dependent_property(make: Callable[[Any], Constraint]) -> Constraint: ...
@overload
def dependent_property(
    *, is_discrete: bool = False, event_dim: int = 0
) -> Callable[[Callable[[Any], Constraint]], Constraint]: ...
def dependent_property(
    make: Callable[[Any], Constraint] | None = None, *, is_discrete: bool = False,
    event_dim: int = 0,
) -> Any:  # fmt: skip
    """Decorator: a method that gives the constraint is a property, and dependent in the class."""

    def made(function: Callable[[Any], Constraint]) -> Constraint:
        found = _DependentProperty(function)
        found.is_discrete, found.event_dim = is_discrete, event_dim
        return found

    return made if make is None else made(make)


# ---- of others -----------------------------------------------------------------------


class _IndependentConstraint(Constraint):
    """Blocks of ``reinterpreted_batch_ndims`` more axes all of whose values fit."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int) -> None:
        self.base_constraint = base_constraint
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        self.is_discrete = base_constraint.is_discrete
        self.event_dim = base_constraint.event_dim + reinterpreted_batch_ndims
        self.demand = f"{base_constraint.demand}, in all of its elements"

    def check(self, value: Tensor) -> Tensor:
        """All of a block."""
        count = self.reinterpreted_batch_ndims
        fits = self.base_constraint.check(value)
        if fits.ndim < count:
            raise ValueError(
                f"a value needs at least {self.event_dim} axes, not shape {tuple(value.shape)}"
            )
        return _over(fits, count)

    def __repr__(self) -> str:
        return f"IndependentConstraint({self.base_constraint}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamilyConstraint(Constraint):
    """Values that all components of a mixture, along the last batch axis, can have."""

    def __init__(self, base_constraint: Constraint) -> None:
        self.base_constraint = base_constraint
        self.is_discrete, self.event_dim = base_constraint.is_discrete, base_constraint.event_dim
        self.demand = base_constraint.demand

    def check(self, value: Tensor) -> Tensor:
        """Whether it is a value of all components."""
        return self.base_constraint.check(value.unsqueeze(-1 - self.event_dim)).all(-1)

    def __repr__(self) -> str:
        return f"MixtureSameFamilyConstraint({self.base_constraint})"


class _Cat(Constraint):
    """Values of several constraints along axis ``dim``, ``lengths`` of each (1, if not said)."""

    def __init__(
        self, cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None
    ) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        self._know(Parts([c.event_dim for c in cseq], dim, self.lengths))

    def _know(self, parts: Parts) -> None:
        self._parts, self.event_dim = parts, parts.event_dim
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.demand = "; ".join(c.demand for c in self.cseq)

    def check(self, value: Tensor) -> Tensor:
        """Whether each part is of its constraint."""
        parts = self._parts.of(value)
        fits = [c.check(part) for c, part in zip(self.cseq, parts, strict=True)]
        return self._parts.reduced(fits, value.ndim, _over, Tensor.logical_and)


class _Stack(_Cat):
    """Values of several constraints along axis ``dim``, one of each."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0) -> None:
        self.cseq, self.dim = list(cseq), dim
        self._know(Parts([c.event_dim for c in cseq], dim, None))


def _over(fits: Tensor, count: int) -> Tensor:
    """Whether all along the last ``count`` axes do."""
    return fits.reshape(*fits.shape[: fits.ndim - count], -1).all(-1) if count else fits


# ---- of single numbers ---------------------------------------------------------------


def _shown(bound: Any) -> str:
    return f"the bound {bound.tolist()}" if isinstance(bound, Tensor) else f"{bound:g}"


def _whole(value: Tensor) -> Tensor:
    return value == floor(value)


class _Real(Constraint):
    """Any number but NaN."""

    demand = "a number"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is a number."""
        return value == value


class _Boolean(Constraint):
    """0 and 1."""

    is_discrete, demand = True, "0 or 1"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is 0 or 1."""
        return (value == 0).logical_or(value == 1)


class _GreaterThan(Constraint):
    """Numbers above a bound."""

    def __init__(self, lower_bound: Any) -> None:
        self.lower_bound = lower_bound

    @property
    def demand(self) -> str:  # type: ignore[override]
        """In words."""
        least = self.lower_bound
        if not isinstance(least, Tensor) and least == 0:
            return "positive"
        return f"greater than {_shown(least)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is above."""
        return self.lower_bound < value


class _GreaterThanEq(_GreaterThan):
    """Numbers from a bound on."""

    @property
    def demand(self) -> str:  # type: ignore[override]
        """In words."""
        return f"at least {_shown(self.lower_bound)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is not below."""
        return self.lower_bound <= value


class _IntegerGreaterThan(_GreaterThanEq):
    """Whole numbers from a bound on."""

    is_discrete = True

    @property
    def demand(self) -> str:  # type: ignore[override]
        """In words."""
        return f"a whole number from {_shown(self.lower_bound)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is whole and not below."""
        return super().check(value).logical_and(_whole(value))


class _LessThan(Constraint):
    """Numbers below a bound."""

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    @property
    def demand(self) -> str:  # type: ignore[override]
        """In words."""
        return f"less than {_shown(self.upper_bound)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is below."""
        return value < self.upper_bound


class _Interval(Constraint):
    """Numbers between two bounds, which belong to it."""

    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        self.lower_bound, self.upper_bound = lower_bound, upper_bound

    @property
    def demand(self) -> str:  # type: ignore[override]
        """In words."""
        return f"between {_shown(self.lower_bound)} and {_shown(self.upper_bound)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is between them."""
        return (self.lower_bound <= value).logical_and(value <= self.upper_bound)


class _HalfOpenInterval(_Interval):
    """Numbers from the lower of two bounds on, and below the upper."""

    @property
    def demand(self) -> str:  # type: ignore[override]
        """In words."""
        return f"at least {_shown(self.lower_bound)} and less than {_shown(self.upper_bound)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is between them, and not the upper one."""
        return (self.lower_bound <= value).logical_and(value < self.upper_bound)


class _IntegerInterval(_Interval):
    """Whole numbers between two bounds, which belong to it."""

    is_discrete = True

    @property
    def demand(self) -> str:  # type: ignore[override]
        """In words."""
        return f"a whole number from {_shown(self.lower_bound)} to {_shown(self.upper_bound)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is whole and between them."""
        return super().check(value).logical_and(_whole(value))


# ---- of vectors ----------------------------------------------------------------------


class _Vectors(Constraint):
    event_dim = 1


class _OneHot(_Vectors):
    """Vectors of zeros and a one."""

    is_discrete, demand = True, "vectors of zeros and a one"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is a one-hot vector."""
        return boolean.check(value).all(-1).logical_and(value.sum(-1) == 1)


class _Simplex(_Vectors):
    """Numbers from 0 on that sum to 1."""

    demand = "a simplex: numbers from 0 on that sum to 1"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is one, as nearly as the dtype has it."""
        near = max(1e-6, 8 * finfo(value.dtype).eps)
        return (value >= 0).all(-1).logical_and((value.sum(-1) - 1).abs() < near)


class _Multinomial(_Vectors):
    """Whole numbers from 0 on that sum to ``upper_bound``."""

    is_discrete = True

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound
        self.demand = f"whole numbers from 0 on that sum to {_shown(upper_bound)}"

    def check(self, value: Tensor) -> Tensor:
        """Whether the numbers are counts of so many draws."""
        counts = nonnegative_integer.check(value).all(-1)
        return counts.logical_and(value.sum(-1) == self.upper_bound)


# ---- of matrices ---------------------------------------------------------------------


class _Matrices(Constraint):
    event_dim = 2


def _all(fits: Tensor) -> Tensor:
    return fits.all(-1).all(-1)


class _Square(_Matrices):
    """Square matrices."""

    demand = "square"

    def check(self, value: Tensor) -> Tensor:
        """Whether there are as many rows as columns."""
        fits = value.shape[-2] == value.shape[-1]
        return value.new_full(tuple(value.shape[:-2]), fits).bool()


class _Symmetric(_Square):
    """Symmetric matrices."""

    demand = "symmetric"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is its own transpose, to 1e-6."""
        square = super().check(value)
        if value.shape[-2] != value.shape[-1]:
            return square
        return _all(isclose(value, value.mT, atol=1e-6))


def _eigenvalues(value: Tensor, usable: Tensor) -> Tensor:
    """Of the matrices that are usable; of others, zeros."""
    if value.shape[-2] != value.shape[-1]:
        return value[..., 0] * 0
    return eigvalsh(where(usable.unsqueeze(-1).unsqueeze(-1), value, 0.0))


class _PositiveSemidefinite(_Symmetric):
    """Symmetric matrices none of whose eigenvalues is below 0."""

    demand = "positive semi-definite"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is symmetric and no eigenvalue is below 0."""
        fits = super().check(value)
        return fits.logical_and((_eigenvalues(value, fits) >= 0).all(-1))


class _PositiveDefinite(_Symmetric):
    """Symmetric matrices whose eigenvalues are positive."""

    demand = "positive-definite"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is symmetric and all eigenvalues are positive."""
        fits = super().check(value)
        return fits.logical_and((_eigenvalues(value, fits) > 0).all(-1))


class _LowerTriangular(_Matrices):
    """Lower triangular matrices."""

    demand = "lower triangular"

    def check(self, value: Tensor) -> Tensor:
        """Whether all above the diagonal is 0."""
        return _all(tril(value) == value)


class _LowerCholesky(_LowerTriangular):
    """Lower triangular matrices with a positive diagonal."""

    demand = "lower triangular with a positive diagonal"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is such a factor."""
        positive = (value.diagonal(dim1=-2, dim2=-1) > 0).all(-1)
        return super().check(value).logical_and(positive)


class _CorrCholesky(_LowerCholesky):
    """Cholesky factors of correlations: their rows are of length 1."""

    demand = "lower triangular with a positive diagonal and rows of length 1"

    def check(self, value: Tensor) -> Tensor:
        """Whether it is such a factor, as nearly as the dtype has it."""
        near = finfo(value.dtype).eps * value.shape[-1] * 10
        length = value.square().sum(-1).sqrt()
        return super().check(value).logical_and(((length - 1).abs() < near).all(-1))


independent, cat, stack = _IndependentConstraint, _Cat, _Stack
greater_than, greater_than_eq, less_than = _GreaterThan, _GreaterThanEq, _LessThan
interval, half_open_interval = _Interval, _HalfOpenInterval
integer_interval, multinomial = _IntegerInterval, _Multinomial
boolean: Constraint = _Boolean()
real: Constraint = _Real()
one_hot: Constraint = _OneHot()
simplex: Constraint = _Simplex()
real_vector: Constraint = independent(real, 1)
positive: Constraint = greater_than(0.0)
nonnegative: Constraint = greater_than_eq(0.0)
unit_interval: Constraint = interval(0.0, 1.0)
nonnegative_integer: Constraint = _IntegerGreaterThan(0)
positive_integer: Constraint = _IntegerGreaterThan(1)
square: Constraint = _Square()
symmetric: Constraint = _Symmetric()
positive_semidefinite: Constraint = _PositiveSemidefinite()
positive_definite: Constraint = _PositiveDefinite()
lower_triangular: Constraint = _LowerTriangular()
lower_cholesky: Constraint = _LowerCholesky()
corr_cholesky: Constraint = _CorrCholesky()
