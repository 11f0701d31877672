"""Files in ONNX's QDQ form: products are of integers, and results those of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphflow as gf
from graphflow.ir.types import int32
from graphflow.passes.integer_products import IntegerProducts

onnxruntime = pytest.importorskip("onnxruntime")

SEED = 7
STEP = 0.05
KINDS = {"u8": np.uint8, "i8": np.int8}


class Writer:
    """Nodes and initial values of a model, each tensor behind a pair of rounding and back."""

    def __init__(self, kind: str) -> None:
        self.kind, self.nodes, self.values = KINDS[kind], [], []
        self.rng = np.random.default_rng(SEED)

    def value(self, array: Any) -> str:
        """An initial value."""
        name = f"v{len(self.values)}"
        self.values.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind: str, *inputs: str, **attrs: Any) -> str:
        """A node with one result."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attrs))
        return name

    def rounded(self, x: str, scale: float = STEP, zero: int = 3) -> str:
        """``x`` as integers, and as numbers again."""
        own = self.value(np.float32(scale)), self.value(self.kind(zero))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *own), *own)

    def weight(
        self, *shape: int, axis: int | None = None, kind: Any = np.int8, zero: int = 0
    ) -> str:
        """A weight of integers, as numbers."""
        info = np.iinfo(kind)
        whole = self.rng.integers(info.min, info.max + 1, shape).astype(kind)
        count = () if axis is None else (shape[axis],)
        scale = (self.rng.random(count) * 0.01 + 0.001).astype(np.float32)
        options = {} if axis is None else {"axis": axis}
        own = self.value(whole), self.value(scale), self.value(np.full(count, zero, kind))
        return self.node("DequantizeLinear", *own, **options)


def _product(w: Writer, one: str, other: str) -> str:
    return w.node("MatMul", one, other)


def _conv(w: Writer, x: str, axis: int | None = 0, zero: int = 0, **attrs: Any) -> str:
    bias = w.value(w.rng.standard_normal(6).astype(np.float32))
    groups = attrs.get("group", 1)
    return w.node(
        "Conv", w.rounded(x), w.weight(6, 4 // groups, 3, 3, axis=axis, zero=zero), bias, **attrs
    )


CASES: dict[str, tuple[tuple[int, ...], Callable[[Writer, str], str]]] = {
    "convolution": ((2, 4, 7, 8), lambda w, x: _conv(w, x, pads=[1, 0, 2, 1], strides=[2, 1])),
    "one scale": ((2, 4, 7, 8), lambda w, x: _conv(w, x, axis=None, dilations=[2, 2])),
    "gemm": ((5, 24), lambda w, x: w.node("Gemm", w.rounded(x), w.weight(7, 24, axis=0), transB=1)),
    "matmul": ((3, 5, 24), lambda w, x: _product(w, w.rounded(x), w.weight(24, 7, axis=1))),
    "uint8": (
        (5, 24), lambda w, x: _product(w, w.rounded(x), w.weight(24, 7, kind=np.uint8, zero=120))
    ),
    "weight first": ((24, 5), lambda w, x: _product(w, w.weight(7, 24, axis=0), w.rounded(x))),
    "batches": ((3, 5, 24), lambda w, x: _product(w, w.rounded(x), w.weight(3, 24, 7))),
    "two inputs": (
        (3, 5, 24),
        lambda w, x: _product(
            w, w.rounded(x), w.node("Transpose", w.rounded(x, 0.04, 9), perm=[0, 2, 1])
        ),
    ),
}  # fmt: skip
FLOATS: dict[str, tuple[tuple[int, ...], Callable[[Writer, str], str]]] = {
    "groups": ((2, 4, 7, 8), lambda w, x: _conv(w, x, group=2)),
    "zero points of taps": ((2, 4, 7, 8), lambda w, x: _conv(w, x, zero=1)),
    "scales along sums": ((5, 24), lambda w, x: _product(w, w.rounded(x), w.weight(24, 7, axis=0))),
    "short sums": ((5, 8), lambda w, x: _product(w, w.rounded(x), w.weight(8, 7, axis=1))),
    "a float": ((5, 24), lambda w, x: _product(w, x, w.weight(24, 7, axis=1))),
}  # fmt: skip


def _model(kind: str, shape: tuple[int, ...], make: Callable[[Writer, str], str]) -> Any:
    w = Writer(kind)
    out = w.rounded(make(w, "x"), 0.3, 5)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    graph = helper.make_graph(w.nodes, "qdq", [given], [made], w.values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def _agrees(model: Any, shape: tuple[int, ...]) -> None:
    """Within one step of the result's scale, and nearly everywhere the same."""
    x = 2 * np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (wanted,) = session.run(None, {"x": x})
    found = gf.onnx.load(model)(gf.tensor(x)).numpy()
    assert len(np.unique(wanted)) > 8
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.3 + 1e-5)
    assert (np.abs(found - wanted) > 1e-5).mean() < 0.03


def _integers(model: Any) -> int:
    nodes = IntegerProducts().run(gf.onnx.load_graph(model)).nodes
    return sum(n.op.kind.name == "CONTRACTION" and n.dtype is int32 for n in nodes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_products_are_of_integers(case: str, kind: str) -> None:
    shape, make = CASES[case]
    model = _model(kind, shape, make)
    assert _integers(model) == 1
    _agrees(model, shape)


@pytest.mark.parametrize("case", FLOATS)
def test_what_is_left_to_floats(case: str) -> None:
    shape, make = FLOATS[case]
    model = _model("u8", shape, make)
    assert _integers(model) == 0
    _agrees(model, shape)


def test_nothing_but_integers_is_stored_between_products() -> None:
    """With a pooling between, whose pairs of rounding and back leave nothing to do."""

    def make(w: Writer, x: str) -> str:
        first = w.rounded(w.node("Relu", _conv(w, x, pads=[1, 1, 1, 1])), 0.2, 0)
        pooled = w.rounded(w.node("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2]), 0.2, 0)
        bias = w.value(np.zeros(9, np.float32))
        return w.node("Conv", pooled, w.weight(9, 6, 3, 3, axis=0), bias)

    shape = (2, 4, 12, 16)
    model = _model("i8", shape, make)
    assert _integers(model) == 2
    _agrees(model, shape)
    program = gf.onnx.load(model)
    stored = [b.type for b in program.schedule.buffers if b.kind.value == "arena"]
    large = {t.dtype.short for t in stored if t.numel > 2 * 6 * 6 * 8}
    assert "i8" in large and "f32" not in large
