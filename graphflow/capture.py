"""Run a function once under the tracer and keep everything a program needs of it.

:func:`capture` gives the graph, the memory it captured, where results come
from, and what was assumed.  :class:`graphflow.compiled.Compiled` turns that
into a program and keeps it for calls of the same signature.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphflow import pytree
from graphflow.argument_memory import found_out, shared_cells, view_of_one
from graphflow.assigned import FoundMember, Place
from graphflow.cell import Cell, Chain, ViewStep
from graphflow.device import CPU, Device
from graphflow.errors import CannotPostpone, GraphFlowError, TraceError
from graphflow.found_gradients import FoundGradient, found_at, found_gradients, is_constant
from graphflow.functions.creation import from_numpy
from graphflow.guards import Guard, is_named, named_cells
from graphflow.ir.build import emit
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.ops.shape import RESHAPE
from graphflow.ir.types import TensorType, float64
from graphflow.labels import leaf_labels
from graphflow.mode import mode
from graphflow.outer_draws import OuterDraws
from graphflow.reach import Reach
from graphflow.reads import Read, array_read
from graphflow.records import dataclass, field, replace
from graphflow.specs import Static, TensorSpec
from graphflow.stack import with_room
from graphflow.stale_gradient import StaleGradient
from graphflow.switches import Switched
from graphflow.tensor import Tensor
from graphflow.trace import ScalarSource, Tracer
from graphflow.traced_sizes import Assumption, at_sizes

if TYPE_CHECKING:
    from graphflow.autograd.history import GradNode
    from graphflow.autograd.postponed import Draft, Sweep
    from graphflow.dynamic import Dynamic
    from graphflow.partition import Backward

Found: TypeAlias = tuple[FoundGradient | FoundMember, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Where one returned leaf comes from.

    ``kind``: "new" (graph output ``index`` seen through ``chain``), "argument" (leaf ``index``
    itself), "argument view" (``chain`` over it) and "argument memory" (over its memory), "tensor"
    (``value``, an outer tensor, itself), "view" (``chain`` over an outer tensor's memory),
    "number" (output ``index`` as a Python float) or "value" (a plain Python value).
    """

    kind: str
    index: int = -1
    chain: Chain = ()
    value: Any = None
    differentiable: Tensor | None = None

    def at(self, sizes: Mapping[str, int]) -> Result:
        """This with numbers for symbolic dimensions."""
        chain = tuple(
            ViewStep(step.op, {name: at_sizes(v, sizes) for name, v in step.attrs.items()})
            for step in self.chain
        )
        return replace(self, chain=chain, value=at_sizes(self.value, sizes))


