"""What rules about matrices share: type checks and small formulas over a builder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.op import Builder
from graphflow.ir.ops.gradients import scalar, transposed
from graphflow.ir.ops.rules import check_arity, spelled
from graphflow.ir.types import DType, TensorType, int64

Types = Sequence[TensorType]


def extents(type: TensorType) -> Any:
    """The batch axes, the rows and the columns of matrices."""
    return type.shape


def need_matrices(name: str, types: Types, operand: int, square: bool = False) -> TensorType:
    """The type of ``operand`` (the last of them), checked to hold (square) matrices."""
    check_arity(name, types, operand + 1)
    found = types[operand]
    if found.dtype.short not in ("f32", "f64", "c64", "c128"):
        raise DTypeError(
            f"{spelled(name, types)}: takes float32, float64 or complex matrices, "
            f"not {found.dtype.name}"
        )
    if found.rank < 2:
        raise ShapeError(f"{spelled(name, types)}: takes matrices, so at least two axes")
    if square and found.shape[-1] != found.shape[-2]:
        raise ShapeError(f"{spelled(name, types)}: the matrices must be square")
    return found


def adjoint(b: Builder, x: Any) -> Any:
    """The conjugate transpose."""
    turned = transposed(b, x)
    return b.conj(turned) if x.dtype.is_complex else turned


def narrow(b: Builder, x: Any, rows: int, columns: int, row: int = 0, first: int = 0) -> Any:
    """Rows ``row:rows`` and columns ``first:columns`` of every matrix."""
    if (row, first, rows, columns) == (0, 0, *x.shape[-2:]):
        return x
    batch = tuple(x.shape[:-2])
    none = (0,) * len(batch)
    return b.slice(
        x, starts=(*none, row, first), limits=(*batch, rows, columns), steps=(1,) * len(x.shape)
    )


def _places(b: Builder, rows: int, columns: int) -> tuple[Any, Any]:
    shape = (rows, columns)
    return b.iota(shape=shape, axis=0, dtype=int64), b.iota(shape=shape, axis=1, dtype=int64)


def eye(b: Builder, rows: int, columns: int, dtype: DType) -> Any:
    """Ones on the diagonal."""
    return b.cast(b.eq(*_places(b, rows, columns)), dtype=dtype)


def triangle(b: Builder, x: Any, lower: bool, offset: int = 0) -> Any:
    """One triangle of ``x``, with the diagonal (``offset`` -1 or 1: without)."""
    row, place = _places(b, *x.shape[-2:])
    inside = b.ge(row + offset, place) if lower else b.le(row + offset, place)
    return b.where(inside, x, scalar(b, 0, x.dtype))


def half_diagonal(b: Builder, x: Any) -> Any:
    """``x`` with its diagonal halved (and real, as that of a Hermitian matrix is)."""
    row, place = _places(b, *x.shape[-2:])
    own = x * 0.5
    if x.dtype.is_complex:
        own = b.cast(b.cast(own, dtype=x.dtype.real), dtype=x.dtype)
    return b.where(b.eq(row, place), own, x)


def skew(b: Builder, x: Any) -> Any:
    """``x - xᴴ``."""
    return x - adjoint(b, x)


def column(b: Builder, values: Any, axis: int) -> Any:
    """``values`` with a new axis of 1 element: ``axis`` -1 down the rows, -2 along them."""
    *batch, count = values.shape
    return b.reshape(values, shape=(*batch, count, 1) if axis == -1 else (*batch, 1, count))


def diagonal_matrix(b: Builder, values: Any) -> Any:
    """Matrices with ``values`` on their diagonals."""
    count = values.shape[-1]
    row, place = _places(b, count, count)
    return b.where(b.eq(row, place), column(b, values, -1), scalar(b, 0, values.dtype))


def sum_of(x: Any, y: Any) -> Any:
    """The sum of what there is of two."""
    if x is None or y is None:
        return y if x is None else x
    return x + y


def real_part(b: Builder, ct: Any, operand: Any) -> Any:
    """A complex cotangent for a real operand."""
    if ct.dtype.is_complex and not operand.dtype.is_complex:
        return b.cast(ct, dtype=operand.dtype)
    return ct


def solved(
    b: Builder, triangular: Any, right: Any, *, upper: bool, unitriangular: bool = False
) -> Any:
    """The X with ``triangular X = right``."""
    return b.solve_triangular(triangular, right, upper=upper, unitriangular=unitriangular)
