"""Which values of a graph depend on state alone."""

from __future__ import annotations

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind


def of_state_alone(graph: Graph) -> frozenset[Node]:
    """State that ``graph`` does not update, constants, and what is made of nothing else."""
    changing = {*graph.inputs, *(state for state, _ in graph.updates)}
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op.kind is Kind.LEAF:
            if node not in changing:
                found.add(node)
        elif node.op.pure and all(operand in found for operand in node.inputs):
            found.add(node)
    return frozenset(found)
