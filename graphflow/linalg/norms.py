"""Norms of vectors and matrices, and what is measured by them."""

from __future__ import annotations

import math
from typing import Any

from graphflow.autocasting import in_float32, in_lower_precision
from graphflow.checks import need_tensor
from graphflow.dispatch import apply_several
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.complex_numbers import conj
from graphflow.functions.diagonals import diagonal as _diagonal
from graphflow.functions.elementwise import (
    abs,
    div,
    gt,
    maximum,
    mul,
)
from graphflow.functions.grids import powers
from graphflow.functions.norms import p_norm
from graphflow.functions.products import matmul as matmul
from graphflow.functions.reductions import normal_dim, normal_dims, reduce
from graphflow.functions.reductions import sum as total
from graphflow.functions.shaping import movedim, narrow, reshape, unsqueeze
from graphflow.ir import types as T
from graphflow.linalg.checks import need_exact, need_matrix, need_square
from graphflow.linalg.equations import inverse_of, tolerances
from graphflow.promotion import cast
from graphflow.tensor import Tensor


def _floating(name: str, x: Tensor, dtype: T.DType | None) -> Tensor:
    need_tensor(name, x, "x")
    if dtype is not None:
        if not (dtype.is_floating_point or dtype.is_complex):
            raise DTypeError(f"{name}: dtype should be floating point or complex. Got {dtype.name}")
        if x.dtype.is_complex and not dtype.is_complex:
            raise DTypeError(
                f"{name}: dtype should be complex for complex inputs. Got {dtype.name}"
            )
        x = cast(x, dtype)
    if not (x.dtype.is_floating_point or x.dtype.is_complex):
        raise DTypeError(
            f"{name}: Expected a floating point or complex tensor as input. Got {x.dtype.name}"
        )
    return x


@in_float32
def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: T.DType | None = None,
) -> Tensor:
    """The ``ord``-norm of the values over ``dim`` (all): 0 counts, ±inf take extremes."""
    x = _floating("linalg.vector_norm", x, dtype)
    axes = normal_dims(dim, x.ndim)
    order = float(ord)
    count = math.prod(x.shape[a] for a in axes)
    if count == 0 and (order < 0 or order == math.inf):
        raise GraphFlowError(
            f"linalg.vector_norm cannot compute the {order} norm on an empty tensor because the "
            "operation does not have an identity"
        )
    return p_norm(x, order, dim, keepdim)


@in_float32
def matrix_norm(
    A: Tensor,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: T.DType | None = None,
) -> Tensor:
    """The norm of matrices: "fro", "nuc", ±inf, ±1 or ±2."""
    name = "linalg.matrix_norm"
    need_tensor(name, A, "A")
    if A.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions")
    A = _floating(name, A, dtype)
    rows, columns = _two(name, dim, A.ndim)
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim)
    if ord in ("nuc", 2, -2):
        return _spectral(A, ord, rows, columns, keepdim)
    if ord in (1, -1):
        rows, columns = columns, rows
    elif ord not in (math.inf, -math.inf):
        raise GraphFlowError(f"{name}: Order {ord} not supported")
    if math.prod(A.shape[d] for d in (rows, columns)) == 0 and A.shape[rows] == 0:
        raise GraphFlowError(f"{name}: the {ord} norm of an empty matrix has no identity")
    sums = total(abs(A), columns, keepdim=True)
    found = reduce("reduce_max" if ord > 0 else "reduce_min", sums, rows, True)
    return found if keepdim else _dropped(found, rows, columns)


def _dropped(value: Tensor, *dims: int) -> Tensor:
    return reshape(value, tuple(d for i, d in enumerate(value.shape) if i not in dims))


def _two(name: str, dim: Any, rank: int) -> tuple[int, int]:
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise GraphFlowError(f"{name}: dim must be a 2-tuple. Got {dim}")
    first, second = (normal_dim(d, rank) for d in dim)
    if first == second:
        raise GraphFlowError(f"{name}: dims must be different. Got {dim}")
    return first, second


