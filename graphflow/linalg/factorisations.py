"""Factorisations: Cholesky, LU, QR, eigenvalues, singular values, and what follows from them."""

from __future__ import annotations

from graphflow.device import beside_operands
from graphflow.dispatch import apply, apply_several, full
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.functions.complex_numbers import conj
from graphflow.functions.creation import iota
from graphflow.functions.diagonals import diagonal, tril, triu
from graphflow.functions.elementwise import add, clamp, eq, mul, sqrt, sub, where
from graphflow.functions.products import matmul
from graphflow.functions.shaping import narrow, transpose, unsqueeze
from graphflow.ir import types as T
from graphflow.linalg.checks import (
    adjoint,
    identity,
    need_matrix,
    need_one_dtype,
    need_square,
)
from graphflow.linalg.equations import triangular
from graphflow.promotion import cast
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor


class Eigen(NamedTuple):
    """Eigenvalues and the eigenvectors in the columns of a matrix."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QR(NamedTuple):
    """``A = Q R``."""

    Q: Tensor
    R: Tensor


class SVD(NamedTuple):
    """``A = U diag(S) Vh``."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class LU(NamedTuple):
    """``A = P L U``."""

    P: Tensor
    L: Tensor
    U: Tensor


class PackedLU(NamedTuple):
    """L and U in one matrix, and the rows that were swapped, counted from 1."""

    LU: Tensor
    pivots: Tensor


class PackedLUInfo(NamedTuple):
    """Like :class:`PackedLU`; ``info`` is the first zero pivot, counted from 1, or 0."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class CholeskyInfo(NamedTuple):
    """The factor, and 0 where there is one."""

    L: Tensor
    info: Tensor


# ---- Cholesky ------------------------------------------------------------------------


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangular L with ``L Lᴴ = A`` (``upper``: its adjoint).

    Raises LinAlgError, naming the batch element, where A is not positive-definite.
    """
    need_square("linalg.cholesky", A)
    if upper:
        return adjoint(apply("cholesky", adjoint(A)))
    return apply("cholesky", A)


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyInfo:
    """:func:`cholesky` and zeros that say that there was no error (one is raised)."""
    return CholeskyInfo(cholesky(A, upper=upper), full(tuple(A.shape[:-2]), 0, T.int32))


# ---- LU ------------------------------------------------------------------------------


def _need_pivot(name: str, pivot: bool) -> None:
    if not pivot:
        raise GraphFlowError(f"{name}: LU without pivoting is not implemented on the CPU")


def lu_factor(A: Tensor, *, pivot: bool = True) -> PackedLU:
    """L (unit diagonal, below) and U in one matrix, and the pivots."""
    need_matrix("linalg.lu_factor", A)
    _need_pivot("linalg.lu_factor", pivot)
    packed, pivots, _ = apply_several("lu_factor", A)
    return PackedLU(packed, pivots)


@beside_operands
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> PackedLUInfo:
    """:func:`lu_factor` and where the first pivot is 0."""
    packed, pivots = lu_factor(A, pivot=pivot)
    zero = eq(diagonal(packed.detach(), 0, -2, -1), 0)
    count = zero.shape[-1]
    if not count:
        return PackedLUInfo(packed, pivots, full(tuple(A.shape[:-2]), 0, T.int32))
    place = iota((count,), 0, T.int64) + 1
    first = where(zero, place, count + 1).amin(-1)
    return PackedLUInfo(packed, pivots, cast(where(first > count, 0, first), T.int32))


def lu(A: Tensor, *, pivot: bool = True) -> LU:
    """P, L and U with ``P L U = A``."""
    need_matrix("linalg.lu", A)
    _need_pivot("linalg.lu", pivot)
    packed, _, order = apply_several("lu_factor", A)
    rows, columns = A.shape[-2:]
    return LU(_permutation(order, A.dtype), *_triangles(packed, min(rows, columns)))


