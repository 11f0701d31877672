"""Products over several axes: which axis is what, in which order, and what is packed.

An axis of both operands and the result is a *batch* axis, one of the first operand and
the result runs over *rows*, one of the second and the result over *columns*; what both
operands have and the result lacks is *depth*.  Neighbouring axes merge where strides
allow, so an ordinary matrix product ends with one axis of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphflow.codegen.contraction.along import run_of, walk_along
from graphflow.codegen.contraction.axes_kernels import PACKING, plain_axes_kernel, tiled_axes_kernel
from graphflow.codegen.contraction.call import (
    PARALLEL_FLOPS,
    Scratch,
    address,
    contraction_call,
    has_tiles,
    rounded_up,
)
from graphflow.codegen.contraction.choice import Choice, advised, choose
from graphflow.codegen.contraction.halves import HALVES, added_halves, in_halves
from graphflow.codegen.contraction.kernels import accumulator
from graphflow.codegen.contraction.tiling import (
    Tiling,
    axes_blocks,
    far_blocks,
    far_steps,
    tiling,
)
from graphflow.codegen.contraction.walk import (
    LANES,
    A,
    Axes,
    Axis,
    B,
    C,
    Walk,
    alone,
    exchanged,
    merged,
    single_stride,
)
from graphflow.codegen.layout import Layout
from graphflow.codegen.schedule import Call, KernelSource, Value
from graphflow.codegen.sizes import example_of, greatest, is_fixed, least
from graphflow.codegen.target import LINE_BYTES, chosen_target
from graphflow.ir.op import Labels
from graphflow.ir.types import DType, TensorType
from graphflow.records import replace

NO_BLOCKS: tuple[tuple[int, ...], tuple[Layout, ...], str] = ((0,) * 25, (), "")
"""The words of a kernel without blocks, its scratch, and its name where blocks are measured."""
BATCH_COLUMNS = 128
"""Columns that lie together in the result are multiplied by themselves from this many on."""
WRITING, TURNING = 2, 20
"""Steps multiplied in the time that an element of the result is written, in rows or across."""
RECTANGLE = 1000
"""Rows multiplied in the time that it takes to begin with a rectangle to be packed."""
FAR = 128
"""Elements between steps from which on rows of the first operand are packed: nearer ones do
not compete for the same places of a cache."""
GROUP = 16
"""Channels whose taps are written together: see :func:`_in_groups`."""
FAR_APART = 1 << 17
"""Elements of a result that is too large to be written line by line out of a cache."""
IN_PLACE_ROWS, IN_PLACE_STEPS = 48, 128
"""Up to so many rows the second operand is not packed, and is read so many steps at a time."""
COLLIDING = 256
"""Elements at multiples of which steps share few places of the first-level cache."""
NEIGHBOURS = 16
"""So many of them at least are taken together where taps lie between them."""


def walk_of(labels: Labels, places: Sequence[Layout]) -> tuple[Walk, bool]:
    """The walk of a product of ``places[0]`` and ``places[1]`` into ``places[2]``.

    Also whether operands are exchanged, which they are if the product is cheaper so.
    """
    axes = axes_of(labels, places)
    kinds = [of_kind(axes, *kind) for kind in ((1, 1, 1), (1, 0, 1), (0, 1, 1), (1, 1, 0))]
    turned = [[exchanged(axis) for axis in kinds[which]] for which in (0, 2, 1, 3)]
    a, _, c = places
    if has_tiles(a.type.dtype, c.type.dtype, 0):  # however few: the plain loop knows no lanes
        for exchange, (batch, rows, columns, depth) in ((False, kinds), (True, turned)):
            walk = walk_along(batch, rows, columns, depth, itemsize=c.type.dtype.itemsize)
            if walk is not None:
                return walk, exchange
    swapped = _expense(*turned[1:]) < _expense(*kinds[1:])
    kinds = turned if swapped else kinds
    batch, rows, columns, depth = kinds
    columns, depth = _reading_order(columns, depth)
    if single_stride(merged(rows), C) is None:  # written from scratch anyway
        rows = sorted(rows, key=lambda axis: -abs(axis.strides[A]))
    one = [Axis(1, (0, 0, 0))]
    rows, columns, depth = (kind or one for kind in (rows, columns, depth))
    walk = Walk(merged(batch), merged(rows), merged(columns), merged(depth))
    if walk.count("rows") * walk.count("columns") > FAR_APART:
        walk = replace(walk, rows=_in_groups(walk.rows))
    return _with_batches_of_columns(walk), swapped


def _in_groups(rows: Axes) -> Axes:
    """Rows whose outer axes lie together in the result, with a part of the last axis outside.

    So it is with the gradient of taps: channels are neighbours in the image, taps in the
    result.  A group of ``GROUP`` channels with all their taps is then written in whole lines.
    """
    if len(rows) < 2 or single_stride(rows[:-1], C) != 1 or rows[-1].strides[C] == 1:
        return rows
    *outer, last = rows
    if not all(is_fixed(axis.extent) for axis in rows):
        return rows
    if last.extent % GROUP or last.extent == GROUP or last.strides[A] != 1:
        return rows
    far = (GROUP * last.strides[A], 0, GROUP * last.strides[C])
    return (Axis(last.extent // GROUP, far), *outer, Axis(GROUP, last.strides))


def _groups(rows: Axes) -> tuple[int, int]:
    """Of rows in groups: how many axes' inner rows there are, and how many lie together; else 0."""
    if len(rows) < 3 or rows[-1].extent != GROUP or rows[-1].strides[C] == 1:
        return 0, 0
    if single_stride(rows[1:-1], C) != 1 or rows[0].strides[A] != GROUP * rows[-1].strides[A]:
        return 0, 0
    return GROUP, prod(axis.extent for axis in rows[1:-1])


