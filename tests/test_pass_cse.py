"""Common subexpressions."""

import pytest
from graphs import assert_same_results, random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.graph import Graph
from graphflow.passes.cse import Cse

BEFORE = """\
graph main {
  %x: f32[8] = input(name="x")
  %y: f32[8] = input(name="y")
  %0: f32[8] = mul(%x, %y)
  %1: f32[8] = mul(%y, %x)  # model.py:3
  %2: f32[8] = add(%1, %x)
  %3: f32[8] = add(%x, %0)
  %4: f32[8] = sub(%2, %3)
  return %4
}
"""
AFTER = """\
graph main {
  %x: f32[8] = input(name="x")
  %y: f32[8] = input(name="y")
  %0: f32[8] = mul(%x, %y)
  %1: f32[8] = add(%0, %x)
  %2: f32[8] = sub(%1, %1)
  return %2
}
"""


def test_operands_in_another_order_are_the_same_operation() -> None:
    result = Cse().run(Graph.parse(BEFORE)).verify("traced")
    kept = {n.op.name: n for n in result.nodes}
    assert len(result.nodes) == len(Graph.parse(AFTER).nodes)
    assert kept["sub"].inputs[0] is kept["sub"].inputs[1]
    assert set(kept["mul"].inputs) == set(result.inputs)


def test_the_order_of_other_operations_counts() -> None:
    graph = Graph.parse(BEFORE.replace("mul", "sub").replace("add", "div"))
    assert Cse().run(graph) is graph


def test_nothing_to_merge_is_the_same_graph() -> None:
    graph = Graph.parse(AFTER)
    assert Cse().run(graph) is graph


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_keep_their_results(seed: int) -> None:
    case = random_graph(seed, 40, symbolic=seed % 3 == 0)
    result = Cse().run(case.graph).verify("traced")
    assert_same_results(case.graph, result, case)
