"""What two graphs have in common, and what not: ``graph.diff(other)``.

Nodes are matched by structure, not by number, in this order:

1. the same node (interned: everything below it is equal too);
2. the leaves of one name, outputs of one position, new values of one state;
3. the same operation, attributes and type on matched operands;
4. nodes of one place in the user's code and one operation, in order.

Step 3 runs again whenever something was matched, so one changed node does not make everything
after it look new.  The whole takes near-linear time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, value_key
from graphflow.ir.op import Kind
from graphflow.ir.printer import label_nodes, node_line, regions
from graphflow.records import dataclass


@dataclass(frozen=True)
class Change:
    """Two matched nodes that differ, and in what: ``("attribute axes", "operand 1", …)``."""

    old: Node
    new: Node
    what: tuple[str, ...]


@dataclass(frozen=True)
class GraphDiff:
    """What became of the nodes of ``old`` in ``new``; prints as a list of lines.

    ``pairs`` are all matched nodes; those in ``changed`` differ, in operation, attributes, type
    or operands.  ``ends`` are differences of the graphs' inputs, state, outputs and updates.
    True when there is any difference.
    """

    old: Graph
    new: Graph
    pairs: tuple[tuple[Node, Node], ...]
    removed: tuple[Node, ...]
    added: tuple[Node, ...]
    changed: tuple[Change, ...]
    ends: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.added or self.changed or self.ends)

    @property
    def summary(self) -> str:
        """One line: ``33 nodes the same, 2 changed, 5 removed, 1 added``."""
        same = len(self.pairs) - len(self.changed)
        return (
            f"{same} nodes the same, {len(self.changed)} changed, "
            f"{len(self.removed)} removed, {len(self.added)} added"
        )

    def lines(self) -> list[tuple[str, str]]:
        """The differences in the order of the graphs, as pairs of a mark and text.

        Marks: ``-`` and ``+`` for a removed and an added node (a changed one is both),
        ``?`` for what changed in it, ``@`` for the graphs' ends.
        """
        return _lines(self)

    def __str__(self) -> str:
        head = f"{self.old.name} → {self.new.name}: {self.summary}"
        return "\n".join([head, *(f"{mark} {text}" for mark, text in self.lines())])

    def data(self) -> dict[str, Any]:
        """The difference as plain data: nodes by their positions in the two graphs."""
        before = {node: number for number, node in enumerate(self.old.nodes)}
        after = {node: number for number, node in enumerate(self.new.nodes)}
        return {
            "summary": self.summary,
            "pairs": [[before[old], after[new]] for old, new in self.pairs],
            "removed": [before[node] for node in self.removed],
            "added": [after[node] for node in self.added],
            "changed": [
                {"old": before[c.old], "new": after[c.new], "what": list(c.what)}
                for c in self.changed
            ],
            "ends": list(self.ends),
            "lines": [list(line) for line in self.lines()],
        }


def diff(old: Graph, new: Graph) -> GraphDiff:
    """The difference of two graphs, by the steps of the module's docstring."""
    matching = _Matching(old, new)
    matching.run()
    forth = matching.forth
    pairs = tuple((node, forth[node]) for node in old.nodes if node in forth)
    changes = (Change(a, b, tuple(_differences(a, b, forth))) for a, b in pairs if a is not b)
    return GraphDiff(
        old,
        new,
        pairs,
        tuple(n for n in old.nodes if n not in forth),
        tuple(n for n in new.nodes if n not in matching.back),
        tuple(change for change in changes if change.what),
        tuple(_end_differences(old, new, forth)),
    )


Key = Callable[[Node, Graph], "Hashable | None"]


class _Matching:
    """Nodes of ``old`` and ``new`` that correspond: ``forth`` and ``back``."""

    def __init__(self, old: Graph, new: Graph) -> None:
        self.old, self.new = old, new
        self.forth: dict[Node, Node] = {}
        self.back: dict[Node, Node] = {}

    def run(self) -> None:
        """All steps, from sure to likely."""
        here = set(self.new.nodes)
        for node in self.old.nodes:
            if node in here:
                self.match(node, node)
        self.by_key(self.old.nodes, self.new.nodes, _leaf_key)
        self.by_operands()
        self.ends()
        self.by_operands()
        for key in (_place_and_attrs, _place_and_op, _op_and_attrs):
            self.by_key(self.old.nodes, self.new.nodes, key)
            self.by_operands()

    def match(self, one: Node, other: Node) -> None:
        """Let two nodes correspond unless one of them has a partner."""
        if one not in self.forth and other not in self.back:
            self.forth[one] = other
            self.back[other] = one

    def ends(self) -> None:
        """Outputs by position and new values of state by name, where the operation agrees."""
        pairs = list(zip(self.old.outputs, self.new.outputs))
        values = {cell.attrs["name"]: value for cell, value in self.new.updates}
        for cell, value in self.old.updates:
            if cell.attrs["name"] in values:
                pairs.append((value, values[cell.attrs["name"]]))
        while pairs:
            one, other = pairs.pop()
            if one.op is other.op and len(one.inputs) == len(other.inputs):
                if one not in self.forth and other not in self.back and not _is_leaf(one):
                    self.match(one, other)
                    pairs += zip(one.inputs, other.inputs)

    def by_operands(self) -> None:
        """Nodes that do the same to operands that correspond."""
        waiting: dict[Hashable, list[Node]] = {}
        for node in reversed(self.new.nodes):
            if node not in self.back and not _is_leaf(node):
                key = (node.op.name, node.attrs_key, node.type, node.inputs)
                waiting.setdefault(key, []).append(node)
        for node in self.old.nodes:
            if node in self.forth or any(n not in self.forth for n in node.inputs):
                continue
            operands = tuple(self.forth[n] for n in node.inputs)
            found = waiting.get((node.op.name, node.attrs_key, node.type, operands))
            if found:
                self.match(node, found.pop())

    def by_key(self, old: Iterable[Node], new: Iterable[Node], key: Key) -> None:
        """What is left, in order, where ``key`` agrees and is not None."""
        waiting: dict[Hashable, list[Node]] = {}
        for node in new:
            if node not in self.back:
                waiting.setdefault(key(node, self.new), []).append(node)
        for nodes in waiting.values():
            nodes.reverse()
        for node in old:
            wanted = None if node in self.forth else key(node, self.old)
            if wanted is not None and waiting.get(wanted):
                self.match(node, waiting[wanted].pop())


