"""Whether a product is a convolution as cuDNN takes them, and which.

A convolution is a product over windows: along an axis of the image, positions and taps step
over the same elements.  It is told by strides alone.  With ``g`` the greatest common divisor of
the strides of an axis of rows and one of depth, the operand's element is at ``g * (row * step +
tap * dilation)``: any two axes can be seen as one of the image, and those are joined with which
the image is smallest.  Names are the library's, https://docs.nvidia.com/deeplearning/cudnn/: an
image ``[N, C, *S]`` under a filter ``[K, C / groups, *T]`` is a response ``[N, K, *P]``, and the
gradient of the filter is a product over the same three arrays.  The gradient of an image is a
convolution of its own, under the filter flipped.
Pure functions of integers; nothing here needs a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import product
from math import gcd, prod

from graphflow.codegen.cuda.matmul import TF32
from graphflow.codegen.library import IDENTITY, Operand, Plan, Seen
from graphflow.records import dataclass

FORWARD, WEIGHTS = "forward", "weights"
COMPUTED = {
    ("f32", "f32", "f32"): "f32", ("f64", "f64", "f64"): "f64", ("f16", "f16", "f16"): "f32",
    ("bf16", "bf16", "bf16"): "f32",
}  # fmt: skip
"""In which type the library adds up, by the types of the operands and the result."""
SPATIAL = (2, 3)
"""So many spatial axes images have at least and at most; there may be axes of one element."""
CLEAR = 4
"""So many times more positions than taps are positions without looking further; an axis of the
image is no longer than so many times its positions and taps."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """``extents`` and, in elements, ``strides`` of an image, a filter or a response."""

    dtype: str
    extents: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Convolution:
    """A response of an image under a filter (``FORWARD``), or the gradient of the filter
    (``WEIGHTS``); the image has ``low`` and ``high`` zeros around along its spatial axes::

        response[n, k, p] = sum over c, t of image[n, c, p * steps + t * dilations] filter[k, c, t]
        filter[k, c, t] = sum over n, p of image[n, c, p * steps + t * dilations] response[n, k, p]

    Channels of the filter are those of one of the groups.  ``compute`` is ``f32``, ``tf32`` or
    ``f64``.
    """

    form: str
    compute: str
    image: Tensor
    filter: Tensor
    response: Tensor
    steps: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    deterministic: bool = False

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The element types of image, filter and response."""
        return self.image.dtype, self.filter.dtype, self.response.dtype

    @property
    def groups(self) -> int:
        """How many groups of channels there are."""
        return self.image.extents[1] // self.filter.extents[1]

    @property
    def work(self) -> int:
        """Multiplications."""
        return prod(self.response.extents) * prod(self.filter.extents[1:])


def as_convolution(seen: Seen, copied: bool = False) -> Plan[Convolution] | str:
    """``seen`` as the library would be asked for it, or why it cannot be.

    The plan's places are those of the image, the filter and the response.  With ``copied``, the
    filter of a response may lie backwards, for it will be copied first.
    """
    types = seen.a.dtype, seen.b.dtype, seen.result.dtype
    if types not in COMPUTED:
        return f"{types[0]} by {types[1]} to {types[2]} is not among the library's types"
    if 0 in seen.extents:
        return "nothing is added up"
    if seen.terms or seen.activation != IDENTITY or seen.alpha != 1.0:
        return "a convolution is not the library's with what follows it"
    for image, other, rows, columns in (
        (seen.a, seen.b, "rows", "columns"), (seen.b, seen.a, "columns", "rows"),
    ):  # fmt: skip
        found = _Attempt(seen, image, other, rows, columns, copied).plan()
        if found is not None:
            return found
    return "operands or the result do not lie as those of a convolution do"


@dataclass(frozen=True, slots=True)
class _Axes:
    """How axes of a product become those of an image: axes of rows and of depth ``joined`` as
    spatial ones (-1: none), and one of each left (-1: none)."""

    joined: tuple[tuple[int, int], ...]
    row: int
    depth: int


