"""Random graphs through every stage: what comes out of native code is what the graph means.

Each graph is run on one and on two threads, twice, as plain Python, and with
the vector instructions of an older processor.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from graphs import Case
from running import Expected, Running
from wide_graphs import wide_graph

from graphflow import flags
from graphflow.ir import ops as _ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES, input_node, state_node
from graphflow.ir.graph import Graph
from graphflow.ir.types import TensorType, float32
from graphflow.runtime import walk

SEEDS = (146, 3, 10, 22)  # the first held a fold of booleans that became a float
SIZE = 90


@pytest.fixture(autouse=True)
def _every_step_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "SERIAL_NS", 0)  # these graphs are too small to wake anybody


def bits(running: Running) -> list[bytes]:
    """One step's outputs and the state after it, to the last bit."""
    outputs = running.run()
    return [array.tobytes() for array in (*outputs, *running.values().values())]


@pytest.mark.parametrize("seed", SEEDS)
def test_results_and_state_are_right_on_any_number_of_threads(seed: int) -> None:
    case = wide_graph(seed, SIZE, empty=seed % 5 == 0)
    expected = Expected(case)
    found = []
    for threads in (1, 2, 2):
        running = Running(case, threads)
        outputs, state = running.run(), running.values()
        expected.check(outputs, state)
        found.append([array.tobytes() for array in (*outputs, *state.values())])
    assert found[0] == found[1], f"1 and 2 threads differ: {case}"
    assert found[1] == found[2], f"two runs differ: {case}"


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_second_step_starts_from_the_first_ones_state(seed: int) -> None:
    case = wide_graph(seed, SIZE)
    running = Running(case, 2)
    running.run()
    after = Case(seed, case.graph, case.args, {**case.state, **running.values()})
    Expected(after).check(running.run(), running.values())


@pytest.mark.parametrize("seed", [5, 6])
def test_plain_python_gives_the_same_values(seed: int) -> None:
    case = wide_graph(seed, 25, empty=seed % 5 == 0)
    for node in case.graph.inputs:
        assert node.tensor_type.numel < 50_000, "plain Python takes its time"
    with flags.override(disable_jit=True):
        running = Running(case, 1)
        Expected(case).check(running.run(), running.values())


def test_an_older_processor_gives_the_same_values(tmp_path: pathlib.Path) -> None:
    program = (
        "from running import Expected, Running\nfrom wide_graphs import wide_graph\n"
        f"case = wide_graph({SEEDS[1]}, 40)\nrunning = Running(case, 2)\n"
        "Expected(case).check(running.run(), running.values())\n"
        "from graphflow.codegen.target import chosen_target\nprint(chosen_target().features)\n"
    )
    here = pathlib.Path(__file__).parent
    environment = {
        **os.environ,
        "GRAPHFLOW_CPU_FEATURES": "sse4.2,avx,avx2,fma,f16c,bmi,bmi2,popcnt",
        "GRAPHFLOW_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]),
    }
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "avx2" in done.stdout and "avx512" not in done.stdout


def test_a_wrong_kernel_would_be_noticed() -> None:
    case = wide_graph(SEEDS[1], SIZE)
    running = Running(case, 1)
    outputs, state = running.run(), running.values()
    for number, made in enumerate(outputs):
        if made.size and made.dtype.kind == "f":
            outputs[number] = made * 1.01 + 0.01
            with pytest.raises(AssertionError, match=f"output {number} of seed"):
                Expected(case).check(outputs, state)
            return
    raise AssertionError("no output to spoil")


def test_the_graphs_hold_what_they_should() -> None:
    graphs = [wide_graph(seed, SIZE, empty=True).graph for seed in range(20)]
    nodes = [node for graph in graphs for node in graph.nodes]
    used = {node.op.name for node in nodes}
    missing = {
        "matmul", "reduce_sum", "reduce_max", "reduce_prod", "argmax", "gather", "take",
        "scatter_add", "slice_update", "random_bits", "iota", "pad", "concatenate", "flip",
        "slice", "permute", "expand", "where", "cast", "remainder", "shift_left", "floor",
    } - used  # fmt: skip
    assert not missing
    assert {"f32", "f64", "i64", "i32", "u8", "bool"} <= {n.dtype.short for n in nodes}
    assert any(0 in node.shape for node in nodes) and any(node.shape == () for node in nodes)
    assert any(set(g.outputs) & {*g.inputs, *g.state} for g in graphs)


def test_state_changes_places_and_old_values_are_results() -> None:
    like = TensorType(float32, (17, 33))
    x, a, b, c = input_node("x", like), *(state_node(name, like) for name in "abc")
    turned = NODES.permute(a, axes=(1, 0))
    outputs = (a, x, turned, NODES.add(a, x), NODES.flip(x, axes=(0,)))
    updates = ((a, b), (b, a), (c, NODES.flip(c, axes=(0, 1))))
    graph = Graph((x,), outputs, (a, b, c), updates)
    numbers = np.random.default_rng(0)
    values = [numbers.uniform(-1, 1, like.static_shape).astype(np.float32) for _ in range(4)]
    case = Case(0, graph, (values[0],), dict(zip("abc", values[1:])))
    for threads in (1, 2):
        running = Running(case, threads)
        Expected(case).check(running.run(), running.values())
        assert running.state["a"].array.tobytes() == values[2].tobytes()
