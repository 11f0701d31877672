"""Constant folding."""

import numpy as np
import pytest
from graphs import assert_same_results, random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES, constant, emit, splat
from graphflow.ir.graph import Graph
from graphflow.ir.types import TensorType, float32
from graphflow.passes.fold import Fold

HEAD = 'graph main {\n  %x: f32[2,3] = input(name="x")\n'

EXAMPLES = [
    ("%a: f32[] = constant(2.0)\n%b: f32[9,9] = expand(%a, shape=(9, 9))\n%1 = mul(%b, %b)",
     "%a: f32[] = constant(4.0)\n%1 = expand(%a, shape=(9, 9))"),
    ("%a: f32[] = constant(2.0)\n%b: f32[3] = expand(%a, shape=(3,))\n%c = add(%a, %b)\n"
     "%1 = mul(%x, %c)",
     "%a: f32[] = constant(4.0)\n%b: f32[3] = expand(%a, shape=(3,))\n%1 = mul(%x, %b)"),
    ("%a: f32[3] = constant([1.0, 2.0, 3.0])\n%b = neg(%a)\n%c = flip(%b, axes=(0,))\n"
     "%1 = reduce_sum(%c, axes=(0,))", "%1: f32[] = constant(-6.0)"),
    ("%a: f32[] = constant(0.0)\n%1 = log(%a)", "%1: f32[] = constant(-inf)"),
    ("%a: f32[] = constant(1.0)\n%b: f32[] = constant(0.0)\n%1 = div(%a, %b)",
     "%1: f32[] = constant(inf)"),
    ("%a: i64[] = constant(3)\n%b = cast(%a, dtype=f32)\n%1 = add(%x, %b)",
     "%a: f32[] = constant(3.0)\n%1 = add(%x, %a)"),
    ("%a: f32[] = constant(1.0)\n%1: f32[4] = expand(%a, shape=(4,))", None),
    ("%1 = iota(axis=0, dtype=f32, shape=(4,))", None),
]  # fmt: skip


def graph_of(body: str) -> Graph:
    rows = "".join(f"  {line}\n" for line in body.split("\n"))
    return Graph.parse(f"{HEAD}{rows}  return %1\n}}\n")


@pytest.mark.parametrize(("before", "after"), EXAMPLES)
def test_examples(before: str, after: str | None) -> None:
    graph = graph_of(before)
    result = Fold().run(graph)
    if after is None:
        assert result is graph
        return
    assert result.same_as(graph_of(after)), str(result)
    args = [np.ones((2, 3), np.float32)]
    for one, other in zip(graph.run(*args), result.run(*args)):
        np.testing.assert_array_equal(one, other)


def test_large_results_are_left_to_the_kernels() -> None:
    big = constant(np.ones(100, np.float32))
    graph = Graph((), (NODES.neg(big),))
    assert Fold().run(graph) is graph
    assert Fold(limit=100).run(graph).outputs[0].op.name == "constant"
    grown = Graph((), (NODES.concatenate(*[constant(np.ones(9, np.float32))] * 9, axis=0),))
    assert Fold().run(grown) is grown


def test_what_fails_is_left_to_fail_when_it_runs() -> None:
    data, index = constant(np.ones(3, np.float32)), constant(np.array([7]))
    graph = Graph((), (NODES.take(data, index, axis=0),))
    assert Fold().run(graph) is graph


def test_random_bits_are_not_folded() -> None:
    key = constant(np.array([1, 2]))
    graph = Graph((), (emit("random_bits", key, shape=(2,), call=0, word=0),))
    assert Fold().run(graph) is graph


def test_regions_are_folded() -> None:
    two = splat(2.0, TensorType(float32, (3,)))
    body = Graph((), (NODES.mul(two, two),))
    chosen = NODES.cond(constant(True), then=body, otherwise=body)
    result = Fold().run(Graph((), (NODES.get(chosen, index=0),)))
    folded = next(n for n in result.nodes if n.op.name == "cond").attrs["then"]
    assert folded.outputs == (splat(4.0, TensorType(float32, (3,))),)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_keep_their_results(seed: int) -> None:
    case = random_graph(seed, 40, symbolic=seed % 3 == 0)
    result = Fold().run(case.graph).verify("traced")
    assert_same_results(case.graph, result, case)
    assert Fold().run(result) is result
