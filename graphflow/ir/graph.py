"""The graph: what a program computes, as one immutable value.

``inputs`` and ``state`` are leaf nodes, ``outputs`` the results, ``updates``
pairs of a state node and the value it takes when the step commits.  Beside
the nodes a graph keeps what is *not* identity: names and source locations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.digests import new_digest
from graphflow.ir.node import Form, Node, of_form, topological
from graphflow.ir.op import Kind
from graphflow.records import NamedTuple, dataclass, field, replace

if TYPE_CHECKING:
    from graphflow.ir.diff import GraphDiff


class Location(NamedTuple):
    """Where a node comes from: the user's file and line, and the module path."""

    file: str = ""
    line: int = 0
    module: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else ""
        return f"{place} {self.module}".strip()


@of_form
def _text(node: Node) -> str:
    """A node's operation, attributes and type, as a graph's hash takes them."""
    return repr((node.op.name, node.attrs_key, str(node.type)))


@dataclass(frozen=True, eq=False)
class Graph:
    """A typed DAG of tensor operations with named inputs and state.

    Regions (bodies of ``cond``, ``scan``, ``while_loop`` and of fused groups)
    are graphs too: closed, without state or updates, every outer value an input.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    state: tuple[Node, ...] = ()
    updates: tuple[tuple[Node, Node], ...] = ()
    name: str = "main"
    locations: Mapping[Node, Location] = field(default_factory=dict)
    names: Mapping[Node, str] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, inputs before users: declared leaves first."""
        return tuple(topological([*self.inputs, *self.state, *self.roots]))

    @cached_property
    def roots(self) -> tuple[Node, ...]:
        """What must be computed: outputs, then the new values of state."""
        return (*self.outputs, *(value for _, value in self.updates))

    @cached_property
    def root_set(self) -> frozenset[Node]:
        """The roots, to look nodes up in."""
        return frozenset(self.roots)

    @cached_property
    def forms(self) -> frozenset[Form]:
        """The forms of the nodes, which are few: what is asked of all nodes is asked of them."""
        return frozenset([node.form for node in self.nodes])

    @cached_property
    def found(self) -> dict[Any, Any]:
        """Answers that depend on nothing but nodes, inputs and outputs, whatever the places are."""
        return {}

    @property
    def has_control(self) -> bool:
        """Whether there is control flow or a fused group, which have regions."""
        return any(form.op.kind is Kind.CONTROL for form in self.forms)

    @cached_property
    def constants(self) -> tuple[Node, ...]:
        """The constant nodes."""
        return tuple(n for n in self.nodes if n.op.name == "constant")

    @cached_property
    def users(self) -> Mapping[Node, tuple[Node, ...]]:
        """The distinct users of every node, in topological order."""
        found: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for node in self.nodes:
            for operand in node.inputs:
                users = found[operand]
                if not users or users[-1] is not node:
                    users.append(node)
        return {n: tuple(u) for n, u in found.items()}

    def location(self, node: Node) -> Location | None:
        """Where the user wrote ``node``, if known."""
        return self.locations.get(node)

    def with_roots(
        self,
        outputs: Iterable[Node],
        updates: Iterable[tuple[Node, Node]],
        locations: Mapping[Node, Location] | None = None,
    ) -> Graph:
        """This graph with other results; inputs, state and names stay."""
        kept = self.locations if locations is None else locations
        return replace(self, outputs=tuple(outputs), updates=tuple(updates), locations=kept)

    def with_places(
        self, locations: Mapping[Node, Location], names: Mapping[Node, str] | None = None
    ) -> Graph:
        """This graph said to come from other places; what is known of its nodes stays known."""
        names = self.names if names is None else names
        made = replace(self, locations=locations, names=names)
        fields = made.__dict__
        fields.update((key, value) for key, value in self.__dict__.items() if key not in fields)
        return made

    def with_own(self, locations: Mapping[Node, Location], names: Mapping[Node, str]) -> Graph:
        """This graph with those of the places and names that are of its nodes."""
        kept = set(self.nodes)
        return self.with_places(
            {n: place for n, place in locations.items() if n in kept},
            {n: name for n, name in names.items() if n in kept},
        )

    @cached_property
    def _hash(self) -> str:
        position: dict[Node, int] = {}
        numbers: dict[Form, int] = {}
        texts: list[str] = []
        rows: list[list[int]] = []
        for node in self.nodes:
            position[node] = len(rows)
            number = numbers.get(node.form)
            if number is None:
                number = numbers[node.form] = len(texts)
                texts.append(_text(node))
            rows.append([number, *[position[n] for n in node.inputs]])
        digest = new_digest(repr((texts, rows)).encode())
        ends = [[position[n] for n in part] for part in (self.inputs, self.state, self.outputs)]
        digest.update(repr((ends, [(position[s], position[v]) for s, v in self.updates])).encode())
        return digest.hexdigest()[:32]

    def hash(self) -> str:
        """A content hash: equal for graphs that compute the same in the same way."""
        return self._hash

    def attribute_key(self) -> str:
        """Key under which a region is interned."""
        return self._hash

    def same_as(self, other: Graph) -> bool:
        """True when both graphs have the same structure (names and places aside)."""
        return self._hash == other._hash

    def __str__(self) -> str:
        from graphflow.ir.printer import print_graph

        return print_graph(self)

    @staticmethod
    def parse(text: str) -> Graph:
        """Read what ``str(graph)`` wrote; :class:`GraphError` names the bad line."""
        from graphflow.ir.parser import parse_graph

        return parse_graph(text)

    def verify(self, stage: str | None = None) -> Graph:
        """Check well-formedness (and the rules of ``stage``); returns the graph."""
        from graphflow.ir.verify import verify

        return verify(self, stage)

    def find(self, pattern: str) -> list[tuple[Node, Mapping[str, Node]]]:
        """Where ``pattern`` occurs, with the values its names stand for.

        A pattern is IR text with names for values: ``"add(mul(%x, %y), %x)"``
        (see :mod:`graphflow.ir.pattern`).
        """
        from graphflow.ir.pattern import find

        return list(find(self, pattern))

    def run(self, *args: Any, state: Mapping[str, Any] | None = None) -> tuple[np.ndarray, ...]:
        """Evaluate with the NumPy interpreter; returns the outputs as arrays.

        ``state`` maps state names to arrays; new values are not written back
        (see :func:`graphflow.ir.interp.interpret` for those).
        """
        from graphflow.ir.interp import interpret

        return interpret(self, args, state or {}).outputs

    def diff(self, other: Graph) -> GraphDiff:
        """What ``other`` has removed, added and changed; printable, false if nothing.

        Nodes are matched by structure, whatever their numbers (:mod:`graphflow.ir.diff`).
        """
        from graphflow.ir.diff import diff

        return diff(self, other)

    def subgraph(self, outputs: Iterable[Node | str]) -> Graph:
        """What computes ``outputs``: nodes, or their labels in the text (``"%5"``, ``"loss"``).

        Inputs and state that nothing of it reads are left out, and there are no updates.
        """
        from graphflow.ir.select import subgraph

        return subgraph(self, outputs)

    def node(self, label: str) -> Node:
        """The node that the text calls ``label``; :class:`GraphError` with close labels."""
        from graphflow.ir.select import node_called

        return node_called(self, label)

    def to_json(self, indent: int | None = None) -> str:
        """Versioned JSON that :meth:`from_json` reads; see :mod:`graphflow.ir.json_form`."""
        from graphflow.ir.json_form import to_json

        return to_json(self, indent)

    @staticmethod
    def from_json(text: str) -> Graph:
        """The graph that :meth:`to_json` wrote; :class:`GraphError` names the bad node."""
        from graphflow.ir.json_form import from_json

        return from_json(text)

    def to_python(self) -> str:
        """A Python module with a function that computes the graph; tracing it gives it again."""
        from graphflow.ir.python_form import to_python

        return to_python(self)

    def to_dot(self) -> str:
        """The graph in Graphviz's DOT language, with a cluster for every module."""
        from graphflow.ir.dot import to_dot

        return to_dot(self)

    def to_networkx(self) -> Any:
        """A ``networkx.MultiDiGraph``; see :mod:`graphflow.ir.convert`."""
        from graphflow.ir.convert import to_networkx

        return to_networkx(self)

    @staticmethod
    def from_networkx(graph: Any) -> Graph:
        """The graph that :meth:`to_networkx` wrote."""
        from graphflow.ir.convert import from_networkx

        return from_networkx(graph)
