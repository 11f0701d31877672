"""Equations, inverses, determinants, powers and the exponential of matrices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from graphflow.autocasting import in_lower_precision
from graphflow.checks import need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, apply_several, full
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.functions.complex_numbers import sgn
from graphflow.functions.diagonals import diagonal
from graphflow.functions.elementwise import abs, add, gt, log, mul, ne, remainder, sub, where
from graphflow.functions.products import matmul
from graphflow.functions.reductions import sum as total
from graphflow.functions.shaping import permute, reshape, squeeze, transpose, unsqueeze
from graphflow.ir import types as T
from graphflow.linalg.checks import (
    adjoint,
    batched,
    identity,
    need_matrix,
    need_one_dtype,
    need_square,
)
from graphflow.promotion import as_operand, cast
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor


class SlogDet(NamedTuple):
    """``det = sign * exp(logabsdet)``."""

    sign: Tensor
    logabsdet: Tensor


class InverseInfo(NamedTuple):
    """The inverse, and 0 where there is one."""

    inverse: Tensor
    info: Tensor


class SolveInfo(NamedTuple):
    """The solution, and 0 where there is one."""

    result: Tensor
    info: Tensor


class LeastSquares(NamedTuple):
    """The solution of ``A X ≈ B``, squared residuals, rank and singular values of A."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


# ---- equations -----------------------------------------------------------------------


def _is_vector(A: Tensor, B: Tensor) -> bool:
    """B holds vectors: it has one dimension, or the shape of A's rows."""
    return B.ndim == 1 or (B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1]))


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The X with ``A X = B`` (``left=False``: ``X A = B``); B may hold vectors.

    Raises LinAlgError, naming the batch element, where A is singular.
    """
    name = "linalg.solve"
    need_square(name, A)
    need_tensor(name, B, "B")
    need_one_dtype(name, A, B)
    vector = _is_vector(A, B)
    if vector and not left:
        raise GraphFlowError(f"{name}: left=False does not go with vectors as B")
    right = unsqueeze(B, -1) if vector else need_matrix(name, B, "B")
    if A.shape[-1] != right.shape[-2 if left else -1]:
        raise ShapeError(f"{name}: Incompatible shapes of A {list(A.shape)} and B {list(B.shape)}")
    if not left:
        turned = apply("solve", *batched(adjoint(A), adjoint(right)), caller=name)
        return adjoint(turned)
    out = apply("solve", *batched(A, right), caller=name)
    return squeeze(out, -1) if vector else out


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveInfo:
    """:func:`solve` and zeros that say that there was no error (one is raised)."""
    return SolveInfo(solve(A, B, left=left), full(tuple(A.shape[:-2]), 0, T.int32))


def triangular(A: Tensor, B: Tensor, *, upper: bool, unitriangular: bool = False) -> Tensor:
    """The X with ``A X = B`` from one triangle of A."""
    return apply("solve_triangular", *batched(A, B), upper=upper, unitriangular=unitriangular)


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """The X with ``A X = B`` (``left=False``: ``X A = B``) from one triangle of A."""
    name = "linalg.solve_triangular"
    need_square(name, A)
    need_matrix(name, B, "B")
    need_one_dtype(name, A, B)
    if A.shape[-1] != B.shape[-2 if left else -1]:
        raise ShapeError(f"{name}: Incompatible shapes of A {list(A.shape)} and B {list(B.shape)}")
    if left:
        return triangular(A, B, upper=upper, unitriangular=unitriangular)
    turned = triangular(
        transpose(A, -2, -1), transpose(B, -2, -1), upper=not upper, unitriangular=unitriangular
    )
    return transpose(turned, -2, -1)


@beside_operands
def inverse_of(name: str, A: Tensor) -> Tensor:
    """The inverse; ``name`` is the operation in errors."""
    need_square(name, A)
    return apply("solve", *batched(A, identity(A.shape[-1], A)), caller=name)


def inv(A: Tensor) -> Tensor:
    """The inverse; LinAlgError, naming the batch element, where A is singular."""
    return inverse_of("linalg.inv", A)


def inv_ex(A: Tensor, *, check_errors: bool = False) -> InverseInfo:
    """:func:`inv` and zeros that say that there was no error (one is raised)."""
    return InverseInfo(inv(A), full(tuple(A.shape[:-2]), 0, T.int32))


def tolerances(A: Tensor, atol: Any, rtol: Any, name: str) -> tuple[Tensor, Tensor]:
    """Absolute and relative tolerance with PyTorch's defaults, as tensors."""
    dtype = A.dtype.real
    if rtol is None:
        eps = float(_epsilon(dtype))
        fallback = eps * max(A.shape[-2:])
        if atol is None:
            rtol = fallback
        elif isinstance(atol, Tensor):
            rtol = where(gt(atol, 0), 0.0, fallback)
        else:
            rtol = 0.0 if atol > 0 else fallback
    found = [as_operand(0.0 if x is None else x, dtype) for x in (atol, rtol)]
    for value in found:
        if isinstance(value, Tensor) and value.dtype.is_complex:
            raise GraphFlowError(f"{name}: tolerances must be real")
    return found[0], found[1]


