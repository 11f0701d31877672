"""Long chains are cut into pieces that fit, at places that a repeating chain repeats."""

import random

import pytest

from graphflow.codegen.build_schedule import build_schedule
from graphflow.ir import ops as _ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32
from graphflow.passes.chain_cuts import segments
from graphflow.passes.dataflow import Dataflow
from graphflow.passes.pipeline import run_pipeline

UNARY = "tanh sigmoid sin cos neg relu".split()
BINARY = "add sub mul maximum minimum".split()


def repeating(period: int, length: int = 800) -> Graph:
    """A chain that repeats ``period`` random operations, and one more to end a block."""
    rnd = random.Random(period)
    xs = [input_node(f"x{i}", TensorType(float32, (64,))) for i in range(3)]
    block = [(rnd.choice(UNARY + BINARY), rnd.choice(xs)) for _ in range(period)]
    value: Node = xs[0]
    for number in range(length):
        op, operand = block[number % period]
        value = emit(op, value) if op in UNARY else emit(op, value, operand)
        if number % period == period - 1:
            value = emit("tanh", value)
    return Graph(tuple(xs), (value,))


@pytest.mark.parametrize("period", [2, 7, 13, 17, 31, 41, 53, 97])
def test_a_repeating_chain_needs_few_kernels(period: int) -> None:
    graph = run_pipeline(repeating(period))[-1].graph
    schedule = build_schedule(graph, 1)
    kernels, calls = schedule.kernels, len(schedule.steps)
    assert calls >= 10
    assert len(kernels) <= 6, f"{len(kernels)} of {calls} kernels differ"


@pytest.mark.parametrize("limit", [5, 12, 40])
def test_pieces_fit_and_are_no_smaller_than_they_must_be(limit: int) -> None:
    flow = Dataflow(repeating(23, 300))
    found = segments(flow, [True] * len(flow.work), limit)
    assert sorted(found) == list(range(len(flow.work)))
    sizes = [list(found.values()).count(piece) for piece in range(max(found.values()) + 1)]
    assert all(0.6 * limit < size <= limit for size in sizes[:-1]) and sizes[-1] <= limit
    assert list(found.values()) == sorted(found.values())


def test_short_chains_and_taken_operations_have_no_piece() -> None:
    flow = Dataflow(repeating(5, 60))
    count = len(flow.work)
    assert segments(flow, [True] * count, count) == {}
    free = [number % 30 != 0 for number in range(count)]
    assert segments(flow, free, 40) == {}


def test_operations_that_follow_from_nothing_near_are_no_chain() -> None:
    xs = [input_node(f"x{i}", TensorType(float32, (64,))) for i in range(60)]
    flow = Dataflow(Graph(tuple(xs), tuple(emit("tanh", x) for x in xs)))
    assert segments(flow, [True] * 60, 10) == {}
