"""Reductions too long for one thread: chunks first, then their results.

With few kept points and many elements to fold, the longest reduced loop is cut
into chunks by the shape alone (so the bits do not depend on the number of
threads).  One call folds every chunk into a row of partial results, a second
folds those rows.  A group of several stages becomes a pair of calls a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.crossed import MARGIN, Squares, crossed_axis
from graphflow.codegen.emit import Emitter
from graphflow.codegen.loops import Fold, Load, LoopKind
from graphflow.codegen.lower_column import Columns, column_pass, lower_column
from graphflow.codegen.lower_map import lower_map
from graphflow.codegen.lower_row import is_regrouped, lower_row, row_pass
from graphflow.codegen.passes_plan import Only, plan_skips, plan_stages
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import example_of, is_fixed, surely
from graphflow.codegen.spaces import Axis, Plan, Space, Survey, Target, plan_loops, survey, work
from graphflow.codegen.task import Task, finish_call
from graphflow.ir.affine import Affine
from graphflow.records import replace

FEW_ROWS = 16
"""With so many kept points a row kernel has enough for every thread."""
FEW_COLUMNS = 4096
"""With so many columns a column kernel has."""
LEAST_CHUNKED = 32
"""The longest reduced loop has at least so many iterations to be cut."""
LEAST_ELEMENTS = 1 << 17
CHUNK_ELEMENTS = 1 << 15
MOST_CHUNKS = 64
"""Enough for every thread; a fold of more than so many elements in turn may have more."""
MOST_PARTIALS = 1024
"""Short chunks lose fewer digits: this many if they are still long …"""
LONG_CHUNK = 1024
"""… which is so many iterations of the cut loop."""
SIDE_BY_SIDE = 16
"""So many columns fill vectors; with fewer, the chunks of a column do when they are folded."""
LONG_ROW = 1 << 20
"""Rows of so many elements are cut even if every thread has some, for the digits."""
CHUNK = "chunk"


def should_split(plan: Plan, found: Survey) -> bool:
    """Whether the group is worth cutting; depends on shapes only."""
    if not plan.reduced or not found.folds or plan.rows * plan.depth < LEAST_ELEMENTS:
        return False
    if not all(is_regrouped(fold) for fold in found.folds):
        return False
    longest = max(axis.extent for axis in plan.reduced)
    if plan.column:
        return plan.rows < FEW_COLUMNS and longest >= LEAST_CHUNKED
    return (plan.rows < FEW_ROWS or plan.depth >= LONG_ROW) and longest >= LEAST_CHUNKED


def lower_split(task: Task, plan: Plan, targets: Sequence[Target], found: Survey) -> list[Call]:
    """Two calls a stage: partial folds, then the folds; a last one for what needs them all."""
    stages = plan_stages(targets, found, task.bound)
    only_where = plan_skips(stages, targets, found, plan, task.bound)
    calls: list[Call] = []
    last = max(n for n, folds in enumerate(stages.folds) if folds)
    waiting = list(stages.kept)
    for number, (folds, full) in enumerate(zip(stages.folds, stages.full)):
        only = only_where[number]
        if not folds:
            if full:
                space = replace(task.space, kept=tuple(task.space.extents), reduced=())
                rest = replace(task, space=space)
                calls.append(lower_map(rest, full, survey(full, task.bound)))
            continue
        partial, count, call = _partial_call(task, plan, folds, full, only)
        calls.append(call)
        done = waiting if number == last else []
        later = folds if number + 1 < len(stages.folds) else []
        calls.append(_finish(task, plan, partial, count, later, done))
    return calls


def _partial_call(
    task: Task, plan: Plan, folds: Sequence[Fold], full: Sequence[Target], only: Only | None
) -> tuple[dict[Fold, Load], int, Call]:
    """Fold every chunk; the loads of the partial results, and the number of chunks."""
    cut = max(plan.reduced, key=lambda axis: axis.extent)
    most = MOST_CHUNKS
    if cut.extent > MOST_CHUNKS * LONG_CHUNK:
        most = min(MOST_PARTIALS, example_of(cut.extent) // LONG_CHUNK)
    extent, points = example_of(cut.extent), example_of(plan.rows * plan.depth)
    count = min(most, extent, max(2, points // CHUNK_ELEMENTS))
    size = -(-cut.extent // count)
    if is_fixed(size):  # else some of the last chunks may be empty
        count = -(-cut.extent // size)
    chunk = Axis(CHUNK, (CHUNK,), (count,), 0)
    partial = {f: partial_load(task, plan, f, count) for f in folds}
    results = [Target(load.slot, load.index, fold) for fold, load in partial.items()]
    found = survey([*results, *full], task.bound)
    prefix = "col" if plan.column else "row" if plan.kept else "red"
    emitter = Emitter(prefix, full, found.uses, task.error, task.bound)
    for load in partial.values():
        emitter.add_result(load.slot, "partial")
    emitter.share_count(emitter.constant("chunks", count))
    emitter.open((chunk,), CHUNK, "begin", "end", LoopKind.PARALLEL)
    length = emitter.constant("size", size)
    emitter.name_index("first", f"chunk * {length}")
    emitter.name_index("last", f"min(first + {length}, {emitter.extent(cut)})")
    emitter.ranges[cut] = ("first", "last")
    if plan.column:
        for axis in plan.kept[:-1]:
            emitter.open_axis(axis)
        columns = Columns(task, emitter, plan, dict(partial))
        column_pass(
            columns, plan.kept[-1], folds, full, work(task.space, found, [*results, *full])[0]
        )
        for target in results:
            emitter.result(target.slot, target.value)
    else:
        for axis in plan.kept:
            emitter.open_axis(axis)
        squares = _squares(task, plan, found, cut, size)
        row_pass(emitter, plan.reduced, folds, full, only=only, squares=squares)
        emitter.store(results)
    return partial, count, finish_call(task, emitter, [*results, *full], found)


def _squares(task: Task, plan: Plan, found: Survey, cut: Axis, size: int) -> Squares | None:
    """The blocks in which a chunk is folded, ``size`` long along ``cut``, if an operand lies so."""
    *around, inner = plan.reduced
    crossed = crossed_axis(around, inner, found)
    if crossed is None or (crossed is cut and not surely(MARGIN, size)):
        return None
    return Squares(task, crossed, inner, found)


def partial_load(task: Task, plan: Plan, fold: Fold, count: int) -> Load:
    """A buffer with every kept point for each chunk, and the load of this one's."""
    if plan.column and plan.rows >= SIDE_BY_SIDE:  # as they are read and added up
        shape, index = (count, plan.rows), kept_index(plan, {CHUNK: plan.rows})
    else:  # chunks side by side, so that finishing folds them in several lanes
        shape, index = (plan.rows, count), kept_index(plan, {CHUNK: 1}, count)
    return Load(fold.dtype, fold.varies, task.scratch(fold.dtype, shape), index)


