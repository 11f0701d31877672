"""Nodes that are made again over other operands of the same types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from graphflow.ir.node import Node, with_inputs

if TYPE_CHECKING:
    from graphflow.ir.graph import Location
    from graphflow.trace import Tracer


def repeat(tracer: Tracer, body: Iterable[Node], made: dict[Node, Node]) -> None:
    """:func:`again` in a trace, at the place that it is at."""
    again(body, made, tracer.here(), tracer.locations)


def again(
    body: Iterable[Node], made: dict[Node, Node], place: Location, locations: dict[Node, Location]
) -> None:
    """Add to ``made``, which has what stands for other nodes, what ``body`` is over those.

    Operands come first in ``body``; what ``made`` does not have stands for itself.  New nodes
    are of ``place``.
    """
    for node in body:
        new = made[node] = with_inputs(node, [made.get(n, n) for n in node.inputs])
        locations.setdefault(new, place)


def made_of(inputs: Iterable[Node], results: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes between ``inputs`` and ``results`` that depend on inputs, operands first."""
    known = set(inputs)
    found: set[Node] = set()
    stack = [node for node in results if node not in known]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(n for n in node.inputs if n not in known)
    body = []
    for node in sorted(found, key=lambda n: n.serial):
        if any(n in known for n in node.inputs):
            known.add(node)
            body.append(node)
    return tuple(body)
