"""Products of 8-bit integers with 32-bit sums: compiled, beside NumPy's in 64 bits."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
from graphflow import primitives
from graphflow.errors import DTypeError

SEED = 2024


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("turned", [False, True])
def test_matrix_products(dtype: type, turned: bool) -> None:
    """Depths below, at and beyond whole vectors; a single row; both orders of the right side."""
    rng = np.random.default_rng(SEED)

    @gf.compile
    def product(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return primitives.matmul(x, w.t() if turned else w, dtype=gf.int32)

    for m, k, n in [
        (1, 64, 10),
        (3, 5, 4),
        (17, 100, 33),
        (60, 48, 9),
        (5, 16, 3),
        (12, 2501, 7),
        (2, 0, 3),
        (9, 0, 3),
    ]:
        x, w = _numbers(rng, (m, k), dtype), _numbers(rng, (k, n), dtype)
        found = product(gf.tensor(x), gf.tensor(w.T.copy() if turned else w))
        assert found.dtype is gf.int32
        wanted = x.astype(np.int64) @ w.astype(np.int64)
        np.testing.assert_array_equal(found.numpy(), wanted)


def test_extreme_values_do_not_saturate() -> None:
    """Sums of two products of the least number need all of 16 bits twice."""
    x = gf.full((4, 96), -128, dtype=gf.int8)
    found = gf.compile(lambda a: primitives.matmul(a, a.t(), dtype=gf.int32))(x)
    assert (found.numpy() == 96 * 128 * 128).all()


@pytest.mark.parametrize(
    ("image", "taps", "step", "groups"),
    [
        ((2, 3, 9, 8), 3, 1, 1), ((1, 48, 6, 5), 3, 2, 1),
        ((2, 32, 4, 4), 1, 1, 1), ((1, 8, 5, 5), 3, 1, 2),
    ],
)  # fmt: skip
def test_convolutions(image: tuple[int, ...], taps: int, step: int, groups: int) -> None:
    """Beside the sum over taps, in 64 bits."""
    rng = np.random.default_rng(SEED)
    n, c, h, w = image
    features = 6
    x = _numbers(rng, image, np.int8)
    k = _numbers(rng, (features, c // groups, taps, taps), np.int8)

    @gf.compile
    def convolve(x: gf.Tensor, k: gf.Tensor) -> gf.Tensor:
        return primitives.conv(
            x.reshape(n, groups, c // groups, h, w),
            k.reshape(groups, features // groups, c // groups, taps, taps),
            steps=(step, step), low=(1, 1), high=(1, 1), spread=(1, 1), dilations=(1, 1),
            dtype=gf.int32,
        ).flatten(1, 2)  # fmt: skip

    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = ((s + 2 - taps) // step + 1 for s in (h, w))
    wanted = np.zeros((n, features, rows, columns), np.int64)
    for f in range(features):
        first = f // (features // groups) * (c // groups)
        for i in range(rows):
            for j in range(columns):
                window = padded[:, first : first + c // groups, i * step :, j * step :]
                window = window[:, :, :taps, :taps]
                wanted[:, f, i, j] = (window * k[f].astype(np.int64)).sum((1, 2, 3))
    np.testing.assert_array_equal(convolve(gf.tensor(x), gf.tensor(k)).numpy(), wanted)


def test_what_follows_runs_in_the_same_call() -> None:
    """Scale, bias, ReLU and rounding are the epilogue: one kernel call, no second pass."""
    rng = np.random.default_rng(SEED)
    x, w = _numbers(rng, (50, 70), np.int8), _numbers(rng, (20, 70), np.int8)
    bias = rng.standard_normal(20).astype(np.float32)

    def layer(x: gf.Tensor, w: gf.Tensor, bias: gf.Tensor) -> gf.Tensor:
        sums = primitives.matmul(x, w.t(), dtype=gf.int32).to(gf.float32)
        return gf.round((sums * 0.001 + bias).relu()).clamp(-128, 127).to(gf.int8)

    specs = (gf.TensorSpec((50, 70), gf.int8), gf.TensorSpec((20, 70), gf.int8))
    program = gf.compile(gf.trace(layer, *specs, gf.TensorSpec((20,))))
    assert len(program.schedule.steps) == 1
    found = program(gf.tensor(x), gf.tensor(w), gf.tensor(bias)).numpy()
    sums = (x.astype(np.int64) @ w.T.astype(np.int64)).astype(np.float32)
    exact = np.maximum(sums * np.float32(0.001) + bias, 0)
    np.testing.assert_array_equal(found, np.round(exact).clip(-128, 127).astype(np.int8))


def test_only_integers_have_wider_sums() -> None:
    with pytest.raises(DTypeError, match="f32 adds up as f32"):
        spec = gf.TensorSpec((2, 2))
        gf.trace(lambda a: primitives.matmul(a, a, dtype=gf.int32), spec)


def test_an_open_batch() -> None:
    """One program for any number of rows."""
    rng = np.random.default_rng(SEED)
    w = gf.tensor(_numbers(rng, (8, 40), np.int8))

    @gf.compile(dynamic={"x": {0: "batch"}})
    def product(x: gf.Tensor) -> gf.Tensor:
        return primitives.matmul(x, w.t(), dtype=gf.int32)

    for rows in (2, 7, 50):
        x = _numbers(rng, (rows, 40), np.int8)
        wanted = x.astype(np.int64) @ w.numpy().T.astype(np.int64)
        np.testing.assert_array_equal(product(gf.tensor(x)).numpy(), wanted)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("depth", [0, 1, 257, 1025, 5000])
def test_sums_outside_of_programs_are_exact(name: str, depth: int) -> None:
    """The largest of all products, added up in either width, are those of Python's integers."""
    info = np.iinfo(name)
    rows = np.full((2, depth), info.min if info.min else info.max, name)
    rows[1] = info.max
    a = gf.tensor(rows)
    whole = rows.astype(object) @ rows.T.astype(object)
    exact = whole if depth else np.zeros((2, 2), object)
    for wide, dtype in ((32, gf.int32), (info.bits, a.dtype)):
        sums = primitives.matmul(a, a.t(), dtype=gf.int32) if wide == 32 else a @ a.t()
        assert sums.dtype is dtype
        assert ((sums.numpy().astype(object) - exact) % 2**wide == 0).all()
    left, right = (0, 2), (1, 2)
    sums = primitives.contract(a, a, left=left, right=right, out=(0, 1), dtype=gf.int32)
    assert ((sums.numpy().astype(object) - exact) % 2**32 == 0).all()


def test_sums_of_nothing() -> None:
    """A product over an axis of no elements, compiled, is zeros."""
    a = gf.zeros(2, 0, dtype=gf.int16)
    labels = {"left": (0, 2), "right": (1, 2), "out": (0, 1)}
    product = gf.compile(lambda a: primitives.contract(a, a, **labels, dtype=gf.int32))
    np.testing.assert_array_equal(product(a).numpy(), np.zeros((2, 2), np.int32))
