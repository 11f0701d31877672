"""What a backward pass is for, where that is not all leaves: it walks what leads there only.

As in PyTorch, ``autograd.grad(loss, hidden)`` leaves what ``hidden`` was made by alone: its saved
values stay for another pass, and nothing is computed for parameters that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from graphflow.autograd.history import Edge, GradNode


class Aims:
    """The ends that were asked for, and the histories that lead from ``starts`` to one of them.

    Ends that are ``closed`` take what arrives as it is, and nothing goes through them.
    """

    __slots__ = ("_leading", "_leaves", "closed", "nodes")

    def __init__(
        self, starts: Iterable[Edge | None], ends: Sequence[Edge], closed: bool = False
    ) -> None:
        self.closed = closed
        self.nodes = frozenset(e.node for e in ends if e.node is not None)
        self._leaves = frozenset(id(e.leaf) for e in ends if e.node is None)
        self._leading: set[GradNode] = set()
        for node in sorted(_reached(starts), key=attrgetter("serial")):  # operands come first
            if any(map(self.takes, node.edges)):
                self._leading.add(node)

    def takes(self, edge: Edge | None) -> bool:
        """Whether a cotangent that goes along ``edge`` is wanted."""
        if edge is None:
            return False
        if edge.node is None:
            return id(edge.leaf) in self._leaves
        return edge.node in self._leading or edge.node in self.nodes

    def stops(self, node: GradNode) -> bool:
        """Whether what arrives at ``node`` is captured before its hooks and goes no further."""
        return self.closed and node in self.nodes

    def passes(self, node: GradNode) -> bool:
        """Whether what arrives at ``node`` is wanted further on."""
        return node in self._leading and not self.stops(node)

    def along(self, node: GradNode) -> tuple[Edge | None, ...]:
        """The edges of ``node`` along which cotangents are wanted; None for the others."""
        return tuple([edge if self.takes(edge) else None for edge in node.edges])


def _reached(starts: Iterable[Edge | None]) -> set[GradNode]:
    stack, met = list(starts), set[GradNode]()
    while stack:
        edge = stack.pop()
        if edge is not None and edge.node is not None and edge.node not in met:
            met.add(edge.node)
            stack.extend(edge.node.edges)
    return met
