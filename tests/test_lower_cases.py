"""Lowering, case by case: threads, in place, errors, epilogues, dtypes, sharing of kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from lowering import Memory, entry, evaluate
from lowering_bodies import fold_body, map_body

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.lower import lower_epilogue, lower_group
from graphflow.errors import CompileError
from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, input_node, splat
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import (
    DType,
    TensorType,
    bfloat16,
    float16,
    float32,
    float64,
    int32,
    int64,
)

Array = np.ndarray[Any, Any]


def leaf(name: str, *shape: int, dtype: DType = float32) -> Node:
    return input_node(name, TensorType(dtype, shape))


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def spread(row: Node, x: Node) -> Node:
    """A reduced row as a column beside every element of ``x``."""
    return b.expand(b.reshape(row, shape=(x.shape[0], 1)), shape=x.shape)


def softmax(x: Node) -> Node:
    e = b.exp(x - spread(b.reduce_max(x, axes=(1,)), x))
    return e / spread(b.reduce_sum(e, axes=(1,)), x)


def layer_norm(x: Node, weight: Node, bias: Node) -> Node:
    scale = 1.0 / int(x.shape[1])
    d = x - spread(b.reduce_sum(x, axes=(1,)) * scale, x)
    variance = b.reduce_sum(d * d, axes=(1,)) * scale
    return d * spread(b.rsqrt(variance + 1e-5), x) * weight + bias


def agree(
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    arrays: Sequence[Array],
    tolerance: float = 1e-5,
    **how: Any,
) -> None:
    body = Graph(tuple(inputs), tuple(outputs))
    with np.errstate(all="ignore"):
        want = body.run(*arrays)
    copies = [np.array(a) for a in arrays] if how.get("in_place") else list(arrays)
    got, calls, memory = evaluate(body, copies, **how)
    text = "\n".join(call.kernel.source for call in calls)
    for mine, right in zip(got, want):
        wide = [np.asarray(a, np.float64) for a in (mine, right)]
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance, err_msg=text)
    assert memory.error[0] == 0


# ---- threads -------------------------------------------------------------------------


def wide_cases() -> dict[str, tuple[Graph, list[Array]]]:
    """Bodies large enough that several threads share them, every skeleton once."""
    x, y = leaf("x", 300, 700), leaf("y", 300, 700)
    line, few = leaf("x", 400_001), leaf("x", 3, 70_001)
    tall, flat = leaf("x", 7001, 90), leaf("x", 33, 4100)
    base, rows = leaf("b", 50, 640), leaf("s", 300, 640)
    at = leaf("i", 300, 1, dtype=int64)
    index = np.random.default_rng(5).integers(0, 50, (300, 1))
    xs = [numbers(300, 700), numbers(300, 700, seed=1)]
    dz = b.where(b.gt(x, 0.0), y, splat(0.0, y.tensor_type))
    scatter = b.scatter_add(base, b.expand(at, shape=(300, 640)), rows, axis=0)
    narrow = b.permute(leaf("x", 900, 3, 50), axes=(1, 0, 2))
    three, many = leaf("x", 3, 40, 1500), leaf("x", 17, 20, 1100)
    return {
        "map": (Graph((x, y), (b.tanh(x * y), x + y)), xs),
        "rows": (Graph((x,), (softmax(x), b.reduce_sum(x, axes=(1,)))), xs[:1]),
        "columns": (Graph((x, y), (dz, b.reduce_sum(dz, axes=(0,)))), xs),
        "line": (Graph((line,), (b.reduce_sum(line * line, axes=(0,)),)), [numbers(400_001)]),
        "few rows": (Graph((few,), (softmax(few),)), [numbers(3, 70_001)]),
        "tall": (Graph((tall,), (b.reduce_sum(tall, axes=(0,)),)), [numbers(7001, 90)]),
        "flat": (Graph((flat,), (b.reduce_max(flat, axes=(0,)),)), [numbers(33, 4100)]),
        "scatter": (
            Graph((base, at, rows), (scatter,)), [numbers(50, 640), index, numbers(300, 640)]
        ),
        "few outer": (Graph(narrow.inputs, (narrow * 2.0,)), [numbers(900, 3, 50)]),
        "argmax": (Graph((x,), (b.argmax(x, axis=1), b.argmax(x, axis=0))[:1]), xs[:1]),
        "columns of three": (
            Graph((three,), (b.reduce_sum(three, axes=(1,)),)), [numbers(3, 40, 1500)]
        ),
        "columns of many": (
            Graph((many,), (b.reduce_max(many, axes=(1,)),)), [numbers(17, 20, 1100)]
        ),
        "argmax of columns": (Graph((x,), (b.argmax(x, axis=0),)), xs[:1]),
    }  # fmt: skip


WIDE = wide_cases()


@pytest.mark.parametrize("name", WIDE)
def test_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    body, arrays = WIDE[name]
    one, calls, _ = evaluate(body, arrays, threads=1, compiled=True)
    assert any(call.parallel for call in calls)
    for mine, right in zip(one, body.run(*arrays)):
        np.testing.assert_allclose(mine, right, rtol=1e-4, atol=1e-3)
    for threads in (2, 3):
        many, _, _ = evaluate(body, arrays, threads=threads, compiled=True)
        assert [x.tobytes() for x in many] == [x.tobytes() for x in one]


@pytest.mark.parametrize("make", [map_body, fold_body])
def test_random_bodies_compiled(make: Callable[[int], tuple[Graph, list[Array]]]) -> None:
    from test_lower import check

    for seed in range(1000, 1012):
        print("seed", seed)
        check(*make(seed), compiled=True)


def test_small_calls_stay_on_one_thread() -> None:
    x = leaf("x", 100)
    _, calls, _ = evaluate(Graph((x,), (b.exp(x),)), [numbers(100)])
    assert [call.parallel for call in calls] == [False]
    assert calls[0].bytes == 800 and calls[0].flops >= 100


# ---- accuracy ------------------------------------------------------------------------


def test_long_sums_are_as_good_as_doubles() -> None:
    values = np.random.default_rng(3).random(1 << 23, np.float32) + np.float32(0.5)
    right = float(np.sum(values, dtype=np.float64))
    for shape, axes in (((1 << 23,), (0,)), ((1 << 21, 4), (0, 1)), ((1 << 22, 2), (0,))):
        x = leaf("x", *shape)
        body = Graph((x,), (b.reduce_sum(x, axes=axes),))
        (got,), _, _ = evaluate(body, [values.reshape(shape)], compiled=True)
        exact = values.reshape(shape).sum(axis=axes, dtype=np.float64)
        np.testing.assert_allclose(got, exact, rtol=2e-6)
        assert abs(float(got.sum(dtype=np.float64)) / right - 1) < 1e-6


# ---- in place ------------------------------------------------------------------------


def test_results_may_overwrite_operands() -> None:
    x, y, row = leaf("x", 6, 9), leaf("y", 6, 9), leaf("r", 6)
    arrays = [numbers(6, 9), numbers(6, 9, seed=1)]
    agree([x * y - y, x + y], [x, y], arrays, in_place={0: 0})
    agree([x + y, b.exp(x)], [x, y], arrays, in_place={0: 0, 1: 1})
    agree([softmax(x)], [x], arrays[:1], in_place={0: 0})
    agree([softmax(x) * x, x + 1.0], [x], arrays[:1], in_place={1: 0})
    agree([softmax(x) + x, b.tanh(x)], [x], arrays[:1], in_place={0: 0})
    mean = row * 0.9 + b.reduce_sum(x, axes=(1,)) * 0.1
    agree([mean, x - spread(mean, x)], [x, row], [arrays[0], numbers(6)], in_place={0: 1, 1: 0})
    down = leaf("d", 9)
    mean = down * 0.9 + b.reduce_sum(x, axes=(0,)) * 0.1
    agree([mean], [x, down], [arrays[0], numbers(9)], in_place={0: 1})


def test_an_in_place_operand_is_one_pointer() -> None:
    x, y = leaf("x", 8), leaf("y", 8)
    body = Graph((x, y), (x + y,))
    _, calls, _ = evaluate(body, [numbers(8), numbers(8)], in_place={0: 0})
    assert calls[0].kernel.source.count("pointer_f32(args") == 2


# ---- parts among each other ----------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 8, 9])
def test_parts_of_a_last_axis_are_stored_in_one_run(count: int) -> None:
    """``stack`` along the last axis: what has gaps of a few elements is one vector together."""
    parts = [leaf(f"x{k}", 50, 40) for k in range(count)]
    columns = [b.reshape(part, shape=(50, 40, 1)) for part in parts]
    arrays = [numbers(50, 40, seed=k) for k in range(count)]
    joined = b.concatenate(*columns, axis=2)
    agree([joined, b.exp(joined)], parts, arrays)
    (got,), calls, _ = evaluate(Graph(tuple(parts), (joined,)), arrays, compiled=True)
    np.testing.assert_array_equal(got, np.stack(arrays, -1))
    assert len(calls) == (1 if count <= 8 else count)
    text = calls[0].kernel.source
    pointers = count + 1 if count <= 4 else 2 * count // len(calls)
    assert text.count("pointer_f32(args") == pointers
    assert count > 4 or f"out[1 + i * {count}]" in text


# ---- indices from data ---------------------------------------------------------------


def test_an_index_out_of_range_is_reported_and_reads_the_first() -> None:
    x, at = leaf("x", 4, 5), leaf("i", 3, dtype=int64)
    for index, read in (([3, 9, 1], [3, 0, 1]), ([-1, 0, 2], [0, 0, 2])):
        body = Graph((x, at), (b.take(x, at, axis=0),))
        data = numbers(4, 5)
        (got,), calls, memory = evaluate(body, [data, np.array(index)])
        assert memory.error[0] == 1 and all(call.fallible for call in calls)
        assert "axis 0" in memory.failures[0] and "4 elements" in memory.failures[0]
        np.testing.assert_array_equal(got, data[read])


@pytest.mark.parametrize(("wide", "prefix"), [(40, "col"), (5, "row")])
def test_rows_looked_up_are_summed_row_by_row(wide: int, prefix: str) -> None:
    """Positions and weights of rows, the same for all of a wide row, have no say in the loops."""
    table, at, weight = leaf("t", 30, wide), leaf("i", 11, 7, dtype=int64), leaf("w", 11, 7)
    looked_up = b.take(table, at, axis=0)
    scaled = looked_up * b.expand(b.reshape(weight, shape=(11, 7, 1)), shape=(11, 7, wide))
    index = np.random.default_rng(7).integers(0, 30, (11, 7))
    arrays = [numbers(30, wide), index, numbers(11, 7)]
    for value in (looked_up, scaled):
        for total in (b.reduce_sum(value, axes=(1,)), b.reduce_max(value, axes=(1,))):
            agree([total], [table, at, weight], arrays)
            _, calls, _ = evaluate(Graph((table, at, weight), (total,)), arrays)
            assert [call.kernel.name.split("_")[0] for call in calls] == [prefix]


def test_unused_padding_of_a_gather_is_not_checked() -> None:
    x, at = leaf("x", 4), leaf("i", 2, dtype=int64)
    padded = b.pad(b.take(x, at, axis=0), low=(1,), high=(2,), value=7.0)
    data = numbers(4)
    (got,), _, memory = evaluate(Graph((x, at), (padded,)), [data, np.array([3, 1])])
    np.testing.assert_array_equal(got, np.float32([7, data[3], data[1], 7, 7]))
    assert memory.error[0] == 0


def test_scatter_adds_in_order_and_in_place() -> None:
    base, at, rows = leaf("b", 5, 3), leaf("i", 8, 3, dtype=int64), leaf("s", 8, 3)
    index = np.random.default_rng(0).integers(0, 5, (8, 3))
    arrays = [numbers(5, 3), index, numbers(8, 3, seed=1)]
    for axis_first in (0,):
        body = [b.scatter_add(base, at, b.exp(rows), axis=axis_first)]
        agree(body, [base, at, rows], arrays)
        agree(body, [base, at, rows], arrays, in_place={0: 0})
    zero = b.scatter_add(splat(0.0, base.tensor_type), at, rows, axis=0)
    agree([zero], [at, rows], arrays[1:])


def test_a_slice_is_replaced_in_place_and_elsewhere() -> None:
    base, part = leaf("b", 7, 6), leaf("p", 3, 6)
    update = b.slice_update(base, part * 2.0, starts=(1, 0), steps=(2, 1))
    arrays = [numbers(7, 6), numbers(3, 6, seed=1)]
    agree([update], [base, part], arrays)
    agree([update], [base, part], arrays, in_place={0: 0})


# ---- shapes and dtypes ---------------------------------------------------------------


def test_scalars_and_empty_tensors() -> None:
    x, y, none = leaf("x"), leaf("y"), leaf("n", 0, 3)
    agree([x * y + 1.0], [x, y], [np.array(2, np.float32), np.array(3, np.float32)])
    assert evaluate(Graph((none,), (b.exp(none),)), [np.empty((0, 3), np.float32)])[1] == []
    agree([b.reduce_sum(none, axes=(0,))], [none], [np.empty((0, 3), np.float32)])
    agree([b.reduce_sum(none, axes=(0, 1))], [none], [np.empty((0, 3), np.float32)])
    table, at = leaf("t", 7), leaf("i", 0, dtype=int64)
    nothing = b.reduce_sum(b.take(table, at, axis=0), axes=(0,))
    agree([nothing], [table, at], [numbers(7), np.empty(0, np.int64)])


@pytest.mark.parametrize("dtype", [float16, bfloat16, float64, int32, int64])
def test_other_element_types(dtype: DType) -> None:
    x, y = leaf("x", 6, 40, dtype=dtype), leaf("y", 40, dtype=dtype)
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-4, 5, s).astype(dtype.numpy) for s in ((6, 40), (40,))]
    half = dtype.itemsize == 2
    tolerance = 2e-2 if half else 1e-6
    total = b.reduce_sum(x, axes=(1,))
    agree([x * y - x, total, b.reduce_max(x, axes=(1,))], [x, y], arrays, tolerance)
    agree([b.reduce_sum(x, axes=(0,)), b.reduce_prod(x, axes=(0,))], [x], arrays[:1], tolerance)


def test_nan_wins_in_extremes() -> None:
    x = leaf("x", 3, 5)
    data = numbers(3, 5)
    data[1, 2], data[2, :] = np.nan, -np.inf
    outputs = [b.reduce_max(x, axes=(1,)), b.reduce_min(x, axes=(1,)), b.argmax(x, axis=1)]
    agree([*outputs, b.argmin(x, axis=1)], [x], [data])
    agree([b.argmax(x, axis=0)], [x], [data])


def test_random_bits_are_numbered_by_element() -> None:
    key = leaf("k", 2, dtype=int64)
    bits = b.random_bits(key, shape=(5, 7), call=3, word=1)
    moved = b.permute(bits, axes=(1, 0))
    agree([moved], [key], [np.array([1234, 5])], 0)


# ---- long chains, refusals -----------------------------------------------------------


def test_a_chain_of_thousands_does_not_recurse() -> None:
    x = leaf("x", 4)
    value = x
    for step in range(3000):
        value = value * 0.5 + 1.0 if step % 2 else b.tanh(value)
    agree([value], [x], [numbers(4)])


def test_what_cannot_be_lowered_is_refused() -> None:
    x, y = leaf("x", 4, 5), leaf("y", 5, 4)
    memory = Memory()
    layouts = [contiguous(memory.add(numbers(20)), n.tensor_type) for n in (x, y)]
    result = contiguous(memory.add(numbers(16)), TensorType(float32, (4, 4)))
    with pytest.raises(CompileError, match=r"matmul .* cannot be part of a loop kernel"):
        lower_group(Graph((x, y), (b.matmul(x, y),)), layouts, [result], memory)
    sums = b.reduce_sum(x, axes=(0,)), b.reduce_sum(x, axes=(1,))
    results = [contiguous(memory.add(numbers(5)), n.tensor_type) for n in sums]
    with pytest.raises(CompileError, match=r"shape \(4,\) does not fit a group over \[4, 5\]"):
        lower_group(Graph((x,), sums), layouts[:1], results, memory)
    both = b.reduce_sum(x - spread(sums[1], x), axes=(0,))
    mixed = x - b.expand(b.reshape(both, shape=(1, 5)), shape=(4, 5))
    with pytest.raises(CompileError, match="folds other axes"):
        lower_group(Graph((x,), (mixed,)), layouts[:1], layouts[:1], memory)


# ---- sharing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shapes", [((128, 784), (96, 200)), ((17, 33), (33, 17)), ((64, 64), (19, 32))]
)
def test_other_shapes_have_the_same_kernels(shapes: Sequence[tuple[int, int]]) -> None:
    names = []
    for rows, columns in shapes:
        x, w = leaf("x", rows, columns), leaf("w", columns)
        memory = Memory()
        kernels = []
        for outputs in ([b.relu(x + w)], [layer_norm(x, w, w)], [softmax(x)]):
            body = Graph((x, w), tuple(outputs))
            places = [memory.new(n.tensor_type)[1] for n in (x, w, *outputs)]
            calls = lower_group(body, places[:2], places[2:], memory)
            kernels += [call.kernel.name for call in calls]
        names.append(kernels)
    assert names[0] == names[1]
    assert all(len(name) <= 60 for name in names[0])


# ---- epilogues -----------------------------------------------------------------------


def run_epilogue(
    body: Graph, product: Node, tile: Array, operands: Sequence[Array], compiled: bool = False
) -> list[Array]:
    """Run the epilogue tile by tile, rows and columns cut unevenly."""
    memory = Memory()
    places = [memory.place(a) for a in operands]
    results = [memory.new(n.tensor_type) for n in body.outputs]
    where = [layout for _, layout in results]
    made = lower_epilogue(body, product, memory.place(tile), places, where, memory)
    assert made.kernel.epilogue
    block = memory.words(made.arguments)
    m, n = tile.shape[-2:]
    for batch in range(int(np.prod(tile.shape[:-2]))):
        for i0, i1 in ((0, m // 2), (m // 2, m)):
            for j0, j1 in ((0, n // 3), (n // 3, n)):
                entry(made.kernel, compiled)(block.ctypes.data, batch, i0, i1, j0, j1)
    return [array for array, _ in results]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (1, 3)])
def test_epilogues_finish_tiles(batch: tuple[int, ...], compiled: bool) -> None:
    a, w = leaf("a", *batch, 5, 4), leaf("w", *batch, 4, 7)
    product = b.matmul(a, w)
    bias, scale = leaf("c", 7), leaf("s", *batch[:1], *(1 for _ in batch[1:]), 5, 1)
    rest = leaf("r", *batch, 5, 7)
    hidden = b.relu(product * scale + bias)
    outputs = (hidden, rest - hidden * 0.5)
    inputs = (bias, scale, rest)
    arrays = [numbers(*n.shape, seed=k) for k, n in enumerate(inputs)]
    left, right = numbers(*a.shape, seed=8), numbers(*w.shape, seed=9)
    want = Graph((a, w, *inputs), outputs).run(left, right, *arrays)
    tile = np.ascontiguousarray(left @ right)
    got = run_epilogue(Graph((*inputs, product), outputs), product, tile, arrays, compiled)
    for mine, expected in zip(got, want):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


def test_a_tile_that_is_a_result_is_one_pointer() -> None:
    a, w, bias = leaf("a", 5, 4), leaf("w", 4, 7), leaf("c", 7)
    product = b.matmul(a, w)
    body = Graph((a, w, bias), (product + bias,))
    memory = Memory()
    _, place = memory.new(product.tensor_type)
    layouts: list[Layout] = [memory.new(n.tensor_type)[1] for n in body.inputs]
    kernel = lower_epilogue(body, product, place, layouts, [place], memory).kernel
    assert kernel.source.count("pointer_f32(args") == 2


def test_constants_are_written_into_kernels() -> None:
    x = leaf("x", 3)
    for value in (0.1, -2.5, float("inf"), float("nan"), -float("inf"), 1e-30):
        agree([b.maximum(x, constant(value, float32)) + x], [x], [numbers(3)])
        agree([b.maximum(x, constant(value, float32)) + x], [x], [numbers(3)], compiled=True)


def test_all_random_calls_are_one_kernel() -> None:
    key = leaf("k", 2, dtype=int64)
    names = set()
    for call in (0, 1, 7):
        body = Graph((key,), (b.random_bits(key, shape=(40,), call=call, word=0),))
        _, calls, _ = evaluate(body, [np.array([5, 6])])
        names.add(calls[0].kernel.name)
        agree(body.outputs, body.inputs, [np.array([5, 6])], 0)
    assert len(names) == 1
