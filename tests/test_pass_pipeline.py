"""The order of passes, the records of their runs, and what the flags print."""

import itertools
import pathlib
import time

import numpy as np
import pytest
from graphs import assert_same_results, random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow import flags
from graphflow.ir.build import NODES, input_node, state_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32, float64
from graphflow.passes.autodiff import differentiate
from graphflow.passes.fold import Fold
from graphflow.passes.pipeline import PIPELINE, Stage, Step, describe, run_pipeline

TEXT = """\
graph main {
  %x: f32[8] = input(name="x")
  %0: f32[] = constant(0.5)
  %1: f32[] = add(%0, %0)
  %2: f32[8] = mul(%x, %1)
  %3: f32[8] = stop_gradient(%2)
  %4: f32[8] = add(%3, %x)
  %5: f32[8] = add(%x, %2)
  %6: f32[8] = sub(%4, %5)
  return %6
}
"""


def test_the_order() -> None:
    assert describe() == (
        "widen,integer_products,picked,winograd,decompose,split_complex,(fold,simplify,cse)*,"
        "narrow,loop_products,channels_last,simplify,sliced,simplify,dce,fuse"
    )
    assert all(step.reason for step in PIPELINE)


def test_records() -> None:
    stages = run_pipeline(Graph.parse(TEXT))
    assert [s.name for s in stages] == [
        "traced", "widen", "integer_products", "picked", "winograd", "decompose",
        "split_complex", "fold", "simplify", "cse", "fold", "simplify", "cse", "narrow",
        "loop_products", "channels_last", "simplify", "sliced", "simplify", "dce", "fuse",
    ]  # fmt: skip
    assert stages[0].note == "traced: 8 nodes" and stages[7].note == "fold: 8 → 7 nodes"
    assert stages[8].note == "simplify: 7 → 3 nodes"
    assert stages[9].note == "cse: 3 nodes, unchanged" and stages[9].graph is stages[8].graph
    assert all(a.nodes == b.before for a, b in itertools.pairwise(stages))
    assert str(stages[8]).startswith("simplify: 7 → 3 nodes (")


@pytest.mark.parametrize("seed", range(60))
def test_every_pass_keeps_every_result(seed: int) -> None:
    case = random_graph(seed, 40, symbolic=seed % 3 == 0)

    def check(stage: Stage, step: Step | None) -> None:
        reached = step is not None and step.stage is not None
        stage.graph.verify(step.stage if reached else None)  # type: ignore[union-attr]
        text = str(stage.graph)
        assert Graph.parse(text).same_as(stage.graph) and str(Graph.parse(text)) == text
        assert stage.graph.inputs == case.graph.inputs
        assert_same_results(case.graph, stage.graph, case, 3e-6)

    run_pipeline(case.graph, callback=check)


def test_debug_prints_the_graphs_and_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    with flags.override(debug=3):
        run_pipeline(Graph.parse(TEXT))
    text = capsys.readouterr().err
    assert "# fold: 8 → 7 nodes" in text and "stop_gradient(%" in text and "×" not in text
    with flags.override(debug=5):
        run_pipeline(Graph.parse(TEXT))
    text = capsys.readouterr().err
    assert "1 × stop_gradient(%x)" in text and "1 × mul(%x, 1.0)" in text
    run_pipeline(Graph.parse(TEXT))
    assert not capsys.readouterr().err


def test_dump_writes_a_file_a_stage(tmp_path: pathlib.Path) -> None:
    graph = Graph.parse(TEXT.replace("main", '"a/b"'))
    with flags.override(dump=str(tmp_path)):
        run_pipeline(graph)
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"a_b_{graph.hash()[:8]}"
    names = sorted(p.name for p in folder.iterdir())
    assert names[:3] == ["00_traced.ir", "07_fold.ir", "08_simplify.ir"]
    assert Graph.parse((folder / "00_traced.ir").read_text()).same_as(graph)


def test_options_show_in_the_description() -> None:
    assert describe((Step((Fold(limit=3),), "for a test"),)) == "fold{limit=3}"


# ---- size --------------------------------------------------------------------------------------


def mlp_step(depth: int, batch: int = 32, width: int = 16) -> Graph:
    """Forward, backward and SGD update of an MLP, as the front would emit it."""
    x = input_node("x", TensorType(float32, (batch, width)))
    lr = input_node("lr", TensorType(float64, ()))
    state: list[Node] = []
    hidden = x
    for i in range(depth):
        w = state_node(f"w{i}", TensorType(float32, (width, width)))
        b = state_node(f"b{i}", TensorType(float32, (width,)))
        state += [w, b]
        turned = NODES.permute(w, axes=(1, 0))
        hidden = NODES.relu(NODES.matmul(hidden, turned) + b)
    loss = NODES.reduce_sum(NODES.pow(hidden, 2.0), axes=(0, 1)) / float(batch * width)
    graph = Graph((x, lr), (loss,), tuple(state))
    both = differentiate(graph, [n.attrs["name"] for n in state])
    rate = NODES.cast(lr, dtype=float32)
    updates = tuple((w, NODES.sub(w, rate * g)) for w, g in zip(state, both.outputs[1:]))
    return Graph((x, lr), (loss,), tuple(state), updates, locations=both.locations)


def test_a_training_step() -> None:
    graph = mlp_step(4)
    assert 60 <= len(graph.nodes) <= 200
    start = time.perf_counter()
    stages = run_pipeline(graph)
    print(f"{len(graph.nodes)} nodes: {(time.perf_counter() - start) * 1e3:.1f} ms")
    rng = np.random.default_rng(3)
    state = {
        n.attrs["name"]: rng.standard_normal(n.shape).astype(np.float32) / 3 for n in graph.state
    }
    args = [rng.standard_normal((32, 16)).astype(np.float32), np.array(0.1)]
    (one,), (other,) = graph.run(*args, state=state), stages[-1].graph.run(*args, state=state)
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_time_is_near_linear_in_nodes() -> None:
    """A 10,000-node chain goes through; recursion or quadratic work would not end."""
    rnd = np.random.default_rng(5)
    node = x = input_node("x", TensorType(float32, (64,)))
    ops = ["tanh", "sin", "neg", "abs", "relu", "sigmoid"]
    for _ in range(10_000):
        kind = rnd.integers(3)
        if kind == 0:
            node = NODES.emit(ops[rnd.integers(len(ops))], node)
        else:
            node = NODES.emit(["add", "mul"][kind - 1], node, float(rnd.integers(1, 90)) / 8)
    graph = Graph((x,), (node,))
    start = time.perf_counter()
    stages = run_pipeline(graph)
    print(f"{len(graph.nodes)} nodes: {time.perf_counter() - start:.2f} s")
    for stage in stages:
        print(stage)
    stages[-1].graph.verify("fused")
