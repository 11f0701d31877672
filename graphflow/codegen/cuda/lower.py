"""Skeletons of CUDA kernels: maps, folds and scatters over the loop IR.

A map is one grid-stride loop over all its elements.  A fold runs in one of three forms:
a block of threads for each row, which suits long rows, a thread for each row, which
suits many short ones, or a block for a tile of columns (:mod:`.columns`), for rows that lie
across memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.cuda.columns import is_tiled, lower_columns
from graphflow.codegen.cuda.cut import is_cut, lower_cut
from graphflow.codegen.cuda.lanes import CudaEmitter, choose_lanes
from graphflow.codegen.cuda.lines import lower_lines
from graphflow.codegen.cuda.parted import lower_product
from graphflow.codegen.cuda.rows import plan_held, team_of
from graphflow.codegen.cuda.writer import write_kernel
from graphflow.codegen.emit import Emitter
from graphflow.codegen.loops import Accumulate, Combine, Fold, LoopKind, Start, Value
from graphflow.codegen.lower_row import fold_names
from graphflow.codegen.passes_plan import Only, Stages, plan_skips, plan_stages
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import example_of
from graphflow.codegen.spaces import (
    Axis,
    Plan,
    Survey,
    Target,
    operands_of,
    plan_loops,
)
from graphflow.codegen.task import Backend, Task, finish_call
from graphflow.records import replace

MANY_ROWS = 1024
"""So many rows fill a GPU with a thread each."""
ADDING = "add_fast({0}, {1})"
ATOMIC = ("f32", "f64", "i32", "i64", "u32", "u64")
SHORT_ROW = 32
"""Rows of up to so many elements are not worth a block."""


def lower_map(task: Task, targets: Sequence[Target], found: Survey) -> Call:
    """One thread an element, or a few neighbours."""
    plan = plan_loops(task.space, targets, found)
    prefix = "ew" if task.computes(found) else "copy"
    lanes = choose_lanes(task, plan.kept[-1] if plan.kept else None, targets, found)
    emitter = CudaEmitter(prefix, targets, task, found, lanes)
    open_all(emitter, plan.kept, lanes.count)
    emitter.open_lanes([value for t in targets for value in (*t.depends, t.value)])
    emitter.store(targets)
    emitter.close_lanes()
    return finish_call(task, emitter, targets, found)


def open_all(emitter: Emitter, axes: Sequence[Axis], step: int = 1) -> None:
    """One shared loop over all of ``axes``, ``step`` neighbours at a time."""
    if axes:
        emitter.open_shared(axes, step)


def lower_reduction(task: Task, targets: Sequence[Target], found: Survey) -> list[Call]:
    """Calls by rows or by columns, in parts where that gives more blocks work."""
    plan = plan_loops(task.space, targets, found)
    stages = plan_stages(targets, found, task.bound)
    if is_tiled(plan, found):
        return lower_columns(task, plan, targets, found, stages, fold_pass, lower_rows, lower_map)
    if is_cut(task, plan, stages, found):
        return lower_cut(task, plan, targets, found, stages, fold_pass, lower_rows, lower_map)
    return [lower_rows(task, targets, found)]


def lower_rows(task: Task, targets: Sequence[Target], found: Survey) -> Call:
    """One call: a thread or a block for each row."""
    plan = plan_loops(task.space, targets, found)
    stages = plan_stages(targets, found, task.bound)
    if not _by_thread(plan):
        return _lower_team(task, plan, stages, targets, found)
    inner = plan.reduced[-1] if plan.reduced else None
    emitter = CudaEmitter("col", targets, task, found, choose_lanes(task, inner, targets, found))
    open_all(emitter, plan.kept)
    for folds, full, only in _passes(task, plan, stages, targets, found):
        fold_pass(emitter, plan.reduced, folds, full, LoopKind.REDUCE, only=only)
    emitter.store(stages.kept)
    return finish_call(task, emitter, targets, found)


def _lower_team(
    task: Task, plan: Plan, stages: Stages, targets: Sequence[Target], found: Survey
) -> Call:
    """A block for each row: its threads take vectors of it, and hold it if it is short enough."""
    lanes = choose_lanes(task, plan.reduced[-1], targets, found)
    team = team_of(plan, lanes)
    emitter = CudaEmitter("row" if plan.kept else "red", targets, task, found, lanes, team)
    open_all(emitter, plan.kept)
    passes = _passes(task, plan, stages, targets, found)
    held: list[list[Value]] = [[] for _ in passes]
    if team.parts:
        mask = sum(axis.mask for axis in plan.reduced)
        only_where = [only for _, _, only in passes]
        held = plan_held(stages, only_where, mask, team.parts * lanes.count, task.bound)
    for (folds, full, only), values in zip(passes, held, strict=True):
        fold_pass(emitter, plan.reduced, folds, full, LoopKind.TEAM, only=only, held=values)
    emitter.store(stages.kept)
    return finish_call(task, emitter, targets, found)


def _passes(
    task: Task, plan: Plan, stages: Stages, targets: Sequence[Target], found: Survey
) -> list[tuple[list[Fold], list[Target], Only | None]]:
    """What each pass folds and stores, and where it is needed."""
    only_where = plan_skips(stages, targets, found, plan, task.bound)
    return list(zip(stages.folds, stages.full, only_where, strict=True))


def _by_thread(plan: Plan) -> bool:
    """Whether each row is folded by one thread."""
    if not plan.reduced:
        return True
    rows, depth = example_of(plan.rows), example_of(plan.depth)
    return rows >= MANY_ROWS and (plan.column or depth <= SHORT_ROW)


def fold_pass(
    emitter: CudaEmitter,
    reduced: Sequence[Axis],
    folds: Sequence[Fold],
    stores: Sequence[Target],
    kind: LoopKind,
    part: Sequence[str] = (),
    only: Only | None = None,
    held: Sequence[Value] = (),
) -> None:
    """One run through the reduced loops: folds into locals, and stores.

    The loops are one thread's (REDUCE), or those of a block share one (TEAM, LANES): all of it, or
    the ``part`` between two expressions, of tiles as wide as a third says.  Where the run is not
    needed (``only``), folds stay what they begin with.  What is ``held`` stays in registers for
    the passes that follow.
    """
    if not folds and not stores:
        return
    totals = {fold: fold_names(emitter, fold) for fold in folds}
    for fold, (name, position) in totals.items():
        emitter.add(Start(name, fold, position))
    before = emitter.depth
    if only is not None:
        emitter.open_when(*only)  # all threads of a block agree: they have the same totals
    inner = emitter.depth
    _open_reduced(emitter, reduced, kind, part)
    operands = [value for fold in folds for value in operands_of(fold)]
    emitter.open_lanes([*operands, *[t.value for t in stores]], held)
    for fold in folds:
        if fold.position is not None:
            emitter.need_named(fold.operand)
            emitter.need(fold.position)
    emitter.need(*[f.operand for f in folds], *[t.value for t in stores])
    for fold, (name, position) in totals.items():
        emitter.add(Accumulate(name, fold, fold.operand, position))
    emitter.store(stores)
    emitter.close_lanes()
    emitter.close(emitter.depth - inner)
    for fold, (name, position) in totals.items():
        if kind is not LoopKind.REDUCE:
            emitter.add(Combine(name, fold, position))
    emitter.close(emitter.depth - before)
    for fold, (name, position) in totals.items():
        emitter.bind(fold, position or name)


def _open_reduced(
    emitter: CudaEmitter, reduced: Sequence[Axis], kind: LoopKind, part: Sequence[str]
) -> None:
    """Open the reduced loops: one that the threads of a block share (or ``part`` of it), or
    one after the other."""
    vectors = str(emitter.lanes.count) if emitter.lanes.axis else ""
    if kind is LoopKind.REDUCE:
        for axis in reduced:
            step = vectors if axis is reduced[-1] else ""
            emitter.open((axis,), axis.name, "0", emitter.extent(axis), kind, step)
        return
    variable = reduced[0].name if len(reduced) == 1 and not part else "at"
    begin, end, *width = part or ("0", emitter.count(reduced))
    step = width[0] if width else vectors
    emitter.open(tuple(reduced), variable, begin, end, kind, step, emitter.team.parts)
    if variable == "at":
        emitter.split("at", reduced)


def lower_scatter(
    task: Task, name: str, target: Target, leading: Target, apart: frozenset[str], found: Survey
) -> Call:
    """What may land on one place is folded by one thread, in order; the rest is shared.

    Where that leaves few threads work, all have some and add atomically.
    """
    axes = plan_loops(task.space, [leading], found).kept
    emitter = Emitter(name, [target], found.uses, task.error)
    shared = [axis for axis in axes if target.fold is None or apart.issuperset(axis.variables)]
    if task.context.backend.atomic and _adds(target) and _few(shared):
        shared, emitter.atomic = list(axes), True
    open_all(emitter, shared)
    for axis in axes:
        if axis not in shared:
            emitter.open_axis(axis)
    if target.fold is not None:
        emitter.read.add(target.slot)
    emitter.store([target])
    return finish_call(task, emitter, [target], found)


def _adds(target: Target) -> bool:
    """Whether a scatter adds up numbers that the hardware can add atomically."""
    if target.fold is None or target.fold.reduction is None:
        return False
    return target.fold.reduction.combine == ADDING and target.slot.dtype.short in ATOMIC


def _few(axes: Sequence[Axis]) -> bool:
    count = 1
    for axis in axes:
        count *= example_of(axis.extent)
    return count < MANY_ROWS


CUDA = Backend(
    "cuda", lower_map, lower_reduction, lower_scatter, lower_lines, open_all, write_kernel,
    lower_product, whole=True, atomic=True, routines=True, vectors=True,
)  # fmt: skip
"""Kernels for NVIDIA's GPUs, written for Numba's CUDA target."""
DETERMINISTIC = replace(CUDA, atomic=False)
"""The same without additions in any order: equal bits in every run, if more slowly."""
