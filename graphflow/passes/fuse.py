"""Fusion: every group of nodes becomes one ``fused`` node with the group as its body.

Which nodes form a group is :func:`graphflow.passes.groups.find_groups`'s
business; here the graph is rewritten.  A body is a closed graph whose inputs
``x0, x1, …`` are the operands in the order of their first use, so that equal
groups have equal bodies, and one kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, make_node, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.base import Pass
from graphflow.passes.dataflow import Dataflow, is_alias
from graphflow.passes.groups import Group, Limits, find_groups
from graphflow.passes.in_regions import in_regions
from graphflow.passes.recompute import computed_anew
from graphflow.passes.turn import turn_products


@dataclass(frozen=True)
class Fuse(Pass):
    """Groups nodes into kernels.

    Before::

        %2: f32[8,4] = mul(%0, %1)
        %3: f32[8,4] = tanh(%2)

    After: one node ``fused{kind=loop}(%0, %1)`` whose body holds both.  A group
    with several results yields a tuple; ``get`` takes each out.  Every node
    computes what it did (a product that is computed transposed may round
    differently); the graph has no paths it did not have.  Cheap values may be computed
    in several groups (:mod:`graphflow.passes.recompute`).
    """

    name: ClassVar[str] = "fuse"
    stage: ClassVar[str | None] = "fused"

    operations: int = 40
    operands: int = 24

    def run(self, graph: Graph) -> Graph:
        """The fused graph, fused in the regions of control operations too."""
        return in_regions(graph, self._fused)

    def _fused(self, graph: Graph) -> Graph:
        limits = Limits(operations=self.operations, operands=self.operands)
        graph = turn_products(graph)
        flow = Dataflow(graph)
        found = computed_anew(flow, find_groups(graph, limits, flow), limits)
        groups = [g for g in found if _worth_a_body(g)]
        return apply_groups(graph, groups) if groups else graph


def apply_groups(graph: Graph, groups: Sequence[Group]) -> Graph:
    """``graph`` with every group as a ``fused`` node.

    ``groups`` must be in an order in which they can run, as :func:`find_groups`
    gives them; nodes of no group are copied.
    """
    rewriter = _Rewriter(graph, groups)
    for group in groups:
        rewriter.emit(group)
    roots = [rewriter.rebuilt(n) for n in graph.outputs]
    updates = [(s, rewriter.rebuilt(v)) for s, v in graph.updates]
    return graph.with_roots(roots, updates, rewriter.locations)


class _Rewriter:
    """The map from old nodes to new ones while groups are emitted in order."""

    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.graph = graph
        self.home = {n: g for g in groups if g.again for n in g.nodes if n not in g.again}
        self.read_anew = {n for g in groups for n in _read_anew(g)}
        self.new: dict[Node, Node] = {n: n for n in (*graph.inputs, *graph.state)}
        self.locations: dict[Node, Location] = {}
        self.roots = set(graph.roots)
        self.bodies: dict[tuple[tuple[Node, ...], ...], Node] = {}
        """The first group with a body of these nodes."""

    def rebuilt(self, node: Node) -> Node:
        """The new node for ``node``; what it reads from groups must be there already."""
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [n for n in top.inputs if n not in self.new]
            if top in self.new or not missing:
                stack.pop()
                if top not in self.new:
                    self._copy(top)
            else:
                stack.extend(missing)
        return self.new[node]

    def _copy(self, node: Node) -> None:
        self._set(node, with_inputs(node, [self.new[n] for n in node.inputs]))

    def _set(self, node: Node, new: Node) -> None:
        self.new[node] = new
        location = self.graph.locations.get(node)
        if location is not None:
            self.locations[new] = location

    def emit(self, group: Group) -> None:
        """Add ``group`` as a ``fused`` node, with ``get`` nodes for several results."""
        own = (n for n in group.nodes if n not in group.again)
        outputs = [n for n in own if self._needed(n, group)]
        if not outputs:
            return  # all that read it compute it anew
        operands, body = make_body(group, outputs, self.graph.locations)
        new_operands = [self.rebuilt(n) for n in operands]
        # Nodes are interned: groups of equal layers have the same body, in other places.
        known = self.bodies.get((body.inputs, body.outputs))
        if known is None:
            fused = emit("fused", *new_operands, kind=group.kind, body=body)
            self.bodies[body.inputs, body.outputs] = fused
        else:
            body = known.attrs["body"].with_places(body.locations)
            attrs = {"kind": group.kind, "body": body}
            fused = make_node(known.op, new_operands, attrs, known.type)
        if len(outputs) == 1:
            self._set(outputs[0], fused)
            return
        for index, node in enumerate(outputs):
            self._set(node, emit("get", fused, index=index))
        location = self.graph.locations.get(outputs[0])
        if location is not None:
            self.locations[fused] = location

    def _needed(self, node: Node, group: Group) -> bool:
        """Whether anything outside the group reads ``node``, through views or not."""
        if node in self.read_anew:
            return True
        stack = [node]
        while stack:
            top = stack.pop()
            if top in self.roots:
                return True
            for user in self.graph.users[top]:
                home = self.home.get(user)
                if user not in group.nodes and (home is None or top not in home.again):
                    if not is_alias(user):
                        return True
                    stack.append(user)
        return False


def _read_anew(group: Group) -> Iterable[Node]:
    """What lies in memory for the sake of what ``group`` computes anew."""
    for node in group.again:
        for operand in node.inputs:
            base = operand
            while is_alias(base):
                base = base.inputs[0]
            if base not in group.nodes:
                yield base


def _worth_a_body(group: Group) -> bool:
    """True when the group computes more than one thing."""
    copies = sum(n.op.kind is not Kind.LEAF and not is_alias(n) for n in group.copies)
    return len(group.nodes) + copies > 1 and group.kind != "single"


def make_body(
    group: Group, outputs: Iterable[Node], locations: Mapping[Node, Location]
) -> tuple[list[Node], Graph]:
    """What ``group`` reads, and the closed graph over it that yields ``outputs``."""
    members = {*group.nodes, *group.copies}
    new: dict[Node, Node] = {}
    operands: list[Node] = []
    places: dict[Node, Location] = {}
    for node in topological(group.nodes, within=members):
        if node not in members:
            new[node] = input_node(f"x{len(operands)}", node.tensor_type)
            operands.append(node)
            continue
        new[node] = with_inputs(node, [new[n] for n in node.inputs])
        location = locations.get(node)
        if location is not None:
            places[new[node]] = location
    inputs = tuple(new[n] for n in operands)
    body = Graph(inputs, tuple(new[n] for n in outputs), name="body", locations=places)
    return operands, body


def topological(roots: Iterable[Node], within: set[Node]) -> list[Node]:
    """``within`` and what it reads directly, operands before users, from ``roots`` up."""
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        stack = [(root, iter(root.inputs))]
        if root in done:
            continue
        done.add(root)
        while stack:
            node, pending = stack[-1]
            for child in pending:
                if child not in done:
                    done.add(child)
                    stack.append((child, iter(child.inputs if child in within else ())))
                    break
            else:
                order.append(node)
                stack.pop()
    return order
