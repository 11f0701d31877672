"""Transforms of numbers without bounds to the values of a constraint.

``biject_to(constraint)`` is one to one and has a log-determinant where there is one to one;
``transform_to(constraint)`` may be simpler, as for optimisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, overload

from graphflow.distributions import constraints, transforms
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.transforms import Transform

Factory: TypeAlias = Callable[[Any], Transform]

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]


class ConstraintRegistry:
    """Which transform leads to a constraint, by the constraint's type."""

    def __init__(self) -> None:
        self._factories: dict[type, Factory] = {}

    @overload
    def register(self, constraint: Any) -> Callable[[Factory], Factory]: ...
    @overload
    def register(self, constraint: Any, factory: Factory) -> Factory: ...
    def register(self, constraint: Any, factory: Factory | None = None) -> Any:
        """``factory(constraint)`` makes the transform; without one, a decorator of it.

        ``constraint``: a class of constraints, or one of the class.
        """
        kind = type(constraint) if isinstance(constraint, Constraint) else constraint
        if not (isinstance(kind, type) and issubclass(kind, Constraint)):
            raise TypeError(f"register takes a constraint or a class of them, not {constraint!r}")

        def keep(made: Factory) -> Factory:
            self._factories[kind] = made
            return made

        return keep if factory is None else keep(factory)

    def __call__(self, constraint: Constraint) -> Transform:
        """The transform to the values of ``constraint``; ``NotImplementedError`` without one."""
        factory = self._factories.get(type(constraint))
        if factory is None:
            raise NotImplementedError(
                f"no transform to {type(constraint).__name__.lstrip('_')} constraints is known; "
                "register adds one"
            )
        return factory(constraint)


biject_to, transform_to = ConstraintRegistry(), ConstraintRegistry()


def _to_both(constraint: Any) -> Callable[[Factory], Factory]:
    def keep(factory: Factory) -> Factory:
        biject_to.register(constraint, factory)
        transform_to.register(constraint, factory)
        return factory

    return keep


@_to_both(constraints.real)
def _real(constraint: Constraint) -> Transform:
    return transforms.identity_transform


@_to_both(constraints.greater_than)
@_to_both(constraints.greater_than_eq)
def _above(constraint: Any) -> Transform:
    return _moved(transforms.ExpTransform(), constraint.lower_bound, 1)


@_to_both(constraints.less_than)
def _below(constraint: Any) -> Transform:
    return _moved(transforms.ExpTransform(), constraint.upper_bound, -1)


@_to_both(constraints.interval)
@_to_both(constraints.half_open_interval)
def _between(constraint: Any) -> Transform:
    low, high = constraint.lower_bound, constraint.upper_bound
    return _moved(transforms.SigmoidTransform(), low, high - low)


def _moved(transform: Transform, loc: Any, scale: Any) -> Transform:
    """``loc + scale * transform(x)``."""
    if isinstance(loc, int | float) and isinstance(scale, int | float) and (loc, scale) == (0, 1):
        return transform
    return transforms.ComposeTransform([transform, transforms.AffineTransform(loc, scale)])


@biject_to.register(constraints.simplex)
def _sticks(constraint: Constraint) -> Transform:
    return transforms.StickBreakingTransform()


@transform_to.register(constraints.simplex)
def _softmax(constraint: Constraint) -> Transform:
    return transforms.SoftmaxTransform()


@_to_both(constraints.lower_cholesky)
def _lower_cholesky(constraint: Constraint) -> Transform:
    return transforms.LowerCholeskyTransform()


@_to_both(constraints.positive_definite)
@_to_both(constraints.positive_semidefinite)
def _positive_definite(constraint: Constraint) -> Transform:
    return transforms.PositiveDefiniteTransform()


@_to_both(constraints.corr_cholesky)
def _corr_cholesky(constraint: Constraint) -> Transform:
    return transforms.CorrCholeskyTransform()


@biject_to.register(constraints.independent)
def _independent(constraint: Any) -> Transform:
    inner = biject_to(constraint.base_constraint)
    return transforms.IndependentTransform(inner, constraint.reinterpreted_batch_ndims)


@transform_to.register(constraints.independent)
def _independent_too(constraint: Any) -> Transform:
    inner = transform_to(constraint.base_constraint)
    return transforms.IndependentTransform(inner, constraint.reinterpreted_batch_ndims)


def _register_parts(registry: ConstraintRegistry) -> None:
    @registry.register(constraints.cat)
    def _cat(constraint: Any) -> Transform:
        parts = [registry(c) for c in constraint.cseq]
        return transforms.CatTransform(parts, constraint.dim, constraint.lengths)

    @registry.register(constraints.stack)
    def _stack(constraint: Any) -> Transform:
        return transforms.StackTransform([registry(c) for c in constraint.cseq], constraint.dim)


_register_parts(biject_to)
_register_parts(transform_to)
