"""What all transforms have in common, their inverses, and one after another."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, Self

from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint, independent
from graphflow.tensor import Tensor


class Transform:
    """``t(x)``, its inverse ``t.inv(y)`` and ``t.log_abs_det_jacobian(x, y)``.

    Sub-classes define ``_call``, ``_inverse`` and the logarithm of the stretch.  With
    ``cache_size=1`` the last result remembers its argument, which need not be computed then.
    """

    bijective: bool = True
    sign: int = 0
    """+1: rising, -1: falling."""
    domain: Constraint = constraints.real
    codomain: Constraint = constraints.real
    """From which values it leads, and to which."""

    @property
    def event_dim(self) -> int:
        """How many of the last axes belong to one value that is transformed."""
        return max(self.domain.event_dim, self.codomain.event_dim)

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise ValueError("cache_size must be 0 or 1")
        self._cache_size = cache_size
        self._last: tuple[Tensor | None, Tensor | None] = (None, None)

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` transformed."""
        if self._cache_size and self._last[0] is x and self._last[1] is not None:
            return self._last[1]
        y = self._call(x)
        if self._cache_size:
            self._last = (x, y)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size and self._last[1] is y and self._last[0] is not None:
            return self._last[0]
        x = self._inverse(y)
        if self._cache_size:
            self._last = (x, y)
        return x

    @property
    def inv(self) -> Transform:
        """The inverse."""
        return _Inverse(self)

    def with_cache(self, cache_size: int = 1) -> Self:
        """The same, remembering as many results: 0 or 1."""
        if cache_size not in (0, 1):
            raise ValueError("cache_size must be 0 or 1")
        if cache_size == self._cache_size:
            return self
        made = copy.copy(self)
        made._cache_size, made._last = cache_size, (None, None)
        return made

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define _call()")

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of how much volumes grow at ``x``, of which ``y`` is the image."""
        raise NotImplementedError(f"{type(self).__name__} has no log_abs_det_jacobian")

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the image of a tensor of this shape."""
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of what has an image of this shape."""
        return tuple(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Inverse(Transform):
    def __init__(self, of: Transform) -> None:
        super().__init__()
        self._of, self.bijective, self.sign = of, of.bijective, of.sign
        self.domain, self.codomain = of.codomain, of.domain

    @property
    def inv(self) -> Transform:
        return self._of

    def with_cache(self, cache_size: int = 1) -> Self:
        return type(self)(self._of.with_cache(cache_size))

    def __call__(self, x: Tensor) -> Tensor:
        return self._of._inv_call(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        return self._of(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._of.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self._of.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self._of.forward_shape(shape)


def summed(value: Tensor, dims: int) -> Tensor:
    """The sum over the last ``dims`` axes."""
    return value if dims <= 0 else value.sum(tuple(range(-dims, 0)))


class ComposeTransform(Transform):
    """One transform after another, the first of the list first."""

    def __init__(self, parts: Iterable[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = list(parts)
        if self.parts:
            dims = max(part.event_dim for part in self.parts)
            first, last = self.parts[0].domain, self.parts[-1].codomain
            self.domain = over(first, dims - first.event_dim)
            self.codomain = over(last, dims - last.event_dim)
        self.bijective = all(part.bijective for part in self.parts)
        self.sign = math.prod(part.sign for part in self.parts)

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part._inv_call(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of the parts' logarithms."""
        if not self.parts:
            return x * 0
        found: Any = 0
        for i, part in enumerate(self.parts):
            after = y if i == len(self.parts) - 1 else part(x)
            stretch = part.log_abs_det_jacobian(x, after)
            found = found + summed(stretch, self.event_dim - part.event_dim)
            x = after
        return found

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Part by part."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Part by part, from the last."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return tuple(shape)


def over(constraint: Constraint, extra: int) -> Constraint:
    """The constraint for values of so many more axes."""
    return independent(constraint, extra) if extra > 0 else constraint


identity_transform = ComposeTransform([])


class IndependentTransform(Transform):
    """``base_transform``, with ``reinterpreted_batch_ndims`` more axes in one value."""

    def __init__(
        self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.base_transform, self.sign = base_transform, base_transform.sign
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        self.bijective = base_transform.bijective
        self.domain = over(base_transform.domain, reinterpreted_batch_ndims)
        self.codomain = over(base_transform.codomain, reinterpreted_batch_ndims)

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform._inv_call(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum over the axes that were added."""
        stretch = self.base_transform.log_abs_det_jacobian(x, y)
        return summed(stretch, self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """That of the base."""
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """That of the base."""
        return self.base_transform.inverse_shape(shape)


class ReshapeTransform(Transform):
    """Values of shape ``in_shape``, the last axes, in the shape ``out_shape``."""

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ValueError(
                f"ReshapeTransform: {self.in_shape} and {self.out_shape} have not as many elements"
            )
        self.domain = over(constraints.real, len(self.in_shape))
        self.codomain = over(constraints.real, len(self.out_shape))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(self.forward_shape(x.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """0."""
        return summed(x * 0, len(self.in_shape))

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The last axes changed."""
        return _changed(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The last axes changed back."""
        return _changed(shape, self.out_shape, self.in_shape)


def _changed(
    shape: Sequence[int], before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[int, ...]:
    kept = len(shape) - len(before)
    if kept < 0 or tuple(shape[kept:]) != before:
        raise ValueError(f"ReshapeTransform: {tuple(shape)} does not end with {before}")
    return (*shape[:kept], *after)