def unpacked(packed: Tensor, pivots: Tensor, data: bool = True, swaps: bool = True) -> LU:
    """:func:`lu` of what :func:`lu_factor` gave; ``data``, ``swaps``: whether L and U, and P."""
    name = "lu_unpack"
    need_matrix(name, packed, "LU_data")
    _need_pivots(name, pivots)
    rows, columns = packed.shape[-2:]
    if tuple(pivots.shape) != (*packed.shape[:-2], min(rows, columns)):
        raise ShapeError(
            f"{name}: LU_data {list(packed.shape)} does not fit LU_pivots {list(pivots.shape)}"
        )
    empty = full((0,), 0, packed.dtype)
    p = _permutation(_order(pivots, rows), packed.dtype) if swaps else empty
    lower, upper = _triangles(packed, min(rows, columns)) if data else (empty, empty)
    return LU(p, lower, upper)


def _need_pivots(name: str, pivots: Tensor) -> None:
    if pivots.dtype is not T.int32:
        raise GraphFlowError(f"{name}: pivots must be int32, not {pivots.dtype.name}")


def _triangles(packed: Tensor, short: int) -> tuple[Tensor, Tensor]:
    lower = tril(narrow(packed, -1, 0, short), -1)
    unit = narrow(identity(packed.shape[-2], packed), -1, 0, short)
    return add(lower, unit), triu(narrow(packed, -2, 0, short))


@beside_operands
def _permutation(order: Tensor, dtype: T.DType) -> Tensor:
    """The matrix that puts row i where ``order[i]`` says."""
    rows = order.shape[-1]
    return cast(eq(iota((rows, 1), 0, T.int64), unsqueeze(order, -2)), dtype)


