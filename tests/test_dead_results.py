"""Dead results of scans and branches go, with the operands only they needed."""

import numpy as np

import graphflow as gf
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.passes.dce import Dce


def only(graph: Graph, name: str) -> Node:
    (found,) = [n for n in graph.nodes if n.op.name == name]
    return found


def traced(function, *args):
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(s) for s in args]
    graph = gf.trace(function, *map(gf.from_numpy, arrays))
    smaller = Dce().run(graph).verify()
    for a, b in zip(graph.run(*arrays), smaller.run(*arrays), strict=True):
        np.testing.assert_array_equal(a, b)
    assert Dce().run(smaller) is smaller
    return graph, smaller


def test_a_scan_loses_carries_stacks_and_sequences_nobody_needs():
    def run(a, b, c):
        def step(carry, x):
            p, q, r = carry
            return (p + r, q + x[1], r * x[0].sum()), (q * 2, x[0])

        (p, _, _), (_, rows) = gf.scan(step, (a[0], b[0], a[1]), (a, b))
        return p, rows * c

    graph, smaller = traced(run, (4, 3), (4, 3), (3,))
    before, after = only(graph, "scan"), only(smaller, "scan")
    assert (before.attrs["carried"], before.attrs["scanned"]) == (3, 2)
    assert (after.attrs["carried"], after.attrs["scanned"]) == (2, 1)
    assert len(after.attrs["body"].outputs) == 3


def test_a_branch_loses_results_and_operands():
    def run(a, b):
        first, _ = gf.cond(a.sum() > 0, lambda: (a * 2, b + 1), lambda: (a - 1, b))
        return first

    graph, smaller = traced(run, (3,), (3,))
    assert len(only(graph, "cond").inputs) == 3
    assert len(only(smaller, "cond").inputs) == 2
