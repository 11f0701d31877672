"""Nodes of a trace made again over other operands of the same types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from graphflow.ir.node import Node, with_inputs

if TYPE_CHECKING:
    from graphflow.trace import Tracer


def repeat(tracer: Tracer, body: Iterable[Node], made: dict[Node, Node]) -> None:
    """Add to ``made``, which has what stands for other nodes, what ``body`` is over those.

    Operands come first in ``body``; what ``made`` does not have stands for itself.
    """
    place, locations = tracer.here(), tracer.locations
    for node in body:
        new = made[node] = with_inputs(node, [made.get(n, n) for n in node.inputs])
        locations.setdefault(new, place)
