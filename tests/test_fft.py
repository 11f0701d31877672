"""Fourier transforms: against NumPy, gradients, compiled programs, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.autograd import gradcheck, gradgradcheck

F = gf.fft


def values(seed: int, *shape: int, real: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x if real else x + 1j * rng.normal(size=shape)


@pytest.mark.parametrize("norm", [None, "backward", "forward", "ortho"])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
@pytest.mark.parametrize(("extent", "n"), [(6, None), (5, None), (5, 8), (6, 3), (5, 5)])
def test_one_dimension(name: str, norm: str | None, extent: int, n: int | None) -> None:
    x = values(extent, 3, extent, real=name in ("rfft", "ihfft"))
    found = getattr(F, name)(gf.tensor(x), n, -1, norm).numpy()
    expected = getattr(np.fft, name)(x, n, -1, norm)
    np.testing.assert_allclose(found, expected, 1e-12, 1e-12)


@pytest.mark.parametrize("norm", [None, "forward", "ortho"])
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_several_dimensions(name: str, norm: str | None) -> None:
    x = values(3, 4, 5, 6, real=name == "rfftn")
    numpy = getattr(np.fft, name)
    for s, dim in ((None, None), (None, (2, 0)), ((3, 8), (0, 1))):
        found = getattr(F, name)(gf.tensor(x), s, dim, norm).numpy()
        np.testing.assert_allclose(found, numpy(x, s, dim, norm), 1e-11, 1e-12)
    two = getattr(F, name[:-1] + "2")(gf.tensor(x), norm=norm).numpy()
    np.testing.assert_allclose(two, numpy(x, None, (-2, -1), norm), 1e-11, 1e-12)


def test_hermitian_transforms_undo_each_other() -> None:
    x = gf.tensor(values(4, 4, 6, real=True))
    np.testing.assert_allclose(F.hfftn(F.ihfftn(x), s=(4, 6)).numpy(), x.numpy(), 1e-10, 1e-12)
    np.testing.assert_allclose(F.hfft2(F.ihfft2(x), s=(4, 6)).numpy(), x.numpy(), 1e-10, 1e-12)


NAMES = ["fft2", "ifft", "rfft", "rfft2", "irfft", "irfft2", "hfft", "ihfft2"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("last", [4, 5])
def test_gradients(name: str, last: int) -> None:
    real = name in ("rfft", "rfft2", "ihfft2")
    x = gf.tensor(values(last, 2, last, real=real), requires_grad=True)
    for norm in ("backward", "ortho"):
        function = lambda t: getattr(F, name)(t, norm=norm)  # noqa: B023, E731
        assert gradcheck(function, x)
    assert gradgradcheck(function, x)


def test_order_and_frequencies() -> None:
    for n in (1, 4, 5):
        x = np.arange(2.0 * n).reshape(2, n)
        for dim in (None, 1, (0, 1)):
            for name in ("fftshift", "ifftshift"):
                found = getattr(F, name)(gf.tensor(x), dim).numpy()
                np.testing.assert_array_equal(found, getattr(np.fft, name)(x, dim))
        np.testing.assert_allclose(F.fftfreq(n, 0.3).numpy(), np.fft.fftfreq(n, 0.3), 1e-6)
        np.testing.assert_allclose(F.rfftfreq(n, 0.3).numpy(), np.fft.rfftfreq(n, 0.3), 1e-6)


def test_compiled_with_kernels_around() -> None:
    def filtered(x: Any, w: Any) -> Any:
        loss = F.irfft(F.rfft(x * 2) * w, n=6).square().sum()
        return loss, *gf.autograd.grad(loss, (x, w))

    x = gf.tensor(values(5, 3, 6, real=True).astype(np.float32), requires_grad=True)
    w = gf.tensor(values(6, 4).astype(np.complex64), requires_grad=True)
    compiled = gf.compile(filtered)
    for one, other in zip(compiled(x, w), filtered(x, w), strict=True):
        assert one.dtype is other.dtype
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), 1e-4, 1e-4)
    assert "fft_r2c" in str(compiled.explain())


def test_errors() -> None:
    x = gf.zeros(3, 4)
    for call, error in (
        (lambda: F.fft(x, norm="half"), "normalization"), (lambda: F.fft(x, n=0), "data points"),
        (lambda: F.rfft(gf.zeros(2, dtype=gf.complex64)), "real input"),
        (lambda: F.fftn(x, dim=(0, 0)), "unique"),
        (lambda: F.fftn(x, s=(2,), dim=(0, 1)), "length"),
        (lambda: F.fft(x.half()), "Unsupported"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=error):
            call()
    with pytest.raises(IndexError, match="out of range"):
        F.fft(x, dim=2)
    assert F.fft(gf.arange(4)).dtype is gf.complex64
