"""Matrix factorisations, run by NumPy on the host or by kernels.

Matrices are the last two axes, everything before is a batch.  Gradients are with respect to
the formulas of M. Giles, "Collected matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008), I. Murray, "Differentiation of the Cholesky
decomposition" (2016) for Cholesky, and Walter and Lehmann, "Algorithmic differentiation of
linear algebra functions" (2010) for QR, in their complex forms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.errors import LinAlgError
from graphflow.ir.op import (
    Application,
    Array,
    Builder,
    Elimination,
    Sample,
)
from graphflow.ir.ops.gradients import scalar
from graphflow.ir.ops.host import host
from graphflow.ir.ops.matrices import (
    Types,
    adjoint,
    column,
    diagonal_matrix,
    extents,
    eye,
    half_diagonal,
    narrow,
    need_matrices,
    real_part,
    skew,
    solved,
    sum_of,
    triangle,
)
from graphflow.ir.ops.rules import Attrs
from graphflow.ir.types import TensorType, TupleType, bool_, int32, int64


def refused(x: Array, routine: Callable[[Array], Any]) -> str:
    """Which matrix of a batch NumPy's ``routine`` refuses first, to begin an error with; empty
    for a single one."""
    for number, matrix in enumerate(x.reshape(-1, *x.shape[-2:])):
        try:
            routine(matrix)
        except np.linalg.LinAlgError:
            return f"(Batch element {number}): " if x.ndim > 2 else ""
    return ""


def matrices(seed: int, *shapes: tuple[int, ...]) -> tuple[Sample, ...]:
    """Samples of well-conditioned random matrices."""
    rng = np.random.default_rng(seed)
    found = []
    for shape in shapes:
        x = rng.normal(size=shape)
        x[..., range(min(shape[-2:])), range(min(shape[-2:]))] += 3.0
        found.append(Sample((x,)))
    return tuple(found)


# ---- Cholesky ------------------------------------------------------------------------


def _infer_square(name: str) -> Callable[[Types, Attrs], TensorType]:
    return lambda types, attrs: need_matrices(name, types, 0, square=True)


def _cholesky(x: Array) -> Array:
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            f"linalg.cholesky: {refused(x, np.linalg.cholesky)}The factorization could not be "
            "completed because the input is not positive-definite"
        ) from None


def _cholesky_vjp(b: Builder, n: Application, ct: Any) -> Any:
    lower = n.out
    inner = half_diagonal(b, triangle(b, b.matmul(adjoint(b, lower), ct), lower=True))
    inner = (inner + adjoint(b, inner)) * 0.5
    left = solved(b, adjoint(b, lower), inner, upper=True)
    return adjoint(b, solved(b, adjoint(b, lower), adjoint(b, left), upper=True))


def _positive(seed: int, *shapes: tuple[int, ...]) -> tuple[Sample, ...]:
    return tuple(
        Sample((x @ np.swapaxes(x, -1, -2),))
        for x in (sample.inputs[0] for sample in matrices(seed, *shapes))
    )


CHOLESKY = host(
    "cholesky", "The lower triangular L with L Lᴴ = A; only the lower triangle of A is read.",
    infer=_infer_square("cholesky"), reference=_cholesky, vjp=(_cholesky_vjp,),
    elimination=Elimination.CHOLESKY,
    samples=_positive(1, (3, 3), (2, 4, 4), (0, 0), (1, 1)),
)  # fmt: skip

# ---- LU ------------------------------------------------------------------------------


def _infer_lu(types: Types, attrs: Attrs) -> TupleType:
    found = need_matrices("lu_factor", types, 0)
    *batch, rows, columns = extents(found)
    short = min(rows, columns)
    return TupleType(
        (
            found,
            TensorType(int32, (*batch, short)),
            TensorType(int64, (*batch, rows)),
        )
    )


def _lu(x: Array) -> tuple[Array, Array, Array]:
    """Gaussian elimination with partial pivoting, column by column over the whole batch."""
    *batch, rows, columns = x.shape
    count, short = int(np.prod(batch, dtype=np.int64)), min(rows, columns)
    work = np.array(x).reshape(count, rows, columns)
    pivots = np.zeros((count, short), np.int32)
    order = np.tile(np.arange(rows), (count, 1))
    every = np.arange(count)
    for k in range(short):
        best = k + np.argmax(np.abs(work[:, k:, k]), axis=1) if count else every
        pivots[:, k] = best + 1
        for swapped in (work, order):
            swapped[every, k], swapped[every, best] = (
                swapped[every, best].copy(), swapped[every, k].copy(),
            )  # fmt: skip
        pivot = work[:, k, k, None]
        work[:, k + 1 :, k] /= np.where(pivot == 0, 1, pivot)
        work[:, k + 1 :, k + 1 :] -= work[:, k + 1 :, k, None] * work[:, k, None, k + 1 :]
    return (
        work.reshape(x.shape), pivots.reshape(*batch, short), order.reshape(*batch, rows)
    )  # fmt: skip


def permutation(b: Builder, order: Any, like: Any) -> Any:
    """The matrix P with P X = A, where X has the rows of A in ``order``."""
    rows = order.shape[-1]
    shape = (*order.shape[:-1], rows, rows)
    row = b.iota(shape=shape, axis=len(shape) - 2, dtype=int64)
    chosen = b.reshape(order, shape=(*order.shape[:-1], 1, rows))
    return b.cast(b.eq(row, chosen), dtype=like.dtype)


def _lu_vjp(b: Builder, n: Application, cts: Any, operand: int) -> Any:
    packed, _, order = n.out
    rows, columns = packed.shape[-2:]
    short = min(rows, columns)
    whole_l = triangle(b, narrow(b, packed, rows, short), lower=True, offset=-1)
    whole_l = whole_l + eye(b, rows, short, packed.dtype)
    whole_u = triangle(b, narrow(b, packed, short, columns), lower=False)
    ct = cts[0]
    ct_l = triangle(b, narrow(b, ct, rows, short), lower=True, offset=-1)
    ct_u = triangle(b, narrow(b, ct, short, columns), lower=False)
    l1, u1 = narrow(b, whole_l, short, short), narrow(b, whole_u, short, short)
    below = b.matmul(adjoint(b, l1), narrow(b, ct_l, short, short))
    above = b.matmul(narrow(b, ct_u, short, short), adjoint(b, u1))
    if columns > short:
        ct_u2, u2 = (narrow(b, x, short, columns, 0, short) for x in (ct_u, whole_u))
        below = below - b.matmul(ct_u2, adjoint(b, u2))
    if rows > short:
        ct_l2, l2 = (narrow(b, x, rows, short, short, 0) for x in (ct_l, whole_l))
        above = above - b.matmul(adjoint(b, l2), ct_l2)
    inner = triangle(b, below, lower=True, offset=-1) + triangle(b, above, lower=False)
    inner = solved(b, adjoint(b, l1), inner, upper=True, unitriangular=True)
    found = adjoint(b, solved(b, u1, adjoint(b, inner), upper=True))
    if columns > short:
        rest = solved(b, adjoint(b, l1), ct_u2, upper=True, unitriangular=True)
        found = b.concatenate(found, rest, axis=len(found.shape) - 1)
    if rows > short:
        rest = adjoint(b, solved(b, u1, adjoint(b, ct_l2), upper=True))
        found = b.concatenate(found, rest, axis=len(found.shape) - 2)
    return b.matmul(permutation(b, order, packed), found)


LU_FACTOR = host(
    "lu_factor",
    "L below and U on and above the diagonal of one matrix, the row swaps from 1, the row order.",
    infer=_infer_lu, reference=_lu, vjp=_lu_vjp, elimination=Elimination.LU,
    samples=matrices(2, (3, 3), (2, 4, 4), (3, 5), (5, 3), (0, 3, 3), (1, 1)),
)  # fmt: skip

# ---- QR ------------------------------------------------------------------------------


def _infer_qr(types: Types, attrs: Attrs) -> TupleType:
    found = need_matrices("qr", types, 0)
    *batch, rows, columns = extents(found)
    inner = rows if attrs["complete"] else min(rows, columns)
    q = TensorType(found.dtype, (*batch, rows, inner))
    return TupleType((q, TensorType(found.dtype, (*batch, inner, columns))))


def _qr(x: Array, *, complete: bool, alone: bool = False) -> Any:
    if 0 in x.shape:
        *batch, rows, columns = x.shape
        inner = rows if complete else min(rows, columns)
        q = np.broadcast_to(np.eye(rows, inner, dtype=x.dtype), (*batch, rows, inner))
        r = np.zeros((*batch, inner, columns), x.dtype)
        return r if alone else (q, r)
    if alone and not complete:
        return np.linalg.qr(x, "r")
    q, r = np.linalg.qr(x, "complete" if complete else "reduced")
    return r if alone else (q, r)


def _qr_vjp(b: Builder, n: Application, cts: Any, operand: int) -> Any:
    q, r = n.out
    rows, columns = n.inputs[0].shape[-2:]
    if n.attrs["complete"] and rows > columns:
        raise LinAlgError(
            "linalg.qr: there is no gradient in mode 'complete' for more rows than columns; "
            "use mode='reduced'"
        )
    ct_q, ct_r = cts
    if rows >= columns:
        return _qr_tall(b, q, r, ct_q, ct_r)
    right = None
    first = narrow(b, n.inputs[0], rows, columns, 0, rows) if ct_r is not None else None
    if ct_r is not None:
        ct_v = narrow(b, ct_r, rows, columns, 0, rows)
        ct_q = sum_of(ct_q, b.matmul(first, adjoint(b, ct_v)))
        right = b.matmul(q, ct_v)
        ct_r = narrow(b, ct_r, rows, rows)
    left = _qr_tall(b, q, narrow(b, r, rows, rows), ct_q, ct_r)
    if right is None:
        high = (*(0 for _ in left.shape[:-1]), columns - rows)
        return b.pad(left, low=(0,) * len(high), high=high, value=0)
    return b.concatenate(left, right, axis=len(left.shape) - 1)


def _qr_tall(b: Builder, q: Any, r: Any, ct_q: Any, ct_r: Any) -> Any:
    inner = None
    if ct_r is not None:
        inner = b.matmul(ct_r, adjoint(b, r))
    if ct_q is not None:
        inner = sum_of(inner, -b.matmul(adjoint(b, q), ct_q))
    upper = triangle(b, inner, lower=False)
    both = half_diagonal(b, upper + adjoint(b, upper))
    found = sum_of(b.matmul(q, both), ct_q)
    return adjoint(b, solved(b, r, adjoint(b, found), upper=True))


QR = host(
    "qr", "Orthonormal Q and upper triangular R with Q R = A.",
    infer=_infer_qr, reference=_qr, vjp=_qr_vjp, alone=1,
    samples=tuple(
        Sample(sample.inputs, {"complete": complete})
        for complete in (False, True)
        for sample in matrices(3, (3, 3), (2, 3, 4), *(() if complete else ((5, 3), (0, 3))))
    ),
)  # fmt: skip

# ---- eigenvalues ---------------------------------------------------------------------


def _infer_eigh(types: Types, attrs: Attrs) -> TupleType:
    found = need_matrices("eigh", types, 0, square=True)
    values = TensorType(found.dtype.real, found.shape[:-1])
    return TupleType((values, found))


def _eigh(x: Array, *, lower: bool, alone: bool = False) -> Any:
    with _failing("linalg.eigh", x):
        if alone:
            return np.linalg.eigvalsh(x, "L" if lower else "U")
        values, vectors = np.linalg.eigh(x, "L" if lower else "U")
    return values, vectors


class _failing:
    """NumPy's complaint that an iteration did not converge, as ours."""

    def __init__(self, name: str, x: Array) -> None:
        self.name, self.x = name, x

    def __enter__(self) -> None:
        if not np.isfinite(self.x).all():
            raise LinAlgError(
                f"{self.name}: The algorithm failed to converge because the input matrix "
                "contained non-finite values"
            )

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and issubclass(kind, np.linalg.LinAlgError):
            raise LinAlgError(f"{self.name}: {error}") from None