@dataclass(frozen=True)
class Capture:
    """A traced function."""

    traced: Graph | Draft
    """The graph, or what the trace has of it where gradients are left open."""
    name: str
    cells: tuple[Cell, ...]
    """Captured memory, one for each node of ``graph.state``."""
    scalars: tuple[ScalarSource, ...]
    """Run-time scalars: the last inputs of the graph."""
    leaves: tuple[int, ...]
    """Which argument leaf each of the first inputs is."""
    numbers: tuple[int, ...]
    """Inputs that are Python floats: given by value."""
    results: tuple[Result, ...]
    structure: pytree.Structure
    guards: tuple[Guard, ...]
    reads: tuple[Read, ...]
    grads: tuple[tuple[Tensor, Any], ...]
    """Final ``.grad`` of leaves the trace assigned: None, kept memory, what it found, a refusal."""
    switches: Switched = ()
    found: Found = ()
    """What lies in ``.grad`` or an attribute of something outside when the program is called."""
    members: tuple[Place, ...] = ()
    """Attributes and slots that the function assigns: their values follow what it returns."""
    argument_grads: tuple[tuple[int, int], ...] = ()
    """Arguments that receive a gradient: (leaf number, graph output)."""
    mutable: tuple[tuple[int, int], ...] = ()
    """Arguments the function writes to: (leaf number, position in ``graph.state``)."""
    shared: frozenset[Cell] = frozenset()
    """Memory that the program works on as a whole, of which arguments show parts."""
    backward: Backward | None = None
    """The backward half, when differentiable results leave the function."""
    updated: tuple[Cell, ...] = ()
    """Captured memory that a run changes (an optimiser's own state left out)."""
    uses_grads: bool = False
    """Whether the program assumes, changes or leaves the ``.grad`` of something outside."""
    named: frozenset[Cell] = frozenset()
    """Memory of the tensors that the function can reach by name."""
    assumptions: tuple[Assumption, ...] = ()
    """What of symbolic dimensions the trace took for granted."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """The example's sizes of symbolic dimensions."""
    device: Device = CPU
    """Where the program runs."""

    @property
    def graph(self) -> Graph:
        """The whole graph."""
        return self.traced if isinstance(self.traced, Graph) else self.traced.graph

    @property
    def is_lasting(self) -> bool:
        """Whether no gradient leaves the function: what it reads is not about to be trained."""
        return not (self.backward or self.grads or self.argument_grads or self.found)

    @property
    def may_repeat(self) -> bool:
        """Whether it changes nothing, draws no random numbers and has no other effect."""
        state = self.graph.updates or (self.backward and self.backward.updated)
        changes = state or self.members or self.switches
        return not changes and all(form.op.pure for form in self.graph.forms)

    @property
    def hidden(self) -> frozenset[int]:
        """Outputs that only the program of gradients sees."""
        return frozenset(() if self.backward is None else self.backward.saved)

    def at(self, sizes: Mapping[str, int]) -> Capture:
        """The same for other sizes: results that show shapes or views have theirs."""
        return replace(self, results=tuple(r.at(sizes) for r in self.results), sizes=sizes)


_traced: weakref.WeakKeyDictionary[Graph, Capture] = weakref.WeakKeyDictionary()


def remember(captured: Capture) -> None:
    """Let :func:`captured_memory` find the live tensors of this graph."""
    _traced[captured.graph] = captured


def inherit(graph: Graph, source: Graph) -> Graph:
    """Let ``graph``, made from ``source``, refer to the live tensors that it captured."""
    captured = _traced.get(source)
    if captured is not None:
        cells = {n.attrs["name"]: c for n, c in zip(source.state, captured.cells, strict=True)}
        kept = tuple(cells[n.attrs["name"]] for n in graph.state)
        remember(replace(captured, traced=graph, cells=kept))
    return graph


def captured_memory(graph: Graph) -> Capture | None:
    """What a traced graph captured; None for a parsed or rewritten one."""
    return _traced.get(graph)


@with_room
def capture(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    name: str | None = None,
    keep_grads: bool = False,
    mutable: frozenset[int] = frozenset(),
    dynamic: Dynamic | None = None,
    explicit: bool = False,
    assigns: bool = False,
    whole: frozenset[Cell] = frozenset(),
    postpones: bool = False,
) -> Capture:
    """Trace ``function(*args, **kwargs)``; arguments are example values or specs.

    ``mutable`` are the argument leaves known to be written to, ``whole`` the memory of which
    arguments show parts while it changes, ``dynamic`` the symbolic dimensions of arguments.  With
    ``explicit`` every tensor that is returned is an output of the graph, also views and what was
    there before.  With ``assigns`` so are the tensors that attributes of modules are assigned.
    With ``postpones`` gradients may be left open, till the graph is asked for.
    Raises TraceError with the user's line for what a static graph cannot hold.
    """
    if mode.tracer is not None:
        raise TraceError("a trace inside a trace; call the function directly instead")
    title = name or str(getattr(function, "__name__", type(function).__name__))
    leaves, structure = pytree.flatten((args, dict(kwargs)))
    reach = Reach(function, args, kwargs)
    tracer = Tracer(title, named_cells(reach.roots), explicit)
    tracer.sweeps = [] if postpones else None
    tracer.shared = whole or shared_cells(leaves)
    tracer.sizes = dynamic.sizes_of(leaves) if dynamic is not None else {}
    held, draws = mode.grad, OuterDraws()
    try:
        _name_modules(tracer, reach)
        dims = dynamic.dims if dynamic is not None else {}
        placed = _place_all(tracer, leaves, leaf_labels(function, args, kwargs), mutable, dims)
        given, named = pytree.unflatten(structure, [p for p, _ in placed])
        mode.tracer = tracer
        mode.note()
        returned = function(*given, **named)
        tracer.moved.settle(returned)
        found = found_out(tracer, leaves, mutable, dims.keys())
        if found is None:
            draws.warn(title)
            return _finish(tracer, placed, returned, reach, keep_grads, explicit, assigns)
    except GraphFlowError as error:
        if mode.tracer is tracer:
            tracer.locate(error)
        raise
    finally:
        mode.tracer, mode.grad = None, held
        try:
            tracer.give_back()
        finally:  # once more, for Ctrl-C may have come first
            tracer.give_back()
    # Memory that is written is state, and so are arguments: once more, knowing which.
    return capture(
        function, args, kwargs, name, keep_grads, found[0], dynamic, explicit, assigns, found[1],
        postpones,
    )  # fmt: skip


