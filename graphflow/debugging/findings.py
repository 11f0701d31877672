"""What ``gf.verify`` reports."""

from __future__ import annotations

from graphflow.errors import GraphFlowError
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.printer import label_nodes
from graphflow.records import dataclass
from graphflow.tables import table


@dataclass(frozen=True)
class Compared:
    """One form of the program beside the traced graph: its largest difference, the one allowed."""

    form: str
    result: str
    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the form computes what it should."""
        return self.difference <= self.allowed


@dataclass(frozen=True)
class Finding:
    """The first difference.

    ``stage`` is the pass that made it (``simplify``), or ``kernels``, ``schedule``, ``eager``;
    ``rule`` the law of that pass or the kernel's name; ``node`` the operation as IR text,
    ``became`` what it was replaced by; ``location`` the user's line.
    """

    stage: str
    rule: str
    node: str
    became: str
    location: Location | None
    difference: float

    def __str__(self) -> str:
        lines = [f"first difference: {self.stage}" + (f", {self.rule}" if self.rule else "")]
        if self.node:
            lines.append(f"  {self.node}")
        if self.became:
            lines += ["became", *(f"  {line}" for line in self.became.splitlines())]
        if self.location is not None:
            lines.append(f"  at {self.location}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Verification:
    """What ``gf.verify`` found; true if everything agrees.  Prints as a table."""

    name: str
    compared: tuple[Compared, ...]
    finding: Finding | None = None

    @property
    def ok(self) -> bool:
        """Whether every form of the program computes the same."""
        return self.finding is None

    def __bool__(self) -> bool:
        return self.ok

    def check(self) -> Verification:
        """This, or :class:`GraphFlowError` with the first difference."""
        if self.finding is not None:
            raise GraphFlowError(f"{self.name}: {self.finding}")
        return self

    def __str__(self) -> str:
        rows = [
            [
                c.form,
                f"{c.difference:.1e}",
                f"{c.allowed:.1e}",
                "" if c.ok else c.result,
            ]
            for c in self.compared
        ]
        verdict = "everything agrees" if self.finding is None else str(self.finding)
        title = f"{self.name}: beside the traced graph, interpreted in double"
        return "\n".join([title, table(["form", "difference", "allowed", "where"], rows), verdict])


def spelled(node: Node) -> str:
    """A node as IR text on one line: operation, operand types, attributes, result.

    Of regions (a loop's body, a fused group) the operations are listed.
    """
    operands = ", ".join(str(n.type) for n in node.inputs)
    attrs = "".join(f", {name}={_spelled_attr(value)}" for name, value in node.attrs.items())
    return f"{node.op.name}({operands}{attrs}) -> {node.type}"


def _spelled_attr(value: object) -> str:
    if not isinstance(value, Graph):
        return repr(value)
    return " ".join(["{", *(n.op.name for n in value.nodes if n.op.kind is not Kind.LEAF), "}"])


def replacement_text(old: Node, new: Node) -> str:
    """The nodes of ``new`` that stand on the operands of ``old``, as text."""
    known = {*old.inputs, *(m for n in old.inputs for m in n.inputs)}
    order: list[Node] = []
    stack = [new]
    while stack and len(order) < 12:
        node = stack.pop()
        if node not in known and node not in order:
            order.append(node)
            stack += node.inputs
    if not order:
        return f"an operand, {spelled(new)}"
    return "\n".join(spelled(node) for node in sorted(order, key=lambda n: n.serial))


def place_of(graph: Graph, node: Node) -> Location | None:
    """The user's line of a node; of the nearest operand that has one where it has none."""
    pending, seen = [node], set()
    while pending:
        top = pending.pop(0)
        if top in graph.locations:
            return graph.locations[top]
        if top not in seen:
            seen.add(top)
            pending += top.inputs
    return None


def result_names(graph: Graph) -> list[str]:
    """A name for each root of a graph: its outputs, then its updates."""
    labels = label_nodes(graph)
    outputs = [f"output {i} ({labels[n]})" for i, n in enumerate(graph.outputs)]
    return outputs + [f"state {cell.attrs['name']}" for cell, _ in graph.updates]
