"""Writes at computed places: the base first, then every element of the source.

    for i in range(ni):                       # rows of the source, in order
        at0 = c[i]
        ...                                   # range check
        p0 = at0 * s0
        for j in range(begin, end):           # this thread's columns
            out[p0 + j] = add_fast(out[p0 + j], a[i * s1 + j])

Elements that may land on one place are added by one thread, in order, so the
bits do not depend on the number of threads.

Where the base is state that must not change unless the whole step succeeds, a call
before it (``lower_check``) finds out whether any place is out of range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.emit import Emitter
from graphflow.codegen.evaluate import Evaluator, Memory, gathered
from graphflow.codegen.layout import Layout
from graphflow.codegen.loops import Checked, Slot
from graphflow.codegen.lower_map import open_map, share_innermost
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import whole
from graphflow.codegen.spaces import (
    LOOP_VARIABLES,
    Axis,
    Space,
    Survey,
    Target,
    merged_axes,
    plan_loops,
    survey,
)
from graphflow.codegen.task import LowerContext, Task, finish_call
from graphflow.ir.affine import Affine, Index
from graphflow.ir.node import Node
from graphflow.ir.op import GATHERED
from graphflow.ir.types import int64


def lower_scatter(
    task: Task, evaluator: Evaluator, node: Node, result: Layout, variables: Sequence[str]
) -> Call:
    """The call that stores the last operand of ``node`` into ``result``, element by element.

    ``variables`` are the domain: one an axis of that operand.
    """
    index = evaluator.variables(variables)
    pieces = evaluator.pieces(node, index)
    place: Index = pieces[-1].index
    depends: tuple[Checked, ...] = ()
    apart = _apart(place)
    axis = -1
    if len(pieces) > 1:
        axis = next(k for k, part in enumerate(place) if any(n == GATHERED for n, _ in part.terms))
        raw = evaluator.value(node.inputs[pieces[0].operand], pieces[0].index)
        at = evaluator.checked(raw, result.shape[axis], node, axis)
        place, depends = gathered(place, at), (at,)
    value = evaluator.value(node.inputs[-1], index)
    slot, flat = evaluator.memory.element(result, place)
    target = Target(slot, flat, value, True, node.op if node.op.reduction else None, depends)
    found = survey([target])
    task.prepare(found)
    leading = target
    if axis >= 0:  # the loop over the indexed axis nests where its results lie
        order = Affine.of({**dict(flat.terms), variables[axis]: result.strides[axis]})
        leading = Target(slot, order, value, True)
    return task.context.backend.scatter(task, node.op.name, target, leading, apart, found)


def lower_check(
    node: Node, positions: Node, layouts: Mapping[Node, Layout], context: LowerContext
) -> Call:
    """The call that only finds out whether ``positions`` are in range for scatter ``node``."""
    where = layouts.get(positions)
    strides = where.strides if where is not None else (1,) * len(positions.shape)
    names = tuple(f"k{axis}" for axis in range(len(strides)))
    shape = positions.tensor_type.static_shape
    # What is the same all along an axis is looked at once.
    extents = {n: e if s else 1 for n, e, s in zip(names, shape, strides)}
    memory = Memory(list(layouts.values()), (), context.backend.whole)
    evaluator = Evaluator(layouts, memory, extents, (), context.failure)
    axis = node.attrs["axis"] % len(shape)
    raw = evaluator.value(positions, evaluator.variables(names))
    at = evaluator.checked(raw, whole(node.shape[axis]), node, axis)
    task = Task(Space(names, (), extents, evaluator.bits), context)
    found = survey([Target(Slot(context.error_buffer(), 0, int64), Affine(), at)])
    task.prepare(found)
    emitter = Emitter("check", [], found.uses, task.error)
    axes = merged_axes(names, task.space, found.accesses, ("i", *LOOP_VARIABLES))
    context.backend.open_check(emitter, axes)
    emitter.need(at)
    return finish_call(task, emitter, [], found)


def _apart(place: Index) -> frozenset[str]:
    """The variables that alone decide a coordinate: two of their values never meet."""
    return frozenset(part.terms[0][0] for part in place if len(part.terms) == 1)


def open_serially(emitter: Emitter, axes: Sequence[Axis]) -> None:
    """Open loops for one thread."""
    for axis in axes:
        emitter.open_axis(axis)


def scatter_call(
    task: Task, name: str, target: Target, leading: Target, apart: frozenset[str], found: Survey
) -> Call:
    """The call that runs through the source in order, shared where no two threads can meet."""
    axes = plan_loops(task.space, [leading], found).kept
    emitter = Emitter(name, [target], found.uses, task.error)
    if target.fold is None:
        open_map(emitter, axes)
    else:
        _open_ordered(emitter, axes, apart)
        emitter.read.add(target.slot)
    emitter.store([target])
    return finish_call(task, emitter, [target], found)


def _open_ordered(emitter: Emitter, axes: Sequence[Axis], apart: frozenset[str]) -> None:
    """Open the loops; only one whose iterations cannot meet in one place is shared."""
    if axes and apart.issuperset(axes[0].variables):
        emitter.open_shared(axes[:1])
        axes = axes[1:]
    elif len(axes) > 1 and apart.issuperset(axes[-1].variables):
        share_innermost(emitter, axes)
        return
    for axis in axes:
        emitter.open_axis(axis)
