"""Helpers of gradient rules, over any :class:`graphflow.ir.op.Builder`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphflow.ir.node import ArrayValue
from graphflow.ir.op import Builder
from graphflow.ir.types import DType

Value = Any  # a graph node or a tensor; both have .shape and .dtype


@lru_cache(maxsize=256)
def _scalar(value: float, dtype: DType) -> ArrayValue:
    return ArrayValue(np.array(value, dtype.numpy))


def scalar(b: Builder, value: bool | int | float, dtype: DType) -> Value:
    """A 0-d constant; for operands that no typed neighbour gives a dtype to."""
    return b.constant(value=_scalar(value, dtype))


def zeros(b: Builder, shape: Sequence[Any], dtype: DType) -> Value:
    """A tensor of zeros."""
    zero = scalar(b, 0, dtype)
    return b.expand(zero, shape=tuple(shape)) if len(shape) else zero


def zeros_like(b: Builder, x: Value) -> Value:
    """Zeros of the shape and dtype of ``x``."""
    return zeros(b, x.shape, x.dtype)


def mask(b: Builder, condition: Value, ct: Value) -> Value:
    """``ct`` where ``condition`` holds, else 0 (also where ``ct`` is not finite)."""
    return b.where(condition, ct, scalar(b, 0, ct.dtype))


def restore_axes(b: Builder, x: Value, axes: Sequence[int], shape: Sequence[Any]) -> Value:
    """``x``, reduced over ``axes`` from ``shape``, with those axes back as extents of 1."""
    kept = tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
    return x if tuple(x.shape) == kept else b.reshape(x, shape=kept)


def repeat_axes(b: Builder, x: Value, axes: Sequence[int], shape: Sequence[Any]) -> Value:
    """``x``, reduced over ``axes`` from ``shape``, repeated along them: has ``shape``."""
    if tuple(axes) != tuple(range(len(axes))):  # leading axes come back by broadcasting
        x = restore_axes(b, x, axes, shape)
    return x if tuple(x.shape) == tuple(shape) else b.expand(x, shape=tuple(shape))


def shifted(b: Builder, x: Value, axis: int, by: int, value: float) -> Value:
    """``x`` moved by ``by`` places along ``axis``, ``value`` coming in at the end left free."""
    rank, extent = len(x.shape), x.shape[axis]
    if isinstance(extent, int) and extent < abs(by):
        by = extent if by > 0 else -extent
    front, back = (by, 0) if by > 0 else (0, -by)

    def at(end: Any, others: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(end if k == axis else other for k, other in enumerate(others))

    zero = (0,) * rank
    part = b.slice(x, starts=at(back, zero), limits=at(extent - front, x.shape), steps=(1,) * rank)
    return b.pad(part, low=at(front, zero), high=at(back, zero), value=value)


def transposed(b: Builder, x: Value) -> Value:
    """``x`` with its last two axes exchanged."""
    rank = len(x.shape)
    return b.permute(x, axes=(*range(rank - 2), rank - 1, rank - 2))
