"""Common subexpressions that interning does not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import hits, rewrite


@dataclass(frozen=True)
class Cse(Pass):
    """Merge commutative operations on the same operands in another order.

    Interning has merged all other equal nodes when they were made.  The first
    occurrence stays as it is written; values do not change::

        %0: f32[8] = mul(%x, %y)              %0: f32[8] = mul(%x, %y)
        %1: f32[8] = mul(%y, %x)       →      %1: f32[8] = sub(%0, %0)
        %2: f32[8] = sub(%0, %1)              return %1
        return %2
    """

    name: ClassVar[str] = "cse"

    def run(self, graph: Graph) -> Graph:
        """The graph with one node for ``a + b`` and ``b + a``."""
        if not (graph.has_control or _repeats(graph)):
            return graph
        first: dict[Any, Node] = {}

        def merge(node: Node) -> Node | None:
            if not _commutes(node):
                return None
            found = first.setdefault(_key(node), node)
            if found is node:
                return None
            hits[f"cse {node.op.name}"] += 1
            return found

        return rewrite(graph, merge)


def _commutes(node: Node) -> bool:
    return node.op.commutative and len(node.inputs) == 2


def _key(node: Node) -> Any:
    """What nodes that compute the same have in common."""
    return (node.op.name, frozenset(node.inputs), node.attrs_key)


def _repeats(graph: Graph) -> bool:
    """Whether two nodes are the same but for the order of their operands."""
    keys = [_key(node) for node in graph.nodes if _commutes(node)]
    return len(set(keys)) < len(keys)
