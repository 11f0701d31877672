"""Graphs as JSON, as DOT, and parts of graphs."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from graphs import random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.errors import GraphError
from graphflow.ir.build import NODES, constant, input_node, state_node
from graphflow.ir.graph import Graph, Location
from graphflow.ir.interp import interpret
from graphflow.ir.op import all_ops
from graphflow.ir.types import TensorType, float32
from graphflow.passes.pipeline import run_pipeline

F2 = TensorType(float32, (2,))


def small() -> Graph:
    x, w = input_node("x", F2), state_node("w", F2)
    double = NODES.add(x, x)
    result = NODES.sub(double, w)
    place = {double: Location('a "b" model.py', 3, "fc"), result: Location("m.py", 4, "fc.act")}
    return Graph((x,), (result,), (w,), ((w, double),), "main", place, {result: "loss"})


# ---- JSON --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_json_round_trip(seed: int) -> None:
    graph = random_graph(seed, 40, symbolic=bool(seed % 2)).graph
    again = Graph.from_json(graph.to_json())
    assert again.same_as(graph) and str(again) == str(graph)


@pytest.mark.parametrize("seed", range(5))
def test_json_of_every_stage(seed: int) -> None:
    for stage in run_pipeline(random_graph(seed, 60).graph):
        again = Graph.from_json(stage.graph.to_json(indent=1))
        assert str(again) == str(stage.graph), stage.name


def test_json_keeps_every_bit_of_constants_and_attributes() -> None:
    values = np.array([0.0, -0.0, np.inf, np.nan, 1e-45], np.float32)
    values.view(np.uint32)[3] = 0x7FC00123
    big = constant(np.arange(100, dtype=np.float16))
    graph = Graph((), (constant(values), big, NODES.pad(big, low=(1,), high=(2,), value=-0.0)))
    text = graph.to_json()
    again = Graph.from_json(text)
    assert again.same_as(graph) and again.outputs[2] is graph.outputs[2]
    assert json.loads(text)["graph"]["nodes"][-1]["attrs"]["value"] == {"float": "-0.0"}


def test_json_says_what_a_reader_of_json_needs() -> None:
    whole = json.loads(small().to_json())
    assert (whole["format"], whole["version"]) == ("graphflow-graph", 1)
    graph = whole["graph"]
    assert graph["nodes"][2] == {
        "op": "add", "type": "f32[2]", "inputs": [0, 0], "attrs": {},
        "location": ['a "b" model.py', 3, "fc"],
    }  # fmt: skip
    assert graph["updates"] == [[1, 2]] and graph["nodes"][3]["name"] == "loss"


def broken(change) -> str:
    whole = json.loads(small().to_json())
    change(whole)
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update(format="onnx"), "its format is 'onnx', not 'graphflow-graph'"),
        (lambda w: w.update(version=2), "version 2 .* reads versions up to 1"),
        (lambda w: w.update(version="1"), "version '1'"),
        (lambda w: w.pop("graph"), "graph: 'nodes' is missing"),
        (lambda w: w["graph"]["nodes"][2].update(op="ad"), "node 2: unknown operation 'ad'"),
        (lambda w: w["graph"]["nodes"][2].update(inputs=[0, 3]), "node 2: uses node 3.*cycle"),
        (lambda w: w["graph"]["nodes"][2].update(inputs=[-1, 0]), "node 2: uses node -1"),
        (lambda w: w["graph"]["nodes"][2].update(inputs=[True, 0]), "node 2: uses node True"),
        (lambda w: w["graph"]["nodes"][2].update(type="f32[3]"), "yields f32"),
        (lambda w: w["graph"]["nodes"][2].update(type="f32(3)"), "node 2: "),
        (lambda w: w["graph"]["nodes"][2].pop("attrs"), "node 2: 'attrs' is missing"),
        (lambda w: w["graph"]["nodes"][2].update(attrs={"a": 0.5}), "add.a: 0.5 is no attribute"),
        (lambda w: w["graph"]["nodes"][2].update(attrs={"a": {"dim": "*"}}), "no dim"),
        (lambda w: w["graph"]["nodes"][2].update(attrs={"a": {"array": "0"}}), "no data '0'"),
        (lambda w: w["graph"]["nodes"][2].update(location=["m.py", 3]), "a location is"),
        (lambda w: w["graph"].update(outputs=[9]), "outputs: uses node 9"),
        (lambda w: w["graph"].update(updates=[[1]]), r"updates: \[1\] is no pair"),
        (lambda w: w["graph"].update(inputs=[2]), "declared as input"),
        (lambda w: w.update(data={"00": {"type": "f32[1]", "base64": "AAAAAA=="}}), "this hash"),
        (lambda w: w.update(data={"00": {"type": "f32[1]", "base64": "AA"}}), "base64"),
    ],
)
def test_bad_json_is_one_clear_error(change, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph.from_json(broken(change))


@pytest.mark.parametrize("text", ["", "[]", "3", '{"a"', "[" * 100_000, "graph main {"])
def test_what_is_no_graph_in_json(text: str) -> None:
    with pytest.raises(GraphError, match=r"no JSON|no graph"):
        Graph.from_json(text)


def test_every_truncation_is_an_error() -> None:
    text = small().to_json()
    for end in range(0, len(text) - 1, 7):
        with pytest.raises(GraphError):
            Graph.from_json(text[:end])


def test_ten_thousand_nodes() -> None:
    x = node = input_node("x", F2)
    for _ in range(10_000):
        node = NODES.tanh(node)
    graph = Graph((x,), (node,))
    assert Graph.from_json(graph.to_json()).same_as(graph)
    assert graph.to_dot().count("->") == 10_000


# ---- DOT ---------------------------------------------------------------------------------


def test_dot_shows_nodes_edges_modules_and_updates() -> None:
    text = small().to_dot()
    assert 'label="%loss\\nsub\\nf32[2]"' in text and "penwidth=2.5" in text
    assert text.count(" -> ") == 5 and "n0 -> n2 [label=0];" in text
    assert 'label="fc"' in text and 'label="fc.act"' in text and 'label="update 0"' in text
    assert r'tooltip="a \"b\" model.py:3 fc"' in text


@pytest.mark.parametrize("seed", range(8))
def test_dot_is_what_graphviz_reads(seed: int) -> None:
    text = random_graph(seed, 40).graph.to_dot()
    assert text.count("{") - text.count("}") == 0
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tplain"], input=text, text=True, check=True, capture_output=True)


def test_every_kind_has_a_colour() -> None:
    from graphflow.ir.dot import COLOURS

    assert {op.kind for op in all_ops()} <= set(COLOURS)


# ---- parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_subgraph_computes_what_its_nodes_are(seed: int) -> None:
    case = random_graph(seed, 30)
    nodes = [n for n in case.graph.nodes if n.op.name not in ("input", "state")]
    tensors = [n for n in nodes if isinstance(n.type, TensorType)]
    chosen = tensors[len(tensors) // 2]
    part = case.graph.subgraph([chosen])
    part.verify()
    assert part.outputs == (chosen,) and not part.updates
    assert set(part.inputs) <= set(case.graph.inputs) and len(part.nodes) <= len(case.graph.nodes)
    whole = Graph(case.graph.inputs, (chosen,), case.graph.state)
    names = {n.attrs["name"] for n in part.inputs}
    args = [a for n, a in zip(case.graph.inputs, case.args) if n.attrs["name"] in names]
    (expected,) = interpret(whole, case.args, case.state).outputs
    (found,) = interpret(part, args, case.state).outputs
    np.testing.assert_array_equal(found, expected)


def test_nodes_are_found_by_their_labels() -> None:
    graph = small()
    assert graph.node("%loss") is graph.node("loss") is graph.outputs[0]
    assert graph.subgraph("%0").outputs[0].op.name == "add"
    assert graph.subgraph(["loss", "%0"]).state == graph.state
    with pytest.raises(GraphError, match=r"no node %los; did you mean %loss"):
        graph.node("los")
    with pytest.raises(GraphError, match="is no node of graph 'main'"):
        graph.subgraph([NODES.tanh(graph.inputs[0])])
