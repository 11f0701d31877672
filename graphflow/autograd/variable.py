"""``Variable``: what tensors with a history were once called."""

from __future__ import annotations

from graphflow.tensor import Tensor


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """The tensor ``data`` as a leaf over the same memory, recording if ``requires_grad``."""
    made = data.detach()
    return made.requires_grad_() if requires_grad else made
