"""Linear equations, inverses, determinants and the matrix exponential, run by NumPy or by kernels.

Sources of the gradients: M. Giles (2008) for solve and det; G. Golub and V. Pereyra, "The
differentiation of pseudo-inverses" (1973); the exponential by the block matrix of I. Najfeld
and T. Havel, "Derivatives of the matrix exponential" (1995).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.errors import DTypeError, LinAlgError, ShapeError
from graphflow.ir.op import Application, Array, Builder, Elimination, Sample
from graphflow.ir.ops import batches
from graphflow.ir.ops.factorisations import matrices, refused
from graphflow.ir.ops.host import host
from graphflow.ir.ops.matrices import Types, adjoint, narrow, need_matrices, solved, triangle
from graphflow.ir.ops.rules import Attrs, spelled
from graphflow.ir.types import TensorType, broadcast_shapes

# ---- solve ---------------------------------------------------------------------------


def _infer_solve(name: str) -> Any:
    def infer(types: Types, attrs: Attrs) -> TensorType:
        right = need_matrices(name, types, 1)
        left = need_matrices(name, types[:1], 0, square=True)
        if left.dtype is not right.dtype:
            raise DTypeError(f"{spelled(name, types)}: operands have different dtypes; cast one")
        if left.shape[-1] != right.shape[-2]:
            raise ShapeError(
                f"{spelled(name, types)}: {left.shape[-1]} columns do not meet "
                f"{right.shape[-2]} rows"
            )
        batch = broadcast_shapes(left.shape[:-2], right.shape[:-2])
        return TensorType(right.dtype, (*batch, *right.shape[-2:]))

    return infer


def _solve(a: Array, b: Array, *, caller: str) -> Array:
    try:
        return np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            f"{caller}: {refused(a, np.linalg.inv)}The input matrix is singular: it has no "
            "inverse, and equations with it no unique solution"
        ) from None


def _solve_left(b: Builder, n: Application, ct: Any) -> Any:
    return -b.matmul(_solve_right(b, n, ct), adjoint(b, n.out))


def _solve_right(b: Builder, n: Application, ct: Any) -> Any:
    return b.solve(adjoint(b, n.inputs[0]), ct, caller=n.attrs["caller"])


def _equations(seed: int, **attrs: Any) -> tuple[Sample, ...]:
    rng = np.random.default_rng(seed)
    rights = ((3, 2), (2, 4, 3), (4, 1), (0, 2))
    lefts = matrices(seed, (3, 3), (2, 4, 4), (3, 4, 4), (0, 0))
    return tuple(
        Sample((left.inputs[0], rng.normal(size=right)), attrs)
        for left, right in zip(lefts, rights)
    )


SOLVE = host(
    "solve", "The X with A X = B, for square A.",
    infer=_infer_solve("solve"), reference=_solve, vjp=(_solve_left, _solve_right),
    elimination=Elimination.SOLVE,
    samples=_equations(1, caller="linalg.solve"), batched=batches.solved,
)  # fmt: skip


def _solve_triangular(a: Array, b: Array, *, upper: bool, unitriangular: bool) -> Array:
    """Substitution, row by row over the whole batch; infinities where the diagonal is 0."""
    size = a.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.array(np.broadcast_to(b, (*batch, *b.shape[-2:])))
    for i in range(size - 1, -1, -1) if upper else range(size):
        known = slice(i + 1, size) if upper else slice(0, i)
        out[..., i, :] -= (a[..., i, None, known] @ out[..., known, :])[..., 0, :]
        if not unitriangular:
            out[..., i, :] /= a[..., i, i, None]
    return out


def _triangular_left(b: Builder, n: Application, ct: Any) -> Any:
    found = -b.matmul(_triangular_right(b, n, ct), adjoint(b, n.out))
    upper = n.attrs["upper"]
    off = (1 if upper else -1) if n.attrs["unitriangular"] else 0
    return triangle(b, found, lower=not upper, offset=off)


def _triangular_right(b: Builder, n: Application, ct: Any) -> Any:
    attrs = {"upper": not n.attrs["upper"], "unitriangular": n.attrs["unitriangular"]}
    return solved(b, adjoint(b, n.inputs[0]), ct, **attrs)


SOLVE_TRIANGULAR = host(
    "solve_triangular", "The X with A X = B, reading one triangle of A.",
    infer=_infer_solve("solve_triangular"), reference=_solve_triangular,
    vjp=(_triangular_left, _triangular_right), batched=batches.solved,
    elimination=Elimination.TRIANGULAR,
    samples=tuple(
        sample
        for upper in (True, False)
        for unit in (True, False)
        for sample in _equations(2, upper=upper, unitriangular=unit)
    ),
)  # fmt: skip

# ---- determinant ---------------------------------------------------------------------


def _infer_det(types: Types, attrs: Attrs) -> TensorType:
    found = need_matrices("det", types, 0, square=True)
    return TensorType(found.dtype, found.shape[:-2])


def _det_vjp(b: Builder, n: Application, ct: Any) -> Any:
    return b.reshape(ct, shape=(*ct.shape, 1, 1)) * b.cofactors(n.inputs[0])


DET = host(
    "det", "The determinant.",
    infer=_infer_det, reference=lambda x: np.linalg.det(x).astype(x.dtype), vjp=(_det_vjp,),
    elimination=Elimination.DETERMINANT,
    samples=matrices(3, (3, 3), (2, 4, 4), (0, 0), (1, 1)),
)  # fmt: skip


def _infer_cofactors(types: Types, attrs: Attrs) -> TensorType:
    return need_matrices("cofactors", types, 0, square=True)


def _cofactors(x: Array) -> Array:
    """``conj(det) A⁻ᴴ`` through singular values, which needs no inverse to exist."""
    if 0 in x.shape:
        return np.zeros_like(x)
    u, s, vh = np.linalg.svd(x)
    count = s.shape[-1]
    others = np.ones_like(s)
    for i in range(count):
        others[..., i] = np.delete(s, i, -1).prod(-1)
    phase = np.conj(np.linalg.det(u) * np.linalg.det(vh))[..., None, None]
    return (phase * ((u * others[..., None, :]) @ vh)).astype(x.dtype)


def _cofactors_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """``(<C, ct> C - C ctᴴ C) / conj(det)``, where there is an inverse."""
    c = n.out
    one = (*c.shape[:-2], 1, 1)
    det = b.reshape(b.det(n.inputs[0]), shape=one)
    last, across = len(c.shape) - 1, ct
    if c.dtype.is_complex:
        det, across = b.conj(det), b.conj(ct)
    inner = b.reshape(b.reduce_sum(across * c, axes=(last - 1, last)), shape=one)
    return (inner * c - b.matmul(b.matmul(c, adjoint(b, ct)), c)) / det


COFACTORS = host(
    "cofactors", "The (conjugate) gradient of the determinant: its cofactors.",
    infer=_infer_cofactors, reference=_cofactors, vjp=(_cofactors_vjp,),
    samples=matrices(4, (3, 3), (2, 4, 4), (0, 0), (1, 1)),
)  # fmt: skip

# ---- pseudo-inverse ------------------------------------------------------------------


def _infer_pinv(types: Types, attrs: Attrs) -> TensorType:
    found = need_matrices("pinv", types[:1], 0, square=attrs["hermitian"])
    return TensorType(found.dtype, (*found.shape[:-2], found.shape[-1], found.shape[-2]))


def _pinv(x: Array, atol: Array, rtol: Array, *, hermitian: bool) -> Array:
    if 0 in x.shape:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    if hermitian:
        s, v = np.linalg.eigh(x)
        u, vh, size = v, np.conj(np.swapaxes(v, -1, -2)), np.abs(s)
    else:
        u, s, vh = np.linalg.svd(x, full_matrices=False)
        size = s
    limit = np.maximum(atol[..., None], rtol[..., None] * size.max(-1, keepdims=True))
    kept = size > limit
    inverse = np.where(kept, 1 / np.where(kept, s, 1), 0).astype(s.dtype)
    v, uh = (np.conj(np.swapaxes(part, -1, -2)) for part in (vh, u))
    return ((v * inverse[..., None, :]) @ uh).astype(x.dtype)


def _pinv_vjp(b: Builder, n: Application, ct: Any) -> Any:
    a, p = n.inputs[0], n.out
    ph, cth = adjoint(b, p), adjoint(b, ct)
    if a.shape[-2] <= a.shape[-1]:
        k = b.matmul(cth, p)
        outer = b.matmul(k, ph)
        left = outer - b.matmul(a, b.matmul(p, outer))
        return left + b.matmul(b.matmul(ph, p), cth - b.matmul(k, a)) - adjoint(b, b.matmul(p, k))
    k = b.matmul(p, cth)
    outer = b.matmul(ph, k)
    right = outer - b.matmul(b.matmul(outer, p), a)
    return right + b.matmul(cth - b.matmul(a, k), b.matmul(p, ph)) - adjoint(b, b.matmul(k, p))


PINV = host(
    "pinv", "The pseudo-inverse; singular values up to max(atol, rtol * the largest) are 0.",
    infer=_infer_pinv, reference=_pinv, vjp=(_pinv_vjp, None, None),
    batched=batches.limited,
    samples=tuple(
        Sample((*s.inputs, np.zeros(()), np.full((), 1e-5)), {"hermitian": False})
        for s in matrices(5, (3, 3), (2, 3, 4), (5, 3), (0, 3))
    ),
)  # fmt: skip

# ---- exponential ---------------------------------------------------------------------

_TERMS = 18
"""Of the Taylor series, for arguments of norm up to 1/2: the rest is below 1e-21."""


def _infer_exponential(types: Types, attrs: Attrs) -> TensorType:
    return need_matrices("matrix_exp", types, 0, square=True)


def _matrix_exp(x: Array) -> Array:
    """Scaling and squaring of the Taylor series (C. Moler and C. Van Loan, 2003)."""
    if 0 in x.shape:
        return np.zeros_like(x)
    kept, x = x.dtype, x.astype(np.result_type(x.dtype, np.float64))  # squaring loses digits
    size = np.abs(x).sum(-2).max(-1)
    if not np.isfinite(size).all():
        return np.full(x.shape, np.nan, kept)
    doublings = np.maximum(np.ceil(np.log2(np.maximum(size, 1e-300))) + 1, 0).astype(np.int64)
    scaled = x / (2.0 ** doublings[..., None, None]).astype(x.real.dtype)
    out = np.zeros_like(x) + np.eye(x.shape[-1], dtype=x.dtype)
    term = out.copy()
    for k in range(1, _TERMS):
        term = term @ scaled / x.dtype.type(k)
        out = out + term
    for step in range(int(doublings.max(initial=0))):
        out = np.where((doublings > step)[..., None, None], out @ out, out)
    return out.astype(kept)


def _matrix_exp_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """The upper right block of ``exp([[Aᴴ, ct], [0, Aᴴ]])``."""
    ah = adjoint(b, n.inputs[0])
    size, rank = ah.shape[-1], len(ah.shape)
    top = b.concatenate(ah, ct, axis=rank - 1)
    bottom = b.concatenate(ah * 0.0, ah, axis=rank - 1)
    whole = b.matrix_exp(b.concatenate(top, bottom, axis=rank - 2))
    return narrow(b, whole, size, 2 * size, 0, size)


MATRIX_EXP = host(
    "matrix_exp", "The sum of A^k / k!.",
    infer=_infer_exponential, reference=_matrix_exp, vjp=(_matrix_exp_vjp,),
    samples=matrices(6, (3, 3), (2, 4, 4), (0, 0), (1, 1)),
)  # fmt: skip
