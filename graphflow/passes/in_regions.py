"""A pass in the regions of control operations too, innermost first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, make_node
from graphflow.ir.op import Kind

Run: TypeAlias = Callable[[Graph], Graph]


def in_regions(graph: Graph, run: Run, outermost: Run | None = None) -> Graph:
    """``run`` on every region of control operations in ``graph``, then ``outermost`` (the same
    if not given) on ``graph``.

    Bodies of groups (``fused``) are left alone: they are kernels already.  The
    same object comes back if ``run`` changed nothing.
    """
    if not (graph.has_control and any(map(_has_regions, graph.nodes))):
        return (outermost or run)(graph)
    final: dict[Node, Node] = {}
    locations: dict[Node, Location] = {}
    changed = False
    for node in graph.nodes:
        attrs = dict(node.attrs)
        if _has_regions(node):
            attrs.update({k: in_regions(v, run) for k, v in attrs.items() if isinstance(v, Graph)})
        inside = any(attrs[k] is not v for k, v in node.attrs.items())
        operands = [final[n] for n in node.inputs]
        if inside or any(a is not b for a, b in zip(operands, node.inputs, strict=True)):
            final[node] = make_node(node.op, operands, attrs, node.type)
            changed = True
        else:
            final[node] = node
        if node in graph.locations:
            locations[final[node]] = graph.locations[node]
    if changed:
        outputs = [final[n] for n in graph.outputs]
        updates = [(s, final[v]) for s, v in graph.updates]
        graph = graph.with_roots(outputs, updates, locations)
    return (outermost or run)(graph)


def _has_regions(node: Node) -> bool:
    if node.op.kind is not Kind.CONTROL or "kind" in node.attrs:  # groups have one
        return False
    return any(isinstance(value, Graph) for value in node.attrs.values())
