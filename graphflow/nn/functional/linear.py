"""Linear maps."""

from __future__ import annotations

from graphflow.checks import need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.shaping import matmul, t
from graphflow.tensor import Tensor

__all__ = [
    "linear",
]  # fmt: skip


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``; input [..., in], weight [out, in], bias [out]."""
    need_tensor("linear", input)
    if input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"linear: input of shape {list(input.shape)} does not fit a weight of shape "
            f"{list(weight.shape)}: the last dimension must be {weight.shape[-1]}"
        )
    if input.dtype is not weight.dtype:
        raise DTypeError(
            f"linear: the input is {input.dtype.name}, the weight {weight.dtype.name}; "
            f"convert one, for example input.to({weight.dtype!r})"
        )
    lead = tuple(input.shape[:-1])
    # One flat product: its weight gradient is one product, too, not a sum over a batch of them.
    rows = input if input.ndim <= 2 else input.reshape(-1, input.shape[-1])
    out = matmul(rows, t(weight))
    if bias is not None:
        out = apply("add", out, bias)
    return out if input.ndim <= 2 else out.reshape((*lead, weight.shape[0]))
