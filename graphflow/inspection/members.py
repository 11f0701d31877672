"""Which nodes a fused group is made of.

Nodes are interned, so the members of a group need not be remembered: a group's body,
emitted again on the group's own operands, yields the very nodes that fusion took.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind


def members(stages: Sequence[Graph], units: Collection[int]) -> dict[int, list[int]]:
    """Keys of the nodes that each node of the last stage, given by its position, computes.

    ``units`` are the positions of the nodes that have kernels.  Operations are listed as they
    stood in one of ``stages``.  What fusion changed beyond recognition (an epilogue turned to
    the layout of its product) and what takes no kernel (a view that became strides) goes with
    the first node that uses it.
    """
    last = stages[-1]
    known = {node.serial for graph in stages for node in graph.nodes}
    inlined = _Inlined()
    found: dict[int, list[int]] = {}
    for position, node in enumerate(last.nodes):
        made = inlined.expand(node)
        if position in units:
            found[position] = [n.serial for n in made if n.serial in known] or [node.serial]
    if len(stages) > 1:
        _claim_the_rest(stages[-2], last, found)
    return found


def _claim_the_rest(before: Graph, last: Graph, found: dict[int, list[int]]) -> None:
    """Give every node of ``before`` that nothing computes to the first computed user of it."""
    owner: dict[int, int] = {}
    for position, keys in found.items():
        for key in keys:
            owner.setdefault(key, position)
    positions = {node: number for number, node in enumerate(last.nodes)}
    for old, new in zip(before.roots, last.roots):
        while new.inputs and positions[new] not in found:
            new = new.inputs[0]
        if positions[new] in found:
            owner.setdefault(old.serial, positions[new])
            _add(found[positions[new]], old)
    for node in reversed(before.nodes):
        users = [owner[user.serial] for user in before.users[node] if user.serial in owner]
        if node.serial not in owner and users and node.op.kind is not Kind.LEAF:
            owner[node.serial] = min(users)
            _add(found[min(users)], node)


def _add(keys: list[int], node: Node) -> None:
    if node.serial not in keys and node.op.kind is not Kind.LEAF:
        keys.append(node.serial)


class _Inlined:
    """What every node of a fused graph stands for, with groups taken apart again."""

    def __init__(self) -> None:
        self.values: dict[Node, Any] = {}  # a node, or a tuple of them for several results

    def expand(self, node: Node) -> list[Node]:
        """The nodes that ``node`` computes; its inputs must have been expanded before."""
        inputs = [self.values[n] for n in node.inputs]
        body = node.attrs.get("body")
        if isinstance(body, Graph) and "kind" in node.attrs:
            return self.group(node, body, inputs)
        if inputs and isinstance(inputs[0], tuple):  # an item of several results
            self.values[node] = inputs[0][node.attrs["index"]]
            return [self.values[node]]
        self.values[node] = made = with_inputs(node, inputs)
        return [made]

    def group(self, node: Node, body: Graph, inputs: Sequence[Node]) -> list[Node]:
        """The operations of a group on its own operands."""
        values = dict(zip(body.inputs, inputs, strict=True))
        made = []
        for inner in body.nodes:
            if inner in values:
                continue
            operands = [values[n] for n in inner.inputs]
            values[inner] = with_inputs(inner, operands)
            if inner.op.kind is not Kind.LEAF:
                made.append(values[inner])
        results = tuple(values[n] for n in body.outputs)
        self.values[node] = results[0] if len(results) == 1 else results
        return made
