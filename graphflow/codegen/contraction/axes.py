"""Products over several axes: which axis is what, in which order, and what is packed.

An axis of both operands and the result is a *batch* axis, one of the first operand and
the result runs over *rows*, one of the second and the result over *columns*; what both
operands have and the result lacks is *depth*.  Neighbouring axes merge where strides
allow, so an ordinary matrix product ends with one axis of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphflow.codegen.contraction.axes_kernels import plain_axes_kernel, tiled_axes_kernel
from graphflow.codegen.contraction.call import (
    LINE_BYTES,
    PARALLEL_FLOPS,
    Scratch,
    address,
    contraction_call,
    rounded_up,
)
from graphflow.codegen.contraction.kernels import TILED, accumulator
from graphflow.codegen.contraction.tiling import axes_blocks, tiling
from graphflow.codegen.layout import Layout, row_major
from graphflow.codegen.schedule import Call, KernelSource, Value
from graphflow.codegen.sizes import greatest, least
from graphflow.codegen.target import host_target
from graphflow.ir.op import Labels
from graphflow.ir.types import DType, TensorType
from graphflow.records import dataclass, replace

A, B, C = 0, 1, 2
BATCH_COLUMNS = 128
"""Columns that lie together in the result are multiplied by themselves from this many on."""
SHORT_RUN = 4
"""Columns that touch in fewer places than this are not worth a vector load each."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis that runs over memory: its extent, and strides in a, b and c (0: not there)."""

    extent: int
    strides: tuple[int, int, int]


Axes = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """How a product is walked: its axes by kind, each kind outermost first."""

    batch: Axes
    rows: Axes
    columns: Axes
    depth: Axes

    def count(self, kind: str) -> int:
        """How many elements the axes of one kind run over."""
        axes: Axes = getattr(self, kind)
        return prod(axis.extent for axis in axes)


def walk_of(labels: Labels, places: Sequence[Layout]) -> tuple[Walk, bool]:
    """The walk of a product of ``places[0]`` and ``places[1]`` into ``places[2]``.

    Also whether operands are exchanged, so that the columns lie together in the result.
    """
    axes = _axes_of(labels, places)
    kinds = [_of_kind(axes, *kind) for kind in ((1, 1, 1), (1, 0, 1), (0, 1, 1), (1, 1, 0))]
    swapped = _inner_stride(kinds[1]) < _inner_stride(kinds[2])
    if swapped:
        kinds = [[_exchanged(axis) for axis in kind] for kind in kinds]
        kinds[1], kinds[2] = kinds[2], kinds[1]
    batch, rows, columns, depth = kinds
    columns, depth = _packing_order(columns, depth)
    one = [Axis(1, (0, 0, 0))]
    walk = Walk(merged(batch), *(merged(kind or one) for kind in (rows, columns, depth)))
    return _with_batches_of_columns(walk), swapped


def _axes_of(labels: Labels, places: Sequence[Layout]) -> list[tuple[tuple[bool, ...], Axis]]:
    """Every label's axis and who has it, in the order of the result, then of the first operand."""
    found = []
    for label in dict.fromkeys((*labels[C], *labels[A])):
        has = tuple(label in own for own in labels)
        where = [(own.index(label) if label in own else -1) for own in labels]
        sizes = [p.shape[w] if w >= 0 else 1 for p, w in zip(places, where, strict=True)]
        strides = [
            p.strides[w] if w >= 0 and size != 1 else 0
            for p, w, size in zip(places, where, sizes, strict=True)
        ]
        extent = 0 if 0 in sizes else max(sizes)
        found.append((has, Axis(extent, (strides[0], strides[1], strides[2]))))
    return found


def _of_kind(axes: list[tuple[tuple[bool, ...], Axis]], *wanted: int) -> list[Axis]:
    return [axis for has, axis in axes if has == tuple(map(bool, wanted)) and axis.extent != 1]


def _inner_stride(axes: Sequence[Axis]) -> int:
    """The least stride in the result; more than any if there are none."""
    return min((axis.strides[C] for axis in axes), default=1 << 62)


def _exchanged(axis: Axis) -> Axis:
    a, b, c = axis.strides
    return Axis(axis.extent, (b, a, c))


