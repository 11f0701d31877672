"""Collectives that return a new tensor, and that gradients flow through."""

from __future__ import annotations

from graphflow.checks import need_tensor
from graphflow.distributed.process_group import ProcessGroup, group_or_world
from graphflow.distributed.reduce_op import ReduceOp, reduction
from graphflow.distributed.reducing import reduced
from graphflow.tensor import Tensor


def all_reduce(
    tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: ProcessGroup | None = None
) -> Tensor:
    """The reduction of every rank's ``tensor``; the gradient is the reduction of theirs.

    Sums and averages have gradients.
    """
    value = need_tensor("all_reduce", tensor)
    flat = reduced([value], reduction(op), group_or_world(group))
    shaped: Tensor = flat.reshape(tuple(value.shape))
    return shaped
