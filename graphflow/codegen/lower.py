"""Lowering: a fused group becomes kernel calls.

``lower_group`` takes the body of a group and where its operands and results
lie; ``lower_epilogue`` does the same for what follows a contraction.  Three
steps: evaluate the body at symbolic indices (:mod:`.evaluate`), choose the
loops (:mod:`.spaces`), and emit one of the skeletons: map, row, column, chunks
or scatter.  Operations over whole lines have kernels of their own
(:mod:`.lower_line`).  No step knows an operation by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from graphflow.codegen.cpu_writer import write_kernel
from graphflow.codegen.emit import SHUFFLED, Emitter
from graphflow.codegen.epilogue import Epilogue
from graphflow.codegen.evaluate import Evaluator, Memory, reduced_axes
from graphflow.codegen.layout import Layout, among_each_other
from graphflow.codegen.loops import Load
from graphflow.codegen.lower_column import lower_column
from graphflow.codegen.lower_elimination import lower_elimination
from graphflow.codegen.lower_fourier import lower_transform
from graphflow.codegen.lower_line import lower_line
from graphflow.codegen.lower_map import lower_map
from graphflow.codegen.lower_row import lower_row
from graphflow.codegen.lower_scatter import lower_scatter, open_serially, scatter_call
from graphflow.codegen.lower_split import lower_split, should_split
from graphflow.codegen.partition import Partition
from graphflow.codegen.schedule import Call
from graphflow.codegen.spaces import (
    Axis,
    Space,
    Survey,
    Target,
    merged_axes,
    plan_loops,
    split_boxes,
    survey,
)
from graphflow.codegen.task import Backend, LowerContext, Task, partition_along
from graphflow.errors import CompileError
from graphflow.ir.affine import Affine, Index
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind

Box: TypeAlias = "Sequence[tuple[int, int]]"
MOST_TOGETHER = 8
"""How many parts that lie among each other are written in one run."""

__all__ = ["CPU", "LowerContext", "lower_epilogue", "lower_group"]


def lower_group(
    body: Graph, operands: Sequence[Layout], results: Sequence[Layout], context: LowerContext
) -> list[Call]:
    """The calls that compute ``body``, in order.

    ``operands[i]`` is where ``body.inputs[i]`` lies, ``results[j]`` where
    ``body.outputs[j]`` goes.  An operand that lies exactly where a result goes
    is updated in place.  Calls that can fail write the error word of the context.
    """
    layouts = dict(zip(body.inputs, operands))
    pairs = [(n, r) for n, r in zip(body.outputs, results) if 0 not in r.shape]
    memory = Memory(operands, [r for _, r in pairs], context.backend.whole)
    scatters = [(n, r) for n, r in pairs if n.op.kind is Kind.SCATTER and n not in layouts]
    lines = [(n, r) for n, r in pairs if n.op.kind is Kind.LINE and n not in layouts]
    others = [pair for pair in pairs if pair not in scatters and pair not in lines]
    calls: list[Call] = []
    reduction = next((n for n in body.nodes if n.op.kind is Kind.REDUCTION), None)
    if reduction is not None and others:
        calls += _reduction(reduction, others, layouts, memory, context)
    else:
        for group in _by_shape(others):
            calls += _map(group, layouts, memory, context)
    for node, result in scatters:
        calls += _scatter(node, result, layouts, memory, context)
    for node, result in lines:
        calls += _line(node, result, layouts, context)
    return calls


def lower_epilogue(
    body: Graph,
    product: Node,
    tile: Layout,
    operands: Sequence[Layout],
    results: Sequence[Layout],
    context: LowerContext,
) -> Epilogue:
    """The kernel that finishes a tile of a contraction, and its argument block.

    It runs over rows ``i0..i1`` and columns ``j0..j1`` of matrix ``batch`` of
    the product, which lies at ``tile``.
    """
    layouts = {**dict(zip(body.inputs, operands)), product: tile}
    shape = tile.shape
    batch = tuple(f"b{k}" for k in range(len(shape) - 2))
    names = (*batch, "i", "j")
    extents = dict(zip(names, shape))
    evaluator = Evaluator(layouts, Memory((*operands, tile), results), extents, (), context.failure)
    space = Space(names, (), extents, evaluator.bits)
    index = evaluator.variables(names)
    targets = [
        _target(evaluator, node, index, layout, full=False)
        for node, layout in zip(body.outputs, results)
    ]
    targets = [target for target in targets if not _is_there(target)]
    found = survey(targets)
    task = Task(space, context)
    task.prepare(found)
    outer = merged_axes(batch, space, found.accesses, ("batch", "k", "l", "m", "q", "r"))
    emitter = Emitter("ep", targets, found.uses, task.error, outside=tuple(outer))
    emitter.split_batch(outer)
    own: list[Partition] = []
    for name, begin, end in (("i", "i0", "i1"), ("j", "j0", "j1")):
        axis = Axis(name, (name,), (extents[name],), evaluator.bits[name])
        emitter.open((axis,), name, begin, end)
        own.append({} if batch else partition_along(axis, space, targets, found))
    emitter.store(targets)
    kernel = emitter.finish(epilogue=True)
    return Epilogue(write_kernel(kernel), kernel.arguments, *own)


def _by_shape(pairs: Sequence[tuple[Node, Layout]]) -> list[list[tuple[Node, Layout]]]:
    """Results grouped by shape: each group is one loop nest."""
    groups: dict[tuple[int, ...], list[tuple[Node, Layout]]] = {}
    for node, layout in pairs:
        groups.setdefault(layout.shape, []).append((node, layout))
    return list(groups.values())


def _map(
    pairs: Sequence[tuple[Node, Layout]],
    layouts: dict[Node, Layout],
    memory: Memory,
    context: LowerContext,
) -> list[Call]:
    """Calls over the common shape of the results: one, or one a part of a joined result.

    Parts that lie among each other (``stack`` along the last axis) are written in one run.
    """
    shape = pairs[0][1].shape
    whole = [(0, extent) for extent in shape]
    task, targets, found = _boxes(pairs, [whole], layouts, memory, context)
    boxes = split_boxes(task.space, found, shape)
    if len(boxes) == 1:
        return [context.backend.map(task, targets, found)]
    together = [boxes] if _in_one_run(boxes, pairs) else [[box] for box in boxes]
    return [
        context.backend.map(*_boxes(pairs, group, layouts, memory, context)) for group in together
    ]


def _in_one_run(boxes: Sequence[Box], pairs: Sequence[tuple[Node, Layout]]) -> bool:
    """Whether parts of the results are alike, and elements of one lie between those of another."""
    alike = len({tuple(end - begin for begin, end in box) for box in boxes}) == 1
    if not alike or len(boxes) > MOST_TOGETHER:
        return False
    starts = [[begin for begin, _ in box] for box in boxes]
    return all(among_each_other(starts, layout) for _, layout in pairs)


def _boxes(
    pairs: Sequence[tuple[Node, Layout]],
    boxes: Sequence[Box],
    layouts: dict[Node, Layout],
    memory: Memory,
    context: LowerContext,
) -> tuple[Task, list[Target], Survey]:
    """The results inside ``boxes`` of the same shape, each a range along each axis."""
    names = tuple(f"k{axis}" for axis in range(len(boxes[0])))
    extents = {name: end - begin for name, (begin, end) in zip(names, boxes[0])}
    evaluator = Evaluator(layouts, memory, extents, (), context.failure)
    _join_lanes(boxes, [layout for _, layout in pairs], memory)
    targets = []
    for box in boxes:
        starts = (begin for begin, _ in box)
        index = tuple(part + start for part, start in zip(evaluator.variables(names), starts))
        for node, layout in pairs:
            targets.append(_target(evaluator, node, index, layout, full=True))
    targets = [target for target in targets if not _is_there(target)] or targets[:1]
    found = survey(targets)
    task = Task(Space(names, (), extents, evaluator.bits), context)
    task.prepare(found)
    return task, targets, found


def _join_lanes(boxes: Sequence[Box], results: Sequence[Layout], memory: Memory) -> None:
    """Let one pointer lead to what fills the gaps of a small stride together: its stores become
    those of whole vectors, which they cannot where nothing is known of their distance."""
    by_buffer: dict[int, list[tuple[int, Layout]]] = {}
    for box in boxes:
        for layout in results:
            start = layout.offset + sum(b * s for (b, _), s in zip(box, layout.strides))
            by_buffer.setdefault(layout.buffer, []).append((start, layout))
    for places in by_buffer.values():
        starts, layouts = zip(*places)
        steps = [[s for s, (b, e) in zip(x.strides, boxes[0]) if e - b != 1] for x in layouts]
        least = min(steps[0], default=0)
        if least in SHUFFLED and steps.count(steps[0]) == len(steps) > 1:
            if max(starts) - min(starts) < least:
                memory.join(min(layouts, key=lambda layout: layout.offset))


def _target(evaluator: Evaluator, node: Node, index: Index, layout: Layout, full: bool) -> Target:
    slot, flat = evaluator.memory.element(layout, index)
    return Target(slot, flat, evaluator.value(node, index), full)


def _is_there(target: Target) -> bool:
    """True when the result is an operand that already lies where it should."""
    value = target.value
    return isinstance(value, Load) and value.slot is target.slot and value.index == target.index


def _scatter(
    node: Node,
    result: Layout,
    layouts: dict[Node, Layout],
    memory: Memory,
    context: LowerContext,
) -> list[Call]:
    """The base, unless it lies there already; then what goes into it."""
    calls = []
    base, source = node.inputs[0], node.inputs[-1]
    there = layouts.get(base)
    if there is None or not there.same_place(result):
        calls += _map([(base, result)], layouts, memory, context)
    shape = source.tensor_type.static_shape
    if 0 not in shape:
        names = tuple(f"k{axis}" for axis in range(len(shape)))
        extents = dict(zip(names, shape))
        evaluator = Evaluator(layouts, memory, extents, (), context.failure)
        task = Task(Space(names, (), extents, evaluator.bits), context)
        calls.append(lower_scatter(task, evaluator, node, result, names))
    return calls


def _line(
    node: Node, result: Layout, layouts: dict[Node, Layout], context: LowerContext
) -> list[Call]:
    """The kernel over lines, after copies of operands that do not lie in row-major order."""
    calls: list[Call] = []
    operands = []
    for operand in node.inputs:
        layout = layouts[operand]
        if not layout.is_contiguous:
            copy = context.temporary(layout.type)
            memory = Memory([layout], [copy], context.backend.whole)
            calls += _map([(operand, copy)], {operand: layout}, memory, context)
            layout = copy
        operands.append(layout)
    return [*calls, *context.backend.line(node, operands, result, context)]


def _reduction(
    reduction: Node,
    pairs: Sequence[tuple[Node, Layout]],
    layouts: dict[Node, Layout],
    memory: Memory,
    context: LowerContext,
) -> list[Call]:
    """Calls over the domain that ``reduction`` folds."""
    shape = reduction.inputs[0].tensor_type.static_shape
    axes = reduced_axes(reduction)
    names = tuple(f"{'r' if a in axes else 'k'}{a}" for a in range(len(shape)))
    kept = tuple(n for a, n in enumerate(names) if a not in axes)
    reduced = tuple(names[a] for a in axes)
    extents = dict(zip(names, shape))
    evaluator = Evaluator(layouts, memory, extents, reduced, context.failure)
    targets = []
    for node, layout in pairs:
        index, full = _result_index(evaluator, layout.shape, names, kept)
        targets.append(_target(evaluator, node, index, layout, full))
    found = survey(targets)
    task = Task(Space(kept, reduced, extents, evaluator.bits), context)
    task.prepare(found)
    return context.backend.reduction(task, targets, found)


def lower_reduction(task: Task, targets: Sequence[Target], found: Survey) -> list[Call]:
    """The calls of a group with folds: by rows, by columns, or cut into parts."""
    plan = plan_loops(task.space, targets, found)
    if should_split(plan, found):
        return lower_split(task, plan, targets, found)
    return [(lower_column if plan.column else lower_row)(task, plan, targets, found)]


def _line_call(
    node: Node, operands: Sequence[Layout], result: Layout, context: LowerContext
) -> list[Call]:
    return [lower_line(node, operands, result, context)]


def _instead(
    node: Node, operands: Sequence[Layout], results: Sequence[Layout], context: LowerContext
) -> tuple[list[Call], Layout | None] | None:
    """What kernels do for operations that are the host's."""
    if node.op.elimination is not None:
        return lower_elimination(node, operands, results, context)
    if node.op.transform is None:
        return None
    calls = lower_transform(node, operands, results, context)
    return None if calls is None else (calls, None)


CPU = Backend(
    "cpu", lower_map, lower_reduction, scatter_call, _line_call, open_serially, write_kernel,
    instead=_instead,
)  # fmt: skip
"""Kernels for the processor's threads."""


def _result_index(
    evaluator: Evaluator, shape: tuple[int, ...], names: tuple[str, ...], kept: tuple[str, ...]
) -> tuple[Index, bool]:
    """The index of a result in the domain's variables, and whether it spans all of them."""
    wide = [d for d in shape if d != 1]
    for candidates, full in ((kept, False), (names, True)):
        running = [n for n in candidates if evaluator.extents[n] != 1]
        if [evaluator.extents[n] for n in running] == wide:
            variables = iter(running)
            index = tuple(Affine.variable(next(variables)) if d != 1 else Affine() for d in shape)
            return index, full
    domain = [evaluator.extents[n] for n in names]
    raise CompileError(f"a result of shape {shape} does not fit a group over {domain}")
