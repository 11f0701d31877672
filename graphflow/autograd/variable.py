"""``Variable``: what tensors with a history were once called."""

from __future__ import annotations

import warnings

from graphflow.tensor import Tensor


def Variable(data: Tensor, requires_grad: bool = False, volatile: bool | None = None) -> Tensor:
    """The tensor ``data`` as a leaf over the same memory, recording if ``requires_grad``."""
    if volatile is not None:
        warnings.warn("Variable: volatile changes nothing; use gf.no_grad()", stacklevel=2)
    made = data.detach()
    return made.requires_grad_() if requires_grad else made