def _gaps(b: Builder, values: Any) -> Any:
    """``values[j] - values[i]`` off the diagonal, infinite on it."""
    size = values.shape[-1]
    gaps = column(b, values, -2) - column(b, values, -1)
    equal = eye(b, size, size, bool_)
    return b.where(equal, scalar(b, float("inf"), values.dtype), gaps)


def _eigh_vjp(b: Builder, n: Application, cts: Any, operand: int) -> Any:
    values, vectors = n.out
    ct_values, ct_vectors = cts
    inner = None
    if ct_vectors is not None:
        gaps = b.cast(b.reciprocal(_gaps(b, values)), dtype=vectors.dtype)
        turned = b.matmul(adjoint(b, vectors), ct_vectors)
        inner = skew(b, turned) * 0.5 * gaps
    if ct_values is not None:
        inner = sum_of(inner, diagonal_matrix(b, b.cast(ct_values, dtype=vectors.dtype)))
    return b.matmul(b.matmul(vectors, inner), adjoint(b, vectors))


EIGH = host(
    "eigh", "Ascending eigenvalues and orthonormal eigenvectors of Hermitian matrices.",
    infer=_infer_eigh, reference=_eigh, vjp=_eigh_vjp, alone=0,
    samples=tuple(
        Sample(sample.inputs, {"lower": lower})
        for lower in (True, False)
        for sample in _positive(4, (3, 3), (2, 4, 4), (0, 0), (1, 1))
    ),
)  # fmt: skip


