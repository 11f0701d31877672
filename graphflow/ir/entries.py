"""Apply the operations of a graph, written for one entry of a batch, to all entries at once.

The walk asks the rule of each operation that something from an entry goes into
(:attr:`graphflow.ir.op.OpDef.batched`); everything else is done once, for all entries.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

from graphflow.errors import GraphFlowError
from graphflow.ir.dims import Dim
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, topological
from graphflow.ir.op import Application, Builder, Entries, Kind, OpDef
from graphflow.ir.ops.batches import again, broadcast
from graphflow.ir.types import TupleType

Mapped: TypeAlias = "tuple[Any, bool]"
"""A value (of several results a tuple), and whether it holds the entries along its first axis."""


class Walk:
    """Values of nodes for all ``size`` entries, built by ``b``.

    ``known`` are those of the entry's own operands.  ``outside`` gives the value of a node that
    no entry goes into where it is known, else None; ``at`` is what surrounds the building of
    a node.
    """

    def __init__(
        self, b: Builder, size: Dim, randomness: str, known: dict[Node, Mapped],
        outside: Callable[[Node], Any] = lambda node: None,
        at: Callable[[Node], AbstractContextManager[Any]] = lambda node: nullcontext(),
    ) -> None:  # fmt: skip
        self._b, self._size, self._randomness = b, size, randomness
        self._values, self._outside, self._at = dict(known), outside, at

    def of(self, nodes: Sequence[Node]) -> list[Mapped]:
        """The values of ``nodes``."""
        order = topological(nodes)
        inside = varying(order, {n for n, (_, own) in self._values.items() if own}, self._varies)
        for node in order:
            if node in inside and node not in self._values:
                self._values[node] = self._apply(node), True
        return [self._value(node) for node in nodes]

    def _varies(self, node: Node) -> bool:
        """Whether a node that no entry goes into is another one for each entry."""
        return node.op.draws and self._randomness != "same" and self._outside(node) is None

    def _value(self, node: Node) -> Mapped:
        """The value of a node; of those that no entry goes into, it is made when asked for."""
        waiting = [node]
        while waiting:
            node = waiting[-1]
            if node not in self._values:
                found = self._outside(node)
                if found is None:
                    missing = [n for n in node.inputs if n not in self._values]
                    if missing:
                        waiting += missing
                        continue
                    found = self._shared(node)
                self._values[node] = found, False
            waiting.pop()
        return self._values[node]

    def _shared(self, node: Node) -> Any:
        inputs = [self._values[n][0] for n in node.inputs]
        with self._at(node):
            return again(self._b, node.op, _application(node, inputs), inputs, node.attrs)

    def _apply(self, node: Node) -> Any:
        if node.op.draws and self._randomness == "error":
            raise GraphFlowError(
                "vmap: the function draws random numbers; say randomness='different' for numbers "
                "that differ from entry to entry, or 'same'"
            )
        values = [self._value(n) for n in node.inputs]
        entries = Entries(self._size, tuple(own for _, own in values), self._randomness)
        n = _application(node, [value for value, _ in values])
        with self._at(node):
            return rule_of(node.op)(self._b, node.op, n, entries)


def _application(node: Node, inputs: Sequence[Any]) -> Application:
    return Application(tuple(inputs), node.type, node.attrs)


def rule_of(op: OpDef) -> Callable[[Builder, OpDef, Application, Entries], Any]:
    """How ``op`` is applied to all entries."""
    if op.batched is not None:
        return op.batched
    return broadcast if op.kind is Kind.ELEMENTWISE else one_by_one


def varying(
    order: Sequence[Node], own: set[Node], varies: Callable[[Node], bool] = lambda node: False
) -> set[Node]:
    """The nodes of ``order`` that are other ones for each entry, if those of ``own`` are."""
    found = set(own)
    for node in order:
        if any(n in found for n in node.inputs) or varies(node):
            found.add(node)
    return found


def apply_graph(
    b: Builder, graph: Graph, operands: Sequence[Any], batched: Sequence[bool], entries: Entries
) -> list[Mapped]:
    """The results of a closed graph on ``operands``."""
    known = dict(zip(graph.inputs, zip(operands, batched, strict=True), strict=True))
    return Walk(b, entries.size, entries.randomness, known).of(graph.outputs)


# ---- operations without a rule ---------------------------------------------------------


def one_by_one(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """One application for every entry, and their results one after the other."""
    if op.kind is Kind.CONTROL:
        raise GraphFlowError(
            f"vmap: {op.name} can't be applied to entries of a batch, which may need other numbers "
            "of steps; give max_trips, or use scan"
        )
    if not isinstance(entries.size, int) or not op.pure:
        raise GraphFlowError(f"vmap: {op.name} can't be applied to entries of a batch")
    warnings.warn(
        f"vmap: {op.name} has no form for batches, so it runs once for each of "
        f"{entries.size} entries", stacklevel=2,
    )  # fmt: skip
    rows = [
        again(b, op, n, list(inputs), n.attrs) for inputs in _apart(b, n, entries, entries.size)
    ]
    if isinstance(n.out, TupleType):
        return tuple(_stacked(b, column) for column in zip(*rows, strict=True))
    return _stacked(b, rows)


def _apart(b: Builder, n: Application, entries: Entries, size: int) -> Iterator[list[Any]]:
    """The operands of each entry."""
    for i in range(size):
        yield [
            _entry(b, x, i) if own else x for x, own in zip(n.inputs, entries.batched, strict=True)
        ]


def _entry(b: Builder, x: Any, i: int) -> Any:
    _, *rest = x.shape
    none = (0,) * len(rest)
    part = b.slice(x, starts=(i, *none), limits=(i + 1, *rest), steps=(1,) * len(x.shape))
    return b.reshape(part, shape=tuple(rest))


def _stacked(b: Builder, rows: Sequence[Any]) -> Any:
    return b.concatenate(*(b.reshape(x, shape=(1, *x.shape)) for x in rows), axis=0)
