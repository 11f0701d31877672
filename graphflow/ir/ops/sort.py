"""Sorting along one axis: the stable order of the elements, as positions.

NaN is larger than every number, and -0 is equal to 0.  A gather makes the
positions values, with their gradient.  Attribute ``count``, if it is there, says
how many positions are wanted, from the first on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
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
from graphflow.ir.ops.rules import ORDERED, Attrs, check_arity, check_axis, require, spelled
from graphflow.ir.types import TensorType, int64


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("argsort", types, 1)
    require("argsort", types, ORDERED)
    check_axis("argsort", types, attrs.get("axis"), types[0].rank)
    shape, axis = types[0].shape, attrs["axis"] % types[0].rank
    count = attrs.get("count", shape[axis])
    if isinstance(count, int) and isinstance(shape[axis], int) and not 0 <= count <= shape[axis]:
        raise ShapeError(f"{spelled('argsort', types)}: {count} positions of {shape[axis]}")
    return TensorType(int64, (*shape[:axis], count, *shape[axis + 1 :]))


def _argsort(x: Array, *, axis: int, descending: bool, count: int | None = None) -> Array:
    if count is not None:
        whole = _argsort(x, axis=axis, descending=descending)
        return np.take(whole, range(count), axis)
    if x.dtype.kind not in "biuf":  # bfloat16 sorts NaN elsewhere
        x = x.astype(np.float32)
    if not descending:
        return np.argsort(x, axis, kind="stable")
    # Equal elements keep their order when the reverse of the reverse is sorted.
    order = np.argsort(np.flip(x, axis), axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(order, axis)


def _samples() -> tuple[Sample, ...]:
    special = np.array([[2.0, np.nan, -0.0, 0.0, np.inf, -np.inf, np.nan, -1.0]])
    long = (np.arange(49) * 7919 % 31).reshape(1, 49) - 15.0
    operands: list[tuple[Any, int]] = [
        ((9,), 0), ((3, 4), 0), ((2, 5, 3), 1), ((2, 1), 1), ((3, 0), 1),
        (special, 1), (long, 1), (np.tile(long.T, (1, 2)), 0),
    ]  # fmt: skip
    some: list[tuple[Any, int, int]] = [
        ((4, 40), 1, 1), ((40, 3), 0, 5), ((2, 33, 2), 1, 4), ((3, 4), 1, 0), ((3, 4), 1, 3),
        (special, 1, 1), (np.tile(special, (1, 3)), 1, 3), (long, 1, 6), (long, 1, 40),
    ]  # fmt: skip
    turns = (False, True)
    return (
        *(Sample((x,), {"axis": axis, "descending": t}) for x, axis in operands for t in turns),
        *(
            Sample((x,), {"axis": axis, "descending": t, "count": count})
            for x, axis, count in some
            for t in turns
        ),
    )


ARGSORT = register(
    OpDef(
        name="argsort",
        kind=Kind.LINE,
        line=Line.SORT,
        summary="The positions of the elements in ascending or descending order, stable.",
        infer=_infer,
        reference=_argsort,
        vjp=NON_DIFFERENTIABLE,
        cost=32.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            dtypes=("f32", "f64", "f16", "bf16", "i64", "i32", "i8", "u8", "bool"),
            samples=_samples(),
            gradient=False,
        ),
    )
)
