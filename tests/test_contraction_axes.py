"""Products over several axes a side: every form against NumPy's einsum in float64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_contraction import Array, Memory

from graphflow.codegen.compile import assembly
from graphflow.codegen.contraction.axes import axes_call, walk_of
from graphflow.codegen.contraction.axes_kernels import tiled_axes_kernel
from graphflow.codegen.contraction.tiling import tiling
from graphflow.codegen.frontend import lower
from graphflow.codegen.schedule import Call
from graphflow.codegen.target import chosen_target
from graphflow.ir.op import Labels

LETTERS = "abcdefghij"


def spelled(labels: Labels) -> str:
    left, right, out = ("".join(LETTERS[x] for x in part) for part in labels)
    return f"{left},{right}->{out}"


def product(labels: Labels, a: Array, b: Array, threads: int, jit: bool) -> Array:
    """The product by its own kernel, with guards around the result."""
    extents = dict(zip((*labels[0], *labels[1]), (*a.shape, *b.shape)))
    shape = tuple(extents[x] for x in labels[2])
    memory = Memory(threads, jit)
    guard = np.full((int(np.prod(shape)) + 64,), 7, a.dtype)
    c = guard[32:-32].reshape(shape)
    places = tuple(memory.place(x) for x in (a, b, c))
    walk, swapped = walk_of(labels, places)
    first, second = (places[1], places[0]) if swapped else places[:2]
    call: Call = axes_call(walk, (first, second, places[2]), memory)
    memory.run(call, threads)
    assert (guard[:32] == 7).all() and (guard[-32:] == 7).all(), "wrote outside the result"
    return c


def check(labels: Labels, a: Array, b: Array, threads: int = 1, jit: bool = True) -> Array:
    found = product(labels, a, b, threads, jit)
    wide = [x.astype(np.float64) for x in (a, b)]
    expected = np.einsum(spelled(labels), *wide)
    depth = np.prod([n for x, n in zip(labels[0], a.shape) if x not in labels[2]])
    bound = (depth + 2) * np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0.0
    size = np.einsum(spelled(labels), *map(np.abs, wide))
    wrong = ~(np.abs(found - expected) <= bound * size)
    assert not wrong.any(), (spelled(labels), a.shape, b.shape, a.strides, b.strides)
    return found


def strided(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Random numbers whose axes lie in memory in any order, some backwards or apart."""
    order = rng.permutation(len(shape))
    steps = rng.integers(1, 3, len(shape))
    room = rng.standard_normal([int(shape[k] * steps[k]) for k in order]) * 4
    view = room.astype(dtype).transpose(np.argsort(order))
    flips = [int(f) for f in rng.choice([-1, 1, 1], len(shape))]
    return view[tuple(slice(None, None, int(s) * f) for s, f in zip(steps, flips))]


EXTENTS = (1, 2, 3, 5, 7, 14, 16, 17, 33)


def random_product(rng: np.random.Generator) -> tuple[Labels, tuple[int, ...], tuple[int, ...]]:
    """Labels and shapes of a product with up to three axes of each kind."""
    counts = [int(n) for n in rng.choice([0, 1, 2, 3], 4, p=[0.15, 0.35, 0.35, 0.15])]
    counts[0] = min(counts[0], 1)
    names = iter(range(10))
    batch, rows, columns, depth = ([next(names) for _ in range(n)] for n in counts)
    extents = {x: int(rng.choice(EXTENTS)) for x in range(sum(counts))}
    while np.prod([float(e) for e in extents.values()]) > 3e6:
        extents[max(extents, key=lambda x: extents[x])] = 2
    left, right, out = batch + rows + depth, batch + columns + depth, batch + rows + columns
    parts = [tuple(int(x) for x in rng.permutation(part)) for part in (left, right, out)]
    labels = (parts[0], parts[1], parts[2])
    first, second = (tuple(extents[x] for x in part) for part in parts[:2])
    return labels, first, second


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(2))
def test_random_products(dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(40):
        labels, left, right = random_product(rng)
        a, b = strided(rng, left, dtype), strided(rng, right, dtype)
        first = check(labels, a, b, threads=1)
        again = check(labels, a, b, threads=3)
        assert first.tobytes() == again.tobytes(), "the number of threads changed the bits"


def test_in_plain_python() -> None:
    """The kernel's own text, without a compiler."""
    rng = np.random.default_rng(10)
    labels: Labels = ((0, 1, 2, 3), (4, 1, 3), (4, 2, 0))
    a, b = strided(rng, (3, 2, 5, 3), np.float32), strided(rng, (17, 2, 3), np.float32)
    check(labels, a, b, threads=2, jit=False)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float16])
