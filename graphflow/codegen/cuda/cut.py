"""Folds of few long rows: every row is cut into parts, a block each, whose results meet later.

The cut depends on shapes only, so the bits do not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable

from graphflow.codegen.cuda.lanes import CudaEmitter, choose_lanes
from graphflow.codegen.loops import Fold, Load, LoopKind
from graphflow.codegen.lower_row import is_regrouped
from graphflow.codegen.lower_split import CHUNK, fold_of_parts, kept_index
from graphflow.codegen.passes_plan import Stages
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import example_of
from graphflow.codegen.spaces import Axis, Plan, Survey, Target, survey
from graphflow.codegen.task import Task, finish_call

FEW_ROWS = 128
"""With so many rows every multiprocessor has one."""
LONG_ROW = 1 << 15
PART = 1 << 13
"""Elements of a part, unless there would be too many parts."""
MOST_PARTS = 256


def is_cut(plan: Plan, stages: Stages, found: Survey) -> bool:
    """Whether the rows are few and long, and one pass folds them."""
    if not plan.reduced or len(stages.folds) != 1 or stages.full[0]:
        return False
    if not all(is_regrouped(fold) for fold in found.folds):
        return False
    return example_of(plan.rows) < FEW_ROWS and example_of(plan.depth) >= LONG_ROW


def cut(
    task: Task, plan: Plan, stages: Stages, fold_part: Callable[..., None]
) -> tuple[Task, Call]:
    """The call that folds the parts, and the task that is left: folding their results."""
    folds = stages.folds[0]
    count = min(MOST_PARTS, -(-example_of(plan.depth) // PART))
    partial = {fold: _place(task, plan, fold, count) for fold in folds}
    results = [Target(load.slot, load.index, fold) for fold, load in partial.items()]
    found = survey(results, task.bound)
    lanes = choose_lanes(task, plan.reduced[-1], [], found)
    size = -(-plan.depth // (count * lanes.count)) * lanes.count
    emitter = CudaEmitter("part", [], task, found, lanes)
    for load in partial.values():
        emitter.add_result(load.slot, "partial")
    emitter.open_shared((*plan.kept, Axis(CHUNK, (CHUNK,), (count,), 0)))
    length = emitter.constant("size", size)
    emitter.name_index("first", f"{CHUNK} * {length}")
    emitter.name_index("last", f"min(first + {length}, {emitter.count(plan.reduced)})")
    fold_part(emitter, plan.reduced, folds, (), LoopKind.TEAM, ("first", "last"))
    emitter.store(results)
    call = finish_call(task, emitter, results, found)
    return fold_of_parts(task, partial, count), call


def _place(task: Task, plan: Plan, fold: Fold, count: int) -> Load:
    """Where the result of a part of a row goes."""
    slot = task.scratch(fold.dtype, (plan.rows, count))
    return Load(fold.dtype, fold.varies, slot, kept_index(plan, {CHUNK: 1}, count))
