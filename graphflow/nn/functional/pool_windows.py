"""Where the windows of a pooling lie, and the largest element of each."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from graphflow.checks import need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, literal
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import add, gt, maximum, mul, where
from graphflow.functions.reductions import amax
from graphflow.functions.shaping import reshape, squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.ir.ops.reduce import lowest
from graphflow.mode import mode
from graphflow.nn.sizes import per_dimension
from graphflow.records import dataclass, replace
from graphflow.tensor import Tensor

MOST_ADDED = 4
"""Elements of a window that are added up one by one."""
MOST_TAPS = 9
"""Windows of up to so many elements are compared element by element, all in one kernel."""
LEADING = 2
Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows a spatial dimension: extent, size, step, padding, dilation and how many."""

    extents: Ints
    sizes: Ints
    steps: Ints
    edges: Ints
    spacing: Ints
    counts: Ints

    @property
    def spans(self) -> Ints:
        """Elements from the first to the last of a window."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.spacing, self.sizes))

    def positions(self, axis: int) -> np.ndarray[Any, Any]:
        """[windows, size]: where each element of each window lies, in the unpadded input."""
        first = np.arange(self.counts[axis]) * self.steps[axis] - self.edges[axis]
        return first[:, None] + np.arange(self.sizes[axis]) * self.spacing[axis]


def windows_of(
    name: str, input: Tensor, size: Any, stride: Any, padding: Any, dilation: Any, ceil: bool,
    dims: int,
) -> Windows:  # fmt: skip
    """The windows over the last ``dims`` dimensions of ``input``; raises as PyTorch does."""
    shape = need_tensor(name, input).shape
    if len(shape) not in (dims + 1, dims + 2):
        raise ShapeError(
            f"{name} takes an input of {dims + 1} (unbatched) or {dims + 2} dimensions, "
            f"not one of shape {list(shape)}"
        )
    sizes = per_dimension(name, "kernel_size", size, dims, 1)
    given = stride is not None and stride not in ((), [])
    steps = per_dimension(name, "stride", stride, dims, 1) if given else sizes
    edges = per_dimension(name, "padding", padding, dims, 0)
    spacing = per_dimension(name, "dilation", dilation, dims, 1)
    found = Windows(tuple(shape[-dims:]), sizes, steps, edges, spacing, ())
    if any(edge > span // 2 for edge, span in zip(edges, found.spans)):
        raise ShapeError(
            f"{name}: padding {list(edges)} must be at most half of the window of {list(sizes)}"
        )
    counts = tuple(_count(*part, ceil) for part in zip(found.extents, steps, edges, found.spans))
    if min(counts) < 1 or 0 in shape[len(shape) - dims - 1 :]:
        raise ShapeError(
            f"{name}: windows of {list(sizes)} do not fit an input of shape {list(shape)}"
        )
    return replace(found, counts=counts)


def _count(extent: int, step: int, edge: int, span: int, ceil: bool) -> int:
    """How many windows fit; rounding up, the last one must begin inside."""
    room = extent + 2 * edge - span
    if not ceil:
        return room // step + 1
    count = -(-room // step) + 1
    return count - 1 if (count - 1) * step >= extent + edge else count


def padded(x: Tensor, w: Windows, value: Any) -> Tensor:
    """``x`` with the padding, and what the last windows reach beyond it."""
    ends = [(n - 1) * s + span for n, s, span in zip(w.counts, w.steps, w.spans)]
    above = tuple(max(0, e - n - p) for e, n, p in zip(ends, w.extents, w.edges))
    if not any((*w.edges, *above)):
        return x
    front = (0,) * (x.ndim - len(above))
    return apply("pad", x, low=(*front, *w.edges), high=(*front, *above), value=value)


@beside_operands
def largest(x: Tensor, w: Windows, indices: bool) -> tuple[Tensor, Tensor | None]:
    """The largest element of each window of ``x[N, C, ...]``; NaN if there is one.

    With ``indices`` also where the first of them lies among the elements of a channel.
    """
    low = lowest(x.dtype)
    if np.prod(w.sizes) <= MOST_TAPS:
        return _by_comparing(padded(x, w, low), w, indices)
    tables = [np.clip(w.positions(k), 0, w.extents[k] - 1) for k in range(len(w.sizes))]
    inside = [w.positions(k) == table for k, table in enumerate(tables)]
    for k, (table, valid) in enumerate(zip(tables, inside)):
        # A place outside is replaced by the nearest element inside of the same window.
        first, last = np.argmax(valid, 1), valid.shape[1] - 1 - np.argmax(valid[:, ::-1], 1)
        nearest = np.clip(np.arange(valid.shape[1]), first[:, None], last[:, None])
        tables[k] = np.take_along_axis(table, nearest, 1)
    return by_tables(x, tables, indices)


def lie_side_by_side(w: Windows) -> bool:
    """Whether windows neither overlap nor leave gaps, inside or between them."""
    return all(s == k and (d == 1 or k == 1) for s, k, d in zip(w.steps, w.sizes, w.spacing))


def are_apart(w: Windows) -> bool:
    """Whether windows are few elements each, and lie side by side."""
    return lie_side_by_side(w) and int(np.prod(w.sizes)) <= MOST_TAPS


def chosen(x: Tensor, w: Windows) -> Tensor:
    """The largest element of each of the windows, which :func:`are_apart`.

    A byte a window numbers the place of the first largest: the gradient goes there, and nowhere
    where a NaN is the largest.
    """
    inside = _inside(padded(x, w, lowest(x.dtype)), w)
    best, *rest = [_place_inside(inside.detach(), w, tap) for tap in product(*map(range, w.sizes))]
    number = _byte(0)
    for place, value in enumerate(rest, start=1):
        number = where(gt(value, best), _byte(place), number)
        best = maximum(best, value)
    number = where(best != best, _byte(len(rest) + 1), number)
    axes = tuple(range(LEADING + 1, inside.ndim, 2))
    return apply("pick", inside, number, best, axes=axes)


def _inside(full: Tensor, w: Windows) -> Tensor:
    """``full[N, C, windows, size, …]``: the elements of windows that lie side by side."""
    front, ends = full.shape[:LEADING], [n * k for n, k in zip(w.counts, w.sizes)]
    if tuple(full.shape[LEADING:]) != tuple(ends):
        zeros, ones = (0,) * full.ndim, (1,) * full.ndim
        full = apply("slice", full, starts=zeros, limits=(*front, *ends), steps=ones)
    return reshape(full, (*front, *(d for pair in zip(w.counts, w.sizes) for d in pair)))


def sums_inside(full: Tensor, w: Windows) -> Tensor:
    """The sum of each of the windows over ``full``, which lie side by side.

    Axes stay apart, so that channels may lie last.  A few elements are added up place by place,
    since loops of two elements are no vectors where pixels are neighbours.
    """
    inside, places = _inside(full, w), list(product(*map(range, w.sizes)))
    if len(places) > MOST_ADDED:
        return apply("reduce_sum", inside, axes=tuple(range(LEADING + 1, inside.ndim, 2)))
    total = _place_inside(inside, w, places[0])
    for place in places[1:]:
        total = add(total, _place_inside(inside, w, place))
    return total


def _byte(number: int) -> Tensor:
    return literal(np.array(number, np.uint8))


def _place_inside(x: Tensor, w: Windows, tap: Ints) -> Tensor:
    """``x[N, C, windows, size, …]`` at place ``tap`` of every window."""
    front = tuple(x.shape[:LEADING])
    starts = [at for k in tap for at in (0, k)]
    limits = [end for n, k in zip(w.counts, tap) for end in (n, k + 1)]
    shown = apply(
        "slice", x, starts=(0,) * LEADING + tuple(starts), limits=(*front, *limits),
        steps=(1,) * x.ndim,
    )  # fmt: skip
    return reshape(shown, (*front, *w.counts))


def _shown(x: Tensor, w: Windows, tap: Ints) -> Tensor:
    """Element ``tap`` of every window."""
    front = x.ndim - len(tap)
    begin = [k * d for k, d in zip(tap, w.spacing)]
    end = [b + (n - 1) * s + 1 for b, n, s in zip(begin, w.counts, w.steps)]
    return apply(
        "slice", x, starts=(*(0,) * front, *begin), limits=(*x.shape[:front], *end),
        steps=(*(1,) * front, *w.steps),
    )  # fmt: skip


def _by_comparing(x: Tensor, w: Windows, indices: bool) -> tuple[Tensor, Tensor | None]:
    taps = list(product(*map(range, w.sizes)))
    best = _shown(x, w, taps[0])
    if not indices:
        for tap in taps[1:]:
            best = maximum(best, _shown(x, w, tap))
        return best, None
    kind = T.int32 if np.prod(w.extents) < 2**31 else T.int64  # narrow: fewer vectors to choose in
    grid = np.arange(int(np.prod(w.extents))).reshape(w.extents).astype(kind.numpy)
    numbers = _numbers(grid, w, taps)
    index: Tensor = numbers[0]
    for tap, number in zip(taps[1:], numbers[1:]):
        value = _shown(x, w, tap)
        index = where(gt(value, best), number, index)
        best = maximum(best, value)
    if not any(w.edges):
        index = add(index, literal(_first_places(grid, w)))
    shape = tuple(best.shape)
    return best, index if index.shape == shape else index.expand(shape)


def _numbers(grid: np.ndarray[Any, Any], w: Windows, taps: list[Ints]) -> list[Tensor]:
    """What to remember of a window for every tap: its place, or without padding, where all
    windows are alike, only how far it is from the window's first place."""
    if any(w.edges):
        places = padded(literal(grid), w, 0)
        return [_shown(places, w, tap) for tap in taps]
    away = [tuple(k * d for k, d in zip(tap, w.spacing)) for tap in taps]
    steps = [stride // grid.itemsize for stride in grid.strides]
    far = [sum(a * s for a, s in zip(offset, steps)) for offset in away]
    return [literal(np.array(f, grid.dtype)) for f in far]


def _first_places(grid: np.ndarray[Any, Any], w: Windows) -> np.ndarray[Any, Any]:
    """Where every window begins, counted in row-major order."""
    starts = [np.arange(n) * s for n, s in zip(w.counts, w.steps)]
    places = np.ravel_multi_index(np.meshgrid(*starts, indexing="ij"), grid.shape, mode="clip")
    return np.asarray(places).astype(grid.dtype)


@beside_operands
def by_tables(
    x: Tensor, tables: list[np.ndarray[Any, Any]], indices: bool
) -> tuple[Tensor, Tensor | None]:
    """The largest of the elements that a table [windows, size] names, a dimension after another."""
    extents = tuple(x.shape[x.ndim - len(tables) :])
    flat: Tensor | None = None
    for k in reversed(range(len(tables))):
        axis, table = x.ndim - len(tables) + k, tables[k].astype(np.int64)
        shown = apply("take", x, literal(table), axis=axis)
        if not indices:
            x = amax(shown, axis + 1)
            continue
        inside = apply("argmax", shown, axis=axis + 1)
        column = [1] * x.ndim
        column[axis] = -1
        first = reshape(literal(np.arange(len(table)) * table.shape[1]), column)
        chosen = apply("take", literal(table.reshape(-1)), add(inside, first), axis=0)
        number = mul(chosen, int(np.prod(extents[k + 1 :])))
        flat = number if flat is None else add(number, apply("gather", flat, chosen, axis=axis))
        x = apply("gather", x, chosen, axis=axis)
    return x, flat


def batched(x: Tensor, dims: int) -> Tensor:
    """``x`` with a batch dimension."""
    return x if x.ndim == dims + LEADING else unsqueeze(x, 0)


def unbatched(x: Tensor, like: Tensor, dims: int) -> Tensor:
    """``x`` without the batch dimension that ``like`` has not."""
    return x if like.ndim == dims + LEADING else squeeze(x, 0)


def read_at(x: Tensor, found: Tensor, index: Tensor) -> Tensor:
    """The elements of ``x`` that ``index`` names; a NaN among ``found`` stays.

    So the gradient goes to one element of a window, whatever the ties.
    """
    if not (mode.grad and x.requires_grad):
        return found
    rows = (*x.shape[:LEADING], -1)
    picked = apply("gather", reshape(x, rows), reshape(index, rows), axis=LEADING)
    return where(found != found, found, reshape(picked, tuple(found.shape)))
