"""Graphs as ``networkx.MultiDiGraph`` and back.

A node of the networkx graph is the position of the value in the text's order;
it carries ``op``, ``attrs``, ``type``, ``label`` and, where known, ``name`` and
``location``.  An edge runs from an operand to its user and carries ``operand``,
the position among the user's operands, and ``type``.  The networkx graph's own
attributes hold ``name``, ``inputs``, ``state``, ``outputs`` and ``updates``.
"""

from __future__ import annotations

from typing import Any

from graphflow.errors import GraphError
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, make_node
from graphflow.ir.op import lookup
from graphflow.ir.printer import label_nodes


def to_networkx(graph: Graph) -> Any:
    """``graph`` as a ``networkx.MultiDiGraph`` (an operand may be used twice)."""
    import networkx

    position = {node: i for i, node in enumerate(graph.nodes)}
    labels = label_nodes(graph)
    result = networkx.MultiDiGraph(
        name=graph.name,
        inputs=tuple(position[n] for n in graph.inputs),
        state=tuple(position[n] for n in graph.state),
        outputs=tuple(position[n] for n in graph.outputs),
        updates=tuple((position[s], position[v]) for s, v in graph.updates),
    )
    for node, i in position.items():
        facts: dict[str, Any] = {"label": labels[node]}
        if node in graph.names:
            facts["name"] = graph.names[node]
        if node in graph.locations:
            facts["location"] = graph.locations[node]
        result.add_node(i, op=node.op.name, attrs=dict(node.attrs), type=node.type, **facts)
        for operand, source in enumerate(node.inputs):
            result.add_edge(position[source], i, operand=operand, type=source.type)
    return result


def from_networkx(source: Any) -> Graph:
    """The graph that :func:`to_networkx` wrote.

    Raises :class:`GraphError` for a cycle, a missing attribute, or operand
    positions that are not 0, 1, 2, ….
    """
    import networkx

    nodes: dict[Any, Node] = {}
    names: dict[Node, str] = {}
    locations: dict[Node, Location] = {}
    try:
        for key in networkx.topological_sort(source):
            facts = source.nodes[key]
            node = make_node(
                lookup(facts["op"]), _operands(source, key, nodes), facts["attrs"], facts["type"]
            )
            nodes[key] = node
            if "name" in facts:
                names[node] = facts["name"]
            if "location" in facts:
                locations[node] = facts["location"]
        ends = {
            part: tuple(nodes[key] for key in source.graph[part])
            for part in ("inputs", "state", "outputs")
        }
        updates = tuple((nodes[s], nodes[v]) for s, v in source.graph["updates"])
    except networkx.NetworkXUnfeasible:
        raise GraphError("the networkx graph has a cycle; a graph of tensors has none") from None
    except KeyError as error:
        raise GraphError(f"the networkx graph lacks {error}; see graphflow.ir.convert") from None
    graph = Graph(
        **ends, updates=updates, name=source.graph["name"], locations=locations, names=names
    )
    return graph.verify()


def _operands(source: Any, key: Any, nodes: dict[Any, Node]) -> list[Node]:
    edges = sorted(source.in_edges(key, data="operand"), key=lambda edge: edge[2])
    if [edge[2] for edge in edges] != list(range(len(edges))):
        raise GraphError(f"the operands of node {key!r} are not numbered 0, 1, 2, …")
    return [nodes[edge[0]] for edge in edges]
