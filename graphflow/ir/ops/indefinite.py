"""Symmetric and Hermitian matrices that need not be positive: ``L D Lᵀ``, by NumPy on the host.

D has blocks of one or two rows, by the pivoting of J. Bunch and L. Kaufman, "Some stable methods
for calculating inertia and solving symmetric linear systems" (1977), laid out as LAPACK's
``sytf2`` and ``hetf2`` leave it: L below the diagonal of the blocks, and the row each was swapped
with, counted from 1, negative for both rows of a block of two.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphflow.errors import LinAlgError
from graphflow.ir.op import NON_DIFFERENTIABLE, Application, Array, Builder, Sample
from graphflow.ir.ops.factorisations import matrices
from graphflow.ir.ops.host import host
from graphflow.ir.ops.matrices import Types, extents, need_matrices
from graphflow.ir.ops.rules import Attrs
from graphflow.ir.types import TensorType, TupleType, int32

_BOUND = (1 + math.sqrt(17)) / 8
"""How small an element of the diagonal may be beside its column: growth is least so."""


def _infer_factor(types: Types, attrs: Attrs) -> TupleType:
    found = need_matrices("ldl_factor", types, 0, square=True)
    *batch, rows, _ = extents(found)
    return TupleType((found, TensorType(int32, (*batch, rows)), TensorType(int32, (*batch,))))


def _sizes(x: Array) -> Array:
    return np.abs(x.real) + np.abs(x.imag) if np.iscomplexobj(x) else np.abs(x)


def _turned(x: Array, hermitian: bool) -> Array:
    return np.conj(x) if hermitian else x


def _chosen(a: Array, k: int) -> tuple[int, int]:
    """The row that is to be swapped in for step k, and how many rows its block has."""
    own, below = float(_sizes(a[k, k])), _sizes(a[k + 1 :, k])
    if not below.size or own >= _BOUND * below.max():
        return k, 1
    row = k + 1 + int(below.argmax())
    most = below.max()
    others = max(_sizes(a[row, k:row]).max(), _sizes(a[row + 1 :, row]).max(initial=0.0))
    if own >= _BOUND * most * (most / others):
        return k, 1
    return row, 1 if _sizes(a[row, row]) >= _BOUND * others else 2


def _swap(a: Array, k: int, at: int, row: int, hermitian: bool) -> None:
    """Swap rows and columns ``at`` and ``row`` of what is left in the lower triangle."""
    a[row + 1 :, [at, row]] = a[row + 1 :, [row, at]]
    column = a[at + 1 : row, at].copy()
    a[at + 1 : row, at] = _turned(a[row, at + 1 : row], hermitian)
    a[row, at + 1 : row] = _turned(column, hermitian)
    a[row, at] = _turned(a[row, at], hermitian)
    a[at, at], a[row, row] = a[row, row].copy(), a[at, at].copy()
    if at > k:
        a[at, k], a[row, k] = a[row, k].copy(), a[at, k].copy()


def _block(a: Array, k: int, hermitian: bool) -> Array:
    """The two rows of D from k on, both triangles."""
    other = _turned(a[k + 1, k], hermitian)
    return np.array([[a[k, k], other], [a[k + 1, k], a[k + 1, k + 1]]])


def _factored(a: Array, pivots: Array, hermitian: bool) -> int:
    """Factor one matrix where it lies; returns the first pivot that is 0, from 1, or 0."""
    size, k, singular = len(a), 0, 0
    if hermitian:
        a[range(size), range(size)] = a.diagonal().real
    while k < size:
        if not _sizes(a[k:, k]).any():
            singular, pivots[k], k = singular or k + 1, k + 1, k + 1
            continue
        row, rows = _chosen(a, k)
        at, after = k + rows - 1, k + rows
        if row != at:
            _swap(a, k, at, row, hermitian)
        left = a[after:, k:after].copy()
        if rows == 1:
            a[after:, k:after] = left / a[k, k]
        else:
            a[after:, k:after] = np.linalg.solve(_block(a, k, hermitian).T, left.T).T
        a[after:, after:] -= a[after:, k:after] @ _turned(left, hermitian).T
        if hermitian:
            a[range(after, size), range(after, size)] = a.diagonal()[after:].real
        pivots[k:after] = row + 1 if rows == 1 else -(row + 1)
        k = after
    return singular


def _factor(x: Array, *, hermitian: bool, check: bool) -> tuple[Array, Array, Array]:
    work, pivots = np.tril(x), np.zeros(x.shape[:-1], np.int32)
    info = np.zeros(x.shape[:-2], np.int32)
    for place in np.ndindex(info.shape):
        info[place] = _factored(work[place], pivots[place], hermitian)
        if check and info[place]:
            raise LinAlgError(
                f"linalg.ldl_factor: pivot {info[place]} is 0: the input matrix is singular"
            )
        work[place] = np.tril(work[place])
    return work, pivots, info


def _symmetric(seed: int, **attrs: Any) -> tuple[Sample, ...]:
    return tuple(
        Sample((x - 3 * np.eye(x.shape[-1]) + np.swapaxes(x, -1, -2),), attrs)
        for x in (s.inputs[0] for s in matrices(seed, (3, 3), (2, 4, 4), (0, 0), (1, 1), (5, 5)))
    )


LDL_FACTOR = host(
    "ldl_factor", "L below D, the swaps from 1, and the first zero pivot from 1, or 0.",
    infer=_infer_factor, reference=_factor, vjp=NON_DIFFERENTIABLE,
    samples=(*_symmetric(5, hermitian=False, check=True),
             *_symmetric(6, hermitian=True, check=False)),
)  # fmt: skip


def _infer_solve(types: Types, attrs: Attrs) -> TensorType:
    need_matrices("ldl_solve", types[:1], 0, square=True)
    return need_matrices("ldl_solve", types, 2)


def _solved(a: Array, pivots: Array, x: Array, hermitian: bool) -> None:
    """Put the solution in place of ``x``: rows swapped, L, D, Lᵀ, and the swaps again."""
    steps, k = [], 0
    while k < len(a):
        rows = 1 if pivots[k] > 0 else 2
        steps.append((k, k + rows, k + rows - 1, abs(int(pivots[k])) - 1))
        k += rows
    for k, after, at, row in steps:
        x[[at, row]] = x[[row, at]]
        x[after:] -= a[after:, k:after] @ x[k:after]
        block = a[k:after, k:after] if after == k + 1 else _block(a, k, hermitian)
        x[k:after] = np.linalg.solve(block, x[k:after])
    for k, after, at, row in reversed(steps):
        x[k:after] -= _turned(a[after:, k:after], hermitian).T @ x[after:]
        x[[at, row]] = x[[row, at]]


def _solve(a: Array, pivots: Array, b: Array, *, hermitian: bool) -> Array:
    out = np.array(b)
    for place in np.ndindex(b.shape[:-2]):
        try:
            _solved(a[place], pivots[place], out[place], hermitian)
        except np.linalg.LinAlgError:
            raise LinAlgError("linalg.ldl_solve: D has a zero pivot; A is singular") from None
    return out


def _solve_right(b: Builder, n: Application, ct: Any) -> Any:
    """By B: with the adjoint of A, which is A or, if it is symmetric and complex, its conjugate."""
    factor, pivots, _ = n.inputs
    hermitian = n.attrs["hermitian"]
    if hermitian or not ct.dtype.is_complex:
        return b.ldl_solve(factor, pivots, ct, hermitian=hermitian)
    return b.conj(b.ldl_solve(factor, pivots, b.conj(ct), hermitian=False))


def _equations() -> tuple[Sample, ...]:
    rng, found = np.random.default_rng(7), []
    for sample in _symmetric(8, hermitian=False, check=True):
        factor, pivots, _ = _factor(*sample.inputs, **sample.attrs)
        right = rng.normal(size=(*factor.shape[:-1], 2))
        found.append(Sample((factor, pivots, right), {"hermitian": False}))
    return tuple(found)


LDL_SOLVE = host(
    "ldl_solve", "The X with A X = B, from what ldl_factor made of A.",
    infer=_infer_solve, reference=_solve, vjp=(None, None, _solve_right), samples=_equations(),
)  # fmt: skip
