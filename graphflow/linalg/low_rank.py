"""Singular values and principal components of few ranks, found in a random subspace.

N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness: probabilistic
algorithms for constructing approximate matrix decompositions" (2011), algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from graphflow.checks import need_int
from graphflow.dispatch import apply_several
from graphflow.errors import GraphFlowError
from graphflow.functions.elementwise import sub
from graphflow.functions.products import matmul
from graphflow.functions.reductions import mean
from graphflow.linalg.checks import adjoint, need_matrix
from graphflow.records import NamedTuple
from graphflow.rng import randn
from graphflow.tensor import Tensor


class LowRankSVD(NamedTuple):
    """``A ≈ U diag(S) Vᴴ``: U [..., m, q], S [..., q] descending, V [..., n, q]."""

    U: Tensor
    S: Tensor
    V: Tensor


def svd_lowrank(
    A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None
) -> LowRankSVD:
    """The ``q`` largest singular values of A [..., m, n] (of ``A - M``), and their vectors.

    Near where A has about ``q`` singular values that count; ``niter`` rounds of the subspace
    iteration make it nearer.  The subspace starts with random numbers.
    """
    name = "svd_lowrank"
    matrix = need_matrix(name, A)
    if M is not None:
        matrix = sub(matrix, need_matrix(name, M, "M"))
    size = _at_least_0(name, "q", 6 if q is None else q)
    rounds = _at_least_0(name, "niter", 2 if niter is None else niter)
    if matrix.shape[-2] < matrix.shape[-1]:  # the subspace is of the shorter axis
        u, s, v = _found(adjoint(matrix), size, rounds)
        return LowRankSVD(v, s, u)
    return _found(matrix, size, rounds)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> LowRankSVD:
    """Principal components: :func:`svd_lowrank` of A [..., m, n] less the means of its columns.

    ``q`` is 6, or the smaller of m and n, if it isn't given; ``center=False``: A as it is.
    """
    name = "pca_lowrank"
    matrix = need_matrix(name, A)
    most = min(matrix.shape[-2:])
    size = min(6, most) if q is None else _at_least_0(name, "q", q)
    if size > most:
        raise GraphFlowError(f"{name}: q must be at most min(m, n) = {most}, not {size}")
    if center:
        matrix = sub(matrix, mean(matrix, -2, keepdim=True))
    return svd_lowrank(matrix, size, niter)


def _at_least_0(name: str, what: str, value: int) -> int:
    if need_int(f"{name}: {what}", value) < 0:
        raise GraphFlowError(f"{name}: {what} must be at least 0, not {value}")
    return value


def _found(A: Tensor, q: int, rounds: int) -> LowRankSVD:
    turned = adjoint(A)
    start = randn((A.shape[-1], q), dtype=A.dtype, device=A.device)
    basis = _orthonormal(matmul(A, start))
    for _ in range(rounds):
        basis = _orthonormal(matmul(A, _orthonormal(matmul(turned, basis))))
    u, s, vh = apply_several("svd", matmul(adjoint(basis), A), full_matrices=False)
    return LowRankSVD(matmul(basis, u), s, adjoint(vh))


def _orthonormal(x: Tensor) -> Tensor:
    return apply_several("qr", x, complete=False)[0]