def _is_leaf(node: Node) -> bool:
    return node.op.kind is Kind.LEAF


def _leaf_key(node: Node, graph: Graph) -> Hashable | None:
    name = node.attrs.get("name")
    return (node.op.name, name) if _is_leaf(node) and name is not None else None


def _place_and_attrs(node: Node, graph: Graph) -> Hashable | None:
    place = graph.locations.get(node)
    return None if place is None else (place, node.op.name, node.attrs_key, node.type)


def _place_and_op(node: Node, graph: Graph) -> Hashable | None:
    place = graph.locations.get(node)
    return None if place is None else (place, node.op.name)


def _op_and_attrs(node: Node, graph: Graph) -> Hashable | None:
    if _is_leaf(node):
        return None
    return (node.op.name, node.attrs_key, node.type)


def _differences(old: Node, new: Node, forth: dict[Node, Node]) -> list[str]:
    """In what two matched nodes differ."""
    found = []
    if old.op is not new.op:
        found.append(f"operation {old.op.name} → {new.op.name}")
    if old.type != new.type:
        found.append(f"type {old.type} → {new.type}")
    for name in sorted({*old.attrs, *new.attrs}):
        missing = name not in old.attrs or name not in new.attrs
        if missing or value_key(old.attrs[name]) != value_key(new.attrs[name]):
            found.append(f"attribute {name}")
    if len(old.inputs) != len(new.inputs):
        found.append(f"{len(old.inputs)} operands → {len(new.inputs)}")
    for number, (one, other) in enumerate(zip(old.inputs, new.inputs)):
        if forth.get(one) is not other:
            found.append(f"operand {number}")
    return found


def _end_differences(old: Graph, new: Graph, forth: dict[Node, Node]) -> list[str]:
    found = []
    for part in ("inputs", "state", "outputs"):
        before: tuple[Node, ...] = getattr(old, part)
        after: tuple[Node, ...] = getattr(new, part)
        if len(before) != len(after):
            found.append(f"{part}: {len(before)} → {len(after)}")
        elif any(forth.get(one) is not other for one, other in zip(before, after)):
            found.append(f"{part}: not the same nodes in the same order")
    values = {cell.attrs["name"]: value for cell, value in new.updates}
    before_values = {cell.attrs["name"]: value for cell, value in old.updates}
    for name in dict.fromkeys([*before_values, *values]):
        if name not in values:
            found.append(f"state {name!r} is not updated any more")
        elif name not in before_values:
            found.append(f"state {name!r} is updated now")
        elif forth.get(before_values[name]) is not values[name]:
            found.append(f"state {name!r} is updated by another node")
    return found


def _lines(found: GraphDiff) -> list[tuple[str, str]]:
    """Walk both graphs at once: removed nodes come before the next node both have."""
    before, after = label_nodes(found.old), label_nodes(found.new)
    back = {new: old for old, new in found.pairs}
    changed = {change.new: change for change in found.changed}
    added, removed = set(found.added), set(found.removed)
    pending = list(reversed(found.old.nodes))
    lines: list[tuple[str, str]] = []

    def drop(until: Node | None) -> None:
        """Take nodes of the old graph up to ``until``, reporting the removed ones."""
        while pending:
            node = pending.pop()
            if node in removed:
                lines.append(("-", node_line(node, before, found.old.locations.get(node))))
            if node is until:
                return

    passed: set[Node] = set()
    position = {node: number for number, node in enumerate(found.old.nodes)}
    reached = -1
    for node in found.new.nodes:
        old = back.get(node)
        if old is not None and position[old] > reached:
            drop(old)
            reached = position[old]
        if node in added:
            lines.append(("+", node_line(node, after, found.new.locations.get(node))))
        elif node in changed and node not in passed:
            passed.add(node)
            lines += _change_lines(changed[node], found, before, after)
    drop(None)
    return lines + [("@", text) for text in found.ends]


def _change_lines(
    change: Change, found: GraphDiff, before: dict[Node, str], after: dict[Node, str]
) -> list[tuple[str, str]]:
    old, new = change.old, change.new
    lines = [
        ("-", node_line(old, before, found.old.locations.get(old))),
        ("+", node_line(new, after, found.new.locations.get(new))),
        ("?", ", ".join(change.what)),
    ]
    others = dict(regions(new))
    for name, region in regions(old):
        if name in others and not region.same_as(others[name]):
            inner = diff(region, others[name])
            lines.append(("?", f"{name}: {inner.summary}"))
            lines += [(mark, f"    {text}") for mark, text in inner.lines()]
    return lines