def _packing_order(columns: list[Axis], depth: list[Axis]) -> tuple[list[Axis], list[Axis]]:
    """The order of axes in which the second operand is read in long runs.

    Either neighbouring columns touch there, and a run of depth should be long; or
    neighbours in depth do, and the rectangles are transposed when packed.
    """
    touching = max((axis.extent for axis in columns[-1:] if axis.strides[B] == 1), default=1)
    deep = max((axis.extent for axis in depth if axis.strides[B] == 1), default=1)
    if touching >= min(SHORT_RUN, deep):
        return columns, _with_last(depth, lambda axis: axis.extent)
    depth = _with_last(depth, lambda axis: axis.strides[B] == 1)
    return _with_last(columns, lambda axis: axis.extent), depth


def _with_last(axes: list[Axis], merit: Callable[[Axis], int]) -> list[Axis]:
    """``axes`` with the one of most merit as the innermost."""
    if not axes:
        return axes
    best = max(reversed(axes), key=merit)
    return [*(axis for axis in axes if axis is not best), best]


def merged(axes: Sequence[Axis]) -> Axes:
    """Axes that run on from one another in all of memory, as one."""
    found: list[Axis] = []
    for axis in axes:
        if found and all(
            o == i * axis.extent for o, i in zip(found[-1].strides, axis.strides, strict=True)
        ):
            axis = replace(axis, extent=found.pop().extent * axis.extent)
        found.append(axis)
    return tuple(found)


def single_stride(axes: Axes, which: int) -> int | None:
    """The stride with which all of ``axes`` run on in one place; None if there is none."""
    alone = merged([Axis(axis.extent, (axis.strides[which], 0, 0)) for axis in axes])
    if not alone:
        return 0
    return alone[0].strides[0] if len(alone) == 1 else None


def _with_batches_of_columns(walk: Walk) -> Walk:
    """Outer axes of the columns become batch axes where the inner ones are many and lie
    together in the result, so that tiles are written where they belong."""
    together = 0
    for count in range(1, len(walk.columns)):
        if single_stride(walk.columns[-count:], C) == 1:
            together = count
    inner = walk.columns[len(walk.columns) - together :]
    if prod(axis.extent for axis in inner) < BATCH_COLUMNS or not together:
        return walk
    outer = walk.columns[: len(walk.columns) - together]
    return replace(walk, batch=merged((*walk.batch, *outer)), columns=inner)


@dataclass(frozen=True, slots=True)
class Operand:
    """The first operand as the kernel reads it: packed, or row by row as it lies."""

    packed: bool
    row: int = 0
    step: int = 0


def first_operand(walk: Walk) -> Operand | None:
    """How the first operand is read; None if it should be put in order first."""
    row, step = single_stride(walk.rows, A), single_stride(walk.depth, A)
    if row is not None and step == 1:
        return Operand(False, row, step)
    inner = (walk.rows[-1].strides[A], walk.depth[-1].strides[A])
    return Operand(True) if 1 in inner else None


def in_order(walk: Walk, place: Layout) -> tuple[Layout, Walk]:
    """The first operand as a batch of matrices in row-major order: where its elements are
    now, and the walk over a copy in that order."""
    batch = tuple(axis for axis in walk.batch if axis.strides[A] != 0)
    axes = (*batch, *walk.rows, *walk.depth)
    type = TensorType(place.type.dtype, tuple(axis.extent for axis in axes))
    source = Layout(place.buffer, type, place.offset, tuple(axis.strides[A] for axis in axes))
    strides = iter(row_major(type.static_shape))
    moved = {id(axis): next(strides) for axis in axes}

    def placed(kind: Axes) -> Axes:
        return tuple(
            replace(axis, strides=(moved.get(id(axis), 0), *axis.strides[1:])) for axis in kind
        )

    return source, Walk(placed(walk.batch), placed(walk.rows), walk.columns, placed(walk.depth))


def product_calls(
    labels: Labels,
    places: Sequence[Layout],
    copied: Callable[[Layout, Layout], list[Call]],
    context: Scratch,
) -> list[Call]:
    """The calls that write the product of ``places[0]`` and ``places[1]`` to ``places[2]``.

    ``copied`` copies one place to another, for a first operand in no good order.
    """
    walk, swapped = walk_of(labels, places)
    a, b, c = places
    a, b = (b, a) if swapped else (a, b)
    matrices = as_matrices(walk, (a, b, c))
    if matrices is not None:
        return [contraction_call(*matrices, None, context)]
    calls: list[Call] = []
    if c.type.dtype.short in TILED and first_operand(walk) is None:
        source, walk = in_order(walk, a)
        a = context.temporary(source.type)
        calls = copied(source, a)
    return [*calls, axes_call(walk, (a, b, c), context)]


