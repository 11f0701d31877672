"""Diagonals and triangles: ``diag``, ``diagonal``, ``tril``, ``block_diag`` …"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflow.checks import need_dtype, need_int, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, apply_view, assign, literal
from graphflow.dispatch import full as filled
from graphflow.errors import ShapeError
from graphflow.functions.creation import iota
from graphflow.functions.reductions import normal_dim
from graphflow.functions.shaping import reshape
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.promotion import as_operand, cast, result_type

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "block_diag", "diag", "diag_embed", "diagflat", "diagonal", "tril", "tril_indices", "triu",
    "triu_indices",
]  # fmt: skip
METHODS = """
diag diag_embed diagflat diagonal fill_diagonal_ tril triu
""".split()
IN_PLACE = """
tril triu
""".split()


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions as a new last one: a view.

    ``offset`` above 0 is above the main diagonal.
    """
    axes = (normal_dim(dim1, input.ndim), normal_dim(dim2, input.ndim))
    if axes[0] == axes[1]:
        raise ShapeError(f"diagonal: the dimensions must be different, not {dim1} and {dim2}")
    if input.ndim < 2:
        raise ShapeError(f"diagonal: needs at least 2 dimensions, not {input.ndim}")
    return apply_view("diagonal", input, axes=axes, offset=need_int("diagonal: offset", offset))


@beside_operands
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices that are 0 but for a diagonal: the last dimension of the input."""
    rank = input.ndim + 1
    axes = (normal_dim(dim1, rank), normal_dim(dim2, rank))
    if axes[0] == axes[1]:
        raise ShapeError(f"diag_embed: the dimensions must be different, not {dim1} and {dim2}")
    if not input.ndim:
        raise ShapeError("diag_embed: needs at least 1 dimension")
    extent = input.shape[-1] + abs(offset)
    rest = iter(input.shape[:-1])
    shape = tuple(extent if k in axes else next(rest) for k in range(rank))
    return apply("diagonal_set", filled(shape, 0, input.dtype), input, axes=axes, offset=offset)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix (a copy), or the matrix with a vector as its diagonal."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise ShapeError(f"diag: needs 1 or 2 dimensions, not {input.ndim}")
    return apply("diagonal", input, axes=(0, 1), offset=diagonal)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with all elements of the input as its diagonal."""
    return diag_embed(reshape(input, -1), offset)


def fill_diagonal_(input: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Set the main diagonal to a number; ``wrap``: tall matrices begin again below it.

    Tensors of more than 2 dimensions must have equal extents.
    """
    shape = input.shape
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise ShapeError(f"fill_diagonal_: needs a matrix or equal extents, not {list(shape)}")
    place = iota(tuple(shape), 0, T.int64)
    hit = None
    for axis in range(1, len(shape)):
        rows = place
        if wrap and len(shape) == 2:
            rows = apply("remainder", place, as_operand(shape[1] + 1, T.int64))
        same = apply("eq", rows, iota(tuple(shape), axis, T.int64))
        hit = same if hit is None else apply("logical_and", hit, same)
    assert hit is not None
    return assign(input, apply("where", hit, as_operand(fill_value, input.dtype), input))


# ---- triangles -----------------------------------------------------------------------


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices without what lies above a diagonal."""
    return _triangle("tril", "ge", input, diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices without what lies below a diagonal."""
    return _triangle("triu", "le", input, diagonal)


@beside_operands
def _triangle(name: str, compare: str, input: Tensor, offset: int) -> Tensor:
    if need_tensor(name, input).ndim < 2:
        raise ShapeError(f"{name}: needs at least 2 dimensions, not {input.ndim}")
    shape = tuple(input.shape[-2:])
    row = apply("add", iota(shape, 0, T.int64), as_operand(offset, T.int64))
    inside = apply(compare, row, iota(shape, 1, T.int64))
    return apply("where", inside, input, as_operand(0, input.dtype))


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: DType = T.int64, device: Any = None
) -> Tensor:
    """Rows and columns of the lower triangle of a matrix, in order of rows: ``[2, n]``."""
    import numpy as np

    return _indices(np.tril_indices(row, offset, col), dtype)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: DType = T.int64, device: Any = None
) -> Tensor:
    """Rows and columns of the upper triangle of a matrix, in order of rows: ``[2, n]``."""
    import numpy as np

    return _indices(np.triu_indices(row, offset, col), dtype)


def _indices(found: Any, dtype: DType) -> Tensor:
    import numpy as np

    wanted = need_dtype(dtype) or T.int64
    return literal(np.stack(found).astype(wanted.numpy))


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with the given ones along its diagonal and 0 elsewhere."""
    found = [need_tensor("block_diag", x, f"entry {i}") for i, x in enumerate(tensors)]
    for i, x in enumerate(found):
        if x.ndim > 2:
            raise ShapeError(f"block_diag: entry {i} has {x.ndim} dimensions; at most 2 are taken")
    dtype = result_type(*[x.dtype for x in found]) if found else T.float32
    blocks = [cast(x if x.ndim == 2 else reshape(x, (1, -1)), dtype) for x in found]
    if not blocks:
        return filled((1, 0), 0, dtype)
    width = sum(x.shape[1] for x in blocks)
    rows, before = [], 0
    for x in blocks:
        after = width - before - x.shape[1]
        rows.append(apply("pad", x, low=(0, before), high=(0, after), value=0))
        before += x.shape[1]
    return apply("concatenate", *rows, axis=0)