def kept_index(plan: Plan, terms: Mapping[str, int], step: int = 1) -> Affine:
    """The row-major index of a kept point, ``step`` elements each, plus ``terms``."""
    found = dict(terms)
    for axis in reversed(plan.kept):
        # Written out for every variable of the loop, since other plans merge otherwise.
        for variable, extent in zip(reversed(axis.variables), reversed(axis.extents)):
            found[variable] = step
            step *= extent
    return Affine.of(found)


def _finish(
    task: Task,
    plan: Plan,
    partial: Mapping[Fold, Load],
    count: int,
    later: Sequence[Fold],
    kept: Sequence[Target],
) -> Call:
    """Fold the partial results; store kept targets, and the folds that stages after use."""
    finish = fold_of_parts(task, partial, count)
    targets = [*kept, *keep_folds(task, plan, later)]
    found = survey(targets, finish.bound)
    plan = plan_loops(finish.space, targets, found)
    return (lower_column if plan.column else lower_row)(finish, plan, targets, found)


def fold_of_parts(task: Task, partial: Mapping[Fold, Load], count: int) -> Task:
    """The task that is left when ``count`` parts are folded: folding their results."""
    old = task.space
    extents = {**{name: old.extents[name] for name in old.kept}, CHUNK: count}
    bits = {**old.bits, CHUNK: 1 << max(mask.bit_length() for mask in old.bits.values())}
    left = Task(Space(old.kept, (CHUNK,), extents, bits), task.context, task.error, {**task.bound})
    for fold, load in partial.items():
        element = replace(load, varies=fold.varies | bits[CHUNK])
        left.bound[fold] = Fold(fold.dtype, fold.varies, fold.op, element)
    return left


def keep_folds(task: Task, plan: Plan, folds: Sequence[Fold]) -> list[Target]:
    """Scratch for what passes after this one need of ``folds``, which ``task`` then reads there."""
    targets = []
    for fold in folds:
        slot = task.scratch(fold.dtype, (plan.rows,))
        index = kept_index(plan, {})
        targets.append(Target(slot, index, fold))
        task.bound[fold] = Load(fold.dtype, fold.varies, slot, index)
    return targets
