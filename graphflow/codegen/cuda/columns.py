"""Folds across rows that lie in memory as they do in a matrix: a block takes a tile of columns.

A block's threads are lanes: some columns side by side, which read neighbouring elements, times
rows.  Column sums of a matrix of 64 columns::

    width = 32
    lane, lanes = cuda.threadIdx.x // width, cuda.blockDim.x // width
    column = cuda.threadIdx.x - lane * width
    row = cuda.blockIdx.x
    while row < nchunk * ntile:
        tile = remainder(row, ntile)
        chunk = quotient(row, ntile)
        j = min(tile * width + column, nj - 1)
        there = tile * width + column < nj
        first = chunk * size
        last = min(first + size, ni)
        stop = select(there, last, first)
        sum0 = f32(0.0)
        i = first + lane
        while i + 3 * lanes < stop:
            for _ in range(4):
                sum0 = add_fast(sum0, read(a, i * s0 + j))
                i += lanes
        while i < stop:
            sum0 = add_fast(sum0, read(a, i * s0 + j))
            i += lanes
        ...  # the lanes of a column meet by halves
        if lane == 0 and there:
            partial[chunk * s1 + j] = sum0
        row = ahead(row, cuda.gridDim.x)

What the kernel does not write is read by ``read``, which need not wait for stores of rows before.
Threads beyond the last column have its index and no rows.  Tiles and parts (``chunk``) depend on
shapes only, so the bits do not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from graphflow.codegen.cuda.cut import Lower, Part, fold_in_parts, reads_results
from graphflow.codegen.cuda.lanes import CudaEmitter, choose_lanes
from graphflow.codegen.emit import Emitter
from graphflow.codegen.loops import Fold, Load, LoopKind
from graphflow.codegen.lower_row import is_regrouped
from graphflow.codegen.lower_split import CHUNK, kept_index
from graphflow.codegen.passes_plan import Only, Stages, plan_skips
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import example_of
from graphflow.codegen.spaces import Axis, Plan, Survey, Target, survey
from graphflow.codegen.task import Task, finish_call

TILE = "tile"
WIDEST = 32
"""Columns of a tile: those of a warp, which read 128 bytes of float32 at a time."""
LANES = 8
"""Rows that a block reads at a time where a tile is of ``WIDEST`` columns."""
LEAST_ROWS = 8
"""Rows a lane, at least, where columns are cut into parts."""
BLOCKS = 2048
"""Enough to fill a GPU; columns are cut into no more parts than make so many blocks."""
MANY_COLUMNS = 1 << 17
"""So many columns fill a GPU with a thread each."""

FoldPass: TypeAlias = "Callable[..., None]"
"""How one pass is written (``lower.fold_pass``)."""


def is_tiled(plan: Plan, found: Survey) -> bool:
    """Whether a block takes a tile of columns; depends on shapes only."""
    if not plan.column or not all(is_regrouped(fold) for fold in found.folds):
        return False
    return example_of(plan.rows) < MANY_COLUMNS and example_of(plan.depth) > LANES


def tiles_of(plan: Plan) -> tuple[int, int]:
    """Columns of a tile, and parts into which their rows are cut; depends on shapes only."""
    columns = example_of(plan.kept[-1].extent)
    width = min(WIDEST, 1 << (columns - 1).bit_length())
    blocks = example_of(plan.rows) // columns * -(-columns // width)
    least = LEAST_ROWS * LANES * WIDEST // width
    return width, max(1, min(BLOCKS // blocks, example_of(plan.depth) // least))


def lower_columns(
    task: Task, plan: Plan, targets: Sequence[Target], found: Survey, stages: Stages,
    fold_pass: FoldPass, meet: Lower, store: Lower,
) -> list[Call]:  # fmt: skip
    """One call, or for each pass one that folds the parts of columns and one that folds those
    (by ``meet``); what is left to be stored everywhere then is a call of its own (by ``store``).
    """
    width, parts = tiles_of(plan)
    only_where = plan_skips(stages, targets, found, plan, task.bound, apart=True)
    if parts > 1 and not reads_results(task, stages):
        return _in_parts(task, plan, stages, only_where, width, parts, fold_pass, meet, store)
    emitter = _emitter(task, targets, found)
    rows = _open_tiles(emitter, plan, width)
    for folds, full, only in zip(stages.folds, stages.full, only_where):
        fold_pass(emitter, plan.reduced, folds, full, LoopKind.LANES, _where(emitter, rows, only))
    emitter.store(stages.kept)
    return [finish_call(task, emitter, targets, found)]


def _emitter(task: Task, stored: Sequence[Target], found: Survey) -> CudaEmitter:
    return CudaEmitter("tile", stored, task, found, choose_lanes(task, None, stored, found))


def _open_tiles(emitter: Emitter, plan: Plan, width: int, parts: int = 1) -> tuple[str, ...]:
    """Open the loop over tiles and parts; the rows of a part, of which lanes take turns, and the
    width of a tile."""
    inner = plan.kept[-1]
    tiles = Axis(TILE, (TILE,), (-(-inner.extent // width),), 0)
    chunks = [Axis(CHUNK, (CHUNK,), (parts,), 0)] if parts > 1 else []
    emitter.open_shared((*plan.kept[:-1], *chunks, tiles))
    place, columns = f"{TILE} * width + column", emitter.extent(inner)
    emitter.vary(inner, f"min({place}, {columns} - 1)")
    emitter.name_index("there", f"{place} < {columns}")
    first, last = "0", emitter.count(plan.reduced)
    if chunks:
        size = emitter.constant("size", -(-plan.depth // parts))
        emitter.name_index("first", f"{CHUNK} * {size}")
        emitter.name_index("last", f"min(first + {size}, {last})")
        first, last = "first", "last"
    emitter.name_index("stop", f"select(there, {last}, {first})")
    return first, "stop", str(width)


def _where(emitter: Emitter, rows: tuple[str, ...], only: Only | None) -> tuple[str, ...]:
    """No rows in columns that do not need the pass; their folds stay what they begin with."""
    if only is None:
        return rows
    condition, holds = only
    emitter.need_named(condition)
    first, stop, width = rows
    needed = emitter.fresh("needed")
    choices = f"{stop}, {first}" if holds else f"{first}, {stop}"
    emitter.name_index(needed, f"select({emitter.names[condition]}, {choices})")
    return first, needed, width


def _in_parts(
    task: Task, plan: Plan, stages: Stages, only_where: Sequence[Only | None],
    width: int, parts: int, fold_pass: FoldPass, meet: Lower, store: Lower,
) -> list[Call]:  # fmt: skip
    def part(folds: Sequence[Fold], full: Sequence[Target], only: Only | None) -> Part:
        partial = {fold: _place(task, plan, fold, parts) for fold in folds}
        results = [Target(load.slot, load.index, fold) for fold, load in partial.items()]
        found = survey([*results, *full], task.bound)
        emitter = _emitter(task, full, found)
        for load in partial.values():
            emitter.add_result(load.slot, "partial")
        rows = _where(emitter, _open_tiles(emitter, plan, width, parts), only)
        fold_pass(emitter, plan.reduced, folds, full, LoopKind.LANES, rows)
        emitter.store(results)
        return partial, finish_call(task, emitter, [*results, *full], found)

    return fold_in_parts(task, plan, stages, only_where, parts, part, meet, store)


def _place(task: Task, plan: Plan, fold: Fold, parts: int) -> Load:
    """Where the result of a part of a column goes: beside those of other columns."""
    slot = task.scratch(fold.dtype, (parts, plan.rows))
    return Load(fold.dtype, fold.varies, slot, kept_index(plan, {CHUNK: plan.rows}))
