"""Eager operations on many elements: kernels give what NumPy gives, and nobody waits for them."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import eager_kernels, flags
from graphflow.backends import cpu
from graphflow.runtime.storage import Blocks

RNG = np.random.default_rng(20261130)
A = RNG.standard_normal((300, 500)).astype(np.float32)
IMAGES = RNG.standard_normal((4, 8, 40, 41)).astype(np.float32)
TAPS = RNG.standard_normal((6, 8, 3, 3)).astype(np.float32)
PLACES = RNG.integers(0, 300, (70_000,))
LONG = RNG.standard_normal(70_000).astype(np.float32)


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Kernels are made when they are first wanted; nothing is known before or after."""
    eager_kernels._known.clear()
    cpu.eager_kernels = True
    gf.use_deterministic_algorithms(True)
    yield
    gf.use_deterministic_algorithms(False)
    cpu.eager_kernels = False
    eager_kernels._known.clear()


def programs() -> int:
    """How many operations have programs now."""
    return sum(known.run is not None for known in eager_kernels._known.values())


def both(function: Callable[..., gf.Tensor], *arrays: np.ndarray[Any, Any]) -> int:
    """Compare ``function`` by kernels with NumPy; how many programs it used."""
    before = programs()
    found = function(*map(gf.from_numpy, arrays)).numpy()
    used = programs() - before
    cpu.eager_kernels = False
    want = function(*map(gf.from_numpy, arrays)).numpy()
    cpu.eager_kernels = True
    assert found.dtype == want.dtype and found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5)
    return used


@pytest.mark.parametrize(
    ("function", "arrays"),
    [
        (F.gelu, (A,)),
        (lambda x: F.softmax(x, 1), (A,)),
        (lambda x: F.layer_norm(x, (500,)), (A,)),
        (lambda x: x.sum(0), (A,)),
        (lambda x: x.cumsum(1), (A,)),
        (lambda x, y: gf.where(x > y[0], x, y), (A, A[::-1].copy())),
        (lambda x, w: F.conv2d(x, w, padding=1), (IMAGES, TAPS)),
        (lambda x, i: x[i], (A, PLACES)),
        (lambda x, i, y: gf.zeros(300).index_add(0, i, y), (A, PLACES, LONG)),
    ],
    ids=["gelu", "softmax", "norm", "sum", "scan", "where", "conv", "gather", "scatter"],
)
def test_kinds(
    function: Callable[..., gf.Tensor], arrays: tuple[np.ndarray[Any, Any], ...]
) -> None:
    """Operations of each kind are programs, and agree with NumPy."""
    assert both(function, *arrays) > 0


@pytest.mark.parametrize(
    ("view", "kernels"),
    [
        (lambda x: x.t(), True),
        (lambda x: x[::2, 3:490:3], True),
        (lambda x: x[:1].expand(300, 500), False),
        (lambda x: x.unfold(1, 30, 7), True),
        (lambda x: gf.from_numpy(x.numpy()[::-1, ::-2]), True),
    ],
    ids=["turned", "sliced", "expanded", "windows", "backwards"],
)
def test_layouts(view: Callable[[gf.Tensor], gf.Tensor], kernels: bool) -> None:
    """Operands that are views are read where they lie; what kernels can't read NumPy does."""
    assert (both(lambda x: gf.tanh(view(x)), A) > 0) == kernels


