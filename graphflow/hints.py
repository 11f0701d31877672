"""What ``explain()`` advises: loops of the user's Python that became long graphs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from graphflow.ir.graph import Graph, Location
from graphflow.ir.op import Kind

if TYPE_CHECKING:
    from graphflow.ir.node import Node

LONG = 32
"""Steps of a Python loop from which on its unrolled form is worth a word."""


def hints_of(graph: Graph) -> tuple[str, ...]:
    """Advice on ``graph``, as it was traced."""
    reads: Counter[tuple[Node, str, Location]] = Counter()
    for node in graph.nodes:
        if node.op.kind is Kind.VIEW and _is_one_row(node):
            place = graph.locations.get(node)
            if place is not None and place.line:
                reads[node.inputs[0], node.op.name, place] += 1
    return tuple(
        f"the loop at {place} is unrolled: it takes {count:,} rows of one tensor in turn; "
        "gf.scan (or gf.map) compiles the body once, whatever the number of steps"
        for (_, _, place), count in reads.items()
        if count >= LONG
    )


def _is_one_row(node: Node) -> bool:
    """True for ``x[i:i + 1]``: one place of one axis, all of the others."""
    whole, part = node.inputs[0].tensor_type.shape, node.tensor_type.shape
    if len(whole) != len(part):
        return False
    cut = [length for length, of in zip(part, whole, strict=True) if length != of]
    return cut == [1]
