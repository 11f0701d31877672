"""Which reads and writes at computed positions cannot be out of range.

Positions that a sort, ``argmax`` or ``argmin`` found along an axis lie within that axis.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphflow.codegen.sizes import surely, whole
from graphflow.ir.node import Node
from graphflow.ir.op import Kind, Line
from graphflow.ir.types import TupleType


def may_fail(node: Node, outer: Mapping[Node, Node]) -> bool:
    """Whether an index of ``node`` may be out of range.

    ``outer`` tells what the inputs of the body around ``node`` are outside of it.
    """
    if not node.op.fallible:
        return False
    axis, found = node.attrs.get("axis"), node.inputs[1]
    while axis is not None:
        found, outer = _origin(found, outer)
        if _yields_positions(found):
            searched = found.inputs[0]
            along = found.attrs["axis"] % len(searched.shape)
            room = node.inputs[0].shape[axis % len(node.inputs[0].shape)]
            return not surely(whole(searched.shape[along]), whole(room))
        if not _moves(found):
            return True
        found = found.inputs[0]
    return True


def _origin(node: Node, outer: Mapping[Node, Node]) -> tuple[Node, Mapping[Node, Node]]:
    """The operation that computes ``node``, across the edges of fused groups."""
    while True:
        if node in outer:
            node, outer = outer[node], {}
        group, number = node, 0
        if node.inputs and isinstance(node.inputs[0].type, TupleType):
            group, number = node.inputs[0], node.attrs["index"]
        if "body" not in group.attrs or "kind" not in group.attrs:
            return node, outer
        body = group.attrs["body"]
        node, outer = body.outputs[number], dict(zip(body.inputs, group.inputs, strict=True))


def _yields_positions(node: Node) -> bool:
    reduction = node.op.reduction
    return node.op.line is Line.SORT or (reduction is not None and reduction.position)


def _moves(node: Node) -> bool:
    """True for views of one operand, and copies of it: they only show what is there."""
    if len(node.inputs) != 1:
        return False
    shown = node.op.kind is Kind.VIEW and node.op.fill is None
    return shown or (node.op.scalar == "{0}" and node.dtype is node.inputs[0].dtype)
