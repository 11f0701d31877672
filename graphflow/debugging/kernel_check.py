"""The first kernel whose result is not what its operation says."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.schedule import Call, Schedule, plain_steps
from graphflow.debugging.differences import allowed, difference
from graphflow.debugging.findings import (
    Compared,
    Finding,
    place_of,
    result_names,
    spelled,
)
from graphflow.debugging.setting import Setting, Values
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType
from graphflow.program import Program
from graphflow.tensor import Tensor

Array = np.ndarray[Any, Any]


class _Lowered(Program):
    """The program of a graph that the passes have been through."""

    def _schedule(self) -> Schedule:
        return build_schedule(self.graph, self._threads, self._example)


def run_graph(setting: Setting, graph: Graph) -> tuple[list[Array], list[Array]]:
    """One step of a lowered graph by kernels: outputs, and the state after it."""
    cells, sizes = setting.cells(), setting.values(double=False).sizes
    program = _Lowered(graph, cells, setting.scalars, setting.numbers, sizes=sizes)
    given = [
        float(value) if i in setting.numbers else Tensor(value)
        for i, value in enumerate(setting.inputs)
    ]
    outputs = [np.array(cell.value) for cell in program.run(given)]
    return outputs, [np.array(cell.value) for cell in cells]


class KernelCheck:
    """Runs a lowered graph by kernels and compares with the interpreter.

    ``exact`` holds the values of the traced graph in double.
    """

    def __init__(self, setting: Setting, traced: Graph, lowered: Graph, exact: Values) -> None:
        self.setting, self.lowered = setting, lowered
        self.finding: Finding | None = None
        rounded = setting.values(double=False)
        outputs, after = run_graph(setting, lowered)
        found = dict(zip((n.attrs["name"] for n in lowered.state), after, strict=True))
        results = [*outputs, *(found[cell.attrs["name"]] for cell, _ in traced.updates)]
        ends = [*traced.outputs, *(value for _, value in traced.updates)]
        self.compared = [
            Compared(
                "kernels", name, difference(exact.value(node), result),
                allowed(node.tensor_type, exact.value(node), rounded.value(node)),
            )
            for node, name, result in zip(ends, result_names(traced), results, strict=True)
        ]  # fmt: skip
        wrong = [row for row in self.compared if not row.ok]
        if wrong:
            self.finding = self._kernel() or Finding(
                "schedule", "every kernel alone is right: order, memory plan or threads",
                "", "", None, wrong[0].difference,
            )  # fmt: skip

    def _kernel(self) -> Finding | None:
        """Run once more with every value kept, and judge each node by its actual operands."""
        graph = self.lowered
        leaves = {*graph.inputs, *graph.state}
        nodes = [
            n for n in graph.nodes if n not in leaves and isinstance(n.type, TensorType)
            and n.op.name != "constant"
        ]  # fmt: skip
        whole = graph.with_roots((*graph.outputs, *nodes), graph.updates)
        made, _ = run_graph(self.setting, whole)
        found = dict(zip(nodes, made[len(graph.outputs) :], strict=True))
        for node in nodes:
            exact = self._alone(node, found, double=True)
            rounded = self._alone(node, found, double=False)
            gap = difference(exact, found[node])
            if gap > allowed(node.tensor_type, exact, rounded):
                place = place_of(graph, node)
                return Finding(
                    "kernels", self._kernel_of(whole, node), spelled(node), "", place, gap
                )
        return None

    def _alone(self, node: Node, found: dict[Node, Array], double: bool) -> Array:
        """What ``node`` should be, given what kernels made of the nodes before it."""
        values = self.setting.values(double)
        values.values |= {n: values.widened(a) for n, a in found.items() if n is not node}
        return np.asarray(values.value(node))

    def _kernel_of(self, graph: Graph, node: Node) -> str:
        """The names of the kernels that compute ``node``."""
        position = graph.nodes.index(node)
        sizes = self.setting.values(double=False).sizes
        names = [
            step.kernel.name
            for step in plain_steps(build_schedule(graph, 1, sizes).steps)
            if isinstance(step, Call) and step.provenance.node == position
        ]
        return ", ".join(dict.fromkeys(names))
