"""The outline of a fused graph: order and memory as its schedule will have them.

Everything but the kernels' own scratch memory is in it, for a small part of what lowering takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.memory import aligned
from graphflow.codegen.placement import Placement, place
from graphflow.codegen.units import Unit, Work, collect, single_body
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.passes.dataflow import is_alias
from graphflow.passes.outline import Outline, Task


def outline_of(graph: Graph) -> Outline:
    """The outline of ``graph``, which has been fused and has sizes."""
    work = collect(graph)
    placement = place(graph, work)
    found = Outline()
    position = {number: at for at, number in enumerate(placement.order)}
    _values(work, placement, position, found)
    for number in placement.order:
        found.tasks.append(_task(graph, work, work.units[number]))
    for node, layout in work.layouts.items():
        if found.makers[layout.buffer] >= 0 and not is_alias(node):
            found.nodes[layout.buffer] = node
    _lifetimes(work, placement, position, found)
    found.held = _held(graph, work, found)
    return found


def _values(work: Work, placement: Placement, position: dict[int, int], found: Outline) -> None:
    """Who makes each value, and the bytes of the arena that it takes."""
    for value in work.values:
        home = work.values[placement.home.get(value.id, value.id)]
        own = value.unit < 0 or home.leaf is not None or home.id in placement.fresh
        found.sizes.append(0 if own else aligned(value.type.static_bytes))
        found.makers.append(position.get(value.unit, -1))
        found.nodes.append(None)
        found.uses.append([])


def _task(graph: Graph, work: Work, unit: Unit) -> Task:
    operands = [layout.buffer for layout in unit.operands]
    reads, body = _reads(graph, work, unit)
    repeatable = (
        bool(reads or body.nodes)
        and unit.kind in ("loop", "contraction")
        and all(n.op.pure and n.op.kind is not Kind.SCATTER for n in body.nodes)
    )
    return Task(unit.kind, body, reads, operands, list(unit.results), repeatable)


def _reads(graph: Graph, work: Work, unit: Unit) -> tuple[Sequence[Node], Graph]:
    """The nodes that a unit reads, in the order of its operands."""
    node = unit.node
    if node is None or unit.kind not in ("loop", "contraction"):
        return (), Graph((), ())
    if "body" in node.attrs or node.op.kind is Kind.CONTRACTION:
        return node.inputs, unit.body
    return single_body(node, graph, work.bodies)[0], unit.body


def _lifetimes(work: Work, placement: Placement, position: dict[int, int], found: Outline) -> None:
    for at, number in enumerate(placement.order):
        for operand in {layout.buffer for layout in work.units[number].operands}:
            found.uses[operand].append(at)
    end = len(placement.order) - 1
    committed = {source.buffer for source, _ in placement.commits}
    for value, (maker, uses) in enumerate(zip(found.makers, found.uses, strict=True)):
        last = end if value in committed else uses[-1] if uses else maker
        home = placement.home.get(value, value)
        # It takes the place of an operand that dies there.
        found.begins.append(maker + (home != value and found.sizes[value] > 0))
        found.ends.append(last)


def _held(graph: Graph, work: Work, found: Outline) -> set[int]:
    """Values that are results of the graph, without a node, or read by copies."""
    held = {v for v, node in enumerate(found.nodes) if node is None}
    held |= {work.layouts[root].buffer for root in graph.roots}
    for unit in work.units:
        if unit.node is None or unit.kind == "check":
            held.update(unit.results)
            held.update(layout.buffer for layout in unit.operands)
    return held
