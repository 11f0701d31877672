"""Bisection: where numbers belong in sorted lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.op import (
    NON_DIFFERENTIABLE,
    Array,
    Kind,
    Line,
    OpDef,
    OpTests,
    Sample,
    register,
)
from graphflow.ir.ops import batches
from graphflow.ir.ops.rules import ORDERED, Attrs, check_arity, require, spelled
from graphflow.ir.types import TensorType, int64


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("searchsorted", types, 2)
    require("searchsorted", types, ORDERED)
    lines, values = types
    if lines.dtype is not values.dtype:
        raise DTypeError(f"{spelled('searchsorted', types)}: operands have different dtypes")
    if lines.rank != 1 and (values.rank != lines.rank or lines.shape[:-1] != values.shape[:-1]):
        raise ShapeError(
            f"{spelled('searchsorted', types)}: the sorted operand must have one axis, or "
            "the axes of the values up to the last"
        )
    return TensorType(int64, values.shape)


def _searchsorted(lines: Array, values: Array, *, right: bool) -> Array:
    """Bisection of all lines at once.  What a comparison with NaN yields decides there, too."""
    extent = lines.shape[-1]
    low = np.zeros(values.shape, np.int64)
    high = np.full(values.shape, extent, np.int64)
    one = lines.ndim == 1
    while np.any(low < high):
        middle = (low + high) // 2
        at = np.minimum(middle, extent - 1)  # lines that are done stay where they are
        found = lines[at] if one else np.take_along_axis(lines, at, -1)
        after = ~(found > values) if right else ~(found >= values)
        open_ = low < high
        low = np.where(open_ & after, middle + 1, low)
        high = np.where(open_ & ~after, middle, high)
    return low


def _samples() -> tuple[Sample, ...]:
    line = np.array([-2.0, -1.0, -1.0, 0.0, 1.0, 1.0, 3.0])
    lines = np.stack([line, 2 * line])
    ends = np.array([[-3.0, -2.0, 1.0], [3.0, 7.0, 0.0]])
    special = np.array([np.nan, np.inf, -np.inf, -0.0])
    operands = [
        (line, ends), (lines, ends), (lines, (2, 0)), (line[:0], ends), (line[:1], ends),
        (line, np.array(1.0)), (line, special), (np.array([0.0, 1.0, np.inf, np.nan]), special),
    ]  # fmt: skip
    return tuple(Sample(pair, {"right": right}) for pair in operands for right in (False, True))


SEARCHSORTED = register(
    OpDef(
        name="searchsorted",
        kind=Kind.LINE,
        line=Line.SEARCH,
        summary="How many elements of a sorted line are below each value (right: or equal).",
        infer=_infer,
        reference=_searchsorted,
        vjp=NON_DIFFERENTIABLE,
        cost=16.0,
        batched=batches.searched,
        tests=OpTests(
            dtypes=("f32", "f64"),
            samples=(
                *_samples(),
                Sample((np.arange(0, 20, 2), np.arange(-1, 21)), {"right": False}),
                Sample((np.arange(0, 20, 2), np.arange(-1, 21)), {"right": True}),
            ),
            gradient=False,
        ),
    )
)