def _infer_eig(types: Types, attrs: Attrs) -> TupleType:
    found = need_matrices("eig", types, 0, square=True)
    dtype = found.dtype.complex
    assert dtype is not None
    return TupleType((TensorType(dtype, found.shape[:-1]), TensorType(dtype, found.shape)))


def _eig(x: Array, *, alone: bool = False) -> Any:
    dtype = np.result_type(x.dtype, np.complex64)
    if 0 in x.shape:
        values = np.zeros(x.shape[:-1], dtype)
        return values if alone else (values, np.zeros(x.shape, dtype))
    with _failing("linalg.eig", x):
        if alone:
            return np.linalg.eigvals(x).astype(dtype)
        values, vectors = np.linalg.eig(x)
    return values.astype(dtype), vectors.astype(dtype)


def _eig_vjp(b: Builder, n: Application, cts: Any, operand: int) -> Any:
    values, vectors = n.out
    ct_values, ct_vectors = cts
    inner = None
    if ct_vectors is not None:
        gram = b.matmul(adjoint(b, vectors), vectors)
        inner = b.matmul(adjoint(b, vectors), ct_vectors)
        size = values.shape[-1]
        own = b.cast(
            b.cast(inner, dtype=values.dtype.real) * eye(b, size, size, values.dtype.real),
            dtype=values.dtype,
        )
        gaps = b.conj(b.reciprocal(_finite_gaps(b, values)))
        inner = (inner - b.matmul(gram, own)) * gaps
        inner = b.where(eye(b, size, size, bool_), scalar(b, 0, inner.dtype), inner)
    if ct_values is not None:
        inner = sum_of(inner, diagonal_matrix(b, ct_values))
    ct = b.solve(adjoint(b, vectors), b.matmul(inner, adjoint(b, vectors)), caller="linalg.eig")
    return real_part(b, ct, n.inputs[0])


