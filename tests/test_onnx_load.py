"""ONNX models as programs, against the reference evaluator of the package onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import graphflow as gf
from graphflow.capture import captured_memory
from graphflow.errors import GraphError
from graphflow.onnx import load, load_graph, load_module
from graphflow.onnx.operators.everything import OPERATORS
from graphflow.onnx.translate import NeedsValue

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
SEED = 7


def model_of(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any],
    weights: dict[str, Any] | None = None, opset: int = 18,
) -> onnx.ModelProto:  # fmt: skip
    """A model; inputs and outputs are ``name: (element type, shape)``."""
    graph = helper.make_graph(
        nodes, "tested",
        [helper.make_tensor_value_info(n, *t) for n, t in inputs.items()],
        [helper.make_tensor_value_info(n, *t) for n, t in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run(graph: gf.Graph, *inputs: Any) -> tuple[Any, ...]:
    """A loaded graph in the interpreter."""
    captured = captured_memory(graph)
    assert captured is not None
    state = {n.attrs["name"]: c.value for n, c in zip(graph.state, captured.cells, strict=True)}
    return graph.run(*inputs, state=state)


def arrays(*shapes: Any) -> list[Any]:
    rng = np.random.default_rng(SEED)
    drawn = [rng.standard_normal(s) if isinstance(s, tuple) else s for s in shapes]
    return [np.asarray(a, np.float32) if isinstance(s, tuple) else np.asarray(s)
            for a, s in zip(drawn, shapes)]  # fmt: skip


def typed(array: Any) -> Any:
    array = np.asarray(array)
    return helper.np_dtype_to_tensor_dtype(array.dtype), array.shape


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


CASES: list[tuple[str, list[Any], dict[str, Any], int]] = [
    ("Gemm", [(3, 4), (5, 4), (5,)], {"transB": 1, "alpha": 0.5, "beta": 2.0}, 1),
    ("Conv", [(1, 2, 5, 6), (4, 1, 3, 2), (4,)], {"group": 2, "pads": [1, 0, 2, 1]}, 1),
    ("Conv", [(1, 1, 7, 7), (1, 1, 3, 3)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, 1),
    ("ConvTranspose", [(1, 2, 3, 3), (2, 2, 3, 3)], {"strides": [2, 2], "pads": [1, 1, 0, 0]}, 1),
    ("MaxPool", [(1, 2, 7, 8)], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}, 1),
    ("AveragePool", [(1, 2, 6, 6)], {"kernel_shape": [3, 3], "pads": [1, 1, 0, 0]}, 1),
    ("BatchNormalization", [(2, 3, 4), (3,), (3,), (3,), np.float32([1, 2, 3])], {}, 1),
    ("LayerNormalization", [(2, 3, 4), (4,), (4,)], {"epsilon": 1e-3}, 1),
    ("Softmax", [(2, 3, 4)], {"axis": 1}, 1),
    ("LogSoftmax", [(2, 5)], {}, 1),
    ("HardSigmoid", [(9,)], {"alpha": 0.3}, 1),
    ("Selu", [(9,)], {}, 1),
    ("ReduceMean", [(2, 3, 4), ints(1, -1)], {"keepdims": 0}, 1),
    ("ReduceLogSumExp", [(3, 4)], {}, 1),
    ("ArgMax", [np.float32([[1, 3, 3], [2, 2, 0]])], {"axis": 1, "select_last_index": 1}, 1),
    ("TopK", [(3, 6), ints(2)], {"largest": 0}, 2),
    ("CumSum", [(3, 4), np.array(1)], {"reverse": 1, "exclusive": 1}, 1),
    ("Slice", [(5, 6), ints(4, -1), ints(-9, 0), ints(0, 1), ints(-2, -3)], {}, 1),
    ("Gather", [(4, 3), ints(-1, 0, 2)], {"axis": 0}, 1),
    ("GatherND", [(2, 3, 4), np.array([[[0], [2]], [[1], [1]]])], {"batch_dims": 1}, 1),
    ("ScatterND", [(4, 3), np.array([[1], [3]]), (2, 3)], {}, 1),
    ("ScatterElements", [(3, 3), np.array([[0, 2, -1]]), (1, 3)], {"reduction": "add"}, 1),
    ("Pad", [(2, 3), ints(1, 0, 0, 2)], {"mode": "reflect"}, 1),
    ("Pad", [(2, 3), ints(0, 1, 2, 0), np.float32(7)], {}, 1),
    ("Split", [(2, 7), ints(3, 4)], {"axis": 1}, 2),
    ("Expand", [(3, 1), ints(2, 1, 4)], {}, 1),
    ("Tile", [(2, 3), ints(2, 2)], {}, 1),
    ("Einsum", [(2, 3), (3, 4)], {"equation": "ij,jk->ki"}, 1),
    ("DepthToSpace", [(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}, 1),
    ("OneHot", [np.array([0, -1, 5]), np.array(3), np.float32([2, 5])], {"axis": 0}, 1),
    ("Where", [np.array([True, False]), (2, 2), (2,)], {}, 1),
    ("LSTM", [(4, 2, 3), (1, 20, 3), (1, 20, 5), (1, 40)], {"hidden_size": 5}, 3),
    ("GRU", [(4, 2, 3), (1, 15, 3), (1, 15, 5), (1, 30)],
     {"hidden_size": 5, "linear_before_reset": 1}, 2),
    ("RNN", [(4, 2, 3), (2, 5, 3), (2, 5, 5)], {"hidden_size": 5, "direction": "bidirectional"}, 2),
    ("QuantizeLinear", [(3, 4), np.float32(0.1), np.uint8(128)], {}, 1),
    ("Trilu", [(3, 4), np.array(1)], {"upper": 0}, 1),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_an_operator_agrees_with_the_reference(case: Any) -> None:
    name, shapes, attributes, count = case
    given = arrays(*shapes)
    names = [f"x{k}" for k in range(len(given))]
    kinds = [helper.np_dtype_to_tensor_dtype(a.dtype) for a in given]
    outs = [f"y{k}" for k in range(count)]
    node = helper.make_node(name, names, outs, **attributes)
    inputs = {n: (t, a.shape) for n, t, a in zip(names, kinds, given)}
    bare = model_of([node], inputs, dict.fromkeys(outs, (F32, None)))
    expected = ReferenceEvaluator(bare).run(None, dict(zip(names, given)))
    model = model_of([node], inputs, {n: typed(a) for n, a in zip(outs, expected)})
    values = {n: a for n, a in zip(names, given) if a.dtype == np.int64 and name != "Gather"}
    rest = [a for n, a in zip(names, given) if n not in values]
    found = run(load_graph(model, values=values), *rest)
    assert len(found) == count
    for ours, theirs in zip(found, expected):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def perceptron(weights: dict[str, Any]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "first"], ["n1"]),
        helper.make_node("Concat", ["n1", "two", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["r", "wanted"], ["y"]),
    ]
    sizes = {"zero": np.array(0), "first": ints(0), "two": ints(2), "rest": ints(-1)}
    return model_of(
        nodes, {"x": (F32, ["batch", 3])}, {"y": (F32, ["batch", 2, 2])}, {**weights, **sizes}
    )


def weights() -> dict[str, Any]:
    weight, bias = arrays((4, 3), (4,))
    return {"fc1.weight": weight, "fc1.bias": bias}


def test_one_program_serves_every_batch_and_keeps_names(tmp_path: Path) -> None:
    path, given = tmp_path / "model.onnx", weights()
    onnx.save(perceptron(given), path)
    program = load(path)
    assert set(program.state_dict()) == {"fc1.weight", "fc1.bias"}
    for batch in (1, 5):
        (x,) = arrays((batch, 3))
        hidden = np.maximum(x @ given["fc1.weight"].T + given["fc1.bias"], 0)
        np.testing.assert_allclose(program(x).numpy(), hidden.reshape(batch, 2, 2), rtol=1e-5)


def test_weights_in_a_file_of_their_own_are_read(tmp_path: Path) -> None:
    given = weights()
    onnx.save(
        perceptron(given), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    (x,) = arrays((2, 3))
    found = run(load_graph(tmp_path / "m.onnx", shapes={"x": (2, 3)}), x)
    assert found[0].shape == (2, 2, 2)
    (tmp_path / "w.bin").unlink()
    with pytest.raises((GraphError, FileNotFoundError), match=r"m\.onnx|w\.bin"):
        load_graph(tmp_path / "m.onnx")


def test_a_loaded_model_trains() -> None:
    model = load_module(perceptron(weights()))
    x, target = (gf.tensor(a) for a in arrays((8, 3), (8, 2, 2)))
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1)

    def step() -> Any:
        optimizer.zero_grad()
        loss = gf.nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


def test_loops_and_branches() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["sum", "x"], ["next"]),
         helper.make_node("Identity", ["c"], ["d"]),
         helper.make_node("Mul", ["next", "next"], ["square"])],
        "body",
        [helper.make_tensor_value_info("i", I64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("sum", F32, [2])],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next", F32, [2]),
         helper.make_tensor_value_info("square", F32, [2])],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["last", "all"], body=body)]
    (x,) = arrays((2,))
    for steps in (3, 50):
        model = model_of(
            nodes, {"x": (F32, [2])}, {"last": (F32, [2]), "all": (F32, [steps, 2])},
            {"n": np.array(steps)},
        )  # fmt: skip
        last, squares = run(load_graph(model), x)
        np.testing.assert_allclose(last, (steps + 1) * x, rtol=1e-5)
        np.testing.assert_allclose(squares[-1], last * last, rtol=1e-5)


# ---- what cannot be loaded -----------------------------------------------------------


def test_unsupported_operators_are_listed_at_once() -> None:
    nodes = [
        helper.make_node("RegexFullMatch", ["x"], ["a"], name="matched", pattern="a"),
        helper.make_node("StringSplit", ["x"], ["b", "n"], name="cut"),
    ]
    string = TensorProto.STRING
    model = model_of(
        nodes, {"x": (string, [1])}, {"a": (TensorProto.BOOL, [1]), "b": (string, [1, 1])}, opset=20
    )
    with pytest.raises(GraphError, match=r"RegexFullMatch: matched\n  StringSplit: cut"):
        load(model)


def test_an_input_that_decides_shapes_is_asked_for() -> None:
    node = helper.make_node("Reshape", ["x", "to"], ["y"])
    model = model_of([node], {"x": (F32, [6]), "to": (I64, [2])}, {"y": (F32, [2, 3])})
    with pytest.raises(NeedsValue, match=r"values=\{'to': array") as caught:
        load_graph(model)
    assert caught.value.inputs == ("to",)
    (x,) = arrays((6,))
    assert run(load_graph(model, values={"to": ints(2, 3)}), x)[0].shape == (2, 3)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    whole = perceptron(weights()).SerializeToString()
    path = tmp_path / "m.onnx"
    for text in (whole[: len(whole) // 2], whole[:-3], b"", b"{}", b"PK\x03\x04" + bytes(50)):
        path.write_bytes(text)
        with pytest.raises(GraphError, match=r"m\.onnx"):
            load(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        load(tmp_path / "absent.onnx")


def test_future_versions_are_refused() -> None:
    model = perceptron(weights())
    model.ir_version = 999
    with pytest.raises(GraphError, match="IR version 999"):
        load(model)
    model = perceptron(weights())
    model.opset_import[0].version = 999
    with pytest.raises(GraphError, match="version 999 of the ONNX operators"):
        load(model)


def test_names_of_inputs_are_checked() -> None:
    with pytest.raises(GraphError, match="no input z; it has x"):
        load_graph(perceptron(weights()), values={"z": 1})


def test_the_page_lists_every_operator() -> None:
    page = (Path(__file__).parent.parent / "docs" / "onnx.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip(): file.strip(" `") for file, names in rows for name in names.split(",")}
    held = {
        ".".join(filter(None, key)): f"{o.function.__module__.rpartition('.')[2]}.py"
        for key, o in OPERATORS.items()
    }
    assert listed == held
