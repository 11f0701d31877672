"""How values of several ranks become one."""

from __future__ import annotations

import enum

from graphflow.errors import GraphFlowError


class ReduceOp(enum.Enum):
    """What a reduction over ranks does; of booleans SUM and MAX are *or*, PRODUCT and MIN *and*."""

    SUM = "sum"
    AVG = "avg"
    PRODUCT = "product"
    MIN = "min"
    MAX = "max"


def reduction(op: object) -> str:
    """The IR's name of ``op``; an error for what is no :class:`ReduceOp`."""
    if not isinstance(op, ReduceOp):
        known = ", ".join(f"ReduceOp.{member.name}" for member in ReduceOp)
        raise GraphFlowError(f"op should be one of {known}, got {op!r}")
    return op.value
