"""Scans, sorts and searches as machine code, at sizes where every path of a kernel runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lowering import evaluate

from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.types import TensorType, dtype_named, from_numpy_dtype


def graph_of(op: str, *arrays: np.ndarray, **attrs: Any) -> Graph:
    leaves = tuple(
        input_node(f"x{i}", TensorType(from_numpy_dtype(a.dtype), a.shape))
        for i, a in enumerate(arrays)
    )
    return Graph(inputs=leaves, outputs=(emit(op, *leaves, **attrs),))


def compiled(op: str, *arrays: np.ndarray, threads: int = 1, **attrs: Any) -> np.ndarray:
    """The result of the compiled kernel."""
    (out,), _, _ = evaluate(graph_of(op, *arrays, **attrs), arrays, threads, compiled=True)
    return out


def special(rng: np.random.Generator, shape: tuple[int, ...], short: str) -> np.ndarray:
    """Numbers of ``short`` with many ties, and for floats NaN of both signs, zeros, infinities."""
    dtype = dtype_named(short)
    if dtype.is_floating_point:
        values = rng.choice(
            [np.nan, -np.nan, 0.0, -0.0, np.inf, -np.inf, 1.5, -2.5, 3e4, -7e-3], shape
        )
        noise = rng.normal(size=shape)
        return np.where(rng.random(shape) < 0.5, values, noise).astype(dtype.numpy)
    if dtype.kind == "bool":
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype.numpy)
    wide = rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
    return np.where(rng.random(shape) < 0.5, wide, rng.integers(0, 9, shape).astype(dtype.numpy))


@pytest.mark.parametrize("short", ["f32", "bf16", "i64", "u8", "bool"])
def test_a_sort_is_stable_at_every_length(short: str) -> None:
    rng = np.random.default_rng(7)
    for shape, axis in [((3, 31), 1), ((2, 33), 1), ((1000,), 0), ((40, 3), 0), ((5, 1), 1)]:
        x = special(rng, shape, short)
        for descending in (False, True):
            found = compiled("argsort", x, axis=axis, descending=descending)
            keys = x.astype(np.float64) if short in ("f16", "bf16") else x
            for index in np.ndindex(*np.delete(shape, axis)):
                line = (*index[:axis], slice(None), *index[axis:])
                assert_sorted(keys[line], found[line], descending)


def assert_sorted(keys: np.ndarray, order: np.ndarray, descending: bool) -> None:
    """``order`` is the one that Python's own stable sort of the positions yields."""

    def key(position: int) -> tuple[bool, float]:
        value = keys[position].item()
        return (True, 0.0) if value != value else (False, value)

    expected = sorted(range(len(keys)), key=key, reverse=descending)
    assert order.tolist() == expected


@pytest.mark.parametrize("short", ["f32", "i64", "bool"])
def test_the_first_few_are_those_of_the_whole_order(short: str) -> None:
    rng = np.random.default_rng(8)
    for length, wanted in [(8, 1), (8, 2), (8, 7), (32, 5), (33, 4), (33, 20), (100, 3), (5, 0)]:
        x = special(rng, (9, length), short)
        for descending in (False, True):
            whole = compiled("argsort", x, axis=1, descending=descending)
            few = compiled("argsort", x, axis=1, descending=descending, count=wanted)
            np.testing.assert_array_equal(few, whole[:, :wanted])


@pytest.mark.parametrize("shape", [(37, 100), (900, 2)])
def test_a_sort_on_several_threads_is_the_same(shape: tuple[int, ...]) -> None:
    x = special(np.random.default_rng(3), shape, "f32")
    one = compiled("argsort", x, axis=0, descending=False)
    assert np.array_equal(one, compiled("argsort", x, threads=3, axis=0, descending=False))


@pytest.mark.parametrize("op", ["cumsum", "cumprod", "logcumsumexp", "cumargmax", "cumargmin"])
def test_scans_of_single_lines_and_of_bundles(op: str) -> None:
    rng = np.random.default_rng(11)
    attrs = {} if op.startswith("cumarg") else {"reverse": True}
    for shape, axis in [((2, 50), 1), ((9, 300), 0), ((3, 5, 2), 1)]:
        x = rng.uniform(-1.2, 1.2, shape).astype(np.float32)
        graph = graph_of(op, x, axis=axis, **attrs)
        (want,) = graph.run(x)
        for threads in (1, 3):
            found = compiled(op, x, threads=threads, axis=axis, **attrs)
            np.testing.assert_allclose(found, want, 1e-6, 1e-6)


