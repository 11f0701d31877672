"""Folds of few long rows: every row is cut into parts, a block each, whose results meet later.

Each pass over the rows is a call over parts, which also stores what is to be stored for every
element, and a call in which their results meet; columns are folded in parts the same way.
The cut depends on shapes only, so the bits do not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from graphflow.codegen.cuda.lanes import CudaEmitter, choose_lanes
from graphflow.codegen.loops import Fold, Load, LoopKind
from graphflow.codegen.lower_row import is_regrouped
from graphflow.codegen.lower_split import CHUNK, fold_of_parts, keep_folds, kept_index
from graphflow.codegen.passes_plan import Only, Stages, plan_skips
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import example_of
from graphflow.codegen.spaces import Axis, Plan, Survey, Target, survey
from graphflow.codegen.task import Task, finish_call
from graphflow.records import replace

FEW_ROWS = 128
"""With so many rows every multiprocessor has one."""
LONG_ROW = 1 << 15
PART = 1 << 13
"""Elements of a part, unless there would be too many parts."""
MOST_PARTS = 256

Part: TypeAlias = "tuple[Mapping[Fold, Load], Call]"
"""Where the results of the parts go, and the call that folds them."""
Lower: TypeAlias = "Callable[[Task, Sequence[Target], Survey], Call]"
"""A skeleton of one call."""


def is_cut(task: Task, plan: Plan, stages: Stages, found: Survey) -> bool:
    """Whether the rows are few and long, and may be folded in parts."""
    if not plan.reduced or not all(is_regrouped(fold) for fold in found.folds):
        return False
    few = example_of(plan.rows) < FEW_ROWS and example_of(plan.depth) >= LONG_ROW
    return few and not reads_results(task, stages)


def reads_results(task: Task, stages: Stages) -> bool:
    """Whether what is stored after the last fold reads what a result of the folds overwrites."""
    if stages.folds[-1]:
        return False
    written = {target.slot for target in stages.kept}
    return any(load.slot in written for load in survey(stages.full[-1], task.bound).loads)


def lower_cut(
    task: Task, plan: Plan, targets: Sequence[Target], found: Survey, stages: Stages,
    fold_pass: Callable[..., None], meet: Lower, store: Lower,
) -> list[Call]:  # fmt: skip
    """The calls of rows in parts: see :func:`fold_in_parts`."""
    count = min(MOST_PARTS, -(-example_of(plan.depth) // PART))
    only_where = plan_skips(stages, targets, found, plan, task.bound)

    def part(folds: Sequence[Fold], full: Sequence[Target], only: Only | None) -> Part:
        partial = {fold: _place(task, plan, fold, count) for fold in folds}
        results = [Target(load.slot, load.index, fold) for fold, load in partial.items()]
        both = survey([*results, *full], task.bound)
        lanes = choose_lanes(task, plan.reduced[-1], full, both)
        size = -(-plan.depth // (count * lanes.count)) * lanes.count
        emitter = CudaEmitter("part", full, task, both, lanes)
        for load in partial.values():
            emitter.add_result(load.slot, "partial")
        emitter.open_shared((*plan.kept, Axis(CHUNK, (CHUNK,), (count,), 0)))
        length = emitter.constant("size", size)
        emitter.name_index("first", f"{CHUNK} * {length}")
        emitter.name_index("last", f"min(first + {length}, {emitter.count(plan.reduced)})")
        fold_pass(emitter, plan.reduced, folds, full, LoopKind.TEAM, ("first", "last"), only)
        emitter.store(results)
        return partial, finish_call(task, emitter, [*results, *full], both)

    return fold_in_parts(task, plan, stages, only_where, count, part, meet, store)


def fold_in_parts(
    task: Task, plan: Plan, stages: Stages, only_where: Sequence[Only | None], count: int,
    part: Callable[[Sequence[Fold], Sequence[Target], Only | None], Part],
    meet: Lower, store: Lower,
) -> list[Call]:  # fmt: skip
    """For each pass a call that folds ``count`` parts (by ``part``) and one that folds their
    results (by ``meet``); what is left to be stored everywhere then is a call of its own (by
    ``store``)."""
    calls: list[Call] = []
    last = max(number for number, folds in enumerate(stages.folds) if folds)
    for number, (folds, full) in enumerate(zip(stages.folds, stages.full)):
        if not folds:
            space = replace(task.space, kept=tuple(task.space.extents), reduced=())
            calls.append(store(replace(task, space=space), full, survey(full, task.bound)))
            continue
        partial, call = part(folds, full, only_where[number])
        calls.append(call)
        left = fold_of_parts(task, partial, count)
        kept = list(stages.kept) if number == last else []
        if number + 1 < len(stages.folds):
            kept += keep_folds(task, plan, folds)
        calls.append(meet(left, kept, survey(kept, left.bound)))
    return calls


def _place(task: Task, plan: Plan, fold: Fold, count: int) -> Load:
    """Where the result of a part of a row goes."""
    slot = task.scratch(fold.dtype, (plan.rows, count))
    return Load(fold.dtype, fold.varies, slot, kept_index(plan, {CHUNK: 1}, count))
