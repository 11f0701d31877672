"""Matrix products: every kernel against float64 NumPy, over shapes, strides, batches, threads."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import flags
from graphflow.codegen.compile import compile_kernels
from graphflow.codegen.contraction import adds_onto
from graphflow.codegen.contraction.call import DOT_ROWS, contraction_call
from graphflow.codegen.contraction.tiles import LAST_STEPS
from graphflow.codegen.contraction.tiling import (
    Tiling,
    axes_blocks,
    blocks,
    cache_sizes,
    far_blocks,
    heights,
    tiling,
)
from graphflow.codegen.epilogue import Epilogue
from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.plain import PlainKernel, load_function, raise_failure
from graphflow.codegen.schedule import (
    Address,
    Argument,
    Call,
    FunctionAddress,
    KernelSource,
    Loop,
    Value,
)
from graphflow.codegen.target import chosen_target
from graphflow.ir.types import TensorType, from_numpy_dtype
from graphflow.runtime.linker import link

Array = np.ndarray[Any, Any]
KERNEL_ABI = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@cache
def linked(kernel: KernelSource, target: str) -> int:
    return link(compile_kernels([kernel]).objects)[kernel.name]


@cache
def plain(kernel: KernelSource) -> PlainKernel:
    return PlainKernel(load_function(kernel.name, kernel.source, Path(f"{kernel.name}.py")))


@dataclass
class Memory:
    """Buffers of one call; also the context that lowering asks for scratch."""

    threads: int = 1
    jit: bool = True
    arrays: list[Array] = field(default_factory=list)
    blocks: list[Array] = field(default_factory=list)

    def temporary(self, type: TensorType) -> Layout:
        """Scratch, filled with NaN (77) so that reading it before writing shows."""
        fill = np.nan if type.dtype.is_floating_point else 77
        array = np.full(type.static_shape, fill, type.dtype.numpy)
        self.arrays.append(array)
        return contiguous(len(self.arrays) - 1, type)

    def place(self, array: Array) -> Layout:
        """The layout of ``array``, whatever its strides."""
        base = array
        self.arrays.append(base)
        size = array.dtype.itemsize
        kind = TensorType(from_numpy_dtype(array.dtype), array.shape)
        return Layout(len(self.arrays) - 1, kind, 0, tuple(s // size for s in array.strides))

    def word(self, argument: Argument) -> int:
        if isinstance(argument, Value):
            return argument.value
        if isinstance(argument, Address):
            return self.arrays[argument.buffer].ctypes.data + argument.offset
        if isinstance(argument, FunctionAddress):
            return self.entry(argument.kernel)
        return self.block(argument.arguments)

    def entry(self, kernel: KernelSource) -> int:
        return linked(kernel, chosen_target().identity) if self.jit else plain(kernel).address

    def block(self, arguments: tuple[Argument, ...]) -> int:
        self.blocks.append(np.array([self.word(a) for a in arguments], np.int64))
        return int(self.blocks[-1].ctypes.data)

    def run(self, call: Call, threads: int) -> None:
        function, block = KERNEL_ABI(self.entry(call.kernel)), self.block(call.arguments)
        for tid in range(threads):
            function(block, tid, threads)
        raise_failure()


def multiply(a: Array, b: Array, threads: int = 1, jit: bool = True) -> tuple[Array, Call]:
    """``a @ b`` by the contraction's own call."""
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    memory = Memory(threads, jit)
    guard = np.full((int(np.prod(shape)) + 64,), 7, a.dtype)
    c = guard[32:-32].reshape(shape)
    call = contraction_call(memory.place(a), memory.place(b), memory.place(c), None, memory)
    memory.run(call, threads)
    assert (guard[:32] == 7).all() and (guard[-32:] == 7).all(), "wrote outside the result"
    return c, call


def check(a: Array, b: Array, **options: Any) -> Call:
    """Compare with NumPy in float64; the bound is that of any order of summation."""
    result, call = multiply(a, b, **options)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    expected = wide_a @ wide_b
    bound = (a.shape[-1] + 2) * np.finfo(a.dtype).eps * (np.abs(wide_a) @ np.abs(wide_b))
    wrong = ~(np.abs(result - expected) <= bound)
    assert not wrong.any(), (a.shape, b.shape, a.strides, b.strides, np.argwhere(wrong)[:4])
    return call


