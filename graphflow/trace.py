"""The tracer: user code runs once, on tensors whose values are graph nodes.

Whatever the code reaches by closure, global or attribute is captured by
reference: an eager tensor's cell gets a *shadow* cell whose value starts as a
``state`` node and follows every mutation.  At the end the shadows that moved
are the graph's updates.  Beside the graph the tracer collects what the trace
assumed (:mod:`graphflow.guards`), so that a later call knows whether the
program still fits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.cell import Cell
from graphflow.errors import GraphFlowError, TraceError
from graphflow.ir import build
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node
from graphflow.ir.op import OpDef
from graphflow.ir.types import TensorType, float64, from_numpy_dtype
from graphflow.mode import mode

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class ScalarSource:
    """A run-time scalar: a Python float read again before each call.

    ``holder[key]`` (a parameter group, an object's ``__dict__``) is the source.
    """

    __slots__ = ("holder", "key", "node")

    def __init__(self, holder: Any, key: Any, node: Node) -> None:
        self.holder, self.key, self.node = holder, key, node

    def read(self) -> float:
        """The value now."""
        return float(self.holder[self.key])


class Tracer:
    """One trace under way; ``mode.tracer`` while the user's function runs."""

    def __init__(self, name: str, names: Mapping[Cell, str] | None = None) -> None:
        self.name = name
        self.inputs: list[Node] = []
        self.captured: dict[Cell, Node] = {}
        self.shadows: dict[Cell, Cell] = {}
        self.touched: dict[Cell, None] = {}
        self.locations: dict[Node, Location] = {}
        self.modules: list[str] = []
        self.scalars: dict[tuple[int, Any], ScalarSource] = {}
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.guards: list[tuple[Callable[[], Any], Any, str]] = []
        self.leaves: dict[int, Tensor] = {}
        self.draws: dict[Cell, int] = {}
        self._names = dict(names or {})
        self._taken: set[str] = set()

    # ---- values --------------------------------------------------------------------

    def node(self, tensor: Tensor) -> Node:
        """The current value of a tensor, captured first if it is eager."""
        cell = tensor._cell
        if cell.tracer is not self:
            if tensor._requires_grad and id(tensor) not in self.leaves:
                self._capture_leaf(tensor)
            cell = self.shadow(cell)
        return tensor._traced_value(cell)

    def shadow(self, cell: Cell) -> Cell:
        """The traced cell that stands for ``cell`` here (itself if made in this trace)."""
        if cell.tracer is self:
            return cell
        found = self.shadows.get(cell)
        if found is None:
            if cell.tracer is not None:
                raise TraceError(
                    "a tensor from another compiled function's trace is used here; "
                    "return it from that function instead of storing it elsewhere"
                )
            array = cell.value
            type = TensorType(from_numpy_dtype(array.dtype), array.shape)
            node = build.state_node(self._unique(self._names.get(cell, "state")), type)
            found = self.shadows[cell] = Cell(node, self)
            self.captured[cell] = node
        return found

    def add_input(self, cell: Cell | None, name: str, type: TensorType) -> Cell:
        """A graph input; ``cell`` is the example's memory, so that aliases find it."""
        node = build.input_node(self._unique(name), type)
        self.inputs.append(node)
        shadow = Cell(node, self)
        if cell is not None:
            self.shadows[cell] = shadow
        return shadow

    def emit(self, op: OpDef, inputs: Sequence[Tensor], attrs: Mapping[str, Any]) -> Node:
        """The node of an operation on tensors, with the user's place beside it."""
        location = self._location()
        try:
            node = build.emit(op, *[self.node(t) for t in inputs], **attrs)
        except GraphFlowError as error:
            raise type(error)(f"{error}\n  at {location}") from None
        if node not in self.locations:
            self.locations[node] = location
        return node

    def block_gradient(self, inputs: Sequence[Tensor], out: Tensor) -> None:
        """Under ``no_grad``: keep the graph's own autodiff from looking through ``out``."""
        if any(t._requires_grad for t in inputs) and out.dtype.is_floating_point:
            node = build.emit("stop_gradient", out._cell.value)
            self.locations.setdefault(node, self.locations[out._cell.value])
            out._cell.value = out._array = node

    def mutated(self, cell: Cell) -> None:
        """Remember that ``cell`` was written in this trace."""
        self.touched[cell] = None

    # ---- scalars, gradients, assumptions -------------------------------------------

    def scalar(self, holder: Any, key: Any, name: str) -> Tensor:
        """``holder[key]``, a float, as a run-time scalar: never baked into the program."""
        from graphflow.tensor import Tensor

        found = self.scalars.get((id(holder), key))
        if found is None:
            node = build.input_node(self._unique(name), TensorType(float64, ()))
            found = self.scalars[(id(holder), key)] = ScalarSource(holder, key, node)
        out: Tensor = Tensor._of(Cell(found.node, self))
        out._weak = True
        return out

    def guard(self, read: Callable[[], Any], expected: Any, what: str) -> Any:
        """Assume ``read() == expected`` (or is) for as long as the program is used."""
        self.guards.append((read, expected, what))
        return expected

    def grad(self, tensor: Tensor) -> Any:
        """``tensor.grad`` as the program sees it."""
        entry = self.grads.get(id(tensor))
        if entry is not None:
            return entry[1]
        held = tensor._grad
        if tensor._cell.tracer is None:
            self.guard(lambda: tensor._grad, held, f"the gradient of {self._label(tensor)}")
        return held

    def set_grad(self, tensor: Tensor, value: Tensor | None) -> None:
        """Assign ``tensor.grad`` inside the program."""
        if id(tensor) not in self.grads and tensor._cell.tracer is None:
            self._capture_leaf(tensor)
        self.grads[id(tensor)] = (tensor, value)

    def draw(self, cell: Cell) -> tuple[Cell, int]:
        """A random draw from the generator whose state is ``cell``: its key, and a call number."""
        number = self.draws.get(cell, 0)
        self.draws[cell] = number + 1
        return self.shadow(cell), number

    def refuse_value(self, tensor: Tensor, what: str) -> None:
        """Raise: a traced value is not known while the graph is built."""
        raise TraceError(
            f"{what} needs the value of a tensor of type {tensor._type}, which a compiled "
            f"function does not have while it is traced\n  at {self._location()}\n"
            "  use gf.where(condition, a, b) or gf.cond(...) for a choice that depends on data, "
            "or move this line out of the compiled function"
        )

    # ---- the end -------------------------------------------------------------------

    def finish(self, outputs: Sequence[Node]) -> Graph:
        """The graph: inputs, captured state, outputs, and the updates of what was written."""
        for cell, count in self.draws.items():
            shadow = self.shadow(cell)
            step = build.constant(np.array([0, count], np.int64))
            shadow.value = build.emit("add", shadow.value, step)
            self.mutated(cell)
        updates = [
            (self._origin(cell), self.shadows[cell].value)
            for cell in self.touched
            if cell.tracer is not self and self.shadows[cell].value is not self._origin(cell)
        ]
        scalars = tuple(source.node for source in self.scalars.values())
        return Graph(
            inputs=(*self.inputs, *scalars),
            outputs=tuple(outputs),
            state=tuple(self.captured.values()),
            updates=tuple(updates),
            name=self.name,
            locations=self.locations,
        )

    def _origin(self, cell: Cell) -> Node:
        found = self.captured.get(cell)
        return found if found is not None else self.input_of(cell)

    def input_of(self, cell: Cell) -> Node:
        """The input node whose example had this cell."""
        raise GraphFlowError("internal: an input was mutated without being captured")

    def _capture_leaf(self, tensor: Tensor) -> None:
        self.leaves[id(tensor)] = tensor
        flag, cell = tensor._requires_grad, tensor._cell
        what = self._label(tensor)
        self.guard(lambda: tensor._requires_grad, flag, f"requires_grad of {what}")
        self.guard(lambda: tensor._cell, cell, f"the memory of {what}")

    def _label(self, tensor: Tensor) -> str:
        name = self._names.get(tensor._cell) or tensor.name
        return f"'{name}'" if name else f"a tensor of shape {list(tensor.shape)}"

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._taken:
            unique = f"{name}_{count}"
            count += 1
        self._taken.add(unique)
        return unique

    def _location(self) -> Location:
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
            frame = frame.f_back  # type: ignore[assignment]
        module = self.modules[-1] if self.modules else ""
        if frame is None:
            return Location(module=module)
        return Location(frame.f_code.co_filename, frame.f_lineno, module)
