"""Factors and solutions of small matrices by kernels: against NumPy in double precision."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import flags

SEED = 5
L = gf.linalg


def matrices(*shape: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng([SEED, *shape])
    return rng.normal(size=shape) + shift * np.eye(*shape[-2:])


def agrees(function: Callable[..., Any], *operands: np.ndarray, host: Any = ()) -> None:
    """Compiled on float64 and float32, ``function`` is what NumPy makes of it in float64."""
    compiled = gf.compile(function)
    for dtype, bound in ((np.float64, 1e-12), (np.float32, 3e-7)):
        given = [x.astype(dtype) for x in operands]
        found = compiled(*map(gf.tensor, given))
        wide = function(*(gf.tensor(x.astype(np.float64)) for x in given))
        several = isinstance(found, tuple)
        for one, other in zip(found if several else [found], wide if several else [wide]):
            want = other.numpy()
            largest = max(abs(want).max(initial=0), 1e-300)
            np.testing.assert_allclose(one.numpy(), want, 0, bound * largest)
    assert compiled.explain().host_ops == host


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17, 40])
def test_sizes(n: int) -> None:
    a, b = matrices(5, n, n, shift=2 * n), matrices(5, n, 3)
    square = a @ np.swapaxes(a, -1, -2)
    agrees(L.det, matrices(5, n, n))
    agrees(lambda x: tuple(L.slogdet(x)), matrices(5, n, n))
    agrees(L.solve, a, b, host=("solve",))
    agrees(L.inv, a, host=("solve",))
    agrees(L.cholesky, square, host=("cholesky",))
    for upper in (False, True):
        for unit in (False, True):
            options = {"upper": upper, "unitriangular": unit}
            scaled = a / (4 * n) if unit else a
            agrees(lambda x, y, o=options: L.solve_triangular(x, y, **o), scaled, b)


@pytest.mark.parametrize("shape", [(4, 7, 4), (4, 4, 7), (2, 3, 5, 5), (6, 6), (0, 3, 3)])
def test_factors_of_any_shape(shape: tuple[int, ...]) -> None:
    host = ("lu_factor",) if 0 in shape else ()
    agrees(lambda x: tuple(L.lu(x)), matrices(*shape), host=host)
    agrees(lambda x: tuple(L.lu_factor(x)), matrices(*shape), host=host)


def test_one_matrix_for_many_and_many_columns() -> None:
    a, b = matrices(1, 9, 9, shift=9), matrices(6, 9, 70)
    agrees(lambda x, y: gf.primitives.solve_triangular(x, y, upper=True, unitriangular=False), a, b)
    agrees(lambda x, y: L.solve_triangular(x, y, upper=False), matrices(9, 9, shift=9), b)
    agrees(L.solve, matrices(9, 9, shift=9), matrices(9), host=("solve",))


def test_factors_of_what_has_no_inverse() -> None:
    a = matrices(4, 5, 5)
    a[1, :, 2] = 0
    a[2] = 0
    agrees(lambda x: tuple(L.lu(x)), a)
    agrees(L.det, a)


def test_larger_matrices_are_left_to_the_host_where_it_has_routines() -> None:
    a, b = matrices(2, 130, 130, shift=200), matrices(2, 130, 2)
    agrees(L.solve, a, b, host=("solve",))
    agrees(L.det, matrices(2, 130, 130) / 11, host=("det",))
    agrees(lambda x: L.slogdet(x)[1], a)


def test_what_fails_is_the_hosts_error_and_may_be_tried_again() -> None:
    fine, wrong = matrices(3, 4, 4, shift=9), matrices(3, 4, 4, shift=9)
    wrong[1] = 1.0
    solve = gf.compile(lambda x: L.inv(x))
    factor = gf.compile(lambda x: L.cholesky(x))
    for _ in range(2):
        found = solve(gf.tensor(fine)).numpy()
        np.testing.assert_allclose(found, np.linalg.inv(fine), 1e-12, 1e-14)
        with pytest.raises(gf.GraphFlowError, match=r"\(Batch element 1\): .*singular"):
            solve(gf.tensor(wrong))
        square = fine @ np.swapaxes(fine, -1, -2)
        np.testing.assert_allclose(factor(gf.tensor(square)).numpy(), np.linalg.cholesky(square))
        with pytest.raises(gf.GraphFlowError, match=r"\(Batch element 1\): .*positive-definite"):
            factor(gf.tensor(wrong @ np.swapaxes(wrong, -1, -2) - 2 * np.eye(4)))
        assert np.isnan(factor(gf.tensor(np.full((2, 2), np.nan))).numpy()[1, 1])  # as NumPy's


@pytest.mark.skipif(flags.DISABLE_JIT.value, reason="kernels are Python functions")
def test_the_same_bits_by_any_number_of_threads() -> None:
    a, b = matrices(60, 20, 20, shift=5), matrices(60, 20, 4)
    before, found = gf.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            gf.set_num_threads(threads)
            compiled = gf.compile(lambda x, y: (L.solve(x, y), L.slogdet(x)[1]))
            found.append([y.numpy().tobytes() for y in compiled(gf.tensor(a), gf.tensor(b))])
    finally:
        gf.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_gradients_and_any_number_of_matrices() -> None:
    def step(a: Any, b: Any) -> Any:
        loss = (L.solve(a, b) ** 2).sum() + L.slogdet(a)[1].sum()
        loss = loss + L.cholesky(gf.matmul(a, a.transpose(-2, -1))).sum()
        return loss, *gf.autograd.grad(loss, (a, b))

    compiled = gf.compile(step, dynamic={"a": {0: "n"}, "b": {0: "n"}})
    for count in (6, 2):
        operands = matrices(count, 5, 5, shift=6), matrices(count, 5, 2)
        a, b = (gf.tensor(x, requires_grad=True) for x in operands)
        for one, other in zip(compiled(a, b), step(a, b), strict=True):
            np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), 1e-11, 1e-12)


@pytest.mark.skipif(flags.DISABLE_JIT.value, reason="it is what the other tests do")
def test_kernels_as_plain_python() -> None:
    text = (
        "import numpy as np, graphflow as gf\n"
        "a = np.arange(32.).reshape(2, 4, 4) % 7 + 9 * np.eye(4)\n"
        "f = gf.compile(lambda x: (gf.linalg.inv(x), gf.linalg.slogdet(x)[1]))\n"
        "inverse, size = f(gf.tensor(a))\n"
        "np.testing.assert_allclose(inverse.numpy(), np.linalg.inv(a), 0, 1e-14)\n"
        "np.testing.assert_allclose(size.numpy(), np.linalg.slogdet(a)[1], 1e-14)\n"
        "c = gf.compile(lambda x: gf.linalg.cholesky(x @ x.T))(gf.tensor(a[0])).numpy()\n"
        "np.testing.assert_allclose(c, np.linalg.cholesky(a[0] @ a[0].T), 0, 1e-12)\n"
    )
    environment = {**os.environ, "GRAPHFLOW_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", text], check=True, env=environment)
