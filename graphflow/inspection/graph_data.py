"""A graph as plain data to be *shown* (:meth:`Graph.to_json` is the form to be read back).

::

    {"name": "main", "inputs": [0], "state": [1], "outputs": [5], "updates": [[1, 4]],
     "nodes": [{"id": 0, "key": 812, "label": "%x", "op": "input", "kind": "leaf",
                "type": "f32[8,16]", "inputs": [], "attrs": {"name": "\\"x\\""},
                "text": "%x: f32[8,16] = input(name=\\"x\\")",
                "file": "model.py", "line": 12, "module": "fc1", "regions": []}, …]}

``id`` is the position among the nodes, ``key`` the node's identity: the same node in another
stage of the same program has the same key.  Attributes are spelled as in the IR's text.
``file``, ``line`` and ``module`` are ``""``, 0 and ``""`` where unknown.  A region is such a
graph again, under its label: ``{"label": "body", "graph": {…}}``.
"""

from __future__ import annotations

from typing import Any

from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node
from graphflow.ir.printer import label_nodes, node_line, regions, spell_attribute

NOWHERE = Location()


def graph_data(graph: Graph) -> dict[str, Any]:
    """``graph`` as the module's docstring describes it."""
    position = {node: number for number, node in enumerate(graph.nodes)}
    labels = label_nodes(graph)
    return {
        "name": graph.name,
        "inputs": [position[n] for n in graph.inputs],
        "state": [position[n] for n in graph.state],
        "outputs": [position[n] for n in graph.outputs],
        "updates": [[position[cell], position[value]] for cell, value in graph.updates],
        "nodes": [_node(graph, node, position, labels) for node in graph.nodes],
    }


def _node(
    graph: Graph, node: Node, position: dict[Node, int], labels: dict[Node, str]
) -> dict[str, Any]:
    return {
        "id": position[node],
        "key": node.serial,
        "label": labels[node],
        "op": node.op.name,
        "kind": node.op.kind.value,
        "type": str(node.type),
        "inputs": [position[n] for n in node.inputs],
        "attrs": {name: spell_attribute(node, name) for name in sorted(node.attrs)},
        "text": node_line(node, labels),
        **location_data(graph.locations.get(node, NOWHERE)),
        "regions": [{"label": name, "graph": graph_data(body)} for name, body in regions(node)],
    }


def location_data(place: Location) -> dict[str, Any]:
    """A place in the user's code: ``file``, ``line`` and ``module``."""
    return {"file": place.file, "line": place.line, "module": place.module}
