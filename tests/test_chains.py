"""Graphs thousands of operations deep: nothing recurses, kernels stay of a size and are shared."""

import gc
import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from graphs import Case
from running import Expected, Running

import graphflow as gf
from graphflow.ir import ops as _ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import constant, emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32
from graphflow.passes.pipeline import run_pipeline

UNARY = "tanh sigmoid sin cos neg relu abs".split()
BINARY = "add sub mul maximum minimum".split()


def chain(length: int, seed: int, period: int | None = None, width: int = 300) -> Case:
    """A chain of random operations, or of the same ``period`` ones over and over.

    Every other operand is an input, a number, or a value a little way back.
    """
    rnd = random.Random(seed)
    inputs = tuple(input_node(f"x{i}", TensorType(float32, (width,))) for i in range(3))
    value: Node = inputs[0]
    recent: list[Node] = [value]
    picks: list[tuple[str, object]] = []
    for number in range(length):
        if period is None or number < period:
            place = rnd.choice([*inputs, round(rnd.uniform(-2, 2), 2), rnd.randint(1, 9)])
            picks.append((rnd.choice(UNARY + BINARY), place))
        op, place = picks[number % len(picks)] if period else picks[number]
        if op in UNARY:
            value = emit(op, value)
        else:
            other = place
            if isinstance(place, float):
                other = constant(place, float32)
            elif isinstance(place, int):
                other = recent[-min(place, len(recent))]
            value = emit("sin", emit(op, value, other))  # type: ignore[arg-type]
        recent.append(value)
    numbers = np.random.default_rng(seed)
    args = tuple(numbers.uniform(-1, 1, width).astype(np.float32) for _ in inputs)
    return Case(seed, Graph(inputs, (value, recent[length // 2]), name="chain"), args, {})


@pytest.mark.parametrize("seed", [1])
def test_a_varied_chain_is_right(seed: int) -> None:
    case = chain(500, seed)
    expected = Expected(case)
    found = []
    for threads in (1, 2):
        running = Running(case, threads)
        outputs = running.run()
        expected.check(outputs, {})
        found.append([array.tobytes() for array in outputs])
    assert found[0] == found[1]


@pytest.mark.parametrize("period", [3, 7, 17])
def test_a_long_repeating_chain_needs_few_kernels(period: int) -> None:
    case = chain(6000, period, period)
    running = Running(case, 1)
    kernels = running.schedule.kernels
    assert len(running.schedule.steps) > 100 and len(kernels) <= 8, len(kernels)
    got = running.run()
    for made, want in zip(got, interpret(case.graph, case.args).outputs, strict=True):
        np.testing.assert_allclose(made, want, rtol=1e-3, atol=1e-3, err_msg=str(period))


def test_twenty_thousand_traced_operations_print_parse_and_verify() -> None:
    def function(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        for _ in range(4000):
            x = gf.tanh(x)
            x = x * y
            x = (x + y).relu() - 0.5
        return x

    graph = gf.trace(function, gf.TensorSpec((4,)), gf.TensorSpec((4,)))
    assert len(graph.nodes) > 20_000
    text = str(graph)
    again = gf.Graph.parse(text)
    assert again.same_as(graph) and str(again) == text
    again.verify("traced")
    fused = run_pipeline(graph)[-1].graph
    fused.verify("fused")
    assert len(fused.nodes) < 1600


def test_a_deep_chain_backwards() -> None:
    start = gf.tensor(np.linspace(-1, 1, 5, dtype=np.float32), requires_grad=True)

    def gradient(x: gf.Tensor) -> gf.Tensor:
        y = x
        for _ in range(1000):
            y = gf.sin(y) * 1.001
        return gf.autograd.grad(y.sum(), x)[0]

    eager = gradient(start)
    np.testing.assert_allclose(gf.compile(gradient)(start).numpy(), eager.numpy(), rtol=1e-3)
    x = np.linspace(-1, 1, 5)
    slope = np.ones(5)
    for _ in range(1000):
        x, slope = np.sin(x) * 1.001, slope * np.cos(x) * 1.001
    np.testing.assert_allclose(eager.numpy(), slope, rtol=1e-3)


def _die_deep(build: str) -> None:
    program = f"import gc\nimport graphflow as gf\n{build}\ndel x\ngc.collect()\nprint('alive')"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "alive\n", (done.returncode, done.stderr[-2000:])


DEEP = {
    "nodes": "from graphflow.ir.build import emit, input_node\n"
    "from graphflow.ir.types import TensorType, float32\n"
    "x = input_node('x', TensorType(float32, (2,)))\n"
    "for _ in range(200_000): x = emit('neg', x)",
    "history": "x = gf.ones(2, requires_grad=True)\nfor _ in range(50_000): x = x.sin()",
    "used history": "x = w = gf.ones(2, requires_grad=True)\n"
    "for _ in range(20_000): x = x.sin()\nx.sum().backward()\nassert w.grad is not None",
}


@pytest.mark.parametrize("kind", DEEP)
def test_what_is_deep_dies_without_a_crash(kind: str) -> None:
    _die_deep(DEEP[kind])


def test_dead_graphs_leave_no_nodes_behind() -> None:
    from graphflow.ir import node

    def count(build: Callable[[], Case]) -> int:
        case = build()
        run_pipeline(case.graph)
        del case
        gc.collect()
        return len(node._interned)

    count(lambda: chain(300, 0))
    before = count(lambda: chain(300, 1))
    assert count(lambda: chain(3000, 2)) <= before + 50