def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, form: str) -> Array:
    """A random array: ``n`` row-major, ``t`` transposed, ``s`` sliced out of a larger one."""
    if form == "t":
        swapped = (*shape[:-2], shape[-1], shape[-2])
        return random(rng, swapped, dtype, "n").swapaxes(-1, -2)
    if form == "s":
        larger = (*shape[:-2], shape[-2] * 2 + 1, shape[-1] * 3 + 1)
        return random(rng, larger, dtype, "n")[..., 1::2, 1::3]
    return rng.standard_normal(shape).astype(dtype)


EDGES = (0, 1, 2, 3, 5, 7, 8, 13, 14, 15, 16, 17, 29, 31, 32, 33, 47, 64, 65, 97, 131)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("forms", ["nn", "nt", "tn", "tt", "ss", "sn", "ns"])
def test_random_shapes(dtype: Any, forms: str) -> None:
    seed = sum(map(ord, forms))
    rng = np.random.default_rng(seed)
    for _ in range(60):
        m, n, k = (int(e) for e in rng.choice(EDGES, 3))
        check(random(rng, (m, k), dtype, forms[0]), random(rng, (k, n), dtype, forms[1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_tile_height_and_edge(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    tile = tiling(chosen_target(), np.dtype(dtype).itemsize)
    for m in range(1, 2 * tile.height + 2):
        for n in (1, tile.lanes - 1, tile.lanes, tile.lanes + 1, tile.width, tile.width + 3):
            for forms in ("nn", "nt", "tn"):
                check(random(rng, (m, 9), dtype, forms[0]), random(rng, (9, n), dtype, forms[1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_depth_about_the_last_steps(dtype: Any) -> None:
    """Tall tiles that are whole take them a few rows at a time, if there are more than these."""
    rng = np.random.default_rng(9)
    tile = tiling(chosen_target(), np.dtype(dtype).itemsize)
    for k in range(1, 3 * LAST_STEPS):
        for m, n in [(tile.height, tile.width), (2 * tile.height + 11, tile.width + tile.lanes)]:
            for forms in ("nn", "nt", "tn"):
                check(random(rng, (m, k), dtype, forms[0]), random(rng, (k, n), dtype, forms[1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("forms", ["nn", "nt", "tn"])
def test_blocks_of_depth_and_columns(dtype: Any, forms: str) -> None:
    rng = np.random.default_rng(2)
    tile = tiling(chosen_target(), np.dtype(dtype).itemsize)
    longest = blocks(tile, np.dtype(dtype).itemsize, 10**6)[0]
    for m, n, k in [
        (3, 40, 2 * longest + 1), (300, 70, longest + 1), (5, 1100, 40), (260, 1030, 33),
        (16, 70, 1024), (29, 2050, 600),
    ]:  # fmt: skip
        check(random(rng, (m, k), dtype, forms[0]), random(rng, (k, n), dtype, forms[1]))


@pytest.mark.parametrize("jit", [True, False])
def test_batches(jit: bool) -> None:
    rng = np.random.default_rng(3)
    for left, right in [
        ((3, 5, 7), (3, 7, 6)), ((3, 5, 7), (7, 6)), ((5, 7), (3, 7, 6)), ((3, 1, 9), (9, 33)),
        ((2, 3, 4, 17), (2, 3, 17, 40)), ((2, 1, 4, 17), (1, 3, 17, 40)), ((2, 3, 4, 9), (9, 1)),
        ((2, 1, 3, 1, 4, 5), (1, 2, 3, 5, 5, 6)), ((0, 4, 5), (0, 5, 6)), ((4, 1, 30), (4, 30, 1)),
        ((1, 1, 4, 5), (3, 1, 5, 2)), ((2, 2, 2, 2, 3, 4), (1, 2, 1, 2, 4, 3)),
    ]:  # fmt: skip
        a, b = random(rng, left, np.float32, "n"), random(rng, right, np.float32, "t")
        for threads in (1, 3):
            check(a, b, threads=threads, jit=jit)
    heads = random(rng, (2, 20, 3, 16), np.float32, "n").transpose(0, 2, 1, 3)  # as attention does
    check(heads, heads.swapaxes(-1, -2), jit=jit)
    check(np.broadcast_to(heads[:1], heads.shape), heads.swapaxes(-1, -2), jit=jit)
    check(heads[..., ::-1], heads[:, :, ::-1].swapaxes(-1, -2), jit=jit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_threads_gives_the_same_bits(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    for m, n, k, forms in [
        (128, 128, 784, "nt"), (128, 784, 128, "tn"), (100, 10, 300, "nt"), (10, 300, 40, "tn"),
        (1, 200, 700, "nt"), (200, 1, 700, "nn"), (64, 1, 33, "tn"), (300, 90, 1030, "nn"),
        (1, 900, 77, "nn"), (500, 3, 60, "nn"),
    ]:  # fmt: skip
        a, b = random(rng, (m, k), dtype, forms[0]), random(rng, (k, n), dtype, forms[1])
        first, _ = multiply(a, b)
        for threads in (2, 3, 5):
            again, _ = multiply(a, b, threads=threads)
            assert first.tobytes() == again.tobytes(), (m, n, k, forms, threads)


def test_infinities_stay_where_they_belong() -> None:
    """Padding of packed panels must not leak into results."""
    rng = np.random.default_rng(5)
    a, b = random(rng, (15, 33), np.float32, "n"), random(rng, (33, 35), np.float32, "t")
    a[3, 4], b[7, 34] = np.inf, np.nan
    result, _ = multiply(a, b)
    expected = a @ b
    assert (np.isnan(result) == np.isnan(expected)).all()
    assert (np.isinf(result) == np.isinf(expected)).all()


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint32, np.uint64])
def test_integers_wrap(dtype: Any, jit: bool) -> None:
    rng = np.random.default_rng(6)
    info = np.iinfo(dtype)
    a = rng.integers(info.min, info.max, (2, 5, 7), dtype)
    b = rng.integers(info.min, info.max, (7, 3), dtype)
    for threads in (1, 2):
        result, _ = multiply(a, b, threads, jit)
        np.testing.assert_array_equal(result, a @ b)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_integers_wrap_in_tiles(dtype: Any) -> None:
    rng = np.random.default_rng(7)
    for m, n, k, forms in [
        (130, 41, 65, "nn"), (47, 70, 65, "nt"), (47, 90, 65, "tn"), (70, 47, 1030, "ss"),
        (3, 300, 120, "nt"), (1, 3000, 50, "nn"),
    ]:  # fmt: skip
        a, b = (
            random(rng, shape, np.float64, form).view(np.int64).astype(dtype)
            for shape, form in (((m, k), forms[0]), ((k, n), forms[1]))
        )
        first, call = multiply(a, b)
        assert "plain" not in call.kernel.name
        np.testing.assert_array_equal(first, a @ b)
        np.testing.assert_array_equal(multiply(a, b, threads=3)[0], first)


@pytest.mark.parametrize("jit", [True, False])
def test_halves_accumulate_in_single_precision(jit: bool) -> None:
    rng = np.random.default_rng(7)
    a, b = random(rng, (5, 300), np.float16, "n"), random(rng, (300, 3), np.float16, "n")
    result, _ = multiply(a, b, jit=jit)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(result, expected, rtol=2e-3, atol=2e-3)


def test_plain_python_runs_the_same_kernels() -> None:
    rng = np.random.default_rng(8)
    for m, n, k, forms in [
        (15, 40, 9, "nt"), (33, 1, 40, "nn"), (33, 1, 40, "tn"), (2, 70, 5, "nn"), (3, 9, 20, "nt"),
        (4, 4, 0, "nn"), (70, 64, 1024, "nn"), (20, 33, 8, "ss"),
    ]:  # fmt: skip
        a, b = random(rng, (m, k), np.float32, forms[0]), random(rng, (k, n), np.float32, forms[1])
        check(a, b, jit=False, threads=2)


# --- epilogues ---------------------------------------------------------------

COUNTING = KernelSource(
    "count_and_scale",
    """\
from graphflow.codegen.prelude import f32, kernel, pointer_f32, pointer_i64


@kernel
def count_and_scale(args, batch, i0, i1, j0, j1):
    out = pointer_f32(args, 0)
    bias = pointer_f32(args, 1)
    visits = pointer_i64(args, 2)
    m, n = args[3], args[4]
    for i in range(i0, i1):
        for j in range(j0, j1):
            at = (batch * m + i) * n + j
            out[at] = out[at] * f32(2.0) + bias[j]
            visits[at] = visits[at] + 1
""",
    epilogue=True,
)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    ("left", "right", "forms"),
    [
        ((128, 70), (70, 45), "nt"),
        ((29, 6), (6, 1100), "nn"),
        ((3, 20, 30), (30, 40), "nn"),
        ((64, 1, 30), (30, 40), "nn"),
        ((2, 3, 20, 30), (3, 30, 1), "nn"),
        ((4, 33, 30), (30, 1), "nn"),
        ((4, 33, 30), (4, 30, 1), "tn"),
        ((4, 1, 30), (4, 30, 50), "nt"),
        ((4, 1, 30), (4, 30, 200), "nn"),
        ((4, 33, 30), (4, 30, 2), "nn"),
        ((2, 300, 9), (2, 9, 1), "tn"),
        ((40, 1024), (1024, 70), "nn"),
        ((10, 0), (0, 5), "nn"),
    ],
)
def test_the_epilogue_sees_every_finished_element_once(
    left: tuple[int, ...], right: tuple[int, ...], forms: str, jit: bool
) -> None:
    rng = np.random.default_rng(9)
    a, b = random(rng, left, np.float32, forms[0]), random(rng, right, np.float32, forms[1])
    expected = a.astype(np.float64) @ b.astype(np.float64)
    m, n = expected.shape[-2:]
    bias = rng.standard_normal(n).astype(np.float32)
    for threads in (1, 2, 3):
        memory = Memory(threads, jit)
        c, visits = np.empty(expected.shape, np.float32), np.zeros(expected.shape, np.int64)
        places = [memory.place(x) for x in (a, b, c, bias, visits)]
        block = (*(Address(p.buffer) for p in places[2:]), Value(m), Value(n))
        call = contraction_call(*places[:3], Epilogue(COUNTING, block), memory)
        memory.run(call, threads)
        assert (visits == 1).all()
        np.testing.assert_allclose(c, expected * 2 + bias, rtol=1e-4, atol=1e-4)
        assert {p.buffer for p in places} <= call.reads
        assert {p.buffer for p in places[2:]} <= call.writes


# --- choices -----------------------------------------------------------------


def call_of(m: int, n: int, k: int, forms: str = "nn") -> tuple[Call, Memory]:
    rng, memory = np.random.default_rng(0), Memory(threads=2)
    a, b = random(rng, (m, k), np.float32, forms[0]), random(rng, (k, n), np.float32, forms[1])
    places = [memory.place(x) for x in (a, b, np.empty((m, n), np.float32))]
    return contraction_call(places[0], places[1], places[2], None, memory), memory


def test_small_products_stay_on_one_thread() -> None:
    assert not call_of(10, 10, 10)[0].parallel
    assert call_of(128, 128, 128)[0].parallel


def test_small_products_need_little_scratch() -> None:
    for m, n, k, forms in [
        (10, 10, 1, "nt"),
        (1, 1, 1, "nn"),
        (10, 1, 10, "nt"),
        (128, 10, 128, "nt"),
    ]:
        scratch = call_of(m, n, k, forms)[1].arrays[3:]
        assert sum(x.nbytes for x in scratch) <= 64 * 1024, (m, n, k, forms)


def test_aligned_products_need_no_scratch() -> None:
    assert len(call_of(32, 128, 64, "nn")[1].arrays) == 3


def test_which_kernel_computes_what() -> None:
    for m, n, k, forms, kernel in [
        (DOT_ROWS, 300, 500, "nt", "mm_dot"), (DOT_ROWS + 1, 300, 500, "nt", "mm_f32"),
        (DOT_ROWS, 300, 500, "nn", "mm_f32"), (300, DOT_ROWS, 500, "nn", "mm_dot"),
        (1, 300, 500, "nn", "mm_row"), (300, 1, 500, "tn", "mm_row"),
        (300, 1, 500, "nn", "mm_dot"), (2, 300, 500, "nn", "mm_f32"),
    ]:  # fmt: skip
        name = call_of(m, n, k, forms)[0].kernel.name
        assert name.startswith(kernel), (m, n, k, forms, name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectors_times_matrices_of_all_ragged_sizes(dtype: str) -> None:
    rng = np.random.default_rng(5)
    for k in (1, 4, 9, 131):
        for n in (32, 33, 40, 47, 63, 64, 65, 80, 100, 145, 2100):
            for form, kernel in (("n", "mm_row"), ("t", "mm_dot" if k >= 8 else "mm_")):
                vector, matrix = random(rng, (1, k), dtype, "n"), random(rng, (k, n), dtype, form)
                assert check(vector, matrix, threads=2).kernel.name.startswith(kernel)
            columns = random(rng, (n, k), dtype, "n")
            check(columns, random(rng, (k, 3), dtype, "t"))  # sums that lie apart


def test_products_of_one_type_share_a_kernel() -> None:
    assert call_of(128, 784, 128, "tn")[0].kernel is call_of(10, 10, 10)[0].kernel


def test_heights() -> None:
    assert heights(14) == (14, 8, 4, 2, 1)
    assert heights(6) == (6, 4, 2, 1)
    assert heights(4) == (4, 2, 1)


def test_blocks_fit_the_caches() -> None:
    tile = Tiling(16, 2, 14)
    first, second = cache_sizes()
    for depth in (0, 1, 784, 1024, 10**6):
        steps, columns, rows = blocks(tile, 4, depth)
        assert 1 <= steps <= max(1, depth) and columns >= tile.width
        assert columns % tile.width == 0 and rows % tile.height == 0 and rows
        assert steps <= 64 or 4 * steps * tile.width <= max(first, second // 16)
        assert rows == tile.height or 4 * steps * rows <= second // 2
        assert 0 <= steps * -(-depth // steps) - depth < max(1, -(-depth // steps))
        _, columns, rows = axes_blocks(tile, 4, depth)
        assert columns % tile.width == 0 and rows % tile.height == 0 and rows and columns
        for bundle in (1, 9, 16 * 9):
            steps, columns, rows = far_blocks(tile, 4, depth // bundle * bundle, bundle)
            assert columns % tile.width == 0 and rows % tile.height == 0 and rows and columns
            assert steps % bundle == 0 and steps * tile.width * 4 <= second // 3


# --- other processors --------------------------------------------------------


@pytest.mark.parametrize("features", ["avx2,fma", "avx", "sse2"])
def test_narrower_processors(features: str) -> None:
    if not chosen_target().is_x86:
        pytest.skip("the settings name x86 features")
    with flags.override(cpu_features=features):
        _check_narrow(features)


def _check_narrow(features: str) -> None:
    lanes = {"avx2,fma": 8, "avx": 8, "sse2": 4}[features]
    assert tiling(chosen_target(), 4).lanes == lanes
    rng = np.random.default_rng(10)
    for m, n, k, forms in [
        (13, 17, 11, "nn"), (128, 40, 70, "nt"), (30, 100, 20, "tn"), (2, 30, 50, "nt"),
        (33, 5, 600, "ss"), (7, 1, 9, "tn"),
    ]:  # fmt: skip
        for dtype in (np.float32, np.float64):
            check(random(rng, (m, k), dtype, forms[0]), random(rng, (k, n), dtype, forms[1]))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("m", "n", "k"), [(7, 33, 5), (61, 96, 900), (64, 50, 0)])
def test_a_product_is_added_to_what_is_there(m, n, k, threads):
    rng = np.random.default_rng(m)
    a, b, c = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n), (m, n)))
    expected = c + a.astype(np.float64) @ b
    memory = Memory(threads)
    places = [memory.place(x) for x in (a, b, c)]
    assert adds_onto(*places)
    call = contraction_call(*places, None, memory, onto=True)
    assert places[2].buffer in call.reads
    memory.run(call, threads)
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-3)


def test_scalar_products_are_not_added_to_what_is_there():
    a, b, c = np.ones((1, 64), np.float32), np.ones((9, 64), np.float32).T, np.ones((1, 9), "f4")
    memory = Memory()
    assert not adds_onto(*(memory.place(x) for x in (a, b, c)))


def test_a_product_added_to_a_carry_has_no_epilogue():
    rng = np.random.default_rng(4)
    steps, begin = (rng.standard_normal(s).astype("f4") / 8 for s in ((5, 40, 40), (40, 40)))

    @gf.compile
    def carried(begin, steps):
        return gf.scan(lambda sums, x: (sums + x @ gf.tanh(sums), None), begin, steps)[0]

    expected = begin.astype(np.float64)
    for x in steps:
        expected = expected + x @ np.tanh(expected)
    found = carried(gf.tensor(begin), gf.tensor(steps)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    (loop,) = (s for s in carried.latest.program.schedule.steps if isinstance(s, Loop))
    (product,) = (call for call in loop.body if call.kernel.name.startswith("mm_"))
    assert not any(isinstance(word, FunctionAddress) for word in product.arguments)
    assert product.writes & product.reads
