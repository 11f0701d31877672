"""Parts of a graph: a node by its label, and what computes some of the nodes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from graphflow.errors import GraphError
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, topological
from graphflow.ir.printer import label_nodes


def node_called(graph: Graph, label: str) -> Node:
    """The node of this label (``%5``, ``%loss``; the ``%`` may be left out)."""
    wanted = label if label.startswith("%") else f"%{label}"
    labels = label_nodes(graph)
    for node, text in labels.items():
        if text == wanted:
            return node
    close = difflib.get_close_matches(wanted, labels.values())
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise GraphError(f"graph {graph.name!r} has no node {wanted}{hint}")


def subgraph(graph: Graph, outputs: Iterable[Node | str]) -> Graph:
    """The part of ``graph`` that computes ``outputs``, with the inputs and state it reads."""
    if isinstance(outputs, str | Node):
        outputs = (outputs,)
    chosen = tuple(graph.node(o) if isinstance(o, str) else o for o in outputs)
    known = set(graph.nodes)
    for node in chosen:
        if node not in known:
            raise GraphError(f"{node!r} is no node of graph {graph.name!r}")
    kept = set(topological(chosen))
    return Graph(
        tuple(n for n in graph.inputs if n in kept),
        chosen,
        tuple(n for n in graph.state if n in kept),
        (),
        graph.name,
        {n: place for n, place in graph.locations.items() if n in kept},
        {n: name for n, name in graph.names.items() if n in kept},
    )
