"""Reading at computed positions.

Positions are integers in ``0 .. extent - 1``; anything else, negative numbers
included, is an error at run time (the front turns Python's negative indices
into positions first).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.ir.affine import Affine, Index, Piece
from graphflow.ir.op import (
    GATHERED,
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OpTests,
    Sample,
    register,
)
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import mask, zeros
from graphflow.ir.ops.rules import (
    ANY,
    INTEGER,
    Attrs,
    check_arity,
    check_axis,
    require,
    spelled,
)
from graphflow.ir.types import TensorType

Types = Sequence[TensorType]
LOADED = Affine.variable(GATHERED)


def check_range(name: str, index: Array, extent: int, axis: int) -> None:
    """Raise :class:`IndexRangeError` for the first position outside ``0 .. extent - 1``."""
    if index.size and (index.min() < 0 or index.max() >= extent):
        bad = index[(index < 0) | (index >= extent)].flat[0] if index.ndim else index
        raise IndexRangeError(
            f"{name}: index {int(bad)} is out of range for axis {axis}, which has {extent} elements"
        )


def require_index(name: str, types: Types, operand: int) -> None:
    """Raise unless ``operand`` holds integers."""
    if types[operand].dtype.kind not in INTEGER:
        raise DTypeError(f"{spelled(name, types)}: operand {operand} must hold integer positions")


def same_but(name: str, types: Types, a: int, b: int, axis: int) -> None:
    """Raise unless the operands ``a`` and ``b`` have one shape, ``axis`` aside."""
    first, second = types[a].shape, types[b].shape
    differs = len(first) != len(second) or any(
        k != axis and d != e for k, (d, e) in enumerate(zip(first, second))
    )
    if differs:
        raise ShapeError(
            f"{spelled(name, types)}: operands {a} and {b} may differ in axis {axis} only"
        )


def along(index: Array, axis: int) -> tuple[Array, ...]:
    """NumPy index arrays: ``index`` in ``axis``, the own position elsewhere."""
    grid: list[Array] = []
    for k, extent in enumerate(index.shape):
        places = np.arange(extent).reshape((-1,) + (1,) * (index.ndim - 1 - k))
        grid.append(index if k == axis else places)
    return tuple(grid)


def _at(index: Index, axis: int) -> Index:
    return (*index[:axis], LOADED, *index[axis + 1 :])


# ---- gather --------------------------------------------------------------------------


def _infer_gather(types: Types, attrs: Attrs) -> TensorType:
    check_arity("gather", types, 2)
    require("gather", types, ANY)
    require_index("gather", types, 1)
    axis = check_axis("gather", types, attrs.get("axis"), types[0].rank)
    same_but("gather", types, 0, 1, axis)
    return TensorType(types[0].dtype, types[1].shape)


def _gather(x: Array, index: Array, *, axis: int) -> Array:
    check_range("gather", index, x.shape[axis], axis)
    return x[along(index, axis)]


def _gather_vjp(b: Builder, n: Application, ct: Any) -> Any:
    x, index = n.inputs
    axis, shape = n.attrs["axis"], tuple(x.shape)
    if index.shape[axis] == 1:  # one element a row: a comparison, which fuses, no scatter
        places = b.iota(shape=shape, axis=axis, dtype=index.dtype)
        return mask(b, b.eq(places, index), ct)
    return b.scatter_add(zeros(b, shape, ct.dtype), index, ct, axis=axis)


def index_gather(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    """Element ``index`` of the index operand, and the element of operand 0 that it names."""
    return (Piece(1, index), Piece(0, _at(index, attrs["axis"])))


def positions(shape: tuple[int, ...], extent: int) -> np.ndarray[Any, Any]:
    """Positions below ``extent`` that repeat and are out of order."""
    count = int(np.prod(shape))
    return (np.arange(count) * 7 % extent).reshape(shape)


GATHER = register(
    OpDef(
        name="gather",
        kind=Kind.GATHER,
        summary="x at positions index along an axis, its own position in the others.",
        infer=_infer_gather,
        reference=_gather,
        vjp=(_gather_vjp, None),
        index=index_gather,
        fallible=True,
        cost=4.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            dtypes=("f32", "f64", "i64", "bool"),
            samples=(
                Sample(((3, 5), positions((3, 1), 5)), {"axis": 1}),
                Sample(((3, 5), positions((3, 4), 5)), {"axis": 1}),
                Sample(((4, 3), positions((2, 3), 4)), {"axis": 0}),
                Sample(((2, 3, 4), positions((2, 5, 4), 3)), {"axis": 1}),
                Sample(((3, 5), np.zeros((3, 0), np.int64)), {"axis": 1}),
            ),
        ),
    )
)

# ---- take ----------------------------------------------------------------------------


def _infer_take(types: Types, attrs: Attrs) -> TensorType:
    check_arity("take", types, 2)
    require("take", types, ANY)
    require_index("take", types, 1)
    shape = types[0].shape
    axis = check_axis("take", types, attrs.get("axis"), len(shape))
    return TensorType(types[0].dtype, (*shape[:axis], *types[1].shape, *shape[axis + 1 :]))


def _take(x: Array, index: Array, *, axis: int) -> Array:
    check_range("take", index, x.shape[axis], axis)
    return np.take(x, index, axis)


def _take_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """Adds the rows of the cotangent where they were read."""
    x, index = n.inputs
    axis, shape = n.attrs["axis"], tuple(x.shape)
    count = 1
    for extent in index.shape:
        count = count * extent
    rows = (*shape[:axis], count, *shape[axis + 1 :])
    column = tuple(count if k == axis else 1 for k in range(len(shape)))
    where = b.expand(b.reshape(index, shape=column), shape=rows)
    return b.scatter_add(zeros(b, shape, ct.dtype), where, b.reshape(ct, shape=rows), axis=axis)


def _index_take(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    axis, rank = attrs["axis"], types[1].rank
    data = (*index[:axis], LOADED, *index[axis + rank :])
    return (Piece(1, index[axis : axis + rank]), Piece(0, data))


TAKE = register(
    OpDef(
        name="take",
        kind=Kind.GATHER,
        summary="The slices of x at positions index of an axis, which the index's shape replaces.",
        infer=_infer_take,
        reference=_take,
        vjp=(_take_vjp, None),
        index=_index_take,
        fallible=True,
        cost=4.0,
        batched=batches.taken,
        tests=OpTests(
            dtypes=("f32", "f64", "i64", "bool"),
            samples=(
                Sample(((5, 3), positions((4,), 5)), {"axis": 0}),
                Sample(((5, 3), positions((2, 3), 5)), {"axis": 0}),
                Sample(((2, 5, 3), positions((4,), 5)), {"axis": 1}),
                Sample(((5, 3), np.array(2)), {"axis": 0}),
                Sample(((5, 3), np.zeros(0, np.int64)), {"axis": 1}),
            ),
        ),
    )
)
