"""Is this a well-formed graph, and is it legal at this stage of compilation?

:func:`verify` re-derives everything that is derivable and compares.  Its errors
show the node, the user's line and the lines of IR around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from graphflow.errors import GraphError
from graphflow.ir.dims import SymDim
from graphflow.ir.graph import Graph
from graphflow.ir.node import ArrayValue, Node
from graphflow.ir.op import Kind
from graphflow.ir.printer import label_nodes, node_line, regions, spell_location
from graphflow.ir.types import TensorType, TupleType, Type

AROUND = 2  # lines of IR shown on each side of the bad one


def _early(node: Node) -> str | None:
    if node.op.name == "fused":
        return "groups are made by fusion, which comes after this stage"
    return None


def _simplified(node: Node) -> str | None:
    if node.op.name == "stop_gradient":
        return "nothing is differentiated any more, so simplification removes it"
    return _early(node)


Rule = Callable[[Node], "str | None"]

# What each stage forbids beside being malformed, in the order of the stages.
STAGES: Mapping[str, Rule] = {
    "traced": _early,  # what the front emits
    "differentiated": _early,  # with the computation of gradients in it
    "simplified": _simplified,  # after algebra, folding and removal of dead nodes
    "fused": lambda node: None,  # with groups
}


def verify(graph: Graph, stage: str | None = None) -> Graph:
    """Check ``graph``, and the rules of ``stage`` if given; returns the graph.

    Raises :class:`graphflow.errors.GraphError` at the first violation: a leaf
    that is not declared or declared twice, a type other than the operation's
    rule gives, an update of another type than its state, a region that is not
    closed, an operation illegal at ``stage``.
    """
    if stage is not None and stage not in STAGES:
        raise GraphError(f"unknown stage {stage!r}; the stages are {', '.join(STAGES)}")
    _Check(graph, STAGES[stage] if stage is not None else None, "").run()
    return graph


class _Check:
    """One graph under inspection; regions get their own."""

    def __init__(self, graph: Graph, rule: Rule | None, path: str) -> None:
        self.graph, self.rule, self.path = graph, rule, path
        self.declared = {"input": set(graph.inputs), "state": set(graph.state)}

    def run(self) -> None:
        """Every check, cheapest first."""
        self.leaves()
        for node in self.graph.nodes:
            self.node(node)
        self.updates()

    def leaves(self) -> None:
        """Inputs and state are distinct leaves of the right operation."""
        graph = self.graph
        for nodes, op in ((graph.inputs, "input"), (graph.state, "state")):
            names: set[str] = set()
            for node in nodes:
                if node.op.name != op:
                    self.fail(node, f"is declared as {op}, but is no {op} node")
                name = node.attrs["name"]
                if name in names:
                    self.fail(node, f"the {op} name {name!r} is declared twice")
                names.add(name)

    def node(self, node: Node) -> None:
        """Type, leaves and regions of one node, and the rule of the stage."""
        if node.op.kind is Kind.LEAF:
            self.leaf(node)
        else:
            self.inferred(node)
        self.extents(node, node.type)
        for label, region in regions(node):
            self.region(node, label, region)
        problem = self.rule(node) if self.rule is not None else None
        if problem:
            self.fail(node, f"is not legal at this stage: {problem}")

    def leaf(self, node: Node) -> None:
        """A leaf is declared by its graph; a constant has its data's type."""
        if node.inputs:
            self.fail(node, "is a leaf, but has operands")
        name = node.op.name
        if name == "constant":
            value = node.attrs.get("value")
            if not isinstance(value, ArrayValue):
                self.fail(node, "is a constant without data")
            if value.type != node.type:
                self.fail(node, f"holds data of type {value.type}, not {node.type}")
            return
        if node not in self.declared.get(name, ()):
            what = "a region is closed: pass it as an operand" if self.path else "declare it"
            self.fail(node, f"uses the {name} {node.attrs.get('name')!r} of another graph; {what}")

    def inferred(self, node: Node) -> None:
        """The type is the one that the operation's rule gives."""
        types = [n.type for n in node.inputs]
        try:
            expected = node.op.infer(types, node.attrs)  # type: ignore[arg-type]
        except Exception as error:  # a rule may fail in any way on a malformed node
            spelled = ", ".join(map(str, types))
            self.fail(node, f"does not take operands ({spelled}) and these attributes: {error}")
        if expected != node.type:
            self.fail(node, f"has type {node.type}, but its operation yields {expected}")

    def extents(self, node: Node, type: Type) -> None:
        """Extents are not negative."""
        if isinstance(type, TupleType):
            for item in type.items:
                self.extents(node, item)
        elif any(not isinstance(d, SymDim) and d < 0 for d in type.shape):
            self.fail(node, f"has a negative extent: {type}")

    def region(self, node: Node, label: str, region: Graph) -> None:
        """A region is closed: no state, no updates, every outer value an input."""
        if region.state or region.updates:
            self.fail(node, f"carries a region {label} with state; state is passed as operands")
        _Check(region, self.rule, f"{self.path}{node.op.name}.{label}: ").run()

    def updates(self) -> None:
        """Each state is updated once at most, by a value of its type."""
        seen: set[Node] = set()
        for cell, value in self.graph.updates:
            if cell not in self.declared["state"]:
                self.fail(value, f"updates {cell!r}, which is no state of this graph")
            if cell in seen:
                self.fail(value, f"is a second update of the state {cell.attrs['name']!r}")
            seen.add(cell)
            if cell.type != value.type:
                name = cell.attrs["name"]
                self.fail(value, f"updates the state {name!r} of type {cell.type}")
        for node in self.graph.outputs:
            if not isinstance(node.type, TensorType):
                self.fail(node, "is an output, but no tensor; take its parts with get")

    def fail(self, node: Node, message: str) -> NoReturn:
        """Raise, showing ``node`` among its neighbours."""
        raise GraphError(self.path + describe(self.graph, node, message))


def describe(graph: Graph, node: Node, message: str) -> str:
    """``message`` about ``node``, with the user's line and five lines of IR around it."""
    labels = label_nodes(graph)
    labels.setdefault(node, "%?")
    place = graph.locations.get(node)
    spelled = spell_location(place) if place is not None else ""
    head = f"{labels[node]} = {node.op.name}: {message}"
    if spelled:
        head += f"\n  from {spelled}"
    if node not in graph.nodes:
        return f"{head}\n> {node_line(node, labels)}"
    at = graph.nodes.index(node)
    lines = [head]
    for other in graph.nodes[max(0, at - AROUND) : at + AROUND + 1]:
        mark = ">" if other is node else " "
        lines.append(f"{mark} {node_line(other, labels, graph.locations.get(other))}")
    return "\n".join(lines)