@dataclass(slots=True)
class _Attempt:
    """``image`` is the operand with windows; its own axes are of kind ``rows``, the other
    operand's of kind ``columns``."""

    seen: Seen
    image: Operand
    other: Operand
    rows: str
    columns: str
    copied: bool

    def plan(self) -> Plan[Convolution] | None:
        """The convolution so, if the library takes it."""
        own = [*self._kind(self.rows), *self._kind("depth")]
        few = max(len(self._kind("batch")), len(self._kind(self.columns))) <= 1
        if not few or any(self.image.strides[k] <= 0 for k in own) or self._overlap():
            return None
        for axes in sorted(self._choices(), key=self._rank):
            for forward in (True, False) if self._is_forward(axes) else (False, True):
                made = self._convolution(axes, forward)
                if made is not None:
                    result = self.seen.result
                    parts = (self.other, result) if forward else (result, self.other)
                    operands = (self.image, *parts)
                    start = tuple(x.offset for x in operands)
                    return Plan(made, tuple(x.argument for x in operands), (start,))
        return None

    def _kind(self, kind: str) -> list[int]:
        """The axes of a kind that have more than one element, those furthest apart first."""
        seen = self.seen
        found = [k for k, n in enumerate(seen.extents) if n != 1 and seen.kinds[k] == kind]
        return sorted(found, key=lambda k: -self.image.strides[k])

    def _extent(self, axis: int) -> int:
        return self.seen.extents[axis] if axis >= 0 else 1

    def _stride(self, axis: int) -> int:
        return self.image.strides[axis] if axis >= 0 else 0

    def _choices(self) -> Iterator[_Axes]:
        """The ways to join axes of rows with axes of depth, where that is not much larger than
        both apart.

        Of those left, the first or the last may be images or channels (or none, beside groups);
        others are spatial.
        """
        rows, depth = self._kind(self.rows), self._kind("depth")
        none = [-1] if self._kind("batch") else []
        near = {
            (row, tap)
            for row, tap in product(rows, depth)
            if self._spatial((row, tap))[0] <= CLEAR * self._extent(row) * self._extent(tap)
        }
        for joined in _joined(rows, depth, near):
            left = [k for k in rows if all(k != row for row, _ in joined)]
            deep = [k for k in depth if all(k != tap for _, tap in joined)]
            for row in dict.fromkeys((*left[:1], *left[-1:], *none)) or (-1,):
                for inner in dict.fromkeys((*deep[:1], *deep[-1:], *none)) or (-1,):
                    more = [(k, -1) for k in left if k != row]
                    more += [(-1, k) for k in deep if k != inner]
                    if len(joined) + len(more) <= SPATIAL[-1]:
                        yield _Axes((*joined, *more), row, inner)

    def _rank(self, axes: _Axes) -> tuple[int, ...]:
        """What is least for the right choice: axes of the image, its elements, axes that are
        joined; and channels are closer together than images."""
        size = prod(self._spatial(pair)[0] for pair in axes.joined)
        size *= self._extent(axes.row) * self._extent(axes.depth)
        apart = self._stride(axes.row) - self._stride(axes.depth)
        joined, count = sum(-1 not in pair for pair in axes.joined), len(axes.joined)
        order = -apart if self._is_forward(axes) else apart
        return max(count, SPATIAL[0]), size, count, joined, order

    def _is_forward(self, axes: _Axes) -> bool:
        """Whether rows are positions and depth is taps, not the other way round.

        Positions are more by far; or else images are further apart than channels.
        """
        places, taps = (prod(self._extent(pair[n]) for pair in axes.joined) for n in (0, 1))
        clear = max(places, taps) > CLEAR * min(places, taps)
        if clear or -1 in (axes.row, axes.depth):
            return places >= taps
        return self._stride(axes.row) > self._stride(axes.depth)

    def _spatial(self, pair: tuple[int, int]) -> tuple[int, int, int, int]:
        """Extent and stride of the image's axis, and how far rows and depth step along it."""
        strides = [self._stride(k) for k in pair]
        one = gcd(*strides) or 1
        row, tap = (s // one or 1 for s in strides)
        extent = (self._extent(pair[0]) - 1) * row + (self._extent(pair[1]) - 1) * tap + 1
        return extent, one, row, tap

    def _convolution(self, axes: _Axes, forward: bool) -> Convolution | None:
        """The convolution over an image with ``axes``; None if groups do not lie evenly."""
        seen = self.seen
        pairs = sorted(axes.joined, key=lambda pair: -self._spatial(pair)[1])
        pairs = [*[(-1, -1)] * (SPATIAL[0] - len(pairs)), *pairs]
        spatial = [self._spatial(pair) for pair in pairs]
        rows, depth = [[row] for row, _ in pairs], [[tap] for _, tap in pairs]
        group, column = self._kind("batch"), self._kind(self.columns)
        order = 1 if forward else -1
        images, channels = (axes.row, axes.depth)[::order]
        places, taps = (rows, depth)[::order]
        filter, response = (self.other, seen.result)[::order]
        wide = self._lies(self.image, [[images], [*group, channels]])
        image = wide and [*wide, *((extent, one) for extent, one, _, _ in spatial)]
        anyhow = self.copied and forward
        taken = self._lies(filter, [[*group, *column], [channels], *taps], anyhow)
        made = self._lies(response, [[images], [*group, *column], *places])
        if taken is None:
            return None
        found = (
            tensor(self.image.dtype, image),
            tensor(filter.dtype, taken, anyhow),
            tensor(response.dtype, made),
        )  # fmt: skip
        if found[0] is None or found[1] is None or found[2] is None:
            return None
        compute = COMPUTED[seen.a.dtype, seen.b.dtype, seen.result.dtype]
        if compute == "f32" == seen.a.dtype and seen.numerics.convolution_tf32:
            compute = TF32
        along = [(row, tap)[::order] for _, _, row, tap in spatial]
        return Convolution(
            FORWARD if forward else WEIGHTS, compute, found[0], found[1], found[2],
            tuple(step for step, _ in along), tuple(dilation for _, dilation in along),
            (0,) * len(along), (0,) * len(along), seen.numerics.deterministic,
        )  # fmt: skip

    def _overlap(self) -> bool:
        """Whether the other operand may have an element at two places, as only images do."""
        reach, axes = 0, [k for kind in ("batch", self.columns, "depth") for k in self._kind(kind)]
        for axis in sorted(axes, key=lambda k: abs(self.other.strides[k])):
            stride = abs(self.other.strides[axis])
            if stride <= reach:
                return True
            reach += (self._extent(axis) - 1) * stride
        return False

    def _lies(
        self, operand: Operand, runs: Sequence[Sequence[int]], anyhow: bool = False
    ) -> list[tuple[int, int]] | None:
        """Extent and stride of each of the ``runs`` of axes, which have to step evenly (or
        ``anyhow``)."""
        found = []
        for run in runs:
            there = [k for k in run if self._extent(k) != 1]
            strides = [operand.strides[k] for k in there]
            for outer, inner, axis in zip(strides, strides[1:], there[1:]):
                if not anyhow and outer != inner * self._extent(axis):
                    return None
            found.append((prod(map(self._extent, there)), strides[-1] if strides else 0))
        return found


def _joined(
    rows: Sequence[int], depth: Sequence[int], near: Collection[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every way to make pairs of some of ``rows`` with some of ``depth``, all of them ``near``."""
    if not rows:
        yield ()
        return
    yield from _joined(rows[1:], depth, near)
    for tap in depth:
        if (rows[0], tap) in near:
            for others in _joined(rows[1:], [k for k in depth if k != tap], near):
                yield ((rows[0], tap), *others)


def tensor(
    dtype: str, axes: Sequence[tuple[int, int]] | None, anyhow: bool = False
) -> Tensor | None:
    """An array of such extents and strides, if the library takes it (or ``anyhow``).

    Axes of one element, whose strides mean nothing, get those of an array without gaps whose
    channels are last: libraries tell orders by strides.
    """
    if axes is None:
        return None
    if not anyhow and any(stride <= 0 for extent, stride in axes if extent != 1):
        return None
    first, channels, *spatial = axes
    inner = 1 if channels[0] == 1 else channels[1]
    span = channels[0] if inner == 1 else 1
    strides: list[int] = []
    for extent, stride in reversed(spatial):
        strides.append(span if extent == 1 else stride)
        span = extent * strides[-1]
    outer = first[1] if first[0] != 1 else max(span, channels[0] * inner)
    return Tensor(
        dtype, (first[0], channels[0], *(extent for extent, _ in spatial)),
        (outer, inner, *reversed(strides)),
    )  # fmt: skip
