"""Models of 8-bit integers as ONNX: checked, and the same in ONNX Runtime and loaded again."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import graphflow as gf
from graphflow import nn, quantization
from graphflow.dispatch import apply
from graphflow.errors import GraphError

onnxruntime = pytest.importorskip("onnxruntime")

SEED = 5
BACKENDS = ["x86", "qnnpack"]  # scales of weights: a channel's, a tensor's


def static(layers: list[nn.Module], backend: str, *shape: int) -> tuple[nn.Module, gf.Tensor]:
    """The layers, calibrated by what is returned with them, of integers."""
    model = nn.Sequential(*layers).eval()
    model.qconfig = quantization.get_default_qconfig(backend)
    prepared = quantization.prepare(model)
    x = gf.tensor(np.random.default_rng(SEED).standard_normal(shape).astype(np.float32))
    prepared(x)
    return quantization.convert(prepared), x


def agrees(function: Any, *given: gf.Tensor, atol: float = 1e-6, **options: Any) -> Counter[str]:
    """Export, check, run in ONNX Runtime as it is written, load; the operators."""
    model = gf.onnx.export(function, given, **options)
    onnx.checker.check_model(model, full_check=True)
    wanted = function(*given).numpy(force=True)
    # Optimisations take products of integers together, which saturate on some processors.
    session_options = onnxruntime.SessionOptions()
    session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options)
    names = [each.name for each in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (x.numpy() for x in given), strict=True)))
    for other in (found, gf.onnx.load(model)(*given).numpy()):
        assert other.dtype == wanted.dtype
        np.testing.assert_allclose(other, wanted, rtol=0, atol=atol)
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(5, 12), (2, 5, 12), (12,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(backend: str, shape: tuple[int, ...], bias: bool) -> None:
    gf.manual_seed(SEED)
    written = agrees(*static([nn.Linear(12, 7, bias=bias)], backend, *shape))
    assert written["QuantizeLinear"] == 1 and written["DequantizeLinear"] == 2
    assert written["Gemm" if len(shape) == 2 else "MatMul"] == 1


CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "groups": (lambda: nn.Conv2d(4, 6, 3, 2, (1, 2), groups=2, bias=False), (2, 4, 9, 8)),
    "same": (lambda: nn.Conv1d(4, 6, 4, padding="same", dilation=2), (2, 4, 11)),
    "reflect": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 5)),
    "3d": (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4)),
    "unbatched": (lambda: nn.Conv2d(2, 3, 3), (2, 5, 6)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(backend: str, case: str) -> None:
    make, shape = CONVOLUTIONS[case]
    gf.manual_seed(SEED)
    written = agrees(*static([make()], backend, *shape))
    assert written["Conv"] == 1 and written["DequantizeLinear"] == 2


@pytest.mark.parametrize("opset", [14, 24])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network(backend: str, opset: int) -> None:
    """Weights are stored as they are, and any number of images goes through."""
    gf.manual_seed(SEED)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
              nn.Linear(64, 10)]  # fmt: skip
    model, x = static(layers, backend, 3, 1, 8, 8)
    # A sum that is rounded otherwise may fall on the next integer.
    agrees(model, x, atol=0.02, opset=opset, dynamic={"input": {0: "n"}})
    written = gf.onnx.export(model, x, opset=opset)
    held = {each.name: each.data_type for each in written.graph.initializer}
    assert {"0.weight", "4.weight"} <= {n for n, t in held.items() if t == onnx.TensorProto.INT8}
    assert held["0.bias"] == onnx.TensorProto.FLOAT and "0.weight_total" not in held


def test_dynamic_layers_are_written_out() -> None:
    gf.manual_seed(SEED)
    x = gf.randn(4, 3, 12)
    linear = quantization.quantize_dynamic(nn.Sequential(nn.Linear(12, 7)))
    assert agrees(linear, x)["MatMulInteger"] == 1
    layer = quantization.quantize_dynamic(nn.LSTM(12, 7).eval())
    written = agrees(lambda x: layer(x)[0], x, atol=4e-3)
    assert written["Scan"] == 1 and written["MatMulInteger"] == 1


def test_a_product_that_is_loaded_is_one_of_small_integers() -> None:
    gf.manual_seed(SEED)
    model = quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 32)))
    program = gf.onnx.load(gf.onnx.export(model, gf.randn(8, 64)))
    kernels = [step.kernel.name for step in program.schedule.steps]
    assert any(name.startswith(("mm_dots_i8", "mm_pairs_i8", "mm_quads_i8")) for name in kernels)


def test_tables_and_cells() -> None:
    """Rows are read as bytes; what is read is made numbers."""
    gf.manual_seed(SEED)
    tables = quantization.quantize_dynamic(
        nn.ModuleList([nn.Embedding(9, 4), nn.EmbeddingBag(9, 4)]), dtype=gf.quint8
    )
    index = gf.tensor([[1, 8, 3], [0, 0, 7]])
    for table in tables:
        written = gf.onnx.export(table, index)
        assert onnx.TensorProto.UINT8 in {each.data_type for each in written.graph.initializer}
        agrees(table, index)
    cell = quantization.quantize_dynamic(nn.Sequential(nn.GRUCell(6, 5)))
    assert agrees(cell, gf.randn(3, 6), atol=4e-3)["MatMulInteger"] == 2


def _convolved(x: gf.Tensor, kernel: gf.Tensor) -> gf.Tensor:
    geometry = {"low": (1, 0), "high": (1, 1), "steps": (1, 1), "dilations": (1, 2)}
    return apply("conv", x, kernel, **geometry, spread=(1, 1), dtype=gf.int32)


def test_products_of_integers() -> None:
    """Sums are as wide as they are in the program, and wrap around as they do there."""
    rng = np.random.default_rng(SEED)

    def whole(dtype: Any, *shape: int) -> gf.Tensor:
        return gf.tensor(rng.integers(0, 100, shape), dtype=dtype)

    def wide(a: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        return apply("matmul", a, b, dtype=gf.int32)

    for dtype in (gf.int8, gf.uint8):
        assert agrees(wide, whole(dtype, 2, 3, 9), whole(dtype, 2, 9, 5), atol=0)["MatMulInteger"]
    assert agrees(wide, whole(gf.int16, 3, 9), whole(gf.int16, 9, 5), atol=0)["MatMul"]
    for dtype in (gf.int8, gf.int16, gf.int32, gf.int64):
        agrees(lambda a, b: a @ b, whole(dtype, 3, 9), whole(dtype, 9, 5), atol=0)
    x, kernel = whole(gf.int8, 2, 2, 3, 6, 6), whole(gf.int8, 2, 4, 3, 3, 3)
    assert agrees(_convolved, x, kernel, atol=0)["ConvInteger"] == 1


def test_types_that_no_operator_takes_are_named() -> None:
    """All of them at once, with their places."""
    given = [gf.TensorSpec(s, gf.int32) for s in ((2, 2, 3, 6, 6), (2, 4, 3, 3, 3))]
    with pytest.raises(GraphError, match=r"conv at .*test_onnx_quantized\.py:\d+: Conv of int32"):
        gf.onnx.export(_convolved, given)
    narrow = gf.TensorSpec((3, 4), gf.int8)
    with pytest.raises(
        GraphError, match=r"(?s)pow at .*: Pow of int8.*cumsum at .* CumSum of int8"
    ):
        gf.onnx.export(lambda x: (x**x, x.cumsum(0, dtype=gf.int8)), narrow)


def test_it_is_not_loaded_before_it_is_needed() -> None:
    code = "import graphflow, sys; assert 'graphflow.quantization' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
