"""From a graph to its results: passes, schedule, kernels, memory and threads together."""

import numpy as np
import pytest
from graphs import Case, assert_same_array, random_graph

from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.schedule import BufferKind, Schedule
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.passes.pipeline import run_pipeline
from graphflow.runtime import launch
from graphflow.runtime.launch import LoadedProgram
from graphflow.runtime.storage import Array, Storage

SEEDS = range(8)


class Compiled:
    """A random graph's program on copies of the values that come with it."""

    def __init__(self, case: Case, threads: int) -> None:
        self.graph: Graph = run_pipeline(case.graph)[-1].graph
        self.schedule: Schedule = build_schedule(self.graph, threads)
        self.inputs = [Storage(np.array(a, order="C")) for a in case.args]
        names = [str(node.attrs["name"]) for node in self.graph.state]
        self.state = {name: Storage(np.array(case.state[name], order="C")) for name in names}
        self.program = LoadedProgram(self.schedule, threads=threads)
        self.program.bind_all([self.state[name] for name in names])

    def run(self) -> list[Array]:
        """One step; its results, as arrays of their own."""
        results = self.program.run([x.address for x in self.inputs])
        return [
            self._held(number) if made is None else made.array.copy()
            for number, made in enumerate(results)
        ]

    def _held(self, number: int) -> Array:
        """A result that lies in an input or a state."""
        result = self.schedule.results[number]
        buffer = self.schedule.buffers[result.buffer]
        if buffer.kind is BufferKind.INPUT:
            base = self.inputs[self.schedule.inputs.index(buffer.id)].array
        else:
            place = self.schedule.state.index(buffer.id)
            base = self.state[str(self.graph.state[place].attrs["name"])].array
        flat, size = base.reshape(-1), base.itemsize
        strides = [s * size for s in result.strides]
        start = result.offset * size
        return np.array(np.ndarray(result.type.static_shape, base.dtype, flat, start, strides))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_give_what_the_interpreter_gives(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "SERIAL_NS", 0)  # these graphs are too small to wake anybody
    case = random_graph(seed, 20, control=False)
    want = interpret(case.graph, case.args, case.state)
    bits = []
    for threads in (1, 2):
        compiled = Compiled(case, threads)
        got = compiled.run()
        for number, (a, b) in enumerate(zip(want.outputs, got, strict=True)):
            assert_same_array(a, b, 1e-4, f"output {number} of {case}")
        for name, storage in compiled.state.items():
            expected = want.state.get(name, case.state[name])
            assert_same_array(expected, storage.array, 1e-4, f"state {name} of {case}")
        bits.append([array.tobytes() for array in got])
    assert bits[0] == bits[1], f"1 and 2 threads differ: {case}"
