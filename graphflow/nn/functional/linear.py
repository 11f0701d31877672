"""Linear maps."""

from __future__ import annotations

import math

from graphflow.autocasting import in_lower_precision, in_widest
from graphflow.checks import need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.elementwise import add, mul
from graphflow.functions.products import matmul
from graphflow.functions.reductions import reduce
from graphflow.functions.shaping import t
from graphflow.tensor import Tensor

__all__ = [
    "bilinear", "linear",
]  # fmt: skip


@in_lower_precision
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
    rows = input if input.ndim <= 2 else input.reshape(math.prod(lead), input.shape[-1])
    out = matmul(rows, t(weight))
    if bias is not None:
        out = apply("add", out, bias)
    return out if input.ndim <= 2 else out.reshape((*lead, weight.shape[0]))


@in_widest
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input1 @ weight[k] @ input2 + bias[k]``; weight [out, in1, in2], bias [out]."""
    need_tensor("bilinear", input1)
    lead, (out, first, second) = tuple(input1.shape[:-1]), weight.shape
    fits = input1.ndim and input1.shape[-1] == first and tuple(input2.shape) == (*lead, second)
    if not fits:
        raise ShapeError(
            f"bilinear: inputs of shape {list(input1.shape)} and {list(input2.shape)} do not fit "
            f"a weight of shape {list(weight.shape)}"
        )
    count = math.prod(lead)
    rows, other = input1.reshape(count, first), input2.reshape(count, 1, second)
    half = matmul(rows, weight.permute(1, 0, 2).reshape(first, out * second))
    made = reduce("reduce_sum", mul(half.reshape(count, out, second), other), -1, False)
    if bias is not None:
        made = add(made, bias)
    return made.reshape((*lead, out))  # type: ignore[no-any-return]
