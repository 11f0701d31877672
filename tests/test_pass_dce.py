"""Dead state."""

import pytest
from graphs import assert_same_results, random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.graph import Graph
from graphflow.passes.dce import Dce

BEFORE = """\
graph main {
  %x: f32[8] = input(name="x")
  %unread: f32[8] = state(name="unread")  # model.py:1
  %same: f32[8] = state(name="same")
  %written: f32[8] = state(name="written")
  %read: f32[8] = state(name="read")
  %0: f32[8] = neg(%read)  # model.py:2
  return
  update %same = %same
  update %written = %0
}
"""
AFTER = """\
graph main {
  %x: f32[8] = input(name="x")
  %written: f32[8] = state(name="written")
  %read: f32[8] = state(name="read")
  %0: f32[8] = neg(%read)  # model.py:2
  return
  update %written = %0
}
"""


def test_idle_state_goes_and_inputs_stay() -> None:
    result = Dce().run(Graph.parse(BEFORE)).verify("simplified")
    assert str(result) == AFTER
    assert Dce().run(result) is result


def test_a_state_that_is_read_and_written_back_stays() -> None:
    graph = Graph.parse(AFTER.replace("update %written = %0", "update %read = %read"))
    result = Dce().run(graph)
    assert not result.updates and not result.state


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_keep_their_results(seed: int) -> None:
    case = random_graph(seed, 30)
    result = Dce().run(case.graph).verify("traced")
    assert_same_results(case.graph, result, case)
