"""Operands that lie crosswise to what is computed with them: against NumPy, at edge sizes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.contraction.micro_kernels import turn
from graphflow.codegen.plain import Pointer

SIZES = [(16, 520), (17, 1000), (64, 128), (65, 200), (79, 131), (200, 300), (513, 16)]


def text(step: Any) -> str:
    """The source of a program's kernels."""
    return "\n".join(call.kernel.source for call in step.programs[-1].schedule.steps)


def check(step: Callable[..., Any], like: Callable[..., Any], *arrays: Any, turns: int) -> None:
    """Compare with NumPy, exactly, on one thread and on three."""
    before = gf.get_num_threads()
    for threads in (1, 3):
        gf.set_num_threads(threads)
        try:
            compiled = gf.compile(step)
            found = compiled(*map(gf.tensor, arrays)).numpy()
        finally:
            gf.set_num_threads(before)
        np.testing.assert_array_equal(found, like(*arrays))
        assert text(compiled).count("turn(") == turns


@pytest.mark.parametrize("shape", SIZES)
def test_a_matrix_and_its_transpose(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    x, y = (rng.standard_normal(s).astype(np.float32) for s in (shape, shape[::-1]))
    check(lambda x, y: x - y.t(), lambda x, y: x - y.T, x, y, turns=1)


@pytest.mark.parametrize(
    "dtype, turns",
    [("float64", 1), ("int32", 1), ("int64", 1), ("int16", 0), ("uint8", 0), ("float16", 0)],
)
def test_elements_of_other_sizes(dtype: str, turns: int) -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.integers(0, 60, s).astype(dtype) for s in ((150, 170), (170, 150)))
    check(lambda x, y: x + y.t(), lambda x, y: x + y.T, x, y, turns=turns)


def test_several_operands_that_cross_different_loops() -> None:
    rng = np.random.default_rng(4)
    shapes = ((20, 33, 70), (70, 33, 20), (70, 33, 20), (20, 70, 33), (20, 1, 70), (33, 70, 20))
    arrays = [rng.integers(-99, 99, s).astype(np.float32) for s in shapes]  # sums are exact
    check(
        lambda a, b, c, d, e, f: (
            a * b.permute(2, 1, 0) + c.permute(2, 1, 0) * d.mT - e + f.permute(2, 0, 1)
        ),
        lambda a, b, c, d, e, f: (
            a * b.transpose(2, 1, 0)
            + c.transpose(2, 1, 0) * d.transpose(0, 2, 1)
            - e
            + f.transpose(2, 0, 1)
        ),
        *arrays,
        turns=3,
    )


@pytest.mark.parametrize("shape", [(5, 257, 300), (40, 70, 65), (3, 1100, 80)])
@pytest.mark.parametrize("reduces", [False, True])
def test_one_transpose_for_a_batch(shape: tuple[int, int, int], reduces: bool) -> None:
    rng = np.random.default_rng(sum(shape))
    x, y = (rng.integers(-99, 99, s).astype(np.float32) for s in (shape, shape[:0:-1]))
    if reduces:
        check(lambda x, y: (x + y.t()).sum(2), lambda x, y: (x + y.T).sum(2), x, y, turns=1)
    else:
        check(lambda x, y: x + y.t(), lambda x, y: x + y.T, x, y, turns=1)


def test_parts_backwards_and_surrounded_ones() -> None:
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((90, 120), (121, 95)))
    check(
        lambda x, y: x + y.flip(0)[1:, 3:93].t(),
        lambda x, y: x + y[::-1][1:, 3:93].T,
        x,
        y,
        turns=1,
    )
    z = rng.standard_normal((116, 90)).astype(np.float32)
    check(
        lambda x, z: x + gf.nn.functional.pad(z.t(), (1, 3)),
        lambda x, z: x + np.pad(z.T, ((0, 0), (1, 3))),
        x, z, turns=0,
    )  # fmt: skip


def test_state_that_is_read_and_written_crosswise() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((130, 130)).astype(np.float32)

    def step(x: Any) -> Any:
        kept = x.clone()
        kept.add_(kept.t() * 2)
        return kept

    check(step, lambda x: x + x.T * 2, x, turns=1)


def test_small_operands_are_read_where_they_lie() -> None:
    x, y = np.ones((40, 20), np.float32), np.ones((20, 40), np.float32)
    check(lambda x, y: x + y.t(), lambda x, y: x + y.T, x, y, turns=0)


