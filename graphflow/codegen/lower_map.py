"""Kernels without reductions: every result element is computed on its own.

    begin, end = share(ni, tid, nth)
    for i in range(begin, end):
        out[i] = a[i] * b[i]

With several loops the outermost is shared among the threads; when it is short,
all but the innermost run as one, and when even those are few, the innermost is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.crossed import crossed_axis, open_squares
from graphflow.codegen.emit import SMALL_EXTENT, Emitter
from graphflow.codegen.loops import LoopKind
from graphflow.codegen.lower_turned import lower_turned
from graphflow.codegen.schedule import Call
from graphflow.codegen.spaces import Axis, Survey, Target, plan_loops
from graphflow.codegen.task import ENOUGH_SHARES, Task, finish_call


def lower_map(task: Task, targets: Sequence[Target], found: Survey) -> Call:
    """One call that stores every target over the whole domain."""
    plan = plan_loops(task.space, targets, found)
    turned = lower_turned(task, plan.kept, targets, found)
    if turned is not None:
        return turned
    prefix = "ew" if task.computes(found) else "copy"
    emitter = Emitter(prefix, targets, found.uses, task.error, task.bound)
    large = task.is_large(found, targets)
    crossed = shared = None
    if large and len(plan.kept) > 1:
        crossed = crossed_axis(plan.kept[:-1], plan.kept[-1], found)
    if crossed is not None:
        open_squares(task, emitter, plan.kept, crossed, found)
    else:
        shared = open_map(emitter, plan.kept, large)
    emitter.store(targets)
    return finish_call(task, emitter, targets, found, shared)


def open_map(emitter: Emitter, axes: Sequence[Axis], large: bool = True) -> Axis | None:
    """Open all loops of a map, one of them shared among the threads; which, if it is one axis.

    Small maps run on one thread and all look alike, whatever their extents.
    """
    if not axes:
        return None
    shared = None
    outer = 1
    for axis in axes[:-1]:
        outer *= axis.extent
    if len(axes) == 1 or axes[0].extent >= ENOUGH_SHARES or not large:
        emitter.open_shared(axes[:1])
        shared, rest = axes[0], axes[1:]
    elif outer >= ENOUGH_SHARES:
        emitter.open_shared(axes[:-1])
        rest = axes[-1:]
    else:
        share_innermost(emitter, axes)
        return None
    for axis in rest:
        emitter.open_axis(axis, baked=axis is axes[-1] and axis.extent <= SMALL_EXTENT)
    return shared


def share_innermost(emitter: Emitter, axes: Sequence[Axis]) -> None:
    """Open the loops so that each thread runs through its part of the innermost."""
    emitter.share(axes[-1])
    for axis in axes[:-1]:
        emitter.open_axis(axis)
    emitter.open((axes[-1],), axes[-1].name, "begin", "end", LoopKind.PARALLEL)


def open_rows(emitter: Emitter, axes: Sequence[Axis], large: bool = True) -> Axis | None:
    """Open the kept loops of a reduction, shared among the threads; which, if it is one axis."""
    if not axes:
        return None
    if len(axes) == 1 or axes[0].extent >= ENOUGH_SHARES or not large:
        emitter.open_shared(axes[:1])
        for axis in axes[1:]:
            emitter.open_axis(axis)
        return axes[0]
    emitter.open_shared(axes)
    return None