def test_element_types_without_tiles(dtype: Any) -> None:
    rng = np.random.default_rng(11)
    labels: Labels = ((0, 1, 2, 3), (4, 1, 3), (4, 2, 0))
    a, b = strided(rng, (3, 2, 5, 4), dtype), strided(rng, (6, 2, 4), dtype)
    found = product(labels, a, b, 2, True)
    wide = np.einsum(spelled(labels), a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(
        found.astype(np.float64), wide, rtol=2e-3 if dtype is np.float16 else 0
    )


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_integers(dtype: Any) -> None:
    rng = np.random.default_rng(18)
    x = rng.integers(-99, 99, (3, 5, 16, 18)).astype(dtype)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    kernel = rng.integers(-99, 99, (7, 5, 3, 3)).astype(dtype)
    check(((0, 1, 2, 3, 4, 5), (6, 1, 4, 5), (0, 6, 2, 3)), windows, kernel, threads=2)
    check(((0, 1, 2, 3, 4, 5), (6, 1, 4, 5), (0, 2, 3, 6)), windows, kernel)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("sizes", [(3, 2, 16, 18, 5), (2, 40, 33, 9, 20), (17, 3, 9, 9, 70)])
def test_windows(steps: int, sizes: tuple[int, ...]) -> None:
    """Overlapping windows of images: forward, and the gradient of the kernel."""
    rng = np.random.default_rng(12)
    n, c, h, w, o = sizes
    x = rng.standard_normal((n, c, h, w)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::steps, ::steps]
    kernel = rng.standard_normal((o, c, 3, 3)).astype(np.float32)
    forward: Labels = ((0, 1, 2, 3, 4, 5), (6, 1, 4, 5), (0, 6, 2, 3))
    out = check(forward, windows, kernel, threads=2)
    weight: Labels = ((0, 1, 2, 3, 4, 5), (0, 6, 2, 3), (6, 1, 4, 5))
    check(weight, windows, np.ascontiguousarray(out), threads=2)


@pytest.mark.parametrize(
    "sizes", [(2, 272, 7, 40), (3, 20, 9, 70), (1, 260, 5, 33), (5, 64, 19, 17)]
)
def test_weights_whose_taps_are_neighbours(sizes: tuple[int, ...]) -> None:
    """Windows of images that are channels last: all taps of some channels are packed together."""
    rng = np.random.default_rng(17)
    n, c, side, o = sizes
    x = rng.standard_normal((n, side, side, c)).astype(np.float32).transpose(0, 3, 1, 2)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2]
    kernel = rng.standard_normal((o, c, 3, 3)).astype(np.float32)
    forward: Labels = ((0, 1, 2, 3, 4, 5), (6, 1, 4, 5), (0, 2, 3, 6))
    one, many = (check(forward, windows, kernel, threads=threads) for threads in (1, 3))
    assert one.tobytes() == many.tobytes(), "the number of threads changed the bits"
    turned = np.ascontiguousarray(kernel.transpose(1, 0, 2, 3))[:, :, ::2, ::-2]
    check(forward, windows[..., :2, :2], turned.transpose(1, 0, 2, 3), threads=2)


def test_rows_of_weights_in_plain_python() -> None:
    rng = np.random.default_rng(18)
    a, b = strided(rng, (3, 2, 16), np.float32), rng.standard_normal((18, 16, 2), np.float32)
    check(((0, 1, 2), (3, 2, 1), (0, 3)), np.ascontiguousarray(a), b, threads=2, jit=False)