@pytest.mark.parametrize("element", ["float32", "float64"])
@pytest.mark.parametrize("count, depth", [(1, 16), (5, 17), (16, 64), (64, 33), (37, 3), (33, 16)])
def test_a_block_is_turned(element: str, count: int, depth: int) -> None:
    """In plain Python, which stands for the compiled block wherever kernels run as Python."""
    source = np.random.default_rng(count * depth).standard_normal((count, 80)).astype(element)
    target = np.zeros((80, 64), element)
    short = {"float32": "f32", "float64": "f64"}[element]
    goal, start = (Pointer(short, a.ctypes.data) for a in (target, source))
    turn(8, 64, goal + 16 * 64, start + 16, 80, count, depth)
    np.testing.assert_array_equal(target[16 : 16 + depth, :count], source[:, 16 : 16 + depth].T)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_that_lie_crosswise(shape: tuple[int, int], axis: int) -> None:
    rng = np.random.default_rng(sum(shape))
    x, y = (rng.integers(-99, 99, s).astype(np.float32) for s in (shape, shape[::-1]))
    check(lambda x, y: (x - y.t()).sum(axis), lambda x, y: (x - y.T).sum(axis), x, y, turns=1)
    check(lambda x, y: (x - y.t()).argmax(axis), lambda x, y: (x - y.T).argmax(axis), x, y, turns=1)


def test_several_passes_over_rows_of_several_axes() -> None:
    rng = np.random.default_rng(8)
    x = rng.integers(-99, 99, (6, 33, 5, 70)).astype(np.float64)
    y = rng.integers(-99, 99, (6, 70, 5, 33)).astype(np.float64)

    def step(x: Any, y: Any) -> Any:
        z = x + y.permute(0, 3, 2, 1)
        return z - z.amax((2, 3), keepdim=True)

    def like(x: Any, y: Any) -> Any:
        z = x + y.transpose(0, 3, 2, 1)
        return z - z.max((2, 3), keepdims=True)

    check(step, like, x, y, turns=1)


@pytest.mark.parametrize("shape", [(17, 9000), (70, 2000), (513, 300), (9000, 17)])
def test_sums_along_both_loops(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    x, y = (rng.integers(-9, 9, s).astype(np.float64) for s in (shape, shape[::-1]))
    check(lambda x, y: (x * y.t()).sum(), lambda x, y: (x * y.T).sum(), x, y, turns=1)


def test_sums_along_both_loops_and_around_a_kept_one() -> None:
    rng = np.random.default_rng(10)
    x, y = (rng.integers(-9, 9, s).astype(np.float32) for s in ((70, 3, 900), (900, 3, 70)))
    check(
        lambda x, y: (x * y.permute(2, 1, 0)).sum((0, 2)),
        lambda x, y: (x * y.transpose(2, 1, 0)).sum((0, 2)),
        x, y, turns=1,
    )  # fmt: skip
    check(
        lambda x, y: (x - y.permute(2, 1, 0)).amax(),
        lambda x, y: (x - y.transpose(2, 1, 0)).max(),
        x, y, turns=1,
    )  # fmt: skip


def test_softmax_of_a_transpose_and_its_gradient() -> None:
    x, y = gf.randn(90, 200), gf.randn(200, 90)

    def step(x: Any, y: Any) -> Any:
        x = x.detach().requires_grad_()
        p = gf.softmax(x.t() + y, -1)
        (p * y).sum().backward()
        return p.detach(), x.grad

    compiled = gf.compile(step)
    for found, eager in zip(compiled(x, y), step(x, y), strict=True):
        np.testing.assert_allclose(found.numpy(), eager.numpy(), rtol=1e-5, atol=1e-6)
    assert "turn(" in text(compiled)


@pytest.mark.parametrize("reduces", [False, True])
def test_sizes_that_are_not_known_to_fill_a_block(reduces: bool) -> None:
    """Where a symbolic size may be small nothing is read before an operand's first row."""

    def step(x: Any, y: Any) -> Any:
        return (x - y.t()).amax(1) if reduces else x - y.t()

    compiled = gf.compile(step, dynamic=True)
    for rows, columns in ((200, 150), (190, 130), (3, 130), (190, 2)):
        x, y = gf.randn(rows, columns), gf.randn(columns, rows)
        whole = x.numpy() - y.numpy().T
        np.testing.assert_array_equal(compiled(x, y).numpy(), whole.max(1) if reduces else whole)
    assert "turn(" not in text(compiled)