def test_results_are_independent() -> None:
    """A result in memory that was used before never changes a tensor that is still there."""
    held = [gf.tanh(gf.from_numpy(A) + float(i)) for i in range(6)]
    for i, kept in enumerate(held):
        np.testing.assert_allclose(kept.numpy(), np.tanh(A + i), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_strides_are_those_of_numpy(seed: int) -> None:
    """Axes of a result lie in the order that they have without kernels: views depend on it."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((6, 40, 30, 50)).astype(np.float32)
    order = tuple(map(int, rng.permutation(4)))
    x = gf.from_numpy(images).permute(order)
    bias = gf.from_numpy(rng.standard_normal((x.shape[1], 1, 1)).astype(np.float32))
    other = gf.from_numpy(rng.standard_normal(x.shape).astype(np.float32))
    cut = x[:, ::2] if seed % 2 else x[:, :, 1:]

    def made() -> list[gf.Tensor]:
        whole = [x.exp(), x + bias, x.clone(), cut.tanh(), x * x.abs(), gf.where(x > 0, x, 0.0)]
        mixed = [
            gf.from_numpy(x.numpy()[::-1, :, ::-1]).exp(),
            x + other,
            other * x,
            x[:1] - x,
            x + x.flip(0),
            x.flip(1, 3).exp(),
        ]
        lines = [F.softmax(x, 1), x.sum(2), x.cumsum(3), x.argmax(1), cut.amax(0)]
        return [*whole, *mixed, *lines]

    by_kernels = made()
    assert programs() > 3
    cpu.eager_kernels = False
    for found, want in zip(by_kernels, made(), strict=True):
        assert found.stride() == want.stride() and found.shape == want.shape
        np.testing.assert_allclose(found.numpy(), want.numpy(), rtol=1e-4, atol=1e-4)


def test_gradients_agree() -> None:
    """A convolution's gradients by kernels are those by NumPy."""

    def gradients() -> list[np.ndarray[Any, Any]]:
        x, w = (gf.from_numpy(a.copy()).requires_grad_() for a in (IMAGES, TAPS))
        F.gelu(F.conv2d(x, w, stride=2)).square().sum().backward()
        return [t.grad.numpy().copy() for t in (x, w) if t.grad is not None]

    by_kernels = gradients()
    assert programs() >= 3  # the convolution and both gradients
    cpu.eager_kernels = False
    for found, want in zip(by_kernels, gradients(), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-3)


def test_same_bits() -> None:
    """With deterministic algorithms the first call and later ones give the same bits."""
    first, again = (F.softmax(gf.from_numpy(A), 1).numpy().copy() for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_errors_are_those_of_eager_code() -> None:
    """An index out of range is reported as without kernels."""
    places = gf.from_numpy(np.where(PLACES == PLACES.max(), 300, PLACES))
    with pytest.raises(IndexError) as by_kernel:
        gf.from_numpy(A)[places]
    cpu.eager_kernels = False
    with pytest.raises(IndexError) as by_numpy:
        gf.from_numpy(A)[places]
    assert str(by_kernel.value) == str(by_numpy.value)


def test_few_elements_complex_numbers_and_products_stay_with_numpy() -> None:
    """What gains nothing has no program."""
    gf.tanh(gf.from_numpy(A[:3, :3]))
    gf.exp(gf.from_numpy(A.astype(np.complex64)))
    gf.from_numpy(A) @ gf.from_numpy(A.T)
    assert programs() == 0


def test_compiled_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """NumPy works until a thread has made the program; a later process uses it at once."""
    gf.use_deterministic_algorithms(False)
    monkeypatch.setattr(eager_kernels, "WORTH", 1)
    beside, wanted = eager_kernels.compile_beside, []
    monkeypatch.setattr(eager_kernels, "compile_beside", wanted.append)
    with flags.override(cache_dir=str(tmp_path)):
        x, want = gf.from_numpy(A), np.tanh(A)
        np.testing.assert_allclose(gf.tanh(x).numpy(), want, rtol=1e-5, atol=1e-6)
        assert programs() == 0, "a call must not wait for a compiler"
        beside(*wanted)
        deadline = time.monotonic() + 200
        while not programs() and time.monotonic() < deadline:
            np.testing.assert_allclose(gf.tanh(x).numpy(), want, rtol=1e-5, atol=1e-6)
            time.sleep(0.002)
        assert programs() == 1
        np.testing.assert_allclose(gf.tanh(x).numpy(), want, rtol=1e-5, atol=1e-6)
        eager_kernels._known.clear()  # as a new process begins
        gf.tanh(x)
        assert programs() == 1


def test_what_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be made is NumPy's business, and a warning says so once."""

    def refuse(*_: Any) -> None:
        raise ZeroDivisionError("no room")

    monkeypatch.setattr(eager_kernels, "Program", refuse)
    x = gf.from_numpy(A)
    with pytest.warns(UserWarning, match="tanh stays with NumPy.*ZeroDivisionError: no room"):
        gf.tanh(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(gf.tanh(x).numpy(), np.tanh(A), rtol=1e-6, atol=1e-6)


def test_what_is_its_operand_stays_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose result lies in an operand is made once, and not used."""
    prepared: list[Any] = []
    monkeypatch.setattr(eager_kernels, "compile_beside", prepared.append)
    x = gf.from_numpy(RNG.standard_normal((1, 500_000)))
    for deterministic in (True, False, False, False):
        gf.use_deterministic_algorithms(deterministic)
        for _ in range(20):
            np.testing.assert_array_equal(x.sum(0).numpy(), x[0].numpy())
    assert not prepared


def test_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are not used any more are let go of."""
    monkeypatch.setattr(eager_kernels, "KEPT", 4)
    x = gf.from_numpy(LONG)
    for rows in (1, 2, 4, 5, 7, 8, 10):
        both(gf.tanh, LONG.reshape(rows, -1))
        gf.tanh(x)
    assert len(eager_kernels._known) <= 4
    assert any(form[-1][1] == (70_000,) for form in eager_kernels._known)


def test_several_threads() -> None:
    """Threads that compute at the same time get their own results."""
    gf.tanh(gf.from_numpy(A))
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal(A.shape).astype(np.float32)
        for _ in range(20):
            if not np.allclose(gf.tanh(gf.from_numpy(x)).numpy(), np.tanh(x), atol=1e-6):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and programs() == 1


def test_blocks() -> None:
    """Idle memory of about the size is used again; what is too much is forgotten."""
    blocks = Blocks(limit=1 << 20)
    first = blocks.take((1000, 100), np.dtype(np.float32))
    address, seen = first.address, first.array[3:5]
    del first
    other = blocks.take((100_000,), np.dtype(np.float32))
    assert other.address != address, "a view holds it"
    del seen
    again = blocks.take((99_000,), np.dtype(np.float32))
    assert again.address == address and again.address % 4096 == 0
    del again
    assert blocks.take((10_000,), np.dtype(np.float32)).address != address, "far too large"
    many = [blocks.take((1 << 20,), np.dtype(np.uint8)) for _ in range(5)]
    del many
    blocks.take((1 << 21,), np.dtype(np.uint8))
    assert sum(owner.nbytes for owner in blocks._owners.values()) < 5 << 20
