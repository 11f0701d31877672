"""Contractions: sums of products over an axis of two operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.dims import dim_product
from graphflow.ir.op import Application, Array, Builder, Kind, OpDef, OpTests, register
from graphflow.ir.ops import complex_parts
from graphflow.ir.ops.gradients import transposed
from graphflow.ir.ops.rules import NUMBER, Attrs, calls, check_arity, require, spelled
from graphflow.ir.types import TensorType, broadcast_shapes


def _infer_matmul(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("matmul", types, 2)
    require("matmul", types, NUMBER)
    a, b = types
    if a.dtype is not b.dtype:
        raise DTypeError(f"{spelled('matmul', types)}: operands have different dtypes; cast one")
    if a.rank < 2 or b.rank < 2:
        raise ShapeError(f"{spelled('matmul', types)}: both operands need at least two axes")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"{spelled('matmul', types)}: {a.shape[-1]} columns do not meet {b.shape[-2]} rows"
        )
    try:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ShapeError as error:
        raise ShapeError(f"{spelled('matmul', types)}: batch axes: {error}") from None
    return TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1]))


def _matmul(a: Array, b: Array) -> Array:
    if a.dtype.itemsize == 2 and a.dtype.kind not in "iu":  # half precision adds in single
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    return np.matmul(a, b)


def _matmul_left(b: Builder, n: Application, ct: Any) -> Any:
    return b.matmul(ct, transposed(b, n.inputs[1]))


def _matmul_right(b: Builder, n: Application, ct: Any) -> Any:
    """A matrix shared by a whole batch gets one product over all rows, not a sum of many."""
    left, right = n.inputs
    if len(right.shape) == 2 and len(left.shape) > 2:
        rows = dim_product(tuple(left.shape[:-1]))
        left = b.reshape(left, shape=(rows, left.shape[-1]))
        ct = b.reshape(ct, shape=(rows, ct.shape[-1]))
    return b.matmul(transposed(b, left), ct)


MATMUL = register(
    OpDef(
        name="matmul",
        kind=Kind.CONTRACTION,
        summary="Matrix product over the last two axes; the axes before broadcast.",
        infer=_infer_matmul,
        reference=_matmul,
        vjp=(_matmul_left, _matmul_right),
        parts=complex_parts.product,
        cost=8.0,
        tests=OpTests(
            tolerance={"f32": 5e-6, "f64": 1e-13},
            dtypes=("f32", "f64", "i64"),
            samples=calls(
                ((3, 4), (4, 5), {}), ((1, 1), (1, 1), {}), ((2, 3, 4), (2, 4, 5), {}),
                ((2, 3, 4), (4, 5), {}), ((3, 4), (2, 4, 5), {}),
                ((2, 1, 3, 4), (5, 4, 2), {}), ((3, 0), (0, 2), {}), ((0, 3), (3, 2), {}),
            ),
        ),
    )
)  # fmt: skip
