"""The backward half of a compiled function: a program over what the forward one has saved.

Nobody sees how saved values lie in memory, so the forward program leaves them as they are best
made: images with their channels last.  Inputs are row-major; here one stands for the memory, and
a permutation of it for the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphflow.capture import Capture
from graphflow.cell import Cell
from graphflow.eager_operands import order_in_memory
from graphflow.ir import build
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Order
from graphflow.ir.ops.shape import inverse_order
from graphflow.ir.types import TensorType
from graphflow.partition import rebuilt
from graphflow.program import Program
from graphflow.records import dataclass, replace
from graphflow.tensor import Tensor


@dataclass(frozen=True)
class BackwardProgram:
    """A program of gradients, and the order in memory of the axes of each saved value.

    An order is None for row-major values, and for those that the program copies.
    """

    program: Program
    orders: tuple[Order | None, ...]
    repeated: tuple[int, ...]
    """Results in the memory of an earlier one."""
    updated: tuple[Cell, ...]
    """Memory outside that it changes."""

    def at(self, sizes: Mapping[str, int]) -> BackwardProgram:
        """This for other sizes of symbolic dimensions."""
        return replace(self, program=self.program.at(sizes))

    def run(
        self, cts: Sequence[Tensor], saved: Sequence[Cell], arguments: Sequence[Tensor]
    ) -> list[Tensor]:
        """The gradients, from cotangents, saved values and arguments: each in memory of its own."""
        lying = [
            Tensor._of(cell if order is None else Cell(cell.value.transpose(order)))
            for cell, order in zip(saved, self.orders, strict=True)
        ]
        made = [Tensor._of(cell) for cell in self.program.run([*cts, *lying, *arguments])]
        for number in self.repeated:
            made[number] = made[number].clone()
        for cell in self.updated:
            cell.version += 1
        return made


def backward_program(
    captured: Capture, saved: Sequence[Cell], options: Mapping[str, Any]
) -> BackwardProgram:
    """The program of the gradients of a captured function whose saved values lie like these."""
    backward = captured.backward
    assert backward is not None
    orders = tuple(order_in_memory(cell.value) for cell in saved)
    first = len(backward.graph.inputs) - len(backward.arguments) - len(saved)
    graph = _as_they_lie(backward.graph, first, orders)
    options = {**options, "device": str(captured.device)}
    kind = Program.kind_for(captured.device)
    made = kind(graph, backward.cells, (), (), sizes=captured.sizes, **options)
    buffers = [result.buffer for result in made.schedule.results]
    repeated = tuple(n for n, buffer in enumerate(buffers) if buffer in buffers[:n])
    return BackwardProgram(made, orders, repeated, backward.updated)


def _as_they_lie(graph: Graph, first: int, orders: Sequence[Order | None]) -> Graph:
    """The graph with inputs from ``first`` on given in these orders of their axes."""
    inputs, values = list(graph.inputs), dict[Node, Node]()
    for number, order in enumerate(orders, first):
        old = inputs[number]
        if order is not None:
            lying = TensorType(old.dtype, tuple(old.shape[axis] for axis in order))
            inputs[number] = build.input_node(old.attrs["name"], lying)
            values[old] = build.emit("permute", inputs[number], axes=inverse_order(order))
    if not values:
        return graph
    values |= {n: n for n in (*inputs, *graph.state)}
    outputs = rebuilt(graph.outputs, values)
    updates = zip((n for n, _ in graph.updates), rebuilt([n for _, n in graph.updates], values))
    places = {values[n]: place for n, place in graph.locations.items() if n in values}
    return replace(
        graph, inputs=tuple(inputs), outputs=tuple(outputs), updates=tuple(updates),
        locations=places,
    )  # fmt: skip
