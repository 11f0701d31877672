"""Transforms of their own for parts of a value: side by side along an axis, or stacked."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from graphflow.distributions import constraints
from graphflow.distributions.parts import Parts
from graphflow.distributions.transform import Transform, summed
from graphflow.tensor import Tensor


class _OfParts(Transform):
    """``transforms``, one for each part along axis ``dim``."""

    def __init__(
        self, tseq: Sequence[Transform], dim: int, lengths: Sequence[int] | None, cache_size: int
    ) -> None:
        super().__init__(cache_size)
        if not all(isinstance(t, Transform) for t in tseq):
            raise TypeError(f"{type(self).__name__} takes a sequence of transforms")
        self.transforms: list[Transform] = [t.with_cache(cache_size) for t in tseq]
        self.dim = dim
        self._parts = Parts([t.event_dim for t in self.transforms], dim, lengths)
        self.bijective = all(t.bijective for t in self.transforms)
        signs = {t.sign for t in self.transforms}
        self.sign = signs.pop() if len(signs) == 1 else 0

    @property
    def event_dim(self) -> int:
        """How many of the last axes belong to one value that is transformed."""
        return self._parts.event_dim

    def _call(self, x: Tensor) -> Tensor:
        parts = self._parts.of(x)
        return self._parts.joined([t(p) for t, p in zip(self.transforms, parts, strict=True)])

    def _inverse(self, y: Tensor) -> Tensor:
        parts = self._parts.of(y)
        found = [t._inv_call(p) for t, p in zip(self.transforms, parts, strict=True)]
        return self._parts.joined(found)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Those of the parts: side by side, or their sum if one value spreads over all parts."""
        pairs = zip(self.transforms, self._parts.of(x), self._parts.of(y), strict=True)
        stretches = [t.log_abs_det_jacobian(a, b) for t, a, b in pairs]
        return self._parts.reduced(stretches, x.ndim, summed, operator.add)


class CatTransform(_OfParts):
    """``tseq``, each for ``lengths`` elements along axis ``dim``, one after another (for 1, if
    not said)."""

    def __init__(
        self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None:  # fmt: skip
        self.lengths = [1] * len(tseq) if lengths is None else list(lengths)
        super().__init__(tseq, dim, self.lengths, cache_size)
        self.domain = constraints.cat([t.domain for t in tseq], dim, self.lengths)
        self.codomain = constraints.cat([t.codomain for t in tseq], dim, self.lengths)

    @property
    def length(self) -> int:
        """How many elements there are along the axis."""
        return sum(self.lengths)


class StackTransform(_OfParts):
    """``tseq``, each for one element along axis ``dim``."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(tseq, dim, None, cache_size)
        self.domain = constraints.stack([t.domain for t in tseq], dim)
        self.codomain = constraints.stack([t.codomain for t in tseq], dim)
