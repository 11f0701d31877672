"""Functions and modules as ONNX, against the reference evaluator of the package onnx."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, pytree
from graphflow.capture import captured_memory
from graphflow.errors import GraphError
from graphflow.onnx import export, load, load_graph

SEED = 11
Spec = gf.TensorSpec


def inputs_for(specs: tuple[Any, ...], batch: int = 3) -> list[Any]:
    rng = np.random.default_rng(SEED)
    shapes = [tuple(batch if isinstance(d, str) else d for d in s.shape) for s in specs]
    return [
        rng.standard_normal(shape).astype(s.dtype.numpy)
        if s.dtype.is_floating_point else rng.integers(0, 4, shape).astype(s.dtype.numpy)
        for shape, s in zip(shapes, specs)
    ]  # fmt: skip


def agrees(function: Any, *specs: Any, opset: int = 20, batch: int = 3) -> Counter[str]:
    """Export, compare with what the function gives eagerly; the operators that were written."""
    if isinstance(function, nn.Module):
        function.eval()
    model = export(function, specs, opset=opset)
    given = inputs_for(specs, batch)
    names = [i.name for i in model.graph.input]
    found = ReferenceEvaluator(model).run(None, dict(zip(names, given)))
    with gf.no_grad():
        expected = pytree.flatten(function(*map(gf.tensor, given)))[0]
    assert len(found) == len(expected)
    for ours, theirs in zip(expected, found):
        assert tuple(ours.shape) == np.shape(theirs)
        np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=1e-5)
    return Counter(n.op_type for n in model.graph.node)


# ---- layers are operators ------------------------------------------------------------

LAYERS: list[tuple[str, Callable[[], Any], tuple[Any, ...], int]] = [
    ("Gemm", lambda: nn.Linear(4, 2), (Spec(("n", 4)),), 20),
    ("MatMul", lambda: nn.Linear(4, 2, bias=False), (Spec(("n", 5, 4)),), 20),
    ("Conv", lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2), (Spec(("n", 4, 7, 6)),), 20),
    ("Conv", lambda: nn.Conv1d(2, 3, 2, padding="same"), (Spec((2, 2, 5)),), 20),
    ("ConvTranspose", lambda: nn.ConvTranspose2d(2, 3, 3, 2, 1, 1), (Spec((2, 2, 4, 4)),), 20),
    ("MaxPool", lambda: nn.MaxPool2d(3, 2, 1), (Spec((2, 2, 7, 8)),), 20),
    ("AveragePool", lambda: nn.AvgPool2d(2, padding=1), (Spec((2, 2, 5, 5)),), 20),
    ("GlobalAveragePool", lambda: nn.AdaptiveAvgPool2d(1), (Spec(("n", 2, 5, 5)),), 20),
    ("BatchNormalization", lambda: nn.BatchNorm2d(3), (Spec(("n", 3, 2, 2)),), 20),
    ("LayerNormalization", lambda: nn.LayerNorm((2, 4)), (Spec(("n", 2, 4)),), 20),
    ("GroupNormalization", lambda: nn.GroupNorm(2, 4), (Spec((2, 4, 5)),), 21),
    ("InstanceNormalization", lambda: nn.InstanceNorm1d(3, affine=True), (Spec((2, 3, 5)),), 20),
    ("RMSNormalization", lambda: nn.RMSNorm(4, 1e-5), (Spec((2, 4)),), 23),
    ("Gelu", nn.GELU, (Spec((9,)),), 20),
    ("Mish", nn.Mish, (Spec((9,)),), 20),
    ("Elu", lambda: nn.ELU(0.5), (Spec((9,)),), 20),
    ("Selu", nn.SELU, (Spec((9,)),), 20),
    ("LeakyRelu", lambda: nn.LeakyReLU(0.3), (Spec((9,)),), 20),
    ("HardSwish", nn.Hardswish, (Spec((9,)),), 20),
    ("Softplus", nn.Softplus, (Spec((9,)),), 20),
    ("Softmax", lambda: nn.Softmax(1), (Spec((2, 3, 4)),), 20),
    ("LogSoftmax", lambda: nn.LogSoftmax(-1), (Spec((2, 5)),), 20),
    ("Gather", lambda: nn.Embedding(4, 3), (Spec((2, "t"), gf.int64),), 20),
    ("LSTM", lambda: nn.LSTM(3, 5), (Spec((4, "n", 3)),), 20),
    ("GRU", lambda: nn.GRU(3, 5), (Spec((4, 2, 3)),), 20),
    ("RNN", lambda: nn.RNN(3, 5), (Spec((4, 2, 3)),), 20),
]


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case[0])
def test_a_layer_is_one_operator(case: Any) -> None:
    name, make, specs, opset = case
    gf.manual_seed(SEED)
    written = agrees(make(), *specs, opset=opset)
    assert written[name] == 1
    soup = {"ReduceSum", "Sqrt", "Erf", "Exp", "Scan", "Greater"}
    assert not soup & set(written)


def test_what_an_operator_cannot_say_is_written_out() -> None:
    def function(x: Any) -> Any:
        whole = (x * 4).to(gf.int32)[None]
        return F.softplus(x, threshold=1.0), F.max_pool1d(whole, 2), F.gelu(x, "tanh")

    written = agrees(function, Spec((3, 4)))
    assert written["Gelu"] == 1 and not {"Softplus", "MaxPool"} & set(written)


def test_older_versions_are_written_with_what_they_have() -> None:
    written = agrees(nn.Sequential(nn.LayerNorm(4), nn.GELU()), Spec((2, 4)), opset=14)
    assert {"Erf", "Sqrt"} <= set(written)


# ---- everything else -----------------------------------------------------------------


def elementwise(x: Any, y: Any) -> Any:
    return (
        x % y, gf.div(x, y, rounding_mode="floor"), gf.fmod(x, y), gf.where(x > y, x, y),
        (x > 0) ^ (y > 0), gf.where(x > 0, x > y, x < y), gf.trunc(x), gf.log1p(gf.exp(x)),
        gf.hypot(x, y), gf.rsqrt(gf.abs(x)), (x > 0).sum(), (x * 3).to(gf.int32) // 2,
        gf.clamp(x, -0.5, 0.5), gf.exp2(x), gf.expm1(y), gf.isnan(x),
    )  # fmt: skip


def shapes(x: Any, y: Any) -> Any:
    return (
        x.flip(0), x[:, 1::2], x[-1], F.pad(x, (1, 2)), gf.cat([x, y], 1), gf.stack([x, y]),
        gf.tril(x), x.t() @ y, gf.einsum("ij,kj->ik", x, y), gf.sort(x, 1)[0], gf.topk(x, 2)[1],
        x.cumsum(1), x.argmax(1), x.gather(1, (y > 0).long()), x.amax(0), x.var(1),
        gf.logsumexp(x, 1), x.mean(1, keepdim=True), gf.arange(4) + x, F.unfold(x[None, None], 2),
    )  # fmt: skip


@pytest.mark.parametrize("function", [elementwise, shapes])
def test_primitives_have_operators(function: Any) -> None:
    agrees(function, Spec((4, 4)), Spec((4, 4)))


def test_sizes_are_computed_where_they_are_symbolic() -> None:
    def function(x: Any) -> Any:
        n = x.shape[0]
        wide = x.reshape(n * 2, 2).expand(3, n * 2, 2)
        return wide, x.sum() / n, gf.cat([x, x]), gf.arange(n) * 2

    for batch in (2, 5):
        agrees(function, Spec(("n", 4)), batch=batch)


def test_control_flow_has_graphs_of_its_own() -> None:
    def function(x: Any) -> Any:
        chosen = gf.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1)
        grown = gf.while_loop(lambda c: c.sum() < 100, lambda c: c * c + 1.5, x)
        last, all_ = gf.scan(lambda c, i: (c + i * x[0], c * i), gf.zeros(3), x[:, None] + grown)
        return chosen, grown, last, all_

    written = agrees(function, Spec((3,)))
    assert written["If"] == written["Loop"] == written["Scan"] == 1


# ---- files ---------------------------------------------------------------------------


def small() -> nn.Module:
    gf.manual_seed(SEED)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()


@pytest.mark.parametrize("external", [False, True])
def test_what_is_written_can_be_loaded(tmp_path: Path, external: bool) -> None:
    path, model = tmp_path / "small.onnx", small()
    export(model, (Spec(("n", 1, 4, 4)),), path, external=external, output_names=["scores"])
    assert (tmp_path / "small.onnx.data").exists() == external
    held = onnx.load(path)
    assert (held.ir_version, held.opset_import[0].version) == (9, 20)
    assert held.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert [o.name for o in held.graph.output] == ["scores"]
    program = load(path)
    assert set(program.state_dict()) == set(model.state_dict())
    for batch in (2, 3):
        (x,) = inputs_for((Spec(("n", 1, 4, 4)),), batch)
        np.testing.assert_allclose(program(x).numpy(), model(gf.tensor(x)).numpy(force=True),
                                   rtol=1e-5, atol=1e-6)  # fmt: skip


def test_sizes_stay_symbolic_on_the_way_out_and_in() -> None:
    gf.manual_seed(SEED)
    layer = nn.LSTM(3, 4).eval()  # its first state is made for any number of sequences
    graph = load_graph(export(layer, (Spec((5, "n", 3)),)))
    memory = captured_memory(graph)
    assert memory is not None
    state = {n.attrs["name"]: c.value for n, c in zip(graph.state, memory.cells)}
    for batch in (2, 4):
        (x,) = inputs_for((Spec((5, "n", 3)),), batch)
        expected = layer(gf.tensor(x))[0].numpy(force=True)
        np.testing.assert_allclose(graph.run(x, state=state)[0], expected, rtol=1e-4, atol=1e-5)


def test_programs_and_graphs_are_written_too() -> None:
    model = small()
    graph = gf.trace(model, Spec((2, 1, 4, 4)))
    (x,) = inputs_for((Spec((2, 1, 4, 4)),))
    expected = model(gf.tensor(x)).numpy(force=True)
    for target, args in ((graph, ()), (gf.compile(graph), ()), (gf.compile(model), gf.tensor(x))):
        written = export(target, args)
        (found,) = ReferenceEvaluator(written).run(None, {written.graph.input[0].name: x})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert Counter(n.op_type for n in written.graph.node)["Conv"] == 1


def test_a_round_trip_gives_the_same_operators() -> None:
    specs = (Spec((2, 1, 4, 4)),)
    once = export(small(), specs)
    graph = load_graph(once)
    again = export(gf.compile(graph))
    counts = [Counter(n.op_type for n in m.graph.node) for m in (once, again)]
    assert counts[0]["Conv"] == counts[1]["Conv"] == 1


def test_a_loss_keeps_names_and_has_gradients_when_it_comes_back() -> None:
    model = small()

    def loss(x: Any) -> Any:
        return (model(x) ** 2).mean()

    graph = load_graph(export(loss, (Spec((2, 1, 4, 4)),)))
    names = [n.attrs["name"] for n in graph.state]
    assert set(names) == {f"model.{name}" for name in model.state_dict()}
    memory = captured_memory(graph)
    assert memory is not None
    state = {n: c.value for n, c in zip(names, memory.cells, strict=True)}
    (x,) = inputs_for((Spec((2, 1, 4, 4)),))
    found = gf.grad(graph, names).run(x, state=state)[1:]
    loss(gf.tensor(x)).backward()
    for name, gradient in zip(names, found, strict=True):
        expected = model.get_parameter(name.removeprefix("model.")).grad.numpy()
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


# ---- what cannot be exported ---------------------------------------------------------


def test_operations_without_an_operator_are_listed_at_once() -> None:
    with pytest.raises(GraphError, match=r"(?s)digamma: .*test_onnx_export.py.*atan2: ") as caught:
        export(lambda x: gf.atan2(x, gf.special.digamma(x)), (Spec((3,)),))
    assert str(caught.value).count("\n") == 2


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(GraphError, match=r"changes .*running_mean.*eval\(\)"):
        export(nn.BatchNorm1d(3), (Spec((4, 3)),))
    with pytest.raises(GraphError, match=r"eval\(\)"):
        export(nn.Dropout(0.5), (Spec((4, 3)),))


def test_axes_of_example_tensors_can_be_dynamic() -> None:
    def function(first: Any, second: Any) -> Any:
        return first + second

    given = (gf.zeros(2, 3), gf.zeros(3))
    model = export(function, given, dynamic={"first": {0: "rows"}})
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "rows"
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "rows"
    with pytest.raises(GraphError, match="dynamic names third; the inputs are first, second"):
        export(function, given, dynamic={"third": {0: "rows"}})


def test_options_are_checked() -> None:
    for options, message in (
        ({"opset": 5}, "opset must be"),
        ({"output_names": ["a", "b"]}, "has 2 names"),
    ):
        with pytest.raises(GraphError, match=message):
            export(small(), (Spec((1, 1, 4, 4)),), **options)


def test_pytorchs_options_are_ours(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Model(nn.Module):
        def forward(self, x: gf.Tensor) -> gf.Tensor:
            seen.append(gf.onnx.is_in_onnx_export())
            return x * 2

    model, x = Model(), gf.ones(4, 3)
    export(
        model, x, tmp_path / "a.onnx", export_params=True, opset_version=17, dynamo=False,
        do_constant_folding=True, input_names=["images"], output_names=["scores"],
        dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}},
    )  # fmt: skip
    written = onnx.load(tmp_path / "a.onnx")
    (given,), (made,) = written.graph.input, written.graph.output
    assert (given.name, made.name, written.opset_import[0].version) == ("images", "scores", 17)
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    export(
        model, (x,), f=tmp_path / "b.onnx", dynamic_axes={"x": [1]}, external_data=False,
        training=gf.onnx.TrainingMode.EVAL, operator_export_type=gf.onnx.OperatorExportTypes.ONNX,
    )  # fmt: skip
    (given,) = onnx.load(tmp_path / "b.onnx").graph.input
    assert [d.dim_param for d in given.type.tensor_type.shape.dim] == ["", "x_dim_1"]
    model(x)
    assert seen == [True, True, False]
    with pytest.raises(TypeError, match="unexpected keyword argument 'opset_versions'"):
        export(model, (x,), opset_versions=17)
    with pytest.raises(ValueError, match="export_params=False is not there"):
        export(model, (x,), export_params=False)
    with pytest.raises(GraphError, match="opset must be from 14 to 24, not 11"):
        export(model, (x,), opset_version=11)