def _finish(
    tracer: Tracer,
    placed: list[tuple[Any, bool]],
    returned: Any,
    reach: Reach,
    keep_grads: bool,
    explicit: bool,
    assigns: bool,
) -> Capture:
    arguments = [p for p, _ in placed]
    members = tracer.assigned.members(tracer, arguments) if assigns else ()
    if members:
        returned = returned, [member.now() for member in members]
    outputs: list[Node] = []
    slots: dict[int, int] = {}
    intact: set[GradNode] = set()
    leaves, structure = pytree.flatten(returned)
    results = tuple(
        _explicit(tracer, leaf, outputs)
        if explicit and isinstance(leaf, Tensor)
        else _result(tracer, leaf, arguments, outputs, slots, intact)
        for leaf in leaves
    )
    backward = _backward(tracer, results, outputs)
    argument_grads = _argument_grads(tracer, outputs)
    given = [r.value for r in results if r.kind in ("tensor", "view")]
    found: Found = (*found_gradients(tracer, given), *tracer.assigned.found(tracer))
    grads = _final_grads(tracer, keep_grads, reach)
    tracer.assigned.undo()
    reach.check_carried(tracer.captured)
    arrays = [array_read(array, "a NumPy array") for array, _ in tracer.arrays.values()]
    graph = tracer.finish(outputs)
    return Capture(
        traced=_draft(graph, tracer.sweeps) if tracer.sweeps else graph,
        name=tracer.name,
        cells=tuple(tracer.captured),
        scalars=tuple(tracer.scalars.values()),
        leaves=tuple(i for i, (_, is_input) in enumerate(placed) if is_input),
        numbers=tuple(i for i, node in enumerate(tracer.inputs) if node in tracer.number_inputs),
        results=results,
        structure=structure,
        guards=tuple(Guard(*g).settled() for g in tracer.guards),
        reads=(*reach.watched(tracer.arrays), *arrays),
        grads=grads,
        switches=tracer.switches.left(),
        found=found,
        members=members,
        argument_grads=argument_grads,
        mutable=tracer.mutable_positions(),
        shared=tracer.shared.intersection(tracer.captured),
        backward=backward,
        updated=_updated(tracer, graph),
        uses_grads=tracer.reads_grads or bool(grads),
        named=tracer.named,
        assumptions=tuple(tracer.assumptions),
        sizes=tracer.sizes,
        device=tracer.device,
    )


def _backward(tracer: Tracer, results: Sequence[Result], outputs: list[Node]) -> Backward | None:
    """The backward half of results that have a history."""
    live = [r.differentiable for r in results if r.differentiable is not None]
    if not live:
        return None
    if tracer.sweeps:
        raise CannotPostpone("a result may be of a gradient that is left open")
    from graphflow.partition import partition  # most functions keep their gradients inside

    return partition(tracer, live, outputs)