def _epsilon(dtype: T.DType) -> Any:
    import numpy as np

    return np.finfo(dtype.numpy).eps


def pinv(
    A: Tensor,
    atol: Any = None,
    rtol: Any = None,
    hermitian: bool = False,
    *,
    rcond: Any = None,
) -> Tensor:
    """The pseudo-inverse; singular values up to ``max(atol, rtol * largest)`` count as 0."""
    name = "linalg.pinv"
    (need_square if hermitian else need_matrix)(name, A)
    absolute, relative = tolerances(A, atol, rtol if rcond is None else rcond, name)
    batch = tuple(A.shape[:-2])
    absolute, relative = (
        t if not t.ndim else t.expand(batch) for t in (absolute.detach(), relative.detach())
    )
    return apply("pinv", A, absolute, relative, hermitian=hermitian)


def lstsq(
    A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> LeastSquares:
    """The X of least ``|A X - B|``, by the pseudo-inverse."""
    name = "linalg.lstsq"
    need_matrix(name, A, "input")
    need_one_dtype(name, A, need_tensor(name, B, "B"))
    vector = B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1])
    right = unsqueeze(B, -1) if vector else B
    if right.shape[-2] != A.shape[-2]:
        raise ShapeError(f"{name}: shapes of A {list(A.shape)} and B {list(B.shape)} do not fit")
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise GraphFlowError(f"{name}: driver {driver!r} is not one of gels, gelsy, gelsd, gelss")
    solution = matmul(pinv(A, rtol=rcond), right)
    rows, columns = A.shape[-2:]
    residuals = full((0,), 0, A.dtype.real)
    if rows > columns and driver != "gelsy":
        off = abs(sub(matmul(A, solution), right))
        residuals = mul(off, off).sum(-2)
    rank, values = full((0,), 0, T.int64), full((0,), 0, A.dtype.real)
    if driver != "gels":
        from graphflow.linalg.norms import matrix_rank

        rank = matrix_rank(A, rtol=rcond)
    if driver in ("gelsd", "gelss"):
        values = apply_several("svd", A, full_matrices=False)[1]
    return LeastSquares(squeeze(solution, -1) if vector else solution, residuals, rank, values)


# ---- determinants --------------------------------------------------------------------


def det(A: Tensor) -> Tensor:
    """The determinant."""
    return apply("det", need_square("linalg.det", A))


@beside_operands
def slogdet(A: Tensor) -> SlogDet:
    """Sign and logarithm of the absolute value of the determinant."""
    need_square("linalg.slogdet", A)
    packed, pivots, _ = apply_several("lu_factor", A)
    own = diagonal(packed, 0, -2, -1)
    count = own.shape[-1]
    swapped = full(tuple(A.shape[:-2]), 0, T.int64)
    if count:
        swapped = total(ne(pivots, _places(count)), -1)
    parity = cast(sub(1, mul(remainder(swapped, 2), 2)), A.dtype)
    return SlogDet(mul(sgn(own).prod(-1), parity), log(abs(own)).sum(-1))


def _places(count: int) -> Tensor:
    from graphflow.functions.creation import iota

    return add(iota((count,), 0, T.int32), 1)


# ---- powers and products -------------------------------------------------------------