@pytest.mark.parametrize("short", ["f32", "f64", "i64", "f16"])
@pytest.mark.parametrize("op", ["cumsum", "cumprod", "logcumsumexp", "cumargmax", "cumargmin"])
def test_scans_of_many_lines(op: str, short: str) -> None:
    if op == "logcumsumexp" and short not in ("f32", "f64"):
        return
    rng = np.random.default_rng(15)
    for shape in [(57, 301), (200, 87), (6000, 3), (17000, 1), (5, 110, 32)]:
        x = rng.uniform(-1.2, 1.2, shape) * (1 if short[0] == "f" else 9)
        x[rng.random(shape) < 0.02] = np.nan if short[0] == "f" and op != "cumprod" else 0
        x = x.astype(dtype_named(short).numpy)
        for attrs in [{}] if op.startswith("cumarg") else [{"reverse": False}, {"reverse": True}]:
            attrs["axis"] = len(shape) - 1
            (want,) = graph_of(op, x, **attrs).run(x)
            graph = graph_of(op, x, **attrs)
            (one,), (call,), _ = evaluate(graph, [x], 1, compiled=True)
            dear = short == "f32" or (short == "f64" and op not in ("cumsum", "cumprod"))
            assert call.kernel.name.startswith("scan_side") == dear
            assert one.tobytes() == compiled(op, x, threads=3, **attrs).tobytes()
            np.testing.assert_allclose(one, want, 2e-3 if short == "f16" else 1e-6, 1e-6)


def test_a_recurrence_of_single_lines_and_of_bundles() -> None:
    rng = np.random.default_rng(12)
    for shape, axis in [((2, 50), 1), ((9, 300), 0), ((90, 195), 1)]:
        a, c = (rng.uniform(-1.2, 1.2, shape).astype(np.float32) for _ in range(2))
        found = compiled("recurrence", a, c, threads=3, axis=axis, reverse=False)
        want = np.zeros(shape)
        for k in range(shape[axis]):
            here = (slice(None),) * axis + (k,)
            before = want[(slice(None),) * axis + (k - 1,)] if k else 0.0
            want[here] = a[here] * before + c[here].astype(np.float64)
        np.testing.assert_allclose(found, want, 1e-5, 1e-5)


def test_a_long_recurrence_is_the_same_by_doubling_steps() -> None:
    rng = np.random.default_rng(14)
    a, c = (rng.uniform(-1.0, 1.0, 5000) for _ in range(2))
    (found,) = graph_of("recurrence", a, c, axis=0, reverse=True).run(a, c)
    want = compiled("recurrence", a, c, axis=0, reverse=True)
    np.testing.assert_allclose(found, want, 1e-12, 1e-12)


def test_a_long_single_precision_sum_keeps_its_digits() -> None:
    x = np.full(1_000_000, 0.1, np.float32)
    found = compiled("cumsum", x, axis=0, reverse=False)
    exact = np.arange(1, len(x) + 1) * np.float64(x[0])
    assert np.abs(found / exact - 1).max() < 1e-7


@pytest.mark.parametrize("short", ["f32", "f16", "bool"])
def test_running_extremes_of_every_dtype(short: str) -> None:
    x = special(np.random.default_rng(5), (4, 40), short)
    for op in ("cumargmax", "cumargmin"):
        (want,) = graph_of(op, x, axis=1).run(x)
        assert np.array_equal(compiled(op, x, axis=1), want), op


@pytest.mark.parametrize("short", ["f32", "i64"])
@pytest.mark.parametrize("right", [False, True])
def test_a_search_counts_what_comes_before(short: str, right: bool) -> None:
    rng = np.random.default_rng(13)
    dtype = dtype_named(short).numpy
    lines = np.sort(rng.integers(-50, 50, (3, 70)), axis=1).astype(dtype)
    values = rng.integers(-60, 60, (3, 200)).astype(dtype)
    found = compiled("searchsorted", lines, values, threads=2, right=right)
    below = np.less_equal if right else np.less
    counts = below(lines[:, None].astype(np.float64), values[:, :, None].astype(np.float64))
    assert np.array_equal(found, counts.sum(-1))


@pytest.mark.parametrize("short", ["f32", "f64", "i32", "f16"])
def test_searches_of_anything_probe_as_the_reference_does(short: str) -> None:
    """Lines that are not sorted, and NaN, are halved in the same places."""
    rng = np.random.default_rng(16)
    for shape, wanted in [
        ((1,), (70,)), ((2,), (1,)), ((255,), (3, 67)), ((256,), (130,)), ((3, 37), (3, 1)),
        ((5, 64), (5, 65)), ((2, 3, 7), (2, 3, 9)),
    ]:  # fmt: skip
        lines, values = special(rng, shape, short), special(rng, wanted, short)
        for line in (lines, np.sort(lines)):
            for right in (False, True):
                (want,) = graph_of("searchsorted", line, values, right=right).run(line, values)
                for threads in (1, 3):
                    found = compiled("searchsorted", line, values, threads=threads, right=right)
                    np.testing.assert_array_equal(found, want)


def test_a_strided_operand_is_copied_first() -> None:
    x = np.arange(24.0).reshape(4, 6)
    view = x.T
    (out,), calls, _ = evaluate(graph_of("cumsum", view, axis=0, reverse=False), [view])
    assert len(calls) == 2
    assert np.array_equal(out, np.cumsum(view, 0))
