"""The verifier: what it accepts, and what each refusal says."""

import pytest
from graphs import random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.errors import GraphError
from graphflow.ir.build import NODES, constant, input_node, state_node
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import make_node
from graphflow.ir.op import lookup
from graphflow.ir.types import TensorType, TupleType, float32, int64
from graphflow.ir.verify import STAGES

F2 = TensorType(float32, (2,))
X, Y, W = input_node("x", F2), input_node("y", F2), state_node("w", F2)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_well_formed(seed: int) -> None:
    graph = random_graph(seed, 30, symbolic=bool(seed % 2)).graph
    for stage in (None, *STAGES):
        assert graph.verify(stage) is graph


def refused(graph: Graph, message: str, stage: str | None = None) -> str:
    with pytest.raises(GraphError, match=message) as caught:
        graph.verify(stage)
    return str(caught.value)


def test_leaves_must_be_declared() -> None:
    refused(Graph((), (NODES.tanh(X),)), "uses the input 'x' of another graph; declare it")
    refused(Graph((X,), (W,)), "uses the state 'w' of another graph")


def test_declared_names_are_unique_and_of_their_kind() -> None:
    other = input_node("x", TensorType(float32, (3,)))
    refused(Graph((X, other), (X,)), "input name 'x' is declared twice")
    refused(Graph((X, X), (X,)), "input name 'x' is declared twice")
    refused(Graph((W,), (W,)), "declared as input, but is no input node")
    refused(Graph((X,), (X,), (X,)), "declared as state, but is no state node")
    twin = state_node("x", F2)
    Graph((X,), (X,), (twin,)).verify()  # an input and a state may share a name


def test_types_are_inferred_again() -> None:
    bad = make_node(lookup("tanh"), (X,), {}, TensorType(float32, (3,)))
    refused(Graph((X,), (bad,)), r"has type f32\[3\], but its operation yields f32\[2\]")
    three = input_node("z", TensorType(float32, (3,)))
    bad = make_node(lookup("add"), (X, three), {}, F2)
    refused(Graph((X, three), (bad,)), r"does not take operands \(f32\[2\], f32\[3\]\)")
    bad = make_node(lookup("permute"), (X,), {}, F2)
    refused(Graph((X,), (bad,)), "does not take operands")


def test_constants_agree_with_their_data() -> None:
    data = constant([1.0, 2.0]).attrs["value"]
    bad = make_node(lookup("constant"), (), {"value": data}, F2)
    refused(Graph((), (bad,)), r"holds data of type f64\[2\], not f32\[2\]")
    bad = make_node(lookup("constant"), (), {"value": 3}, F2)
    refused(Graph((), (bad,)), "constant without data")


def test_extents_are_not_negative() -> None:
    bad = input_node("x", TensorType(float32, (2, -1)))
    refused(Graph((bad,), (bad,)), "negative extent")
    free = input_node("x", TensorType(float32, (symbol("n") * -1,)))
    Graph((free,), (free,)).verify()


def test_updates() -> None:
    other = state_node("v", TensorType(int64, (2,)))
    refused(Graph((X,), (), (W,), ((W, X), (W, X))), "second update of the state 'w'")
    refused(Graph((X,), (), (W, other), ((other, X),)), r"the state 'v' of type i64\[2\]")
    refused(Graph((X,), (), (), ((X, X),)), "no state of this graph")


def test_outputs_are_tensors() -> None:
    two = make_node(lookup("input"), (), {"name": "x"}, TupleType((F2, F2)))
    refused(Graph((two,), (two,)), "is an output, but no tensor")


def test_regions_are_closed_and_without_state() -> None:
    def carrying(region: Graph) -> Graph:
        return Graph((X,), (make_node(lookup("tanh"), (X,), {"body": region}, F2),))

    carrying(Graph((X,), (NODES.sin(X),))).verify()
    text = refused(carrying(Graph((X,), (NODES.add(X, Y),))), "a region is closed")
    assert text.startswith("tanh.body: ")
    refused(carrying(Graph((X,), (X,), (W,))), "carries a region body with state")
    inner = carrying(Graph((X,), (Y,)))
    text = refused(carrying(inner), "a region is closed")
    assert text.startswith("tanh.body: tanh.body: ")


def test_stages_have_their_own_rules() -> None:
    stopped = Graph((X,), (NODES.stop_gradient(X),))
    assert stopped.verify("traced") and stopped.verify("differentiated")
    refused(stopped, "not legal at this stage: nothing is differentiated", "simplified")
    refused(stopped, "unknown stage 'lowered'; the stages are traced", "lowered")


def test_an_error_shows_the_node_the_place_and_the_lines_around() -> None:
    before = [X]
    for _ in range(4):
        before.append(NODES.sin(before[-1]))
    bad = make_node(lookup("tanh"), (before[-1],), {}, TensorType(float32, (3,)))
    after = bad
    for _ in range(4):
        after = NODES.cos(after)
    places = {bad: Location("model.py", 41, "model.fc1")}
    text = refused(Graph((X,), (after,), locations=places), "has type")
    assert text.split("\n") == [
        "%4 = tanh: has type f32[3], but its operation yields f32[2]",
        "  from model.py:41 model.fc1",
        "  %2: f32[2] = sin(%1)",
        "  %3: f32[2] = sin(%2)",
        "> %4: f32[3] = tanh(%3)  # model.py:41 model.fc1",
        "  %5: f32[3] = cos(%4)",
        "  %6: f32[3] = cos(%5)",
    ]
