"""What a step of a loop keeps for its gradient, beside its carry.

The gradient of a step needs some of what the step computed.  All of it follows from the carry,
but what takes a product or a vector function (the gates of an LSTM) is dearer to compute again
than to keep: kept are those values that the gradient reads and that cannot be made without one,
from what is kept already.  A loop over large values keeps nothing more: it was made a loop, or
is checkpointed, to save memory.
"""

from __future__ import annotations

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, ancestors
from graphflow.ir.op import Kind
from graphflow.ir.types import TensorType

DEAR = 8.0
"""Cost of an operation from which a value is kept rather than computed again."""
LARGE = 1 << 23
"""Bytes of all steps that may be kept in any case …"""
MANY = 4
"""… and beyond that so many times what a step reads of its carry and its rows."""


def dear_values(body: Graph, backward: Graph, fixed: int, length: object) -> tuple[Node, ...]:
    """Nodes of ``body`` that ``backward``, a gradient that computes them again, should be given.

    Inputs from ``fixed`` on are the same at every step.
    """
    own = {n for n in body.nodes if n not in body.inputs}
    kept: dict[Node, None] = {}
    for node in backward.nodes:
        if node not in own or not isinstance(node.type, TensorType):
            continue
        read = any(user not in own for user in backward.users[node]) or node in backward.outputs
        if read and _is_dear(node, own, kept):
            kept[node] = None
    if _too_large(tuple(kept), body.inputs[:fixed], length):
        return ()
    return tuple(kept)


def _is_dear(node: Node, own: set[Node], kept: dict[Node, None]) -> bool:
    """Whether ``node`` takes a dear operation on what there is."""
    return any(
        one.op.contraction is not None or one.op.cost >= DEAR or one.op.kind is Kind.CONTROL
        for one in ancestors(node, lambda n: n not in own or n in kept)
    )


def _too_large(kept: tuple[Node, ...], given: tuple[Node, ...], length: object) -> bool:
    """Whether this takes too much memory; no answer for symbolic sizes is a no."""
    extra, base = _bytes(kept), _bytes(given)
    if not isinstance(length, int) or extra is None or base is None:
        return False
    return length * extra > LARGE and extra > MANY * base


def _bytes(nodes: tuple[Node, ...]) -> int | None:
    total = 0
    for node in nodes:
        size = node.tensor_type.nbytes
        if not isinstance(size, int):
            return None
        total += size
    return total