def _draft(graph: Graph, sweeps: Sequence[Sweep]) -> Draft:
    from graphflow.autograd.postponed import Draft  # most functions have no gradients

    return Draft(graph, sweeps)


def _updated(tracer: Tracer, graph: Graph) -> tuple[Cell, ...]:
    changed = {node for node, _ in graph.updates}
    return tuple(
        cell
        for cell, node in tracer.captured.items()
        if node in changed and cell not in tracer.private and cell not in tracer.input_leaf
    )


def _name_modules(tracer: Tracer, reach: Reach) -> None:
    for name, module in reach.owners:
        tracer.assume_module(module, name)
    for name, value in reach.roots:
        if not isinstance(value, Tensor) and hasattr(value, "named_modules"):
            for path, module in value.named_modules():
                tracer.name_module(module, f"{name}.{path}" if path else name)


def _place_all(
    tracer: Tracer,
    leaves: Sequence[Any],
    labels: Sequence[str],
    mutable: frozenset[int],
    dims: Mapping[int, Mapping[int, str]],
) -> list[tuple[Any, bool]]:
    tracer.given = tuple(leaf._cell for leaf in leaves if isinstance(leaf, Tensor))
    placed = [
        _place_sized(tracer, leaf, label, index, dims[index])
        if index in dims
        else _place(tracer, leaf, label, index, index in mutable)
        for index, (leaf, label) in enumerate(zip(leaves, labels))
    ]
    tracer.positions = {id(p): i for i, (p, _) in enumerate(placed) if isinstance(p, Tensor)}
    return placed


def _place(tracer: Tracer, leaf: Any, label: str, index: int, mutable: bool) -> tuple[Any, bool]:
    """What the function receives for an argument leaf, and whether it is a graph input."""
    if isinstance(leaf, TensorSpec):
        cell = tracer.add_input(None, leaf.name or label, leaf.type)
        return Tensor._of(cell), True
    if isinstance(leaf, np.ndarray):
        leaf = from_numpy(leaf)
    if isinstance(leaf, Tensor):
        placed = _place_tensor(tracer, leaf, label, index, mutable)
        return placed, not mutable
    if isinstance(leaf, float):
        out = Tensor._of(tracer.add_input(None, label, TensorType(float64, ())))
        out._weak = True
        tracer.number_inputs.add(out._array)
        return out, True
    return (leaf.value if isinstance(leaf, Static) else leaf), False


def _place_sized(
    tracer: Tracer, leaf: Tensor, label: str, index: int, axes: Mapping[int, str]
) -> tuple[Any, bool]:
    """The argument with symbolic dimensions that the function receives for ``leaf``."""
    dtype, shape = leaf._type_now().dtype, leaf._eager().shape
    dims = tuple(symbol(axes[k]) if k in axes else extent for k, extent in enumerate(shape))
    placed: Tensor = Tensor._of(tracer.add_sized_input(index, label, TensorType(dtype, dims)))
    placed._requires_grad = leaf._requires_grad
    return placed, True


def _place_tensor(tracer: Tracer, leaf: Tensor, label: str, index: int, mutable: bool) -> Tensor:
    array = leaf._eager()
    if leaf.grad_fn is not None or (leaf._chain and leaf._cell not in tracer.shared):
        # A view or a result passed as an argument is a leaf with memory of its own here.
        own: Tensor = Tensor._of(Cell(array))
        own._requires_grad = leaf._requires_grad
        leaf = own
    cell = leaf._cell
    if mutable:
        tracer.input_leaf.setdefault(cell, index)
        tracer.shadow(cell, label)
    elif cell not in tracer.shadows:
        tracer.add_input(cell, label, _whole(leaf)._type_now())
        tracer.input_leaf[cell] = index
    else:
        tracer.add_alias(cell, label, _whole(leaf)._type_now())
    return leaf


def _whole(leaf: Tensor) -> Tensor:
    return leaf if not leaf._chain else Tensor._of(leaf._cell)