def matrix_exp(A: Tensor) -> Tensor:
    """The sum of ``A^k / k!``."""
    return apply("matrix_exp", need_square("linalg.matrix_exp", A))


def matrix_power(A: Tensor, n: int) -> Tensor:
    """``A`` times itself ``n`` times; negative powers are those of the inverse."""
    name = "linalg.matrix_power"
    if need_tensor(name, A, "A").ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ShapeError(f"{name}: A must be batches of square matrices, not {list(A.shape)}")
    if n < 0:
        return matrix_power(inverse_of(name, A), -n)
    if n == 0:
        return add(mul(A, 0), identity(A.shape[-1], A))
    out: Tensor | None = None
    power = A
    while n:
        if n & 1:
            out = power if out is None else matmul(out, power)
        n >>= 1
        if n:
            power = matmul(power, power)
    assert out is not None
    return out.clone() if out is A else out


@in_lower_precision
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """Product of several matrices in the cheapest order; the first and last may be vectors.

    The order is that of Cormen et al., Introduction to Algorithms, section 15.2.
    """
    name = "linalg.multi_dot"
    found = [need_tensor(name, t, f"entry {i}") for i, t in enumerate(tensors)]
    if len(found) < 2:
        raise ShapeError(f"{name}: expects at least 2 tensors, got {len(found)}")
    need_one_dtype(name, *found)
    ranks = [t.ndim for t in found]
    if any(r != 2 for r in ranks[1:-1]) or not all(r in (1, 2) for r in (ranks[0], ranks[-1])):
        raise ShapeError(f"{name}: takes matrices (vectors first and last), not {ranks} dimensions")
    row, column = ranks[0] == 1, ranks[-1] == 1
    if row:
        found[0] = unsqueeze(found[0], 0)
    if column:
        found[-1] = unsqueeze(found[-1], 1)
    for a, b in itertools.pairwise(found):
        if a.shape[1] != b.shape[0]:
            raise ShapeError(f"{name}: {list(a.shape)} and {list(b.shape)} do not multiply")
    out = _chained(found)
    out = squeeze(out, -1) if column else out
    return squeeze(out, 0) if row else out


def _chained(matrices: list[Tensor]) -> Tensor:
    sizes = [matrices[0].shape[0], *(m.shape[1] for m in matrices)]
    count = len(matrices)
    cost = [[0] * count for _ in range(count)]
    cuts = [[0] * count for _ in range(count)]
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            cost[i][j], cuts[i][j] = min(
                (cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return matrices[i]
        k = cuts[i][j]
        return matmul(product(i, k), product(k + 1, j))

    return product(0, count - 1)


# ---- tensors as matrices -------------------------------------------------------------


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of A as a map from its last dimensions to its first ``ind``."""
    name = "linalg.tensorinv"
    if ind <= 0:
        raise GraphFlowError(f"{name}: expected a strictly positive integer for ind")
    shape = tuple(need_tensor(name, A, "A").shape)
    rows, columns = math.prod(shape[:ind]), math.prod(shape[ind:])
    if rows != columns:
        raise ShapeError(
            f"{name}: expected the products of the first {ind} and the other extents of "
            f"{list(shape)} to be equal, got {rows} and {columns}"
        )
    flat = inverse_of(name, reshape(A, (rows, columns)))
    return reshape(flat, (*shape[ind:], *shape[:ind]))


def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """The X with ``tensordot(A, X, X.ndim) = B``; ``dims`` of A are moved to the end first."""
    name = "linalg.tensorsolve"
    need_tensor(name, A, "A")
    need_tensor(name, B, "B")
    if dims:
        moved = [d % A.ndim for d in dims]
        A = permute(A, *(d for d in range(A.ndim) if d not in moved), *moved)
    shape = tuple(A.shape[B.ndim :])
    rows, columns = math.prod(A.shape[: B.ndim]), math.prod(shape)
    if rows != columns:
        raise ShapeError(
            f"{name}: A {list(A.shape)} is no square map onto tensors of shape {list(B.shape)}"
        )
    out = solve(reshape(A, (rows, columns)), reshape(B, (-1,)) if B.ndim else reshape(B, (1,)))
    return reshape(out, shape)
