"""Graphs to networkx and back."""

import networkx
import pytest
from graphs import random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.errors import GraphError
from graphflow.ir.build import NODES, input_node, state_node
from graphflow.ir.graph import Graph, Location
from graphflow.ir.types import TensorType, float32

F2 = TensorType(float32, (2,))


@pytest.mark.parametrize("seed", range(20))
def test_round_trip(seed: int) -> None:
    graph = random_graph(seed, 30, symbolic=bool(seed % 2)).graph
    again = Graph.from_networkx(graph.to_networkx())
    assert again.same_as(graph) and str(again) == str(graph)


def small() -> Graph:
    x, w = input_node("x", F2), state_node("w", F2)
    double = NODES.add(x, x)
    result = NODES.sub(double, w)
    place = {double: Location("model.py", 3, "fc")}
    return Graph((x,), (result,), (w,), ((w, double),), "main", place, {result: "loss"})


def test_nodes_and_edges_carry_what_there_is_to_know() -> None:
    source = small().to_networkx()
    assert isinstance(source, networkx.MultiDiGraph)
    by_label = {facts["label"]: key for key, facts in source.nodes(data=True)}
    assert list(by_label) == ["%x", "%w", "%0", "%loss"]
    double = source.nodes[by_label["%0"]]
    assert (double["op"], double["attrs"], double["type"]) == ("add", {}, F2)
    assert double["location"].line == 3 and source.nodes[by_label["%loss"]]["name"] == "loss"
    edges = source.get_edge_data(by_label["%x"], by_label["%0"]).values()
    assert sorted(e["operand"] for e in edges) == [0, 1] and {e["type"] for e in edges} == {F2}
    ends = {part: source.graph[part] for part in ("inputs", "state", "outputs", "updates")}
    assert ends == {"inputs": (0,), "state": (1,), "outputs": (3,), "updates": ((1, 2),)}


def test_analysis_by_networkx() -> None:
    source = small().to_networkx()
    assert networkx.is_directed_acyclic_graph(source)
    assert networkx.descendants(source, 0) == {2, 3} and networkx.ancestors(source, 2) == {0}


def test_what_is_no_graph_is_refused() -> None:
    source = small().to_networkx()
    source.add_edge(3, 2, operand=2, type=F2)
    with pytest.raises(GraphError, match="has a cycle"):
        Graph.from_networkx(source)
    source = small().to_networkx()
    del source.nodes[2]["op"]
    with pytest.raises(GraphError, match="lacks 'op'"):
        Graph.from_networkx(source)
    source = small().to_networkx()
    source.add_edge(0, 3, operand=7, type=F2)
    with pytest.raises(GraphError, match="not numbered 0, 1, 2"):
        Graph.from_networkx(source)
    source = small().to_networkx()
    source.nodes[2]["type"] = TensorType(float32, (3,))
    with pytest.raises(GraphError, match="yields"):
        Graph.from_networkx(source)
