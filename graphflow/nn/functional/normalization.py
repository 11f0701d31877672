"""Normalisation."""

from __future__ import annotations

from typing import Any

from graphflow.errors import ShapeError
from graphflow.functions.elementwise import add, clamp, div, mul, rsqrt, sub
from graphflow.functions.reductions import mean
from graphflow.tensor import Tensor

__all__ = [
    "layer_norm", "normalize",
]  # fmt: skip


def layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the last dimensions, then scale and shift."""
    extents = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if tuple(input.shape[-len(extents) :]) != extents:
        raise ShapeError(
            f"layer_norm over {list(extents)} does not fit an input of shape {list(input.shape)}"
        )
    dims = tuple(range(-len(extents), 0))
    centred = sub(input, mean(input, dims, keepdim=True))
    variance = mean(mul(centred, centred), dims, keepdim=True)
    out = mul(centred, rsqrt(add(variance, eps)))
    if weight is not None:
        out = mul(out, weight)
    return out if bias is None else add(out, bias)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """``input`` over its p-norm along ``dim`` (not below ``eps``)."""
    from graphflow.functions.reductions import norm

    return div(input, clamp(norm(input, p, dim, keepdim=True), min=eps))
