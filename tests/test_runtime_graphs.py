"""From a graph to its results: passes, schedule, kernels, memory and threads together."""

import pytest
from graphs import assert_same_array, random_graph
from running import Running

from graphflow.ir.interp import interpret
from graphflow.runtime import walk

SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_give_what_the_interpreter_gives(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "SERIAL_NS", 0)  # these graphs are too small to wake anybody
    case = random_graph(seed, 20, control=False)
    want = interpret(case.graph, case.args, case.state)
    bits = []
    for threads in (1, 2):
        compiled = Running(case, threads)
        got = compiled.run()
        for number, (a, b) in enumerate(zip(want.outputs, got, strict=True)):
            assert_same_array(a, b, 1e-4, f"output {number} of {case}")
        for name, storage in compiled.state.items():
            expected = want.state.get(name, case.state[name])
            assert_same_array(expected, storage.array, 1e-4, f"state {name} of {case}")
        bits.append([array.tobytes() for array in got])
    assert bits[0] == bits[1], f"1 and 2 threads differ: {case}"
