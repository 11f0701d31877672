"""Dropout."""

from __future__ import annotations

from typing import Any

from graphflow.checks import need_tensor
from graphflow.functions.elementwise import lt, mul, where
from graphflow.ir import types as T
from graphflow.rng import default_generator
from graphflow.tensor import Tensor

__all__ = [
    "dropout",
]  # fmt: skip


def dropout(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element at probability ``p`` and scale the rest by 1 / (1 - p)."""
    need_tensor("dropout", input)
    if isinstance(p, (int, float)) and not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or (isinstance(p, (int, float)) and p == 0):
        return input
    unit = default_generator.draw().uniform(tuple(input.shape), T.float32)
    keep = lt(unit, 1.0 - p)
    if isinstance(p, (int, float)):
        scale: Any = 0.0 if p == 1 else 1.0 / (1.0 - p)
    else:
        scale = where(p < 1.0, 1.0 / (1.0 - p), 0.0)
    out = where(keep, mul(input, scale), 0.0)
    return input.copy_(out) if inplace else out