def _in_bundles(walk: Walk, dtype: DType) -> Walk:
    """The walk with a part of the last depth inside of axes that are nearer in the second operand.

    So it is with weights: taps are neighbours there, channels in the image.  All taps of a
    part of the channels are then packed together, while their lines are in cache.
    """
    near = _nearer(walk.depth)
    if not near or not _from_afar(walk, dtype):
        return walk
    *outer, last = walk.depth
    most = far_steps(*_tile_of(walk, dtype)) // prod(axis.extent for axis in near)
    parts = [part for part in range(NEIGHBOURS, most + 1, NEIGHBOURS) if last.extent % part == 0]
    if last.extent <= most or not parts:
        return walk
    part = parts[-1]
    a, b, c = (part * stride for stride in last.strides)
    far, inner = Axis(last.extent // part, (a, b, c)), Axis(part, last.strides)
    return replace(walk, depth=(*outer[: -len(near)], far, *near, inner))


def _nearer(depth: Axes) -> Axes:
    """The axes before the last one that are nearer than it in the second operand, where the last
    one's steps are neighbours in the first."""
    *outer, last = depth
    if last.strides[A] != 1 or not all(is_fixed(axis.extent) for axis in depth):
        return ()
    reach = [abs(axis.strides[B]) < abs(last.strides[B]) for axis in outer]
    return tuple(outer[len(outer) - [*reversed(reach), False].index(False) :])


def _bundle(depth: Axes, most: int) -> tuple[int, int]:
    """Steps that are packed together, if at most ``most``; how many taps they have, if they run on
    in the second operand, where taps are the inner axis and not the outer ones, else 0."""
    near, last = _nearer(depth), depth[-1]
    taps = prod(axis.extent for axis in near)
    if not near or taps * last.extent > most:
        return 1, 0
    runs = single_stride(near, B) == 1 and last.strides[B] == taps
    return taps * last.extent, taps * (runs and last.extent >= NEIGHBOURS)


def _from_afar(walk: Walk, dtype: DType) -> bool:
    """Whether rows meet all panels, which come from the second-level cache, before the next rows.

    They do where tiles are tall enough, and read and written where elements lie.
    """
    tile, itemsize = _tile_of(walk, dtype)
    if walk.along:
        return False
    row = _row_in_result(walk)
    straight = is_fixed(row) and row >= 0 and single_stride(walk.columns, C) == 1
    there = _in_place(walk.count("rows"), walk.columns, walk.depth, tile.width)
    apart = _packs_rows(walk, tile) or there or not is_fixed(walk.count("depth"))
    return tile.is_tall(itemsize) and straight and not apart


def _tile_of(walk: Walk, dtype: DType) -> tuple[Tiling, int]:
    """The tile, and the bytes of an element.

    Columns that half of a vector holds have half vectors: processors that multiply a long one
    in two cycles take two of them in that time.
    """
    tile, columns = tiling(chosen_target(), dtype.itemsize), walk.count("columns")
    half = tile.lanes // 2
    if tile.is_tall(dtype.itemsize) and not walk.along and is_fixed(columns) and columns <= half:
        tile = replace(tile, lanes=half, vectors=1)
    return tile, dtype.itemsize


def _packs_rows(walk: Walk, tile: Tiling) -> bool:
    """Whether rows of the first operand, which are neighbours at steps far apart, are packed."""
    row, step = walk.rows[-1], walk.depth[-1]
    if walk.along:
        return False
    return row.strides[A] == 1 and row.extent >= tile.height and step.strides[A] >= FAR


def _row_in_result(walk: Walk) -> int:
    """How far rows are apart in the result; -1 if they do not run on, or columns are not in the
    result's order: the kernel must not compare ends."""
    row = single_stride(walk.rows, C)
    falling = [axis.strides[C] for axis in walk.columns]
    return -1 if row is None or falling != sorted(falling, reverse=True) else row


def _in_place(rows: int, columns: Sequence[Axis], depth: Sequence[Axis], width: int) -> bool:
    """Whether columns of the second operand are multiplied where they lie: together, whole
    tiles of them, at steps that run on, and for too few rows to make up for packing."""
    return (
        rows <= IN_PLACE_ROWS
        and all(is_fixed(axis.extent) for axis in columns)
        and prod(axis.extent for axis in columns) % width == 0
        and single_stride(tuple(columns), B) == 1
        and single_stride(tuple(depth), B) is not None
    )


def axes_of(labels: Labels, places: Sequence[Layout]) -> list[tuple[tuple[bool, ...], Axis]]:
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


def of_kind(axes: list[tuple[tuple[bool, ...], Axis]], *wanted: int) -> list[Axis]:
    """The axes that operands and result have as ``wanted`` says, without those of extent 1."""
    return [axis for has, axis in axes if has == tuple(map(bool, wanted)) and axis.extent != 1]


def _expense(rows: Sequence[Axis], columns: Sequence[Axis], depth: Sequence[Axis]) -> float:
    """What a product costs, in multiplications of a row: columns are packed, and the result
    is cheaper to write where they touch."""
    m, n, k = (prod(example_of(axis.extent) for axis in axes) for axes in (rows, columns, depth))
    touch = _inner_stride(columns) <= _inner_stride(rows)
    columns, depth = _reading_order(list(columns), list(depth))
    across, run = (alone(tuple(axes), B)[-1].extent if axes else 1 for axes in (columns, depth))
    packing = PACKING + RECTANGLE // max(1, min(across, LANES) * run)
    if _in_place(m, _batches_of(merged(columns))[1], depth, 2 * LANES):
        packing = 0
    multiplied = m * rounded_up(n, LANES) * k
    return multiplied + n * k * packing + m * n * (WRITING if touch else TURNING)


def _inner_stride(axes: Sequence[Axis]) -> int:
    """The least stride in the result; more than any if there are none."""
    return min((axis.strides[C] for axis in axes), default=1 << 62)


def _reading_order(columns: list[Axis], depth: list[Axis]) -> tuple[list[Axis], list[Axis]]:
    """The order of axes in which operands are read.

    The first operand is read again for every panel of columns, so the depth that moves
    least there comes last, unless all of it lies together in the second; that is packed
    once, in runs of columns or of depth that should be long.
    """
    there = sorted(depth, key=lambda axis: (-abs(axis.strides[B]), -abs(axis.strides[A])))
    depth = sorted(depth, key=lambda axis: (-abs(axis.strides[A]), -abs(axis.strides[B])))
    runs = single_stride(tuple(depth), A) == 1 or _collide(depth)
    if not runs and single_stride(tuple(there), B) == 1:
        depth = there
    if any(axis.strides[B] == 1 for axis in columns[-1:]):
        return columns, depth
    return _with_last(columns, lambda axis: axis.extent), depth


def _collide(depth: list[Axis]) -> bool:
    """Whether steps lie at distances in the first operand that share few places of a cache."""
    return any(axis.strides[A] % COLLIDING == 0 for axis in depth if abs(axis.strides[A]) > 1)


def _with_last(axes: list[Axis], merit: Callable[[Axis], int]) -> list[Axis]:
    """``axes`` with the one of most merit as the innermost."""
    if not axes:
        return axes
    best = max(reversed(axes), key=merit)
    return [*(axis for axis in axes if axis is not best), best]


def _with_batches_of_columns(walk: Walk) -> Walk:
    """Outer axes of the columns become batch axes where the inner ones are many and lie
    together in the result, so that tiles are written where they belong."""
    outer, inner = _batches_of(walk.columns)
    return replace(walk, batch=merged((*walk.batch, *outer)), columns=inner)


def _batches_of(columns: Axes) -> tuple[Axes, Axes]:
    """The axes of columns that become batch axes, and the others."""
    together = 0
    for count in range(1, len(columns)):
        if single_stride(columns[-count:], C) == 1:
            together = count
    inner = columns[len(columns) - together :]
    if prod(axis.extent for axis in inner) < BATCH_COLUMNS or not together:
        return (), columns
    return columns[: len(columns) - together], inner


def product_calls(labels: Labels, places: Sequence[Layout], context: Scratch) -> list[Call]:
    """The calls that write the product of ``places[0]`` and ``places[1]`` to ``places[2]``."""
    halved = in_halves(labels, places)
    if halved is None:
        return [_product_call(labels, places, context)]
    room = context.temporary(TensorType(places[2].type.dtype, (HALVES, *halved.shape)))
    call = _product_call(halved.labels, (halved.a, halved.b, room), context)
    return [call, added_halves(room, halved.c, None, call.parallel)]


def _product_call(labels: Labels, places: Sequence[Layout], context: Scratch) -> Call:
    walk, swapped = walk_of(labels, places)
    a, b, c = places
    a, b = (b, a) if swapped else (a, b)
    matrices = as_matrices(walk, (a, b, c))
    if matrices is not None:
        return contraction_call(*matrices, None, context)
    return axes_call(walk, (a, b, c), context)


def axes_call(walk: Walk, places: Sequence[Layout], context: Scratch) -> Call:
    """The call that writes the product of ``places[0]`` and ``places[1]`` to ``places[2]``."""
    a, b, c = places
    dtype = c.type.dtype
    m, n, k, batches = (walk.count(kind) for kind in ("rows", "columns", "depth", "batch"))
    kernel = plain_axes_kernel(a.type.dtype.short, dtype.short, accumulator(dtype.short))
    cut, scratch, product = NO_BLOCKS
    if has_tiles(a.type.dtype, dtype, batches * m * n * k):
        walk = _in_bundles(walk, dtype)
        kernel, cut, scratch, product = _plan(walk, dtype, context)
    tables = _every(walk)
    kinds = (walk.batch, walk.rows, walk.columns, walk.depth)
    words = (m, n, k, batches, *map(len, kinds), *cut[:3])
    flops = 2 * batches * m * n * k
    return Call(
        kernel=kernel,
        arguments=(
            *map(address, places),
            *map(Value, words),
            address(scratch[0]) if scratch else Value(0),
            *map(Value, cut[3:]),
            *(Value(word) for axis in tables for word in (axis.extent, *axis.strides)),
        ),
        reads=frozenset((a.buffer, b.buffer)),
        writes=frozenset((c.buffer, *(s.buffer for s in scratch))),
        parallel=flops >= PARALLEL_FLOPS,
        flops=flops,
        product=product,
    )


def _plan(
    walk: Walk, dtype: DType, context: Scratch
) -> tuple[KernelSource, tuple[int, ...], tuple[Layout, ...], str]:
    """The kernel, its words from the block sizes on (without the scratch), the scratch, and
    what the product is called where blocks are chosen by measuring."""
    tile, itemsize = _tile_of(walk, dtype)
    run = run_of(walk, tile)
    tile = replace(tile, vectors=1) if run else tile
    row, column = walk.rows[-1], walk.columns[-1]
    packed, afar = _packs_rows(walk, tile), _from_afar(walk, dtype)
    bundle, taps = _bundle(walk.depth, far_steps(tile, itemsize)) if afar else (1, 0)
    steps = walk.count("depth")
    if afar:
        depth, columns, rows = far_blocks(tile, itemsize, steps, bundle)
    else:
        depth, columns, rows = axes_blocks(tile, itemsize, steps)
    rows = rows // 2 // tile.height * tile.height if packed else rows
    in_place = _in_place(walk.count("rows"), walk.columns, walk.depth, tile.width)
    depth = least(depth, IN_PLACE_STEPS) if in_place else depth
    depth = max(run.steps, depth // run.steps * run.steps) if run else depth
    inner, together = _groups(walk.rows)
    unit = row.extent if run else inner * together or tile.height
    columns = least(columns, rounded_up(greatest(1, walk.count("columns")), tile.width))
    rows = least(rows, rounded_up(greatest(1, walk.count("rows")), tile.height))
    rows = greatest(unit, rows // unit * unit)
    kernel, product = tiled_axes_kernel(dtype.short, itemsize, tile, packed, walk.along, run), ""
    if advised() and all(is_fixed(axis.extent) for axis in _every(walk)):
        product = f"{kernel.name} {context.threads} {walk}"
        columns, rows = _advised_blocks(product, walk, (columns, tile.width), (rows, unit))
    line = LINE_BYTES // itemsize
    sums = rounded_up(depth * columns, line)
    tables = sums + (0 if afar else rounded_up(rows * columns, line))
    entries = depth + 2 * rows + columns + (bundle if taps else 0)
    strips = tables + rounded_up(entries * (8 // itemsize), line)
    items = strips + (-(-rows // tile.height) * tile.strip * depth if packed else 0)
    items = rounded_up(items, line)
    scratch = context.temporary(TensorType(dtype, (context.threads, items)))
    runs = [(walk.rows, C), (walk.columns, C), (walk.columns, B), (walk.depth, B)]
    cut = (
        depth, columns, rows, items, sums, tables, _row_in_result(walk),
        row.extent, row.strides[A], row.strides[C],
        column.extent, column.strides[B], column.strides[C],
        *(alone(axes, which)[-1].extent for axes, which in runs),
        strips, int(in_place), unit, inner, together,
        tile.height if afar else rows, tile.width if bundle > 1 else columns, taps,
    )  # fmt: skip
    return kernel, cut, (scratch,), product


def _every(walk: Walk) -> Axes:
    return (*walk.batch, *walk.rows, *walk.columns, *walk.depth)


def _advised_blocks(
    product: str, walk: Walk, columns: tuple[int, int], rows: tuple[int, int]
) -> tuple[int, int]:
    """Columns and rows at a time (each given with what it is a multiple of), as chosen."""
    (across, width), (down, unit) = columns, rows
    fewer = max(1, across // width // 2) * width, max(1, down // unit // 2) * unit
    others = [Choice(fewer[0], down), Choice(across, fewer[1]), Choice(*fewer)]
    if across < walk.count("columns"):
        others.append(Choice(2 * across, down))
    if down < walk.count("rows"):
        others.append(Choice(across, 2 * down))
    choice = choose(product, Choice(across, down), others)
    return choice.columns, choice.rows


def as_matrices(walk: Walk, places: Sequence[Layout]) -> tuple[Layout, Layout, Layout] | None:
    """The places as matrices, if the walk is one over a batch of ordinary products."""
    if walk.along or max(len(walk.rows), len(walk.columns), len(walk.depth)) > 1:
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
