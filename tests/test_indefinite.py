"""Symmetric and Hermitian matrices that need not be positive: factors, solutions, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg.lapack as lapack

import graphflow as gf
from graphflow.autograd import gradcheck
from graphflow.errors import GraphFlowError, LinAlgError, ShapeError
from graphflow.testing import assert_close

SEED = 20261130


def drawn(size: int, complex_: bool, hermitian: bool, empty: bool, seed: int) -> Any:
    rng = np.random.default_rng((SEED, size, seed))
    a = rng.standard_normal((size, size)) + complex_ * 1j * rng.standard_normal((size, size))
    a = a if complex_ else a.real
    a = a + (np.conj(a.T) if hermitian else a.T)
    if empty:  # no diagonal: blocks of two rows
        np.fill_diagonal(a, 0)
    return a


@pytest.mark.parametrize("hermitian", [False, True])
@pytest.mark.parametrize("complex_", [False, True])
def test_factors_are_lapacks_and_solve(complex_: bool, hermitian: bool) -> None:
    routine = "sy" if not hermitian or not complex_ else "he"
    trf = getattr(lapack, f"{'z' if complex_ else 'd'}{routine}trf")
    negative = 0
    for seed, size in enumerate([1, 2, 3, 4, 6, 9, 2, 4, 7, 12]):
        a = drawn(size, complex_, hermitian, seed > 5, seed)
        wanted, swaps, _ = trf(a, lower=1)
        # SciPy counts from 0: a swap of a block is the complement of its row.
        swaps = np.where(swaps >= 0, swaps + 1, swaps) if swaps.min() == 0 else swaps
        found = gf.linalg.ldl_factor(gf.tensor(np.tril(a)), hermitian=hermitian)
        np.testing.assert_allclose(found.LD.numpy(), np.tril(wanted), 1e-10, 1e-10)
        np.testing.assert_array_equal(found.pivots.numpy(), swaps)
        negative += int((found.pivots < 0).sum())
        b = drawn(size, complex_, False, False, seed + 50)
        x = gf.linalg.ldl_solve(*found, gf.tensor(b), hermitian=hermitian)
        np.testing.assert_allclose(a @ x.numpy(), b, 1e-7, 1e-7)
    assert negative > 4


def test_batches_compile_and_have_slopes() -> None:
    a = gf.tensor(np.stack([drawn(4, False, False, n == 1, n) for n in range(3)]))
    b = gf.tensor(drawn(4, False, False, False, 9), requires_grad=True)

    def solved(a: Any, b: Any) -> Any:
        return gf.linalg.ldl_solve(*gf.linalg.ldl_factor(a), b)

    assert_close(solved(a, b), gf.linalg.solve(a, b), rtol=1e-8, atol=1e-8)
    assert_close(gf.compile(solved)(a, b), solved(a, b))
    assert gradcheck(lambda b: solved(a, b), [b])
    z = gf.tensor(drawn(3, True, False, False, 1))
    for hermitian, matrix in ((False, z), (True, z + z.mH)):
        factor = gf.linalg.ldl_factor(matrix, hermitian=hermitian)
        right = gf.tensor(drawn(3, True, False, False, 2), requires_grad=True)
        assert gradcheck(
            lambda r, f=factor, h=hermitian: gf.linalg.ldl_solve(*f, r, hermitian=h), [right]
        )


def test_singular_matrices_and_mistakes() -> None:
    a = gf.tensor(np.diag([2.0, 0.0, 3.0]))
    packed, pivots, info = gf.linalg.ldl_factor_ex(a)
    assert info.item() == 2 and info.dtype is gf.int32 and pivots.tolist() == [1, 2, 3]
    for wrong in (lambda: gf.linalg.ldl_factor(a),
                  lambda: gf.linalg.ldl_factor_ex(a, check_errors=True)):  # fmt: skip
        with pytest.raises(LinAlgError, match="pivot 2 is 0"):
            wrong()
    with pytest.raises(LinAlgError, match="zero pivot"):
        gf.linalg.ldl_solve(packed, pivots, a)
    with pytest.raises(ShapeError, match="do not fit"):
        gf.linalg.ldl_solve(packed, pivots, gf.ones(2, 2, dtype=gf.float64))
    with pytest.raises(GraphFlowError, match="int32"):
        gf.linalg.ldl_solve(packed, pivots.long(), a)
    with pytest.raises(ShapeError, match="square"):
        gf.linalg.ldl_factor(gf.ones(2, 3))
