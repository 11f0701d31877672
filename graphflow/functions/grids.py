"""Ranges with both ends, and powers in columns."""

from __future__ import annotations

from typing import Any

from graphflow.checks import need_int, need_tensor
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.formats import check_placement
from graphflow.functions.creation import arange, placed
from graphflow.functions.elementwise import add, mul
from graphflow.functions.shaping import flip, narrow, stack
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.promotion import cast, get_default_dtype
from graphflow.tensor import Tensor

__all__ = ["range", "vander"]


def range(
    start: float = 0, end: float | None = None, step: float = 1, *, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """``start, start + step, …`` up to and including ``end``, in the default dtype."""
    check_placement("range", placement)
    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) * step < 0:
        raise GraphFlowError(f"range: a step of {step} does not lead from {start} to {end}")
    counter = arange(int((end - start) / step) + 1, dtype=T.float64)
    values = cast(add(mul(counter, float(step)), float(start)), dtype or get_default_dtype())
    made = placed(values, placement)
    return made.requires_grad_() if requires_grad else made


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of the entries of a vector [n] in columns [n, N], the highest first (or last)."""
    if need_tensor("vander", x, "x").ndim != 1:
        raise ShapeError(f"vander takes a vector, not a tensor of shape {list(x.shape)}")
    count = need_int("vander: N", x.shape[0] if N is None else N, 0)
    columns = powers(x, count)
    return columns if increasing else flip(columns, [-1])


def powers(x: Tensor, count: int) -> Tensor:
    """``x^0, …, x^(count - 1)`` in a new last dimension; integers become int64."""
    if x.dtype.kind in ("int", "uint", "bool"):
        x = cast(x, T.int64)
    found = [add(mul(x, 0), 1)]
    while len(found) < count:
        found.append(mul(found[-1], x))
    columns = stack(found, -1)
    return columns if count else narrow(columns, -1, 0, 0)