def axes_call(walk: Walk, places: Sequence[Layout], context: Scratch) -> Call:
    """The call that writes the product of ``places[0]`` and ``places[1]`` to ``places[2]``."""
    a, b, c = places
    dtype = c.type.dtype
    m, n, k, batches = (walk.count(kind) for kind in ("rows", "columns", "depth", "batch"))
    kernel, cut, scratch = _plan(walk, dtype, context)
    tables = (*walk.batch, *walk.rows, *walk.columns, *walk.depth)
    kinds = (walk.batch, walk.rows, walk.columns, walk.depth)
    words = (m, n, k, batches, *map(len, kinds), *cut[:2])
    flops = 2 * batches * m * n * k
    return Call(
        kernel=kernel,
        arguments=(
            *map(address, places),
            *map(Value, words),
            address(scratch[0]) if scratch else Value(0),
            *map(Value, cut[2:]),
            *(Value(word) for axis in tables for word in (axis.extent, *axis.strides)),
        ),
        reads=frozenset((a.buffer, b.buffer)),
        writes=frozenset((c.buffer, *(s.buffer for s in scratch))),
        parallel=flops >= PARALLEL_FLOPS,
        flops=flops,
    )


def _plan(
    walk: Walk, dtype: DType, context: Scratch
) -> tuple[KernelSource, tuple[int, ...], tuple[Layout, ...]]:
    """The kernel, its words from the block sizes on (without the scratch), and the scratch."""
    if dtype.short not in TILED:
        return plain_axes_kernel(dtype.short, accumulator(dtype.short)), (0,) * 14, ()
    tile, itemsize = tiling(host_target(), dtype.itemsize), dtype.itemsize
    depth, columns = axes_blocks(tile, itemsize, walk.count("depth"))
    columns = least(columns, rounded_up(greatest(1, walk.count("columns")), tile.width))
    operand = first_operand(walk) or Operand(True)
    line = LINE_BYTES // itemsize
    strip = rounded_up(depth * columns, line)
    spare = strip + rounded_up(tile.strip * depth * operand.packed, line)
    spots = spare + rounded_up(tile.height * tile.width, line)
    items = spots + rounded_up(columns * (8 // itemsize), line)
    scratch = context.temporary(TensorType(dtype, (context.threads, items)))
    c_row = single_stride(walk.rows, C)
    falling = [axis.strides[C] for axis in walk.columns]
    if falling != sorted(falling, reverse=True):
        c_row = None  # columns are not in the result's order: the kernel must not compare ends
    rows, inner = walk.rows[-1], walk.columns[-1]
    cut = (
        depth, columns, items, strip, spare, spots,
        operand.packed, operand.row, operand.step, -1 if c_row is None else c_row,
        rows.extent, rows.strides[A], inner.extent, inner.strides[B],
    )  # fmt: skip
    return tiled_axes_kernel(dtype.short, itemsize, tile), cut, (scratch,)


def as_matrices(walk: Walk, places: Sequence[Layout]) -> tuple[Layout, Layout, Layout] | None:
    """The places as matrices, if the walk is one over a batch of ordinary products."""
    if max(len(walk.rows), len(walk.columns), len(walk.depth)) > 1:
        return None
    (row,), (column,), (depth,) = walk.rows, walk.columns, walk.depth
    if column.extent > 1 and column.strides[C] != 1:
        return None
    ends = ((row, depth), (depth, column), (row, column))
    found = []
    for which, (place, pair) in enumerate(zip(places, ends, strict=True)):
        axes = (*walk.batch, *pair)
        batch = [a.extent if a.strides[which] or which == C else 1 for a in walk.batch]
        type = TensorType(place.type.dtype, (*batch, *(axis.extent for axis in pair)))
        strides = tuple(axis.strides[which] for axis in axes)
        found.append(Layout(place.buffer, type, place.offset, strides))
    return found[0], found[1], found[2]