def _finite_gaps(b: Builder, values: Any) -> Any:
    """``values[j] - values[i]``, 1 on the diagonal (where nothing is divided)."""
    size = values.shape[-1]
    gaps = column(b, values, -2) - column(b, values, -1)
    return gaps + eye(b, size, size, values.dtype)


EIG = host(
    "eig", "Eigenvalues and eigenvectors of square matrices, complex.",
    infer=_infer_eig, reference=_eig, vjp=_eig_vjp, alone=0,
    samples=matrices(5, (3, 3), (2, 4, 4), (0, 0), (1, 1)),
)  # fmt: skip

# ---- singular values -----------------------------------------------------------------


def _infer_svd(types: Types, attrs: Attrs) -> TupleType:
    found = need_matrices("svd", types, 0)
    *batch, rows, columns = extents(found)
    short = min(rows, columns)
    full = attrs["full_matrices"]
    return TupleType(
        (
            TensorType(found.dtype, (*batch, rows, rows if full else short)),
            TensorType(found.dtype.real, (*batch, short)),
            TensorType(found.dtype, (*batch, columns if full else short, columns)),
        )
    )


def _svd(x: Array, *, full_matrices: bool, alone: bool = False) -> Any:
    *batch, rows, columns = x.shape
    if 0 in x.shape:
        left, right = (n if full_matrices else min(rows, columns) for n in (rows, columns))
        u, vh = (
            np.broadcast_to(np.eye(*shape, dtype=x.dtype), (*batch, *shape))
            for shape in ((rows, left), (right, columns))
        )
        s = np.zeros((*batch, min(rows, columns)), x.real.dtype)
        return s if alone else (u, s, vh)
    with _failing("linalg.svd", x):
        if alone:
            return np.linalg.svd(x, compute_uv=False)
        u, s, vh = np.linalg.svd(x, full_matrices)
    return u, s, vh


