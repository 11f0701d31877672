"""A graph's program on copies of the values that come with it, and the check of a run.

``Running(case, threads)`` takes the whole road: passes, schedule, kernels, memory
and threads.  ``check(case, running)`` runs one step and holds every output and
every state against the interpreter in double precision.
"""

from __future__ import annotations

import numpy as np
from graphs import Case

from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.instance import at_sizes
from graphflow.codegen.schedule import BufferKind
from graphflow.ir.binding import solve_sizes
from graphflow.ir.graph import Graph
from graphflow.ir.interp import Interpretation, interpret
from graphflow.passes.pipeline import run_pipeline
from graphflow.runtime.launch import LoadedProgram
from graphflow.runtime.storage import Array, Storage


def sizes_of(case: Case) -> dict[str, int]:
    """The sizes of symbolic dimensions that the values of ``case`` have."""
    state = [case.state[node.attrs["name"]] for node in case.graph.state]
    leaves = zip((*case.graph.inputs, *case.graph.state), (*case.args, *state), strict=True)
    return solve_sizes([(node, np.shape(value)) for node, value in leaves], {})


class Running:
    """A program with inputs and state of its own."""

    def __init__(self, case: Case, threads: int, example: int = 0) -> None:
        self.graph: Graph = run_pipeline(case.graph)[-1].graph
        if example:  # symbolic: scheduled for other sizes, run at those of the case
            sizes = sizes_of(case)
            others = {name: example + 3 * i for i, name in enumerate(sorted(sizes))}
            self.schedule = at_sizes(build_schedule(self.graph, threads, others), sizes)
        else:
            self.schedule = build_schedule(self.graph, threads)
        self.inputs = [Storage(np.array(a, order="C")) for a in case.args]
        self.names = [str(node.attrs["name"]) for node in self.graph.state]
        self.state = {n: Storage(np.array(case.state[n], order="C")) for n in self.names}
        self.program = LoadedProgram(self.schedule, threads=threads)
        self.program.bind_all([self.state[name] for name in self.names])

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
            base = self.state[self.names[self.schedule.state.index(buffer.id)]].array
        flat, size = base.reshape(-1), base.itemsize
        strides = [s * size for s in result.strides]
        start = result.offset * size
        return np.array(np.ndarray(result.type.static_shape, base.dtype, flat, start, strides))

    def values(self) -> dict[str, Array]:
        """The state, as arrays of their own."""
        return {name: storage.array.copy() for name, storage in self.state.items()}


class Expected:
    """What a step must give: the double-precision answer, and how far float32 is from it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.exact = interpret(case.graph, case.args, case.state, precision="f64")
        self.rounded = interpret(case.graph, case.args, case.state)

    def check(self, outputs: list[Array], state: dict[str, Array]) -> None:
        """Raise AssertionError unless outputs and state are right."""
        for number, made in enumerate(outputs):
            want = (self.exact.outputs[number], self.rounded.outputs[number])
            self._compare(f"output {number}", made, *want)
        for name, made in state.items():
            self._compare(f"state {name}", made, *(_state(i, name, self.case) for i in self._both))

    @property
    def _both(self) -> tuple[Interpretation, Interpretation]:
        return self.exact, self.rounded

    def _compare(self, what: str, made: Array, exact: Array, rounded: Array) -> None:
        message = f"{what} of {self.case}"
        assert (made.dtype, made.shape) == (rounded.dtype, rounded.shape), message
        if made.dtype.kind != "f":
            np.testing.assert_array_equal(made, rounded, err_msg=message)
            return
        if not made.size:
            return
        with np.errstate(invalid="ignore"):
            error = float(np.nanmax(np.abs(rounded.astype(np.float64) - exact), initial=0.0))
        # The interpreter's own rounding shows how much the graph magnifies errors.
        precise = made.dtype == np.float64 and error < 1e-9
        floor = 1e-11 if precise else 3e-5
        allowed = 32 * error + floor * (1 + np.abs(exact[np.isfinite(exact)]).max(initial=0))
        np.testing.assert_allclose(made, exact, rtol=0, atol=allowed, err_msg=message)


def _state(run: Interpretation, name: str, case: Case) -> Array:
    return np.asarray(run.state.get(name, case.state[name]))