def lu_solve(
    LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """The X with ``A X = B`` (``left=False``: ``X A = B``; ``adjoint``: Aᴴ for A)."""
    name = "linalg.lu_solve"
    need_square(name, LU, "LU")
    need_matrix(name, B, "B")
    need_one_dtype(name, LU, B)
    _need_pivots(name, pivots)
    if LU.shape[-1] != B.shape[-2 if left else -1]:
        raise ShapeError(f"{name}: LU {list(LU.shape)} does not fit B {list(B.shape)}")
    if not left:
        turned = lu_solve(LU, pivots, _turned(B), adjoint=not adjoint)
        return _turned(turned)
    p = _permutation(_order(pivots, LU.shape[-1]), LU.dtype)
    if not adjoint:
        y = triangular(LU, matmul(transpose(p, -2, -1), B), upper=False, unitriangular=True)
        return triangular(LU, y, upper=True)
    turned_lu = _turned(LU)
    y = triangular(turned_lu, B, upper=False)
    return matmul(p, triangular(turned_lu, y, upper=True, unitriangular=True))


def _turned(x: Tensor) -> Tensor:
    return conj(transpose(x, -2, -1))


@beside_operands
def _order(pivots: Tensor, rows: int) -> Tensor:
    """The order of rows that the swaps lead to."""
    batch = tuple(pivots.shape[:-1])
    place = iota((*batch, rows), len(batch), T.int64)
    order = place
    for k in range(pivots.shape[-1]):
        other = cast(narrow(pivots, -1, k, 1), T.int64) - 1
        here, there = narrow(order, -1, k, 1), order.gather(-1, other)
        order = where(eq(place, k), there, where(eq(place, other), here, order))
    return order


# ---- QR ------------------------------------------------------------------------------


def qr(A: Tensor, mode: str = "reduced") -> QR:
    """Orthonormal Q and upper triangular R; ``mode``: "reduced", "complete" or "r" (only R)."""
    need_matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise GraphFlowError(f"linalg.qr: mode must be 'reduced', 'complete' or 'r', not {mode!r}")
    q, r = apply_several("qr", A, complete=mode == "complete")
    return QR(full((0,), 0, A.dtype) if mode == "r" else q, r)


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product of reflections ``I - tau[i] v[i] v[i]ᴴ``.

    ``v[i]`` is column i of A below the diagonal, with 1 on it and 0 above.  All of it is
    ``I - V (I + D S)⁻¹ D Vᴴ`` with D = diag(tau) and S the strict upper triangle of ``Vᴴ V``
    (the compact form of R. Schreiber and C. Van Loan, 1989).
    """
    name = "linalg.householder_product"
    need_matrix(name, A)
    need_one_dtype(name, A, tau)
    rows, columns = A.shape[-2:]
    if columns > rows:
        raise ShapeError(f"{name}: input.shape[-2] must be at least input.shape[-1]")
    if tau.shape[-1] > columns:
        raise ShapeError(f"{name}: input.shape[-1] must be at least tau.shape[-1]")
    if tuple(tau.shape[:-1]) != tuple(A.shape[:-2]):
        raise ShapeError(f"{name}: batches of A {list(A.shape)} and tau {list(tau.shape)} differ")
    count = tau.shape[-1]
    unit = identity(rows, A)
    v = add(tril(narrow(A, -1, 0, count), -1), narrow(unit, -1, 0, count))
    factor = unsqueeze(tau, -1)
    inner = add(mul(factor, triu(matmul(adjoint(v), v), 1)), identity(count, A))
    right = mul(factor, narrow(adjoint(v), -1, 0, columns))
    solved = triangular(inner, right, upper=True, unitriangular=True)
    return sub(narrow(unit, -1, 0, columns), matmul(v, solved))


# ---- eigenvalues ---------------------------------------------------------------------


def _lower(name: str, UPLO: str) -> bool:
    if UPLO.upper() not in ("L", "U"):
        raise GraphFlowError(f"{name}: UPLO must be 'L' or 'U', not {UPLO!r}")
    return UPLO.upper() == "L"


def eigh(A: Tensor, UPLO: str = "L") -> Eigen:
    """Ascending eigenvalues and orthonormal eigenvectors; only one triangle of A is read."""
    need_square("linalg.eigh", A)
    return Eigen(*apply_several("eigh", A, lower=_lower("linalg.eigh", UPLO)))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The ascending eigenvalues of Hermitian matrices."""
    need_square("linalg.eigvalsh", A)
    return apply_several("eigh", A, lower=_lower("linalg.eigvalsh", UPLO))[0]


def eig(A: Tensor) -> Eigen:
    """Eigenvalues and eigenvectors of square matrices, complex."""
    need_square("linalg.eig", A)
    return Eigen(*apply_several("eig", A))


def eigvals(A: Tensor) -> Tensor:
    """The eigenvalues of square matrices, complex."""
    need_square("linalg.eigvals", A)
    return apply_several("eig", A)[0]


def matrix_sqrth(A: Tensor) -> Tensor:
    """The positive semi-definite root of such matrices: ``R R = A``."""
    need_square("linalg.matrix_sqrth", A)
    values, vectors = apply_several("eigh", A, lower=True)
    roots = cast(sqrt(clamp(values, min=0)), A.dtype)
    return matmul(mul(vectors, unsqueeze(roots, -2)), adjoint(vectors))


# ---- singular values -----------------------------------------------------------------


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """U, the descending singular values S and Vh, with ``U diag(S) Vh = A``."""
    need_matrix("linalg.svd", A)
    _need_no_driver("linalg.svd", driver)
    return SVD(*apply_several("svd", A, full_matrices=full_matrices))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The descending singular values."""
    need_matrix("linalg.svdvals", A)
    _need_no_driver("linalg.svdvals", driver)
    return apply_several("svd", A, full_matrices=False)[1]


def _need_no_driver(name: str, driver: str | None) -> None:
    if driver is not None:
        raise GraphFlowError(f"{name}: keyword argument `driver` is for CUDA tensors only")


class Polar(NamedTuple):
    """``A = U P`` with U unitary and P positive semi-definite."""

    U: Tensor
    P: Tensor


def polar(A: Tensor) -> Polar:
    """The polar decomposition: ``A = U P``, for at least as many rows as columns."""
    need_matrix("linalg.polar", A)
    if A.shape[-2] < A.shape[-1]:
        raise ShapeError(
            f"linalg.polar: takes at least as many rows as columns, not {list(A.shape)}"
        )
    u, s, vh = apply_several("svd", A, full_matrices=False)
    v = adjoint(vh)
    return Polar(matmul(u, vh), matmul(mul(v, unsqueeze(cast(s, A.dtype), -2)), vh))
