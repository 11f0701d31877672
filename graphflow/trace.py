"""The tracer: user code runs once, on tensors whose values are graph nodes.

Whatever the code reaches by closure, global or attribute is captured by
reference: an eager tensor's cell gets a *shadow* cell whose value starts as a
``state`` node and follows every mutation.  At the end the shadows that moved
are the graph's updates.  Beside the graph the tracer collects what the trace
assumed (:mod:`graphflow.guards`), so that a later call knows whether the
program still fits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.assigned import REPLACED, Assigned
from graphflow.cell import Cell
from graphflow.device import CPU, Device, device_of, is_placed, put
from graphflow.errors import GraphFlowError, TraceError
from graphflow.ir import build
from graphflow.ir.cotangent import carries_gradient
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node
from graphflow.ir.op import OpDef
from graphflow.ir.types import TensorType, TupleType, float64, from_numpy_dtype
from graphflow.mode import mode
from graphflow.moved_data import MovedData
from graphflow.places import PACKAGE, user_place
from graphflow.records import NamedTuple
from graphflow.switches import Switches
from graphflow.traced_sizes import Assumption

if TYPE_CHECKING:
    from graphflow.autograd.postponed import Sweep
    from graphflow.regions import Region
    from graphflow.stale_gradient import StaleGradient
    from graphflow.tensor import Tensor


class ScalarSource(NamedTuple):
    """A run-time scalar: the graph input it became, and how to read it before a call."""

    node: Node
    read: Callable[[], Any]


class outside_trace:
    """A stretch of code that runs eagerly though a trace is under way."""

    __slots__ = ("_held",)

    def __enter__(self) -> None:
        self._held = mode.tracer
        mode.tracer = None

    def __exit__(self, *exc: object) -> None:
        mode.tracer = self._held


class Tracer:
    """One trace under way; ``mode.tracer`` while the user's function runs."""

    def __init__(
        self, name: str, names: Mapping[Cell, str] | None = None, explicit: bool = False,
        unrolls: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.explicit = explicit
        """Whether the graph is for the user, who may differentiate it."""
        self.unrolls = unrolls
        """Whether loops of known lengths are written out: what is traced will run eagerly."""
        self.sweeps: list[Sweep] | None = None
        """Backward passes that were left open; None if none may be."""
        self.inputs: list[Node] = []
        self.number_inputs: set[Node] = set()
        self.captured: dict[Cell, Node] = {}
        self.shadows: dict[Cell, Cell] = {}
        self.touched: dict[Cell, None] = {}
        self.locations: dict[Node, Location] = {}
        self.modules: list[str] = []
        self.scalars: dict[Hashable, ScalarSource] = {}
        self.grads: dict[int, tuple[Tensor, Tensor | StaleGradient | None]] = {}
        self.found_grads: dict[Cell, list[tuple[Tensor, Tensor]]] = {}
        self.guards: list[tuple[Callable[[], Any], Any, str]] = []
        self.leaves: dict[int, Tensor] = {}
        self.draws: dict[Cell, int] = {}
        self.behind: Tensor | None = None
        """What is there before random numbers are drawn, where they are drawn once more."""
        self.arrays: dict[int, tuple[np.ndarray[Any, Any], Cell]] = {}
        self.given: tuple[Cell, ...] = ()
        """The memory of the example's arguments."""
        self._paths: dict[int, str] = {}
        self._input_of: dict[Cell, Node] = {}
        self.input_leaf: dict[Cell, int] = {}
        self.positions: dict[int, int] = {}  # of arguments, by the identity of what stands for them
        self.shared: frozenset[Cell] = frozenset()
        self._entered: set[int] = set()
        self._members: set[tuple[int, str]] = set()
        self.lent: Set[tuple[int, str]] = frozenset()
        """Members that the function itself has replaced for a while (``functional_call``)."""
        self._keep: list[Any] = []
        self._names = dict(names or {})
        self.named = frozenset(self._names)
        self.private: set[Cell] = set()
        self.assigned, self.moved, self.switches = Assigned(), MovedData(), Switches()
        self.reads_grads = False
        self.sizes: dict[str, int] = {}
        """The example's size of every symbolic dimension, where there is an example."""
        self.rules = 0
        """Whether a gradient rule is under way, which compares sizes as types do."""
        self.rule_place: Location | None = None
        """Where the rule under way was asked for, once that is known: far up the stack."""
        self.assumptions: dict[Assumption, None] = {}
        """What the function was told about sizes because the example has it so."""
        self._taken: dict[str, int] = {}  # names, and the last number that was put after each
        self.region: Region | None = None
        """The body of a loop or branch that is being traced, if one is."""

    # ---- values --------------------------------------------------------------------

    @property
    def device(self) -> Device:
        """Where the program will run: where what it has seen so far lies."""
        seen = (*self.given, *self.captured)
        return next((device_of(cell.value) for cell in seen if is_placed(cell.value)), CPU)

    def zeros(self, type: TensorType) -> Cell:
        """Memory outside the trace, where the program runs."""
        array: Any = np.zeros(type.static_shape, type.dtype.numpy)
        if self.device is not CPU:
            array = put(array, self.device)
        return Cell(array)

    def node(self, tensor: Tensor) -> Node:
        """The current value of a tensor, captured first if it is eager."""
        cell = tensor._cell
        if cell.tracer is not self:
            if id(tensor) not in self.leaves and cell not in self.input_leaf:
                self.assume_leaf(tensor)
            cell = self.shadow(cell, tensor.name or "state")
        return tensor._traced_value(cell)

    def shadow(self, cell: Cell, name: str = "state") -> Cell:
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
            node = build.state_node(self._unique(self._names.get(cell, name)), type)
            found = self.shadows[cell] = Cell(node, self)
            found.version = cell.version  # what was recorded before the trace compares
            if self.region is not None:
                self.region.own.discard(found)
            self.captured[cell] = node
        return found

    def add_input(self, cell: Cell | None, name: str, type: TensorType) -> Cell:
        """A graph input; ``cell`` is the example's memory, so that aliases find it."""
        node = build.input_node(self._unique(name), type)
        self.inputs.append(node)
        shadow = Cell(node, self)
        if cell is not None:
            self.shadows[cell] = shadow
            shadow.version = cell.version
            self._input_of[cell] = node
        return shadow

    def add_sized_input(self, index: int, name: str, type: TensorType) -> Cell:
        """The input of argument leaf ``index``, some of whose dimensions are symbolic."""
        shadow = self.add_input(None, name, type)
        self._input_of[shadow] = shadow.value
        self.input_leaf[shadow] = index
        return shadow

    def add_alias(self, cell: Cell, name: str, type: TensorType) -> None:
        """A second argument in the same memory: an input nobody reads."""
        self.inputs.append(build.input_node(self._unique(name), type))

    def name_after(self, slot: Tensor, name: str, parameter: Tensor) -> None:
        """Call an optimiser's memory ``momentum_buffer.model.fc1.weight``."""
        owner = self._names.get(parameter._cell)
        if owner is not None:
            self._names.setdefault(slot._cell, f"{name}.{owner}")

    def input_nodes(self) -> list[tuple[Cell, Node]]:
        """Every argument's memory with its input node."""
        return [(cell, node) for cell, node in self._input_of.items() if cell in self.input_leaf]

    def written_arguments(self) -> frozenset[int]:
        """The argument leaves whose memory the function changed."""
        return frozenset(self.input_leaf[c] for c in self.touched if c in self.input_leaf)

    def mutable_positions(self) -> tuple[tuple[int, int], ...]:
        """Arguments that are state of the graph: (leaf number, position in the state)."""
        return tuple(
            (self.input_leaf[cell], position)
            for position, cell in enumerate(self.captured)
            if cell in self.input_leaf
        )

    def name_module(self, module: Any, path: str) -> None:
        """Call ``module`` by its path in names and places."""
        self._paths.setdefault(id(module), path)
        self.assume_module(module, path)

    def keep(self, value: Tensor, name: str) -> Tensor:
        """Memory outside the trace that holds ``value`` after every call (a kept gradient)."""
        from graphflow.tensor import Tensor

        type = value._type
        with outside_trace():
            cell = self.zeros(type)
            kept: Tensor = Tensor._of(cell)
        self._names[cell] = name
        shadow = self.shadow(cell)
        shadow.value = self.node(value)
        self.mutated(cell)
        return kept

    def emit(self, op: OpDef, inputs: Sequence[Tensor], attrs: Mapping[str, Any]) -> Node:
        """The node of an operation on tensors, with the user's place beside it."""
        location = self.here()
        try:
            node = build.emit(op, *self._operands(inputs), **attrs)
        except GraphFlowError as error:
            raise type(error)(f"{error}\n  at {location}") from None
        if node not in self.locations:
            self.locations[node] = location
        return node

    def _operands(self, inputs: Sequence[Tensor]) -> list[Node]:
        nodes = [self.node(t) for t in inputs]
        if self.region is None:
            return nodes
        return [self.region.operand(t, n) for t, n in zip(inputs, nodes)]

    def emit_several(
        self, op: OpDef, inputs: Sequence[Tensor], attrs: Mapping[str, Any]
    ) -> list[Node]:
        """The results of an operation that has several, taken apart."""
        whole = self.emit(op, inputs, attrs)
        assert isinstance(whole.type, TupleType)
        found = [build.emit("get", whole, index=i) for i in range(len(whole.type.items))]
        for node in found:
            self.locations.setdefault(node, self.locations[whole])
        return found

    def block_gradient(self, inputs: Sequence[Tensor], out: Tensor) -> None:
        """Under ``no_grad``: keep the graph's own autodiff from looking through ``out``.

        That differentiates the bodies of control flow, and graphs that the user asked for.
        """
        if self.region is None and not self.explicit:
            return
        if any(t._requires_grad for t in inputs) and carries_gradient(out):
            node = build.emit("stop_gradient", out._cell.value)
            self.locations.setdefault(node, self.locations[out._cell.value])
            out._cell.value = out._array = node

    def array_cell(self, array: np.ndarray[Any, Any]) -> Cell:
        """The cell of a NumPy array the function reaches: captured by reference, once."""
        held = self.arrays.get(id(array))
        if held is None:
            held = self.arrays[id(array)] = (array, Cell(array))
            held[1].shared = True
        return held[1]

    def mutated(self, cell: Cell) -> None:
        """Remember that ``cell`` was written in this trace."""
        if self.region is not None:
            self.region.check_write(cell, "writes in place to a tensor")
        self.touched[cell] = None

    # ---- scalars, gradients, assumptions -------------------------------------------

    def scalar(self, key: Hashable, read: Callable[[], Any], name: str) -> Tensor:
        """The float that ``read()`` gives, as a run-time scalar: never baked in.

        ``key`` says which source it is: the same key is the same scalar.
        """
        from graphflow.tensor import Tensor

        found = self.scalars.get(key)
        if found is None:
            node = build.input_node(self._unique(name), TensorType(float64, ()))
            found = self.scalars[key] = ScalarSource(node, read)
        out: Tensor = Tensor._of(Cell(found.node, self))
        out._weak = True
        return out

    def enter_module(self, module: Any) -> None:
        """A module's call begins: its path names nodes, its plain attributes are assumed."""
        parent = self.modules[-1] if self.modules else ""
        self.modules.append(self._paths.get(id(module)) or parent or type(module).__name__.lower())
        self.assume_module(module, self.modules[-1])

    def assume_module(self, module: Any, path: str) -> None:
        """Assume that a module's plain attributes, members and hooks stay what they are."""
        from graphflow.guards import plain_attributes

        if id(module) not in self._entered:
            self._entered.add(id(module))
            self.assigned.meet(module)
            self.guard(lambda: plain_attributes(module), plain_attributes(module), path)

    def leave_module(self) -> None:
        """The innermost module's call is over."""
        self.modules.pop()

    def read_member(self, module: Any, members: Mapping[str, Any], name: str, value: Any) -> None:
        """A parameter, buffer or sub-module was looked up: assume it is not replaced, unless the
        function itself has put it there."""
        key = (id(members), name)
        if key in self._members or key in self.lent:
            return
        self._members.add(key)
        self._keep.append(value)
        if name in module.__dict__.get(REPLACED, ()):
            self.assigned.read(module, name)
        elif getattr(getattr(value, "_cell", None), "tracer", None) is None:
            self.guard(lambda: members.get(name), value, f"{type(module).__name__}.{name}")
        path = self._paths.get(id(module))
        if path is not None and name in module._modules:
            self._paths.setdefault(id(value), f"{path}.{name}")

    def guard(self, read: Callable[[], Any], expected: Any, what: str) -> Any:
        """Assume ``read() == expected`` (or is) for as long as the program is used."""
        self.guards.append((read, expected, what))
        return expected

    def grad(self, tensor: Tensor) -> Any:
        """``tensor.grad`` as the program sees it."""
        entry = self.grads.get(id(tensor))
        if entry is not None:
            return entry[1]
        if tensor._cell in self.input_leaf:
            return None  # what an argument holds is added to when the call is over
        held = tensor._grad
        if tensor._cell.tracer is None:
            self.reads_grads = True
            if hasattr(held, "_cell"):
                pairs = self.found_grads.setdefault(held._cell, [])
                if all(leaf is not tensor for leaf, _ in pairs):
                    pairs.append((tensor, held))
            else:
                what = f"the gradient of {self.label(tensor)}"
                self.guard(lambda: _none_or_kind(tensor._grad), _none_or_kind(held), what)
        return held

    def set_grad(self, tensor: Tensor, value: Tensor | StaleGradient | None) -> None:
        """Assign ``tensor.grad`` inside the program."""
        if self.region is not None:
            self.region.check_write(tensor._cell, "assigns the gradient of a tensor")
        known = id(tensor) in self.grads or tensor._cell in self.input_leaf
        if not known and tensor._cell.tracer is None:
            self.assume_leaf(tensor)
        self.grads[id(tensor)] = (tensor, value)

    def generator_key(self, cell: Cell) -> Tensor:
        """The generator's state that a draw made here starts from: in a scan, the step's."""
        from graphflow.tensor import Tensor

        step = None if self.region is None else self.region.step()
        if step is not None:
            return step.drawn[cell].key
        made: Tensor = Tensor._of(Cell(self.captured[cell], self))
        return made

    def draw(self, cell: Cell, count: int = 1) -> int:
        """The number of the next of ``count`` draws from the generator whose state is ``cell``."""
        step = None if self.region is None else self.region.step()
        if step is not None:
            return step.draw(cell, count)
        number = self.draws.get(cell, 0)
        self.draws[cell] = number + count
        self.shadow(cell)
        return number

    def values_now(self) -> dict[Cell, Node]:
        """The value of all outer memory that the program has looked at so far."""
        return {cell: shadow.value for cell, shadow in self.shadows.items()}

    def undo_where(self, condition: Node, before: Mapping[Cell, Node]) -> None:
        """Where the bool ``condition`` holds, all outer memory gets back its value ``before``."""
        for cell in [cell for cell in self.touched if cell.tracer is not self]:
            shadow = self.shadows[cell]
            old = before.get(cell) or self._origin(cell)
            if shadow.value is not old:
                shadow.value = build.emit("where", condition, old, shadow.value)
                shadow.version += 1

    def locate(self, error: GraphFlowError) -> None:
        """Say in the message of ``error`` where in the user's code and model it arose."""
        message = str(error)
        if "\n  at " in message:
            return
        import traceback

        frames = [f for f, _ in traceback.walk_tb(error.__traceback__)]
        users = [f for f in frames if not f.f_code.co_filename.startswith(PACKAGE)]
        if not error.module and self.modules:
            error.module = self.modules[-1]
        if users:
            place = Location(users[-1].f_code.co_filename, users[-1].f_lineno, error.module)
            error.args = (f"{message}\n  at {place}", *error.args[1:])

    def refuse_value(self, tensor: Tensor, what: str) -> None:
        """Raise: a traced value is not known while the graph is built."""
        where = "a function under vmap" if self.unrolls else "a compiled function"
        raise TraceError(
            f"{what} needs the value of a tensor of type {tensor._type}, which {where} "
            f"does not have while it is traced\n  at {self.here()}\n"
            "  use gf.where(condition, a, b) for a choice that depends on data, gf.static(value) "
            "for a float argument that is\n  to stay a Python number, or move this line out of the "
            "compiled function"
        )

    # ---- the end -------------------------------------------------------------------

    def give_back(self) -> None:
        """Tensors and modules from outside have what they had before, however the trace ended.

        Done twice it is as if done once: Ctrl-C may have come in between.
        """
        self.moved.undo()
        self.switches.undo()
        self.assigned.undo()
        self.assigned.restore_histories()
        mode.note()

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
        return found if found is not None else self._input_of[cell]

    def assume_leaf(self, tensor: Tensor) -> None:
        """Assume of an outer tensor that it stays where it is, and of ``requires_grad``."""
        self.leaves[id(tensor)] = tensor
        flag, cell = tensor._requires_grad, tensor._cell
        what = self.label(tensor)
        self.guard(lambda: tensor._requires_grad, flag, f"requires_grad of {what}")
        self.guard(lambda: tensor._cell, cell, f"the memory of {what}")

    def label(self, tensor: Tensor) -> str:
        """What to call a tensor in a message."""
        name = self._names.get(tensor._cell) or tensor.name
        return f"'{name}'" if name else f"a tensor of shape {list(tensor.shape)}"

    def _unique(self, name: str) -> str:
        unique, count = name, self._taken.get(name, 0)
        while unique in self._taken:
            count += 1
            unique = f"{name}_{count}"
        self._taken[name] = count
        self._taken.setdefault(unique, 0)
        return unique

    def here(self) -> Location:
        """The user's line, and the module whose call is under way."""
        place = self.rule_place
        if place is None:
            place = user_place(1, self.modules[-1] if self.modules else "")
            if self.rules:
                self.rule_place = place
        return place


def _none_or_kind(held: Any) -> Any:
    """None, or the type of what stands in ``.grad``: every step leaves another refusal there."""
    return None if held is None else type(held)