def _spectral(A: Tensor, ord: Any, rows: int, columns: int, keepdim: bool) -> Tensor:
    need_exact("linalg.matrix_norm", A)
    moved = movedim(movedim(A, rows, -1), columns - (columns > rows), -1)
    values = apply_several("svd", moved, full_matrices=False)[1]
    if ord == "nuc":
        found = total(values, -1)
    else:
        found = reduce("reduce_max" if ord > 0 else "reduce_min", values, -1, False)
    if not keepdim:
        return found
    shape = tuple(1 if i in (rows, columns) else d for i, d in enumerate(A.shape))
    return reshape(found, shape)


def norm(
    A: Tensor,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: T.DType | None = None,
) -> Tensor:
    """A vector or a matrix norm, by the number of dimensions in ``dim`` and by ``ord``."""
    need_tensor("linalg.norm", A, "A")
    count = None if dim is None else len(dim) if isinstance(dim, (tuple, list)) else 1
    if ord is None:
        if dim is None:
            A = reshape(A, (-1,))
            found = vector_norm(A, 2, 0, False, dtype=dtype)
            return found
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if dim is None and A.ndim not in (1, 2):
        raise GraphFlowError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. "
            f"Got {A.ndim}D."
        )
    if count is not None and count not in (1, 2):
        raise GraphFlowError("linalg.norm: If dim is specified, it must be of length 1 or 2")
    if (count or A.ndim) == 2:
        return matrix_norm(A, ord, dim or (-2, -1), keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise GraphFlowError(f"linalg.norm: order {ord!r} is one of matrices, not of vectors")
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number: ``|A| |A⁻¹|``, or the ratio of the extreme singular values."""
    name = "linalg.cond"
    need_matrix(name, A)
    if p in (None, 2, -2):
        values = apply_several("svd", A, full_matrices=False)[1]
        if values.shape[-1] == 0:
            return total(values, -1)
        large, small = narrow(values, -1, 0, 1), narrow(values, -1, values.shape[-1] - 1, 1)
        ratio = div(small, large) if p == -2 else div(large, small)
        return reshape(ratio, tuple(values.shape[:-1]))
    need_square(name, A)
    if A.shape[-1] == 0:
        return total(total(abs(A), -1), -1)
    return mul(matrix_norm(A, p), matrix_norm(inverse_of(name, A), p))


def matrix_rank(
    A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """The number of singular values above ``max(atol, rtol * largest)``."""
    name = "linalg.matrix_rank"
    (need_square if hermitian else need_matrix)(name, A)
    source = A.detach()
    if tol is not None:
        atol, rtol = tol, 0.0
    absolute, relative = tolerances(source, atol, rtol, name)
    if hermitian:
        values = abs(apply_several("eigh", source, lower=True)[0])
    else:
        values = apply_several("svd", source, full_matrices=False)[1]
    if values.shape[-1] == 0:
        return total(cast(values, T.int64), -1)
    largest = reduce("reduce_max", values, -1, False)
    limit = maximum(absolute, mul(relative, largest))
    return total(gt(values, unsqueeze(limit, -1)), -1)


# ---- vectors -------------------------------------------------------------------------


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product along ``dim``, which has 3 elements."""
    from graphflow.functions.linear_algebra import cross_along

    if input.ndim != other.ndim:
        raise ShapeError("linalg.cross: inputs must have the same number of dimensions")
    axis = normal_dim(dim, input.ndim)
    if (input.shape[axis], other.shape[axis]) != (3, 3):
        raise ShapeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[axis]} "
            f"and {other.shape[axis]}"
        )
    return cross_along("linalg.cross", input, other, dim)


@in_lower_precision
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Sums of products of the conjugate of one and the other along ``dim``."""
    need_tensor("linalg.vecdot", x, "x")
    need_tensor("linalg.vecdot", y, "y")
    if x.dtype is not y.dtype:
        raise GraphFlowError(f"linalg.vecdot: dtypes differ: {x.dtype.name} and {y.dtype.name}")
    return total(mul(conj(x), y), dim, dtype=x.dtype)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonal of every matrix: a view."""
    return _diagonal(A, offset, dim1, dim2)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Powers ``x^0, x^1, …, x^(N-1)`` in a new last dimension."""
    if not need_tensor("linalg.vander", x, "x").ndim:
        x = unsqueeze(x, 0)
    count = x.shape[-1] if N is None else N
    if count <= 1 and N is not None:
        raise GraphFlowError("linalg.vander: N must be greater than 1.")
    return powers(x, count)
