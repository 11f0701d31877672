"""Fixed operands of a scan's products, laid in memory as every step reads them.

``x_t wᵀ`` with weights stored ``[out, in]`` reads them across: the product's kernel packs them
first, in each step anew.  One transposed copy ahead of the loop is read as it lies.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.products import labels_of

FEWEST_STEPS = 4
"""Of a loop from which a copy is soon paid for, where the number of steps is known."""
FEWEST_COLUMNS = 8
"""Of a product below which its kernels are other ones, which read operands as they like."""


def lying_as_read(node: Node, operands: Sequence[Node]) -> list[Node]:
    """The operands of scan ``node``, with copies of those that its products read across."""
    body, length = node.attrs["body"], node.attrs["length"]
    first = node.attrs["carried"] + node.attrs["scanned"]
    if isinstance(length, int) and length < FEWEST_STEPS:
        return list(operands)
    return [
        emit("copy", operand)
        if number >= first and _is_turned(operand) and _is_read_along(body, body.inputs[number])
        else operand
        for number, operand in enumerate(operands)
    ]


def _is_turned(operand: Node) -> bool:
    """Whether ``operand`` is a matrix (or several) whose rows are columns in memory."""
    if operand.op.name != "permute":
        return False
    last = len(operand.shape) - 1
    return bool(operand.attrs["axes"][last] != last and operand.shape[last] != 1)


def _is_read_along(body: Graph, leaf: Node) -> bool:
    """Whether all that reads ``leaf`` are products whose results have its rows' order."""
    users = body.users[leaf]
    return bool(users) and leaf not in body.outputs and all(_reads_along(u, leaf) for u in users)


def _reads_along(user: Node, leaf: Node) -> bool:
    if user.op.contraction is None or user.inputs[1] is not leaf or user.inputs[0] is leaf:
        return False
    _, right, out = labels_of(user)
    columns = leaf.shape[-1]
    wide = not isinstance(columns, int) or columns >= FEWEST_COLUMNS
    return wide and bool(out) and right[-1] == out[-1]
