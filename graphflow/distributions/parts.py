"""Values that are of several kinds along an axis, for constraints and transforms of each kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from graphflow.functions.shaping import cat, split, stack, unbind
from graphflow.tensor import Tensor


class Parts:
    """The parts of values along axis ``dim``: of ``lengths``, joined as by ``cat``, or without
    lengths slices without that axis, joined as by ``stack``.

    ``dims``: how many of the last axes belong to one value of each kind.
    """

    def __init__(self, dims: Sequence[int], dim: int, lengths: Sequence[int] | None) -> None:
        if lengths is not None and len(lengths) != len(dims):
            raise ValueError(f"{len(lengths)} lengths are given for {len(dims)} parts")
        self.dims, self.dim, self.lengths = list(dims), dim, lengths
        self._most = max(self.dims, default=0)

    @property
    def event_dim(self) -> int:
        """How many of the last axes belong to one value of the whole."""
        return self._most + (self.lengths is None and -self._most <= self.dim < 0)

    def of(self, value: Tensor) -> list[Tensor]:
        """The parts of a tensor."""
        size = len(self.dims) if self.lengths is None else sum(self.lengths)
        if not -value.ndim <= self.dim < value.ndim or value.shape[self.dim] != size:
            raise ValueError(
                f"axis {self.dim} should be of size {size}, but the shape is {tuple(value.shape)}"
            )
        if self.lengths is None:
            return list(unbind(value, self.dim))
        return list(split(value, list(self.lengths), self.dim))

    def joined(self, parts: Sequence[Tensor], axis: int | None = None) -> Tensor:
        """The tensor of which these are the parts, along ``dim`` or the axis given."""
        join = stack if self.lengths is None else cat
        return join(list(parts), self.dim if axis is None else axis)

    def reduced(
        self,
        known: Sequence[Tensor],
        ndim: int,
        over: Callable[[Tensor, int], Tensor],
        together: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """What is known of each value of the parts, as what is known of those of the whole, which
        has ``ndim`` axes: taken ``over`` further axes, then joined, or taken ``together`` where
        the axis of the parts belongs to one value."""
        alike = [over(x, self._most - own) for x, own in zip(known, self.dims, strict=True)]
        axis = (self.dim - ndim if self.dim >= 0 else self.dim) + self._most
        return self.joined(alike, axis) if axis < 0 else functools.reduce(together, alike)
