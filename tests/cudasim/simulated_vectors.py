"""Kernels that read and write vectors: sizes, alignments and types beside the usual ones.

Run by ``tests/test_cuda.py`` in the simulator, whose vectors complain where they are not aligned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.cuda.lower import CUDA
from graphflow.codegen.schedule import Call, plain_steps
from graphflow.errors import GraphFlowError
from graphflow.passes.pipeline import PORTABLE, run_pipeline
from graphflow.runtime.cuda.launch import CudaProgram
from graphflow.runtime.cuda.memory import DeviceArray
from graphflow.tensor import Tensor

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 31, 32, 33, 64)
DTYPES = (gf.float32, gf.float64, gf.float16, gf.bfloat16, gf.int8, gf.int32, gf.int64, gf.bool)


def sources(function: Callable[..., Tensor], *arguments: Tensor) -> list[str]:
    """The kernels of a function, as text."""
    graph = run_pipeline(gf.trace(function, *arguments), PORTABLE)[-1].graph
    steps = plain_steps(build_schedule(graph, backend=CUDA).steps)
    return [step.kernel.source for step in steps if isinstance(step, Call)]


def drawn(seed: int, *shape: int, dtype: gf.dtype = gf.float32) -> Tensor:
    print(f"seed {seed}")
    return gf.tensor(np.random.default_rng(seed).integers(-9, 10, shape)).to(dtype)


def same(function: Callable[..., Tensor], *arguments: Tensor) -> None:
    """Eagerly and compiled, on the device what the CPU computes."""
    expected = function(*arguments).to(gf.float64).numpy()
    there = [a.cuda() for a in arguments]
    for run in (function, gf.compile(function)):
        found = run(*there)
        assert found.is_cuda
        np.testing.assert_allclose(found.to(gf.float64).cpu().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_types(size: int, dtype: gf.dtype) -> None:
    x = drawn(size, size, dtype=dtype)
    same(lambda x: x.to(gf.float32) * 2 + 1, x)
    same(lambda x: gf.where(x > 0, x, x * x), x)


@pytest.mark.parametrize("last", (1, 3, 4, 6, 8, 12, 16))
@pytest.mark.parametrize("shape", [(1,), (5, 1), (3, 1, 1), (1, 5, 1), (3, 5, 1)])
def test_broadcasting_in_every_position(shape: tuple[int, ...], last: int) -> None:
    x, small = drawn(1, 3, 5, last), drawn(2, *shape)
    same(lambda x, y: x * y - y, x, small)
    row = drawn(3, *shape[:-1], last)
    same(lambda x, y: y + x * 2, x, row)


@pytest.mark.parametrize("rows,columns", [(4, 4), (3, 8), (8, 3), (5, 7), (16, 12)])
def test_strided_reads_and_joined_results(rows: int, columns: int) -> None:
    x, y = drawn(4, rows, columns), drawn(5, rows, columns)
    same(lambda x: x.t().contiguous() * 2, x)
    same(lambda x: x.flip(1) + x, x)
    same(lambda x: gf.nn.functional.pad(x, (1, 2)) + 1, x)
    same(lambda x, y: gf.cat([x, y], 1) * 3, x, y)
    same(lambda x: x[:, ::2] + 1, x)
    same(lambda x: x[1:, 1:] + x[:-1, :-1], x)
    same(lambda x: x + gf.arange(x.shape[1], device=x.device), x)


def test_gathered_rows() -> None:
    table, places = drawn(6, 7, 8), gf.tensor([[0, 6, -1], [3, 3, 2]])
    same(lambda t, i: t[i] * 2, table, places)
    same(lambda t, i: t[:, i], table, places)
    for columns in (4, 8):
        x, along = drawn(6, 2, 3, columns), gf.tensor(np.arange(10 * columns).reshape(2, 5, -1) % 3)
        same(lambda x, i: gf.gather(x, 1, i), x, along)
        same(lambda x, i: gf.softmax(gf.gather(x, 1, i), -1), x, along)
    assert "load_4" in sources(lambda t, i: t[i] * 2, table, gf.tensor([0, 6]))[-1]


@pytest.mark.parametrize("start", range(1, 5))
def test_views_that_begin_anywhere(start: int) -> None:
    x = drawn(7, 40)
    there = x.cuda()
    for dtype in (gf.float32, gf.float16, gf.int8):
        here, view = x.to(dtype)[start : start + 32], there.to(dtype)[start : start + 32]
        double = gf.compile(lambda x: x + x)
        np.testing.assert_array_equal(double(view).cpu().numpy(), (here + here).numpy())
        np.testing.assert_array_equal((view + view).cpu().numpy(), (here + here).numpy())
        np.testing.assert_array_equal(view.clone().cpu().numpy(), here.numpy())
    view = there[start : start + 32]
    view.mul_(3)
    view[4:8].copy_(view[8:12])
    x[start : start + 32].mul_(3)
    x[start + 4 : start + 8].copy_(x[start + 8 : start + 12])
    np.testing.assert_array_equal(there.cpu().numpy(), x.numpy())


def test_state_that_begins_anywhere() -> None:
    whole = drawn(8, 33).cuda()
    odd, even = whole[1:], whole[:32].clone()

    @gf.compile
    def step(x: Tensor) -> Tensor:
        odd.add_(x)
        even.add_(odd)
        return odd * 2

    expected = whole.cpu().numpy().copy()
    other = even.cpu().numpy().copy()
    for _ in range(3):
        found = step(gf.ones(32).cuda())
        expected[1:] += 1
        other += expected[1:]
        np.testing.assert_array_equal(found.cpu().numpy(), expected[1:] * 2)
        np.testing.assert_array_equal(whole.cpu().numpy(), expected)
        np.testing.assert_array_equal(even.cpu().numpy(), other)


def test_state_that_moves_to_another_alignment() -> None:
    layer = gf.nn.Linear(4, 8, bias=False).cuda()
    step = gf.compile(lambda x: layer.weight * x)
    base = drawn(9, 8 * 4 + 1).cuda()
    for view in (base[:32], base[1:], base[:32]):
        layer.weight._cell.value = view.reshape(8, 4)._eager()
        found = step(gf.full((4,), 2.0).cuda())
        np.testing.assert_array_equal(
            found.detach().cpu().numpy(), view.reshape(8, 4).cpu().numpy() * 2
        )


def test_what_is_not_aligned_is_refused_below() -> None:
    x = DeviceArray.of(np.arange(9, dtype=np.float32))
    odd = DeviceArray(x.block, (8,), np.float32, 4)
    assert x.is_ready and not odd.is_ready and DeviceArray(x.block, (), np.float32, 4).is_ready
    graph = run_pipeline(gf.trace(lambda x: x + 1, gf.ones(8)), PORTABLE)[-1].graph
    program = CudaProgram(build_schedule(graph, backend=CUDA))
    with pytest.raises(GraphFlowError, match="not ready for kernels"):
        program.run([odd])


def test_windows_of_loops_that_are_not_aligned() -> None:
    for columns in (4, 5, 6, 8):
        x = drawn(10, 3, columns)
        same(lambda x: gf.cumsum(x, 0) * 2, x)

        def chain(x: Tensor) -> Tensor:
            return gf.scan(lambda c, row: (c * 2 + row, c + row), gf.zeros_like(x[0]), x)[1]

        same(chain, x)


def test_sizes_that_vary_are_vectors_only_where_all_are() -> None:
    for columns in (5, 6, 8):
        step = gf.compile(lambda x: x * 2 + 1, dynamic=True)
        for rows in (2, 3, 5, 7):
            x = drawn(11, rows, columns)
            np.testing.assert_array_equal(step(x.cuda()).cpu().numpy(), x.numpy() * 2 + 1)


def test_flat_positions_of_many_elements_are_split_in_64_bits() -> None:
    def rows(count: int) -> str:
        x = gf.empty(1, 1).expand(count, 1 << 16)
        return sources(lambda x, b: x + b, x, gf.empty(1 << 16))[0]

    assert "remainder(" in rows(1 << 10) and "//" not in rows(1 << 10)
    assert "remainder(" not in rows(1 << 15)


def test_state_that_lies_strided() -> None:
    whole = drawn(12, 8, 5).cuda()
    turned = gf.zeros(5, 8).cuda()
    turned._cell.value = whole.t()._eager()

    @gf.compile
    def step(x: Tensor) -> Tensor:
        turned.add_(x)
        return turned * 2

    expected = whole.cpu().numpy()
    for _ in range(2):
        found = step(gf.ones(8).cuda())
        expected = expected + 1
        np.testing.assert_array_equal(whole.cpu().numpy(), expected)
        np.testing.assert_array_equal(found.cpu().numpy(), expected.T * 2)


ROWS = (1, 2, 3, 4, 7, 8, 12, 31, 32, 33, 48, 60, 63, 64, 65, 72, 96, 100, 128)
"""Some of them more than the four threads of the simulator hold."""


def close(function: Callable[..., Tensor], *arguments: Tensor, rtol: float = 1e-4) -> None:
    """Compiled, on the device what the CPU computes, but for the order of sums."""
    expected = function(*arguments)
    found = gf.compile(function)(*[a.cuda() for a in arguments])
    for one, other in zip(*((x,) if isinstance(x, Tensor) else x for x in (found, expected))):
        np.testing.assert_allclose(
            one.to(gf.float64).cpu().numpy(), other.to(gf.float64).numpy(), rtol=rtol, atol=1e-4
        )


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64, gf.float16], ids=str)
@pytest.mark.parametrize("depth", ROWS)
def test_rows_in_several_passes(depth: int, dtype: gf.dtype) -> None:
    x = (drawn(13, 5, depth) / 3).to(dtype)
    scale, shift = (drawn(14, depth) / 3).to(dtype), (drawn(15, depth) / 3).to(dtype)
    rtol = 2e-3 if dtype is gf.float16 else 1e-4
    close(lambda x: gf.softmax(x, -1), x, rtol=rtol)
    close(lambda x: gf.log_softmax(x, -1) * 2, x, rtol=rtol)
    layer = gf.nn.functional.layer_norm
    close(lambda x, w, b: layer(x, (depth,), w, b), x, scale, shift, rtol=rtol)
    close(lambda x: (x.argmax(-1), (x * 2).max(-1).values, x.mean(-1)), x, rtol=rtol)


@pytest.mark.parametrize("depth", (4, 7, 12, 32, 64, 80))
def test_gradients_of_rows(depth: int) -> None:
    x, w = drawn(16, 4, depth) / 3, drawn(17, depth) / 3

    def softmax(x: Tensor) -> Tensor:
        return gf.grad(
            lambda x: (gf.softmax(x, -1) * gf.arange(float(depth), device=x.device)).sum()
        )(x)

    def norm(x: Tensor, w: Tensor) -> Tensor:
        layer = gf.nn.functional.layer_norm
        return gf.grad(lambda x: (layer(x, (depth,), w) ** 3).sum())(x)

    close(softmax, x)
    close(norm, x, w)


def test_rows_of_several_axes_and_of_other_strides() -> None:
    x = drawn(18, 3, 4, 5, 8) / 3
    for axes in ((1, 3), (2, 3), (0, 2), (1,), (3,), (0, 1, 2, 3)):
        close(lambda x: x - (x * x).sum(axes, keepdim=True), x)  # noqa: B023
    close(lambda x: gf.softmax(x.transpose(1, 3), -1), x)
    close(lambda x: gf.softmax(x[..., 1:], -1), x)
    close(lambda x: gf.softmax(gf.nn.functional.pad(x, (1, 3)), -1), x)
    close(lambda x, i: gf.softmax(x[i], -1), x[0, 0], gf.tensor([4, 0, -1]))


def test_rows_are_overwritten_in_place() -> None:
    for depth in (5, 8, 64, 100):
        rows = drawn(19, 3, depth) / 3
        there = rows.cuda()

        @gf.compile
        def step() -> None:
            there.copy_(gf.softmax(there, -1) * 2)  # noqa: B023

        step()
        expected = gf.softmax(rows, -1) * 2
        np.testing.assert_allclose(there.cpu().numpy(), expected.numpy(), rtol=1e-5)


def test_short_rows_are_held_and_long_ones_read_again() -> None:
    def softmax(depth: int) -> str:
        return sources(lambda x: gf.softmax(x, -1), gf.empty(4, depth))[0]

    short, odd, long = softmax(64), softmax(63), softmax(72)
    assert short.count("load_4") == 1 + 1, "the import and one load"
    assert "kept[part * 4 + lane]" in short and "for part in range(4)" in short
    assert "a[p0 + j]" in odd and odd.count("a[p0 + j]") == 1 and "kept[part]" in odd
    assert long.count("load_4(") == 3 and "kept" not in long


@pytest.mark.parametrize("depth", (100, 128, 256))
def test_long_rows_in_parts(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphflow.codegen.cuda import cut

    monkeypatch.setattr(cut, "LONG_ROW", 64)
    monkeypatch.setattr(cut, "PART", 42)
    x = drawn(20, 2, depth)
    close(lambda x: (x * x).sum(-1) / 7, x)
    assert ("load_4" in sources(lambda x: (x * x).sum(-1), x)[0]) is (depth % 4 == 0)


@pytest.mark.parametrize("depth", (96, 99, 128))
def test_long_rows_in_several_passes_and_with_results_of_every_element(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphflow.codegen.cuda import cut

    monkeypatch.setattr(cut, "LONG_ROW", 64)
    monkeypatch.setattr(cut, "PART", 42)
    x, y = drawn(21, 2, depth) / 3, drawn(22, 2, depth) / 3

    def scaled(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        z = x * 2 + y
        return z, (z * z).sum(-1)

    close(scaled, x, y)
    close(lambda x: gf.softmax(x, -1), x)
    close(lambda x: gf.var(x, -1), x)
    close(lambda x: gf.nn.functional.layer_norm(x, (depth,)), x)
    close(lambda x: (x.argmax(-1), x.max()), x)
    names = sources(scaled, x, y)
    assert len(names) == 2 and "part_" in names[0]
    assert ("store_4" in names[0]) is (depth % 4 == 0)

    total = gf.zeros(()).cuda()
    state = x.cuda()

    @gf.compile
    def step(y: Tensor) -> Tensor:
        state.add_(y)
        total.add_((state * state).sum())
        return state / total

    found = step(y.cuda())
    wanted = x + y
    np.testing.assert_allclose(state.cpu().numpy(), wanted.numpy(), rtol=1e-6)
    wanted = wanted / (wanted * wanted).sum()
    np.testing.assert_allclose(found.cpu().numpy(), wanted.numpy(), rtol=1e-5)


@pytest.mark.parametrize("depth", (1, 3, 4, 8, 12, 17, 32))
def test_short_rows_are_a_threads(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphflow.codegen.cuda import lower

    monkeypatch.setattr(lower, "MANY_ROWS", 8)
    x = drawn(23, 3, 5, depth) / 3
    close(lambda x: gf.softmax(x, -1), x)
    close(lambda x: (x.argmax(-1), (x * x).sum(-1), x - x.mean(-1, keepdim=True)), x)
    close(lambda x: (x * x).sum((0, 2)), x)
    text = sources(lambda x: gf.softmax(x, -1), x)[0]
    assert "threadIdx" not in text and ("load_4" in text) is (depth % 4 == 0)
