"""Rooms: where a host operation wants its operands, one after the other.

What ranks add up is copied once less if its kernels write it where other ranks read it.  An
operation that has ``rooms`` says before each run where its operands after the first should lie,
end to end.  Values that nothing else has a place for are made there.
"""

from __future__ import annotations

from collections.abc import Container

from graphflow.codegen.units import Unit, Work
from graphflow.ir.node import Node


def made_in_rooms(work: Work, placed: Container[int]) -> dict[int, tuple[Node, int]]:
    """The values that can lie in a room: whose operand they are, and from which byte on.

    Others are in ``placed``, are not made by a kernel, or are shown in part or in another order.
    """
    found: dict[int, tuple[Node, int]] = {}
    for unit in work.units:
        if unit.kind != "host" or unit.node is None or unit.node.op.rooms is None:
            continue
        begin = 0
        for position, operand in enumerate(unit.operands[1:], 1):
            value = work.values[operand.buffer].id
            if value not in placed and value not in found and _is_whole(work, unit, position):
                found[value] = unit.node, begin
            begin += operand.type.static_bytes
    return found


def _is_whole(work: Work, unit: Unit, position: int) -> bool:
    """Whether an operand is all that a kernel makes, in row-major order."""
    operand = unit.operands[position]
    value = work.values[operand.buffer]
    if value.unit < 0 or work.units[value.unit].kind not in ("loop", "contraction"):
        return False
    size = value.type.static_bytes
    whole = not operand.offset and operand.is_contiguous and not value.order
    return whole and size == operand.type.static_bytes > 0
