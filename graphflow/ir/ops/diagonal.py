"""The diagonal of two axes: a view, and writing one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.affine import Index, Piece
from graphflow.ir.dims import Dim, SymDim
from graphflow.ir.op import Application, Array, Builder, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import zeros
from graphflow.ir.ops.rules import Attrs, calls, check_arity, check_axis, spelled
from graphflow.ir.types import TensorType

Types = Sequence[TensorType]


def _shape(name: str, types: Types, attrs: Attrs) -> tuple[Dim, ...]:
    """The shape without the two axes, and the diagonal's length as the last extent."""
    axes, offset = attrs.get("axes"), attrs.get("offset")
    if not isinstance(axes, tuple) or len(axes) != 2 or axes[0] == axes[1]:
        raise ShapeError(f"{spelled(name, types)}: axes must be two different ones, not {axes!r}")
    if not isinstance(offset, int):
        raise ShapeError(f"{spelled(name, types)}: offset must be a whole number, not {offset!r}")
    row, column = (check_axis(name, types, axis, types[0].rank) for axis in axes)
    rest = tuple(d for k, d in enumerate(types[0].shape) if k not in axes)
    return (*rest, _length(name, types, types[0].shape[row], types[0].shape[column], offset))


def _length(name: str, types: Types, rows: Dim, columns: Dim, offset: int) -> Dim:
    high, wide = rows + min(offset, 0), columns - max(offset, 0)
    if isinstance(high, SymDim) or isinstance(wide, SymDim):
        if high != wide:
            raise ShapeError(
                f"{spelled(name, types)}: the diagonal of extents {rows} and {columns} "
                "has no known length"
            )
        return high
    return max(min(high, wide), 0)


def _infer_diagonal(types: Types, attrs: Attrs) -> TensorType:
    check_arity("diagonal", types, 1)
    return TensorType(types[0].dtype, _shape("diagonal", types, attrs))


def _index_diagonal(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    """Where element ``index`` of the diagonal lies in the first operand."""
    (row, column), offset = attrs["axes"], attrs["offset"]
    rest = iter(index[:-1])
    place = {row: index[-1] + max(-offset, 0), column: index[-1] + max(offset, 0)}
    return (Piece(0, tuple(place[k] if k in place else next(rest) for k in range(types[0].rank))),)


def _diagonal(x: Array, *, axes: tuple[int, int], offset: int) -> Array:
    """As a view that may be written to (``np.diagonal`` gives one that may not)."""
    row, column = axes
    moved = np.moveaxis(x, axes, (-2, -1))
    rows, columns = x.shape[row] + min(offset, 0), x.shape[column] - max(offset, 0)
    length = max(min(rows, columns), 0)
    if not length:
        return moved[..., :0, :0].reshape((*moved.shape[:-2], 0))
    part = moved[..., max(-offset, 0) :, max(offset, 0) :]
    strides = (*part.strides[:-2], part.strides[-2] + part.strides[-1])
    return np.lib.stride_tricks.as_strided(part, (*part.shape[:-2], length), strides)


def _diagonal_vjp(b: Builder, n: Application, ct: Any) -> Any:
    return b.diagonal_set(zeros(b, n.inputs[0].shape, ct.dtype), ct, **n.attrs)


SAMPLES: tuple[tuple[tuple[int, ...], Attrs], ...] = (
    ((4, 4), {"axes": (0, 1), "offset": 0}),
    ((3, 5), {"axes": (0, 1), "offset": 1}),
    ((3, 5), {"axes": (1, 0), "offset": 1}),
    ((5, 3), {"axes": (0, 1), "offset": -3}),
    ((2, 3, 4), {"axes": (0, 2), "offset": 0}),
    ((2, 3, 4, 3), {"axes": (3, 1), "offset": -1}),
    ((3, 3), {"axes": (0, 1), "offset": 3}),
    ((0, 3), {"axes": (0, 1), "offset": 0}),
)

DIAGONAL = register(
    OpDef(
        name="diagonal",
        kind=Kind.VIEW,
        summary="The diagonal of two axes, offset above it, as the last axis.",
        infer=_infer_diagonal,
        reference=_diagonal,
        vjp=(_diagonal_vjp,),
        index=_index_diagonal,
        view_inverse=lambda emit, parent, new, attrs: emit("diagonal_set", parent, new, **attrs),
        cost=0.0,
        batched=batches.TOGETHER,
        tests=OpTests(dtypes=("f32", "f64", "i64", "bool"), samples=calls(*SAMPLES)),
    )
)

# ---- diagonal_set --------------------------------------------------------------------


def _infer_diagonal_set(types: Types, attrs: Attrs) -> TensorType:
    check_arity("diagonal_set", types, 2)
    base, value = types
    if base.dtype is not value.dtype:
        raise DTypeError(f"{spelled('diagonal_set', types)}: operands have different dtypes")
    shape = _shape("diagonal_set", types, attrs)
    if value.shape != shape:
        raise ShapeError(
            f"{spelled('diagonal_set', types)}: the diagonal has shape "
            f"[{','.join(map(str, shape))}]"
        )
    return base


def _diagonal_set(base: Array, value: Array, **attrs: Any) -> Array:
    out = np.array(base)
    _diagonal(out, **attrs)[...] = value
    return out


def _cleared(b: Builder, n: Application, ct: Any) -> Any:
    return b.diagonal_set(ct, zeros(b, n.inputs[1].shape, ct.dtype), **n.attrs)


DIAGONAL_SET = register(
    OpDef(
        name="diagonal_set",
        kind=Kind.SCATTER,
        summary="The first operand with the diagonal of two axes replaced by the second.",
        infer=_infer_diagonal_set,
        reference=_diagonal_set,
        vjp=(_cleared, lambda b, n, ct: b.diagonal(ct, **n.attrs)),
        index=_index_diagonal,
        batched=batches.TOGETHER,
        tests=OpTests(
            dtypes=("f32", "f64", "i64", "bool"),
            samples=tuple(
                Sample((shape, _diagonal(np.empty(shape), **attrs).shape), attrs)
                for shape, attrs in SAMPLES
            ),
        ),
    )
)
