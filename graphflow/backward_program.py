"""The backward half of a compiled function: a program over what the forward one has saved.

Nobody sees how saved values lie in memory, so the forward program leaves them as they are best
made: images with their channels last.  Inputs are row-major; here one stands for the memory, and
a permutation of it for the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphflow.capture import Capture
from graphflow.cell import Cell, counted
from graphflow.eager_operands import order_in_memory
from graphflow.ir import build
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Order
from graphflow.ir.ops.shape import inverse_order
from graphflow.ir.types import TensorType
from graphflow.mode import mode
from graphflow.partition import rebuilt
from graphflow.program import Program
from graphflow.quick import tensor_over
from graphflow.records import replace
from graphflow.runtime.storage import Storage, address_of
from graphflow.tensor import Tensor

Launch: TypeAlias = "Callable[[Sequence[int | float]], Sequence[Storage]]"


class BackwardProgram:
    """A program of gradients, and the order in memory of the axes of each saved value.

    An order is None for row-major values, and for those that the program copies.  ``repeated`` are
    results in the memory of an earlier one, ``updated`` is memory outside that it changes.
    """

    __slots__ = ("_launch", "orders", "program", "repeated", "updated")

    def __init__(
        self, program: Program, orders: tuple[Order | None, ...], repeated: tuple[int, ...],
        updated: tuple[Cell, ...],
    ) -> None:  # fmt: skip
        self.program, self.orders = program, orders
        self.repeated, self.updated = repeated, updated
        quick = program.simple and not program.portable
        self._launch = program.loaded.launcher() if quick else None

    def at(self, sizes: Mapping[str, int]) -> BackwardProgram:
        """This for other sizes of symbolic dimensions."""
        return BackwardProgram(self.program.at(sizes), self.orders, self.repeated, self.updated)

    def run(
        self, cts: Sequence[Tensor], saved: Sequence[Cell], arguments: Sequence[Tensor]
    ) -> list[Tensor]:
        """The gradients, from cotangents, saved values and arguments: each in memory of its own."""
        if self._launch is None or mode.guard is not None:
            made = counted(self.updated, self._run_checked, cts, saved, arguments)
        else:
            launch = self._launch
            made = counted(self.updated, self._run_at_once, launch, cts, saved, arguments)
        for number in self.repeated:
            made[number] = made[number].clone()
        return made

    def _run_checked(
        self, cts: Sequence[Tensor], saved: Sequence[Cell], arguments: Sequence[Tensor]
    ) -> list[Tensor]:
        lying = [
            Tensor._of(cell if order is None else Cell(cell.value.transpose(order)))
            for cell, order in zip(saved, self.orders, strict=True)
        ]
        return [Tensor._of(cell) for cell in self.program.run([*cts, *lying, *arguments])]

    def _run_at_once(
        self, launch: Launch, cts: Sequence[Tensor], saved: Sequence[Cell],
        arguments: Sequence[Tensor],
    ) -> list[Tensor]:  # fmt: skip
        """The same without a look at what it is given: all it takes is addresses."""
        copies: list[Cell] = []  # alive until the gradients are there
        words = [_address(x, copies) for x in cts]
        for cell, order in zip(saved, self.orders):
            lies = order is not None or cell.value.flags.c_contiguous
            words.append(cell.address if lies else _copied(cell.value, copies))
        words += [_address(x, copies) for x in arguments]
        return [tensor_over(made) for made in launch((*words, *self.program.scalar_values))]


def _address(tensor: Tensor, copies: list[Cell]) -> int:
    """Where the values of ``tensor`` lie row by row."""
    array = tensor._eager()
    if not array.flags.c_contiguous:
        return _copied(array, copies)
    return address_of(array) if tensor._chain else tensor._cell.address


def _copied(array: Any, copies: list[Cell]) -> int:
    copies.append(Cell(np.array(array, order="C")))
    return copies[-1].address


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
    # Where an order leaves the shape as it is, the input is the one that it takes the place of.
    values = {n: n for n in (*inputs, *graph.state)} | values
    outputs = rebuilt(graph.outputs, values)
    updates = zip((n for n, _ in graph.updates), rebuilt([n for _, n in graph.updates], values))
    places = {values[n]: place for n, place in graph.locations.items() if n in values}
    return replace(
        graph, inputs=tuple(inputs), outputs=tuple(outputs), updates=tuple(updates),
        locations=places,
    )  # fmt: skip