def _result(
    tracer: Tracer,
    leaf: Any,
    arguments: list[Any],
    outputs: list[Node],
    slots: dict[int, int],
    intact: set[GradNode],
) -> Result:
    if not isinstance(leaf, Tensor):
        _need_open(leaf)
        return Result("value", value=leaf)
    if id(leaf) in tracer.positions:
        return Result("argument", tracer.positions[id(leaf)])
    cell = leaf._cell
    if cell in tracer.input_leaf:
        shown = view_of_one(leaf, arguments)
        if shown is None:
            return Result("argument memory", tracer.input_leaf[cell], leaf._chain)
        return Result("argument view", *shown, value=leaf._requires_grad)
    if cell in tracer.assigned.moving():  # another tensor lies there when the program is called
        outputs.append(emit("copy", tracer.node(leaf)))
        return Result("new", len(outputs) - 1)
    if cell.tracer is None:
        if leaf._chain and leaf.name is None and not leaf._requires_grad:
            return Result("view", chain=leaf._chain, value=cell)
        return Result("tensor", value=leaf)
    history = leaf.grad_fn
    live = leaf if history is not None and not history.spent(intact) else None
    if live is not None or leaf._weak:
        outputs.append(_held(tracer.node(leaf)))
        kind = "number" if leaf._weak else "new"
        return Result(kind, len(outputs) - 1, differentiable=live)
    key = id(cell)
    if key not in slots:
        slots[key] = len(outputs)
        outputs.append(_held(cell.value))
    return Result("new", slots[key], leaf._chain)


def _held(node: Node) -> Node:
    """``node`` as a result.  What ``contiguous()`` makes is memory in its own order: inside, it is
    a reshape to the same shape, and passes may take what it is of."""
    if node.op is RESHAPE and node.shape == node.inputs[0].shape:
        return emit("copy", node.inputs[0])
    return node


def _need_open(leaf: Any) -> None:
    """Refuse a container that hides values of the trace: every call would return the first's."""
    inside: Any = leaf if isinstance(leaf, (deque, Set)) else ()
    if isinstance(leaf, Mapping):
        inside = leaf.values()
    if any(isinstance(value, Tensor) and value._cell.tracer is not None for value in inside):
        raise TraceError(
            f"a compiled function cannot return a {type(leaf).__name__} that holds tensors: "
            "results are tensors, numbers, and tuples, lists, dicts and dataclasses of them"
        )


def _explicit(tracer: Tracer, leaf: Tensor, outputs: list[Node]) -> Result:
    """An output of its own for a tensor, whatever it shows."""
    outputs.append(_held(tracer.node(leaf)))
    return Result("number" if leaf._weak else "new", len(outputs) - 1)


def _final_grads(tracer: Tracer, keep: bool, reach: Reach) -> tuple[tuple[Tensor, Any], ...]:
    """What ``.grad`` of each leaf becomes: kept memory, None, what was found, or a refusal."""
    final: list[tuple[Tensor, Any]] = []
    for leaf, value in tracer.grads.values():
        if leaf._cell.tracer is not None or id(leaf) in tracer.positions:
            continue
        if leaf._cell in tracer.input_leaf and not is_named(leaf, reach.roots):
            continue  # the function's own tensor over an argument's memory, gone by now
        if (source := found_at(tracer, value)) is not None:
            final.append((leaf, FoundGradient(-1, source)))
        elif value is None or isinstance(value, StaleGradient) or value._cell.tracer is None:
            final.append((leaf, value))
        elif keep or leaf._cell not in tracer.touched or is_constant(tracer.node(value)):
            final.append((leaf, tracer.keep(value, f"{tracer.label(leaf)}.grad")))
        else:
            final.append((leaf, StaleGradient(tracer.name)))
    return tuple(final)


def _argument_grads(tracer: Tracer, outputs: list[Node]) -> tuple[tuple[int, int], ...]:
    """Gradients that the function left in arguments, as further outputs."""
    found = []
    for leaf, value in tracer.grads.values():
        if id(leaf) in tracer.positions and isinstance(value, Tensor):
            found.append((tracer.positions[id(leaf)], len(outputs)))
            outputs.append(tracer.node(value))
    return tuple(found)