def _svd_vjp(b: Builder, n: Application, cts: Any, operand: int) -> Any:
    u, s, vh = n.out
    rows, columns = n.inputs[0].shape[-2:]
    short = min(rows, columns)
    ct_u, ct_s, ct_vh = cts
    u, vh = narrow(b, u, rows, short), narrow(b, vh, short, columns)
    ct_u = None if ct_u is None else narrow(b, ct_u, rows, short)
    ct_vh = None if ct_vh is None else narrow(b, ct_vh, short, columns)
    inner = None
    if ct_s is not None:
        inner = diagonal_matrix(b, b.cast(ct_s, dtype=u.dtype))
    if ct_u is None and ct_vh is None:
        return b.matmul(b.matmul(u, inner), vh)
    size = b.cast(s, dtype=u.dtype)
    by_row, by_column = column(b, size, -1), column(b, size, -2)
    gaps = b.cast(b.reciprocal(_gaps(b, s * s)), dtype=u.dtype)
    if ct_u is not None:
        turned = b.matmul(adjoint(b, u), ct_u)
        inner = sum_of(inner, skew(b, turned) * gaps * by_column)
        if u.dtype.is_complex:
            inner = inner + _phases(b, turned, size)
    if ct_vh is not None:
        turned = b.matmul(vh, adjoint(b, ct_vh))
        inner = sum_of(inner, by_row * (skew(b, turned) * gaps))
    left = b.matmul(u, inner)
    if ct_u is not None and rows > short:
        outside = ct_u - b.matmul(u, b.matmul(adjoint(b, u), ct_u))
        left = left + outside / by_column
    found = b.matmul(left, vh)
    if ct_vh is not None and columns > short:
        outside = ct_vh - b.matmul(b.matmul(ct_vh, adjoint(b, vh)), vh)
        found = found + b.matmul(u, outside / by_row)
    return found


def _phases(b: Builder, turned: Any, size: Any) -> Any:
    """The imaginary diagonal of ``Uᴴ dU``, over the singular values."""
    count = size.shape[-1]
    own = turned * eye(b, count, count, turned.dtype)
    return (own - b.conj(own)) * 0.5 / column(b, size, -2)


SVD = host(
    "svd", "U, descending singular values and Vᴴ with U diag(S) Vᴴ = A.",
    infer=_infer_svd, reference=_svd, vjp=_svd_vjp, alone=1,
    samples=tuple(
        Sample(sample.inputs, {"full_matrices": full})
        for full in (False, True)
        for sample in matrices(6, (3, 3), (2, 3, 4), (5, 3), (0, 3), (1, 1))
    ),
)  # fmt: skip
