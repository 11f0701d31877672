"""PyTorch's semantics at the edges, errors that say what is wrong, and random bits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scalar_oracles import ORACLES

from graphflow.errors import DTypeError, GraphError, GraphFlowError, IndexRangeError, ShapeError
from graphflow.ir.build import NODES, constant, emit, input_node
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph
from graphflow.ir.ops.erf import erf
from graphflow.ir.ops.generators import philox
from graphflow.ir.types import TensorType, bfloat16, bool_, float16, float32, int64

INF, NAN = math.inf, math.nan


def evaluate(op: str, *operands: Any, **attrs: Any) -> np.ndarray:
    node = emit(op, *[constant(o) for o in operands], **attrs)
    return Graph(inputs=(), outputs=(node,)).run()[0]


def same(found: np.ndarray, expected: Any) -> None:
    """Equal to the bit: NaN to NaN, -0.0 to -0.0, and the same dtype."""
    expected = np.asarray(expected, found.dtype)
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(expected[known]))


# What PyTorch 2.13 computes for these.
FLOATS = [
    ("sign", ([NAN, -0.0, -3.0, INF],), [0.0, 0.0, -1.0, 1.0]),
    ("relu", ([NAN, -1.0, INF],), [NAN, 0.0, INF]),
    ("round", ([0.5, 1.5, -0.5, 2.5, NAN],), [0.0, 2.0, -0.0, 2.0, NAN]),
    ("sqrt", ([-1.0, -0.0, INF],), [NAN, -0.0, INF]),
    ("log", ([0.0, -1.0, INF],), [-INF, NAN, INF]),
    ("log1p", ([-1.0, -2.0, -0.0],), [-INF, NAN, -0.0]),
    ("rsqrt", ([0.0, INF, -1.0],), [INF, 0.0, NAN]),
    ("reciprocal", ([0.0, -0.0, INF],), [INF, -INF, 0.0]),
    ("exp", ([-INF, INF, NAN, 1000.0],), [0.0, INF, NAN, INF]),
    ("sigmoid", ([-INF, INF, NAN, -1000.0, 1000.0],), [0.0, 1.0, NAN, 0.0, 1.0]),
    ("tanh", ([-INF, INF, NAN, -0.0],), [-1.0, 1.0, NAN, -0.0]),
    ("erf", ([-INF, INF, NAN, -0.0],), [-1.0, 1.0, NAN, -0.0]),
    ("div", ([1.0, -1.0, 0.0, 1.0], [0.0, 0.0, 0.0, -INF]), [INF, -INF, NAN, -0.0]),
    ("maximum", ([NAN, 1.0, -INF], [1.0, NAN, INF]), [NAN, NAN, INF]),
    ("minimum", ([NAN, 1.0, -INF], [1.0, NAN, INF]), [NAN, NAN, -INF]),
    ("remainder", ([5.0, -5.0, 5.0, -5.0, 5.0], [3.0, 3.0, -3.0, INF, 0.0]),
     [2.0, 1.0, -1.0, INF, NAN]),
    ("floor_divide", ([5.0, -5.0, 5.0, -2.5, INF], [0.0, 0.0, INF, INF, 1.0]),
     [INF, -INF, 0.0, -1.0, NAN]),
    ("pow", ([0.0, -8.0, NAN, 1.0, -2.0], [-1.0, 1 / 3, 0.0, NAN, 3.0]),
     [INF, NAN, 1.0, 1.0, -8.0]),
    ("atan2", ([0.0, -0.0, 1.0], [-0.0, -1.0, 0.0]), [math.pi, -math.pi, math.pi / 2]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "operands", "expected"), FLOATS, ids=[f[0] for f in FLOATS])
def test_special_floats(op: str, operands: Any, expected: Any) -> None:
    same(evaluate(op, *[np.array(o) for o in operands]), expected)


INTEGERS = [
    ("add", np.int8, ([127, -128], [1, -1]), [-128, 127]),
    ("mul", np.int32, ([2**31 - 1], [2]), [-2]),
    ("neg", np.int8, ([-128],), [-128]),
    ("neg", np.uint8, ([1],), [255]),
    ("abs", np.int8, ([-128],), [-128]),
    ("sub", np.uint8, ([0], [1]), [255]),
    ("remainder", np.int64, ([7, -7, 7, -7, 7], [3, 3, -3, -3, 0]), [1, 2, -2, -1, 0]),
    ("floor_divide", np.int64, ([7, -7, 7, -7, 7], [2, 2, -2, -2, 0]), [3, -4, -4, 3, 0]),
    ("pow", np.int64, ([2, 1, -1, -1, 0, 3], [-1, -1, -1, -2, -1, 4]), [0, 1, -1, 1, 0, 81]),
    ("shift_left", np.int64, ([1, 1, -1], [64, -1, 63]), [0, 0, -(2**63)]),
    ("shift_right", np.int64, ([4, -4, 4], [64, 64, -1]), [0, -1, 0]),
    ("shift_right", np.uint8, ([200, 200], [3, 8]), [25, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "dtype", "operands", "expected"), INTEGERS)
def test_integers_wrap_and_divide_as_pytorch_does(
    op: str, dtype: Any, operands: Any, expected: Any
) -> None:
    found = evaluate(op, *[np.array(o, dtype) for o in operands])
    assert found.dtype == dtype
    same(found, expected)


def test_bool_arithmetic_is_logic() -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    for op, expected in (("add", a | b), ("mul", a & b), ("maximum", a | b), ("minimum", a & b)):
        same(evaluate(op, a, b), expected)


def test_casts_truncate_and_wrap() -> None:
    same(evaluate("cast", np.array([300.7, -5.5, 1e10]), dtype=int64), [300, -5, 10**10])
    same(evaluate("cast", np.array([NAN, 0.0, 0.2, -0.0]), dtype=bool_), [1, 0, 1, 0])


@pytest.mark.parametrize("dtype", [float16, bfloat16])
def test_half_precision_keeps_its_type_and_accumulates_in_single(dtype: Any) -> None:
    ones = np.ones((1, 4000)).astype(dtype.numpy)
    assert float(evaluate("reduce_sum", ones, axes=(0, 1))) == 4000.0
    product = evaluate("matmul", ones, ones.T)
    assert product.dtype == dtype.numpy
    assert float(product[0, 0]) == float(np.array(4000.0).astype(dtype.numpy))
    for op in ("exp", "erf", "sigmoid", "tanh", "relu", "rsqrt"):
        assert evaluate(op, ones).dtype == dtype.numpy


def test_erf_to_the_last_bits() -> None:
    x = np.linspace(-7, 7, 4001)
    exact = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(erf(x), exact, 4e-16)
    np.testing.assert_allclose(erf(x.astype(np.float32)), exact, 3e-7, 1e-7)


def test_a_long_float32_sum_is_right() -> None:
    x = np.full(2**22, 0.1, np.float32)
    assert float(evaluate("reduce_sum", x, axes=(0,))) == pytest.approx(0.1 * 2**22, rel=1e-6)


def test_ties_and_nan_in_positions() -> None:
    x = np.array([[1.0, 3.0, 3.0], [NAN, 5.0, NAN], [2.0, 1.0, 1.0]])
    same(evaluate("argmax", x, axis=1), [1, 0, 0])
    same(evaluate("argmin", x, axis=1), [0, 0, 1])


# ---- random bits ---------------------------------------------------------------------

# Known answers of Random123's kat_vectors: philox4x32, 10 rounds.
KNOWN_ANSWERS = [
    (0, 0, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (-1, -1, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (0x299F31D0A4093822, 0x0370734413198A2E, 0x85A308D3243F6A88,
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "call", "index", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    seed: int, call: int, index: int, words: list[int]
) -> None:
    at = np.array([index], np.uint64)
    assert [int(philox(seed, call, at, word)[0]) for word in range(4)] == words


def test_random_bits_count_calls_from_the_base() -> None:
    def bits(base: int, call: int) -> np.ndarray:
        return evaluate("random_bits", np.array([42, base]), shape=(4, 5), call=call, word=1)

    same(bits(3, 4), bits(7, 0))
    assert (bits(3, 4) != bits(3, 5)).any()


def test_random_bits_are_uniform() -> None:
    bits = evaluate("random_bits", np.array([7, 0]), shape=(100_000,), call=0, word=0)
    fractions = bits / 2.0**32
    assert abs(fractions.mean() - 0.5) < 0.005
    counts = np.histogram(fractions, 16, (0, 1))[0]
    assert ((counts - 6250) ** 2 / 6250).sum() < 45  # chi-square, 15 degrees: p < 1e-4
    for bit in range(32):
        assert abs(((bits >> np.uint32(bit)) & 1).mean() - 0.5) < 0.01


# ---- errors --------------------------------------------------------------------------


def leaf(*shape: Any, dtype: Any = float32) -> Any:
    return input_node("x", TensorType(dtype, shape))


B = symbol("batch")
MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: NODES.add(leaf(2, 3), leaf(4)), ShapeError,
     r"add\(f32\[2,3\], f32\[4\]\): shapes \[2,3\] and \[4\] do not broadcast"),
    (lambda: NODES.add(leaf(2), leaf(2, dtype=int64)), DTypeError,
     r"add\(f32\[2\], i64\[2\]\): operands have different dtypes"),
    (lambda: NODES.add(leaf(2)), GraphError, r"add\(f32\[2\]\): takes 2 operands, not 1"),
    (lambda: NODES.exp(leaf(2, dtype=int64)), DTypeError,
     r"exp\(i64\[2\]\): takes floating-point or complex operands"),
    (lambda: NODES.sub(leaf(2, dtype=bool_), leaf(2, dtype=bool_)), DTypeError, "sub.*takes"),
    (lambda: NODES.where(leaf(2), leaf(2), leaf(2)), DTypeError, "condition must be bool"),
    (lambda: NODES.matmul(leaf(2, 3), leaf(4, 5)), ShapeError,
     r"matmul\(f32\[2,3\], f32\[4,5\]\): 3 columns do not meet 4 rows"),
    (lambda: NODES.matmul(leaf(3), leaf(3, 2)), ShapeError, "at least two axes"),
    (lambda: NODES.matmul(leaf(2, 1, 3), leaf(4, 3, 1)), ShapeError, "batch axes"),
    (lambda: NODES.reshape(leaf(2, 3), shape=(5,)), ShapeError, r"6 elements.*\[5\] holds 5"),
    (lambda: NODES.reshape(leaf(B, 3), shape=(4,)), ShapeError, r"3\*batch elements"),
    (lambda: NODES.reshape(leaf(2, 3), shape=(-1,)), ShapeError, "extents >= 0"),
    (lambda: NODES.permute(leaf(2, 3), axes=(0, 0)), ShapeError, "not an order of the axes"),
    (lambda: NODES.expand(leaf(2), shape=(3,)), ShapeError, r"does not expand to \[3\]"),
    (lambda: NODES.expand(leaf(3, 2), shape=(2,)), ShapeError, "does not expand"),
    (lambda: NODES.slice(leaf(4), starts=(0,), limits=(5,), steps=(1,)), ShapeError,
     "0:5:1 is not within 0:4 in axis 0"),
    (lambda: NODES.slice(leaf(4), starts=(0,), limits=(4,), steps=(0,)), ShapeError, "0:4:0"),
    (lambda: NODES.slice(leaf(4), starts=(0, 0), limits=(4,), steps=(1,)), ShapeError,
     "starts must be a tuple of 1"),
    (lambda: NODES.flip(leaf(4), axes=(1,)), ShapeError, r"axis 1 is not in 0 … 0"),
    (lambda: NODES.pad(leaf(4), low=(-1,), high=(0,), value=0), ShapeError, "must be >= 0"),
    (lambda: NODES.concatenate(leaf(2, 3), leaf(2, 4), axis=0), ShapeError,
     "may differ in axis 0 only"),
    (lambda: NODES.reduce_sum(leaf(2, 3), axes=(1, 0)), ShapeError, "increasing"),
    (lambda: NODES.reduce_sum(leaf(2, 3), axes=1), ShapeError, "axes must be a tuple"),
    (lambda: NODES.reduce_max(leaf(0, 3), axes=(0,)), ShapeError, "hold no elements"),
    (lambda: NODES.argmax(leaf(3), axis=1), ShapeError, "axis 1 is not in"),
    (lambda: NODES.gather(leaf(3, 4), leaf(3, 2), axis=1), DTypeError, "integer positions"),
    (lambda: NODES.gather(leaf(3, 4), leaf(2, 2, dtype=int64), axis=1), ShapeError, "axis 1 only"),
    (lambda: NODES.cast(leaf(3), dtype="f32"), DTypeError, "cannot cast to 'f32'"),
    (lambda: emit("iota", shape=(3,), axis=1, dtype=int64), ShapeError, "axis 1"),
    (lambda: NODES.random_bits(leaf(2), shape=(3,), call=0, word=0), DTypeError, "key is i64"),
    (lambda: NODES.random_bits(leaf(2, dtype=int64), shape=(3,), call=0, word=4), GraphError,
     "word 0 to 3"),
    (lambda: emit("input", name="x"), GraphError, "has the type it is declared with"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes_are_explained(mistake: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        mistake()
    assert isinstance(caught.value, GraphFlowError)


@pytest.mark.parametrize("bad", [5, -1])
@pytest.mark.parametrize(
    ("op", "operands"),
    [
        ("take", lambda i: (np.zeros((5, 2)), np.array([0, i]))),
        ("gather", lambda i: (np.zeros((5, 1)), np.array([[i]]))),
        ("scatter_add", lambda i: (np.zeros(5), np.array([i]), np.ones(1))),
        ("take", lambda i: (np.zeros(5), np.array(i))),
    ],
)
def test_a_position_out_of_range_is_an_error(op: str, operands: Any, bad: int) -> None:
    with pytest.raises(IndexRangeError, match=f"{op}: index {bad} is out of range for axis 0"):
        evaluate(op, *operands(bad), axis=0)


def test_every_oracle_belongs_to_an_operation() -> None:
    from graphflow.ir.op import all_ops

    assert set(ORACLES) - {op.name for op in all_ops()} == set()