def test_columns_in_another_order_than_the_result() -> None:
    """Packing may prefer it; the ends of a panel then look as if it were contiguous."""
    rng = np.random.default_rng(14)
    x = rng.standard_normal((3, 5, 19, 19))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3,), (2,))
    ct = rng.standard_normal((3, 17, 19))
    check(((0, 1, 2, 3, 4), (0, 2, 3), (1, 4)), windows, ct)


@pytest.mark.parametrize("apart", [1, 2])
def test_neighbouring_rows_whose_steps_are_far_apart(apart: int) -> None:
    """Packed, too: rows end within strips, and steps run over several axes."""
    rng = np.random.default_rng(15)
    x = rng.standard_normal((2, 11, 9, 131)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::apart, ::apart]
    ct = rng.standard_normal((*windows.shape[:3], 37)).astype(np.float32)
    check(((0, 1, 2, 3, 4, 5), (0, 1, 2, 6), (3, 6, 4, 5)), windows, ct, threads=2)
    check(((0, 1, 2, 3, 4, 5), (0, 1, 2, 6), (6, 3, 4, 5)), windows, ct, threads=3)


def test_infinities_stay_where_they_belong() -> None:
    """What packing leaves beside a rectangle must not leak into results."""
    rng = np.random.default_rng(13)
    labels: Labels = ((0, 1, 2), (1, 2, 3, 4), (0, 3, 4))
    a, b = strided(rng, (15, 3, 5), np.float32), strided(rng, (3, 5, 7, 5), np.float32)
    a[3, 1, 2], b[2, 4, 6, 4] = np.inf, np.nan
    found = product(labels, a, b, 2, True)
    expected = np.einsum(spelled(labels), a, b)
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))


@pytest.mark.parametrize("order", ["last", "first"])
@pytest.mark.parametrize("sizes", [(16, 64, 5, 5, 272), (1, 3, 9, 8, 64), (3, 1, 7, 7, 32)])
def test_gradients_of_taps(order: str, sizes: tuple[int, ...]) -> None:
    """Taps of many channels are written in groups of channels; cotangents of few windows are
    multiplied where they lie."""
    rng = np.random.default_rng(13)
    n, c, h, w, o = sizes
    x = rng.standard_normal((n, h, w, c) if order == "last" else (n, c, h, w)).astype(np.float32)
    x = x.transpose(0, 3, 1, 2) if order == "last" else x
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    ct = rng.standard_normal((n, *windows.shape[2:4], o)).astype(np.float32)
    labels: Labels = ((0, 1, 2, 3, 4, 5), (0, 2, 3, 6), (1, 6, 4, 5))
    one, many = (check(labels, windows, ct, threads=threads) for threads in (1, 3))
    assert one.tobytes() == many.tobytes(), "the number of threads changed the bits"


@pytest.mark.parametrize("packed", [False, True])
def test_the_sums_of_a_tile_stay_in_registers(packed: bool) -> None:
    if "avx2" not in chosen_target().enabled:
        pytest.skip("reads instructions of AVX2")
    code = assembly(tiled_axes_kernel("f32", 4, tiling(chosen_target(), 4), packed))
    loops = [
        block for block in re.split(r"^\.LBB.*:", code, flags=re.M) if block.count("vfmadd") > 8
    ]
    assert len(loops) > 2
    for block in loops:
        lines = [line for line in block.splitlines() if re.search(r"[yz]mm", line)]
        assert not [line for line in lines if "(%rsp)" in line], block


def test_bodies_are_written_once_and_are_in_no_kernel() -> None:
    source = tiled_axes_kernel("f32", 4, tiling(chosen_target(), 4), False)
    one, two = (lower(source, Path("mm_axes.py"), chosen_target()) for _ in range(2))
    assert not re.search('define.*@"tile', one.text) and 'call void @"tile' in one.text
    assert any(name.startswith("tile") for name in one.bodies)
    assert all(one.bodies[name] is text for name, text in two.bodies.items())
