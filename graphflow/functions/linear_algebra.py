"""Linear algebra under its older names: ``gf.det``, ``gf.svd``, ``x.inverse()`` …"""

from __future__ import annotations

from typing import Any

from graphflow import linalg
from graphflow.checks import need_tensor
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import add, log, lt, mul, sub, where
from graphflow.functions.reductions import normal_dim
from graphflow.functions.shaping import broadcast_to, cat, narrow, transpose
from graphflow.ir.types import broadcast_shapes
from graphflow.linalg import (
    det,
    matrix_exp,
    matrix_power,
    qr,
    slogdet,
)
from graphflow.linalg.checks import adjoint, identity, need_square
from graphflow.linalg.equations import inverse_of, triangular
from graphflow.linalg.factorisations import LU, PackedLU, PackedLUInfo, unpacked
from graphflow.linalg.low_rank import pca_lowrank, svd_lowrank
from graphflow.promotion import cast, promote_types
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

__all__ = [
    "cholesky", "cholesky_inverse", "cholesky_solve", "cross", "det", "inverse", "logdet",
    "lu", "lu_solve", "lu_unpack", "matrix_exp", "matrix_power", "orgqr", "pca_lowrank",
    "pinverse", "qr", "slogdet", "svd", "svd_lowrank", "triangular_solve",
]  # fmt: skip
METHODS = """
cholesky cholesky_inverse cholesky_solve cross det inverse logdet lu lu_solve matrix_exp
matrix_power orgqr pinverse qr slogdet svd triangular_solve
""".split()


class SVD(NamedTuple):
    """``input = U diag(S) Vᴴ``."""

    U: Tensor
    S: Tensor
    V: Tensor


class TriangularSolution(NamedTuple):
    """The solution and the matrix it was found with."""

    solution: Tensor
    cloned_coefficient: Tensor


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """:func:`graphflow.linalg.cholesky`."""
    return linalg.cholesky(input, upper=upper)


def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The X with ``A X = input``, from the Cholesky factor of A."""
    need_square("cholesky_solve", L, "L")
    factor = adjoint(L) if upper else L
    if input.ndim < 2 or input.shape[-2] != L.shape[-1]:
        raise ShapeError(
            f"cholesky_solve: B {list(input.shape)} does not fit the factor {list(L.shape)}"
        )
    y = triangular(factor, input, upper=False)
    return triangular(adjoint(factor), y, upper=True)


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, from its Cholesky factor."""
    need_square("cholesky_inverse", L, "L")
    return cholesky_solve(identity(L.shape[-1], L), L, upper)


def inverse(input: Tensor) -> Tensor:
    """:func:`graphflow.linalg.inv`."""
    return inverse_of("linalg.inv", input)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """:func:`graphflow.linalg.pinv`."""
    return linalg.pinv(input, rcond=rcond)


def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant; NaN where that is negative."""
    sign, size = slogdet(need_square("logdet", input))
    if input.dtype.is_complex:
        return add(log(sign), size)
    return where(lt(sign, 0), float("nan"), size)


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> SVD:
    """U, S and V (not its adjoint) with ``U diag(S) Vᴴ = input``."""
    u, s, vh = linalg.svd(input, full_matrices=not some)
    if not compute_uv:
        u, vh = (mul(x, 0).detach() for x in linalg.svd(input.detach(), full_matrices=True)[::2])
    return SVD(u, s, adjoint(vh))


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolution:
    """The X with ``A X = b`` from one triangle of A, or with its transpose."""
    need_square("triangular_solve", A)
    matrix = _turned(A) if transpose else A
    solution = linalg.solve_triangular(
        matrix, b, upper=upper is not transpose, unitriangular=unitriangular
    )
    return TriangularSolution(solution, A.clone())


def _turned(x: Tensor) -> Tensor:
    return transpose(x, -2, -1)


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> PackedLU | PackedLUInfo:
    """:func:`graphflow.linalg.lu_factor`; ``get_infos``: ``lu_factor_ex``."""
    return linalg.lu_factor_ex(A, pivot=pivot) if get_infos else linalg.lu_factor(A, pivot=pivot)


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> LU:
    """P [..., m, m], L [..., m, k] and U [..., k, n] from what ``linalg.lu_factor(A)`` gave.

    k is the smaller of m and n.  What isn't asked for is empty.
    """
    return unpacked(LU_data, LU_pivots, unpack_data, unpack_pivots)


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """The X with ``A X = b`` from what ``linalg.lu_factor(A)`` gave."""
    return linalg.lu_solve(LU_data, LU_pivots, b)


def orgqr(input: Tensor, tau: Tensor) -> Tensor:
    """:func:`graphflow.linalg.householder_product`."""
    return linalg.householder_product(input, tau)


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along ``dim``, by default the first one of 3 elements."""
    if dim is None:
        found = [i for i, extent in enumerate(input.shape) if extent == 3]
        if not found:
            raise ShapeError(f"cross: no dimension of size 3 in {list(input.shape)}")
        dim = found[0]
    return cross_along("cross", input, other, dim)


def cross_along(name: str, input: Tensor, other: Tensor, dim: int) -> Tensor:
    """``a × b`` along ``dim``: products of shifted elements."""
    need_tensor(name, input)
    need_tensor(name, other, "other")
    dtype = promote_types(input.dtype, other.dtype)
    shape: Any = broadcast_shapes(tuple(input.shape), tuple(other.shape))
    axis = normal_dim(dim, len(shape))
    a, b = (broadcast_to(cast(x, dtype), shape) for x in (input, other))
    if shape[axis] != 3:
        raise ShapeError(
            f"{name}: inputs dimension {dim} must have length 3. Got {input.shape[dim]} and "
            f"{other.shape[dim]}"
        )

    def turned(x: Tensor, by: int) -> Tensor:
        return cat([narrow(x, axis, by, 3 - by), narrow(x, axis, 0, by)], axis)

    return sub(mul(turned(a, 1), turned(b, 2)), mul(turned(a, 2), turned(b, 1)))
