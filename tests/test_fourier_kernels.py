"""Fourier transforms by kernels: against NumPy in double precision, whatever lengths and axes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import flags
from graphflow.codegen.lower_fourier import factors_of, roots_of_unity

SEED = 11
compiled_only = pytest.mark.skipif(flags.DISABLE_JIT.value, reason="kernels are Python functions")


def values(*shape: int, real: bool = False) -> np.ndarray:
    rng = np.random.default_rng([SEED, *shape])
    x = rng.normal(size=shape)
    return x if real else x + 1j * rng.normal(size=shape)


def agrees(name: str, x: np.ndarray, single: bool = False, **options: Any) -> Any:
    """The compiled transform is NumPy's in double precision, to its last digits, and no host
    call; returns its explanation."""
    print(name, x.shape, options)
    narrow = {"d": np.float32, "D": np.complex64}[x.dtype.char] if single else x.dtype
    given = x.astype(narrow)
    axes = options.pop("dim")
    compiled = gf.compile(lambda t: getattr(gf.fft, name)(t, dim=axes, **options))
    found = compiled(gf.tensor(given)).numpy()
    sizes = options.pop("s", None)
    want = getattr(np.fft, name)(given.astype(x.dtype), sizes, axes, **options)
    assert found.shape == want.shape
    assert found.dtype == (want.astype("f" if want.dtype.kind == "f" else "F").dtype if single
                           else want.dtype)  # fmt: skip
    explained = compiled.explain()
    nearest = 4e-7 if explained.host_ops else 1.5e-7
    bound = (nearest if single else 2e-15) * max(abs(want).max(), 1e-300)
    np.testing.assert_allclose(found, want, 0, bound)
    return explained


FORMS = [((19, 0), (1,)), ((0, 17), (0,)), ((5, 0, 5), (1,)), ((3, 0, 4, 6), (1, 3))]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 13, 15, 16, 17, 32, 59, 77, 128])
def test_lengths_and_places_of_lines(n: int) -> None:
    for shape, axes in FORMS:
        shape = tuple(extent or n for extent in shape)
        single = n % 2 == 0
        for name in ("fftn", "ifftn"):
            assert not agrees(name, values(*shape), single, dim=axes, norm="ortho").host_ops
        assert not agrees("rfftn", values(*shape, real=True), single, dim=axes).host_ops
        x = values(*shape)
        for last in {2 * shape[axes[-1]] - 1, max(1, 2 * shape[axes[-1]] - 2)}:
            sizes = [*(shape[a] for a in axes[:-1]), last]
            if last // 2 + 1 == shape[axes[-1]]:
                explained = agrees("irfftn", x, single, dim=axes, s=sizes)
                assert bool(explained.host_ops) is (max([*factors_of(last), 1]) > 61)


def test_both_ways_of_half_spectra() -> None:
    for shape in ((17, 12), (17, 9)):
        x, z = gf.tensor(values(*shape, real=True)), gf.tensor(values(*shape))
        for name, given in (("ihfft", x), ("hfft", z)):
            compiled = gf.compile(lambda t, name=name: getattr(gf.fft, name)(t))
            want = getattr(np.fft, name)(given.numpy())
            np.testing.assert_allclose(compiled(given).numpy(), want, 0, 1e-14)


def test_what_is_not_quick_is_left_to_the_host() -> None:
    for shape in ((3, 8), (16, 67), (16, 1 << 15)):
        explained = agrees("fftn", values(*shape), dim=(1,))
        assert explained.host_ops == ("fft_c2c",)


def test_a_transposed_operand_is_copied() -> None:
    x = values(12, 20)
    compiled = gf.compile(lambda t: gf.fft.fft(t.T))
    np.testing.assert_allclose(compiled(gf.tensor(x)).numpy(), np.fft.fft(x.T), 0, 1e-14)


def test_a_line_keeps_to_itself() -> None:
    x = values(20, 24).astype(np.complex64)
    x[3, 5], x[7, 2] = np.nan, np.inf
    x[11] *= 1e30
    found = gf.compile(lambda t: gf.fft.fft(t))(gf.tensor(x)).numpy()
    for line in sorted({*range(20)} - {3, 7}):
        want = np.fft.fft(x[line].astype(np.complex128))
        np.testing.assert_allclose(found[line], want, 0, 1.5e-7 * abs(want).max())
    assert np.isnan(found[3]).all() and not np.isfinite(found[7]).any()


@compiled_only
def test_the_same_bits_by_any_number_of_threads() -> None:
    x = values(50, 20, 48).astype(np.complex64)
    before, found = gf.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            gf.set_num_threads(threads)
            compiled = gf.compile(lambda t: gf.fft.ifft2(t))
            found.append(compiled(gf.tensor(x)).numpy().tobytes())
    finally:
        gf.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_gradients_and_any_number_of_lines() -> None:
    def step(x: Any, w: Any) -> Any:
        loss = (gf.fft.irfft2(gf.fft.rfft2(x) * w, s=(5, 12)) ** 2).sum()
        return loss, *gf.autograd.grad(loss, (x, w))

    compiled = gf.compile(step, dynamic={"x": {0: "n"}})
    w = gf.tensor(values(5, 7), requires_grad=True)
    for lines in (16, 3):
        x = gf.tensor(values(lines, 5, 12, real=True), requires_grad=True)
        for one, other in zip(compiled(x, w), step(x, w), strict=True):
            np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), 1e-12, 1e-12)


@pytest.mark.skipif(flags.DISABLE_JIT.value, reason="it is what the other tests do")
def test_kernels_as_plain_python() -> None:
    text = (
        "import numpy as np, graphflow as gf\n"
        "x = np.arange(306.).reshape(9, 34) ** 1.1\n"
        "y = gf.compile(lambda t: gf.fft.irfft(gf.fft.rfft(t) * 1j, n=34))(gf.tensor(x)).numpy()\n"
        "np.testing.assert_allclose(y, np.fft.irfft(np.fft.rfft(x) * 1j, n=34), 0, 1e-11)\n"
    )
    environment = {**os.environ, "GRAPHFLOW_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", text], check=True, env=environment)


def test_factors_and_roots() -> None:
    for n in range(1, 300):
        assert np.prod(factors_of(n), dtype=int) == n
    assert factors_of(1 << 10) == [4, 4, 8, 8]
    for n in (1, 3, 8, 12, 4096, 61):
        k = np.arange(-n, 2 * n)
        exact = np.exp(-2j * np.arccos(np.longdouble(-1)) * k / n)
        found = roots_of_unity(n, k)
        assert abs(found - np.stack([exact.real, exact.imag], -1)).max() < 2e-16
    assert (roots_of_unity(8, np.arange(8))[::2] == [[1, 0], [0, -1], [-1, 0], [0, 1]]).all()
