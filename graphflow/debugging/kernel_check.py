"""The first kernel whose result is not what its operation says."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.codegen.schedule import Call, Schedule, plain_steps
from graphflow.comparison import on_host
from graphflow.debugging.differences import allowed, difference
from graphflow.debugging.findings import (
    Compared,
    Finding,
    place_of,
    result_names,
    spelled,
)
from graphflow.debugging.setting import Setting, Values
from graphflow.device import CPU, Device
from graphflow.functions.creation import tensor
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType
from graphflow.program import Program
from graphflow.records import NamedTuple, replace

Array = np.ndarray[Any, Any]


class _Lowered(Program):
    """The program of a graph that the passes have been through (mixed into a kind of program)."""

    def _schedule(self) -> Schedule:
        return self._lower(self.graph)


class Run(NamedTuple):
    """Outputs, the state by name afterwards, and the schedule that was run."""

    outputs: list[Array]
    state: dict[str, Array]
    schedule: Schedule


def run_graph(setting: Setting, graph: Graph, device: Device) -> Run:
    """One step of a lowered graph by kernels."""
    cells, sizes = setting.cells(), setting.values(double=False).sizes
    for cell in cells.values():
        cell.value = tensor(cell.value).to(device)._eager()
    held = [cells[node.attrs["name"]] for node in graph.state]
    kind: Any = type("Lowered", (_Lowered, Program.kind_for(device)), {})
    program = kind(graph, held, setting.scalars, setting.numbers, sizes=sizes)
    given = [
        float(value) if i in setting.numbers else tensor(value).to(device)
        for i, value in enumerate(setting.inputs)
    ]
    outputs = [on_host(cell.value) for cell in program.run(given)]
    state = {name: on_host(cell.value) for name, cell in cells.items()}
    return Run(outputs, state, program.schedule)


class KernelCheck:
    """Runs a lowered graph by kernels and compares with the interpreter.

    ``exact`` holds the values of the traced graph in double; ``device`` is where kernels run.
    """

    def __init__(
        self, setting: Setting, traced: Graph, lowered: Graph, exact: Values, device: Device = CPU
    ) -> None:
        self.setting, self.lowered, self.device = setting, lowered, device
        self.form = "kernels" if device == CPU else f"{device.type} kernels"
        self.finding: Finding | None = None
        rounded = setting.values(double=False)
        plain = run_graph(setting, lowered, device)
        ends = [*traced.outputs, *(value for _, value in traced.updates)]
        self.compared = [
            Compared(
                self.form, name, difference(exact.value(node), result),
                allowed(node.tensor_type, exact.value(node), rounded.value(node)),
            )
            for node, name, result in zip(
                ends, result_names(traced), self._results(plain, traced), strict=True
            )
        ]  # fmt: skip
        if not all(row.ok for row in self.compared):
            self._search(traced, plain)

    def _results(self, run: Run, traced: Graph) -> list[Array]:
        """Outputs and new state in the order of the traced graph's results."""
        outputs = run.outputs[: len(traced.outputs)]
        return [*outputs, *(run.state[cell.attrs["name"]] for cell, _ in traced.updates)]

    def _search(self, traced: Graph, plain: Run) -> None:
        """Run once more with every value kept, and judge each node by its actual operands.

        If all of them are right and both runs agree, what differs is rounding that adds up
        (Adam divides by the square root of what is nearly 0): then more is allowed.
        """
        graph = self.lowered
        leaves = {*graph.inputs, *graph.state}
        nodes = [
            n for n in graph.nodes if n not in leaves and isinstance(n.type, TensorType)
            and n.op.name != "constant"
        ]  # fmt: skip
        whole = graph.with_roots((*graph.outputs, *nodes), graph.updates)
        kept = run_graph(self.setting, whole, self.device)
        found = dict(zip(nodes, kept.outputs[len(graph.outputs) :], strict=True))
        self.finding = self._wrong_node(whole, found, kept.schedule)
        pairs = zip(self._results(plain, traced), self._results(kept, traced), strict=True)
        gaps = [difference(one, other) for one, other in pairs]
        for number, (row, gap) in enumerate(zip(self.compared, gaps, strict=True)):
            if row.ok or self.finding is not None:
                continue
            if gap <= max(row.allowed, row.difference / 4):
                self.compared[number] = replace(row, allowed=row.difference)
            else:
                text = "every kernel alone is right: order, memory plan or threads"
                self.finding = Finding("schedule", text, "", "", None, row.difference)

    def _wrong_node(
        self, graph: Graph, found: dict[Node, Array], schedule: Schedule
    ) -> Finding | None:
        """The first node whose value is not what its operation makes of the values before it."""
        for node, value in found.items():
            exact = self._alone(node, found, double=True)
            rounded = self._alone(node, found, double=False)
            gap = difference(exact, value)
            if gap > allowed(node.tensor_type, exact, rounded):
                place = place_of(graph, node)
                kernels = _kernels_of(schedule, graph.nodes.index(node))
                return Finding(self.form, kernels, spelled(node), "", place, gap)
        return None

    def _alone(self, node: Node, found: dict[Node, Array], double: bool) -> Array:
        """What ``node`` should be, given what kernels made of the nodes before it."""
        values = self.setting.values(double)
        values.values |= {n: values.widened(a) for n, a in found.items() if n is not node}
        return np.asarray(values.value(node))


def _kernels_of(schedule: Schedule, position: int) -> str:
    """The names of the kernels that compute the node at a position of the graph."""
    names = [
        step.kernel.name
        for step in plain_steps(schedule.steps)
        if isinstance(step, Call) and step.provenance.node == position
    ]
    return ", ".join(dict.fromkeys(names))
