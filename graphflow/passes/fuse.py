"""Fusion: every group of nodes becomes one ``fused`` node with the group as its body.

Which nodes form a group is :func:`graphflow.passes.groups.find_groups`'s
business; here the graph is rewritten.  A body is a closed graph whose inputs
``x0, x1, …`` are the operands in the order of their first use, so that equal
groups have equal bodies, and one kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Form, Node, with_form, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.base import Pass
from graphflow.passes.dataflow import Dataflow, is_alias
from graphflow.passes.groups import Group, Limits, find_groups
from graphflow.passes.in_regions import in_regions
from graphflow.passes.recompute import computed_anew
from graphflow.passes.turn import turn_products
from graphflow.records import replace


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
        self.again = {n for g in groups for n in g.again}
        self.new: dict[Node, Node] = {n: n for n in (*graph.inputs, *graph.state)}
        self.locations: dict[Node, Location] = {}
        self.roots = set(graph.roots)
        self.bodies = Bodies()
        self.fused: dict[Graph, Node] = {}
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
        group = self._alive(group, outputs)
        if group.kind == "contraction" and len(group.nodes) == 1:
            self.rebuilt(outputs[0])  # a product and nothing else
            return
        operands, first, body = self.bodies.of(group, outputs, self.graph.locations)
        new_operands = [self.rebuilt(n) for n in operands]
        known = self.fused.get(first)
        if known is None or known.attrs["kind"] != group.kind:
            fused = self.fused[first] = emit("fused", *new_operands, kind=group.kind, body=body)
        else:
            fused = with_form(known.form, new_operands, {"kind": group.kind, "body": body})
        if len(outputs) == 1:
            self._set(outputs[0], fused)
            return
        for index, node in enumerate(outputs):
            self._set(node, emit("get", fused, index=index))
        location = self.graph.locations.get(outputs[0])
        if location is not None:
            self.locations[fused] = location

    def _alive(self, group: Group, outputs: Sequence[Node]) -> Group:
        """``group`` without what was for the sake of values that others compute anew."""
        if self.again.isdisjoint(group.nodes):
            return group
        members = {*group.nodes, *group.copies}
        needed = {*topological(outputs, within=members)}
        return replace(group, nodes=tuple(n for n in group.nodes if n in needed))

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
    if group.kind == "single" or len(group.nodes) > 1:
        return group.kind != "single"
    return any(n.op.kind is not Kind.LEAF and not is_alias(n) for n in group.copies)


class Bodies:
    """The bodies of groups, made once for all groups that are alike.

    The groups of equal layers consist of nodes of the same forms that read each other in the
    same way: they have one body, in other places of the user's code.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Graph, Sequence[Node]]] = {}
        self._alone: dict[Form, Graph] = {}

    def alone(self, node: Node) -> Graph:
        """The body that is nothing but ``node``, without its place."""
        found = self._alone.get(node.form)
        if found is None:
            inputs = [input_node(f"x{i}", n.tensor_type) for i, n in enumerate(node.inputs)]
            outputs = (with_form(node.form, inputs, node.attrs),)
            found = self._alone[node.form] = Graph(tuple(inputs), outputs, name="body")
        return found

    def of(
        self, group: Group, outputs: Iterable[Node], locations: Mapping[Node, Location]
    ) -> tuple[list[Node], Graph, Graph]:
        """What ``group`` reads; the body of the first group like it; and its own body, the
        closed graph over what it reads that yields ``outputs``."""
        members = {*group.nodes, *group.copies}
        order = topological(group.nodes, within=members)
        number: dict[Node, int] = {}
        key: list[object] = []
        operands: list[Node] = []
        places: list[tuple[int, Location]] = []
        for at, node in enumerate(order):
            number[node] = at
            if node not in members:
                key.append(node.type)
                operands.append(node)
                continue
            key.append(node.form)
            key += [number[n] for n in node.inputs]
            location = locations.get(node)
            if location is not None:
                places.append((at, location))
        results = [number[n] for n in outputs]
        found = self._known.get((*key, None, *results))
        if found is None:
            made = _body(order, members, results)
            found = self._known[*key, None, *results] = made
        first, new = found
        return operands, first, first.with_places({new[at]: where for at, where in places})


def _body(
    order: Sequence[Node], members: Collection[Node], results: Sequence[int]
) -> tuple[Graph, Sequence[Node]]:
    """The closed graph of ``members`` of ``order``, without places, and its nodes in that order."""
    new: dict[Node, Node] = {}
    inputs: list[Node] = []
    for node in order:
        if node in members:
            new[node] = with_inputs(node, [new[n] for n in node.inputs])
        else:
            new[node] = input_node(f"x{len(inputs)}", node.tensor_type)
            inputs.append(new[node])
    made = [new[n] for n in order]
    body = Graph(tuple(inputs), tuple(made[at] for at in results), name="body")
    _ = body.users, body.found  # once for all groups like this
    return body, made


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
