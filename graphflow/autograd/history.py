"""The history of a tensor: which operation made it, from what.

One :class:`GradNode` a differentiable operation; ``record`` makes it.  Edges
point at the histories of the operands *at the time of the operation*, so later
in-place changes of an operand do not alter what has been recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from graphflow.autograd.recipes import repeated, values_read
from graphflow.cell import Cell, copy_of
from graphflow.errors import ChangedInPlaceError, GraphFlowError
from graphflow.ir.cotangent import operand_cotangent
from graphflow.ir.node import Node
from graphflow.ir.op import NON_DIFFERENTIABLE, Application, OpDef
from graphflow.mode import mode
from graphflow.tensor import Tensor
from graphflow.traced_sizes import as_types_do

serials = itertools.count()

SHARED, NEW, ALONE = range(3)
"""Who has the memory of what a history passes on: others too, perhaps; the history made it, if
NumPy has not made it a view of other memory; nobody else."""

Hook = Callable[[Any], Any]


class Edge:
    """Where a cotangent goes: a history, or a leaf whose ``.grad`` collects it."""

    __slots__ = ("leaf", "node")

    def __init__(self, node: GradNode | None, leaf: Tensor | None) -> None:
        self.node = node
        self.leaf = leaf


class GradNode:
    """One recorded operation.  ``serial`` orders nodes: later ones first in backward.

    ``passes_on`` tells of memory that is not what arrived, nor a view.
    """

    passes_on: ClassVar[int] = NEW

    __slots__ = (
        "__weakref__", "attrs", "edges", "hooks", "inputs", "module", "op", "out", "released",
        "retain", "serial", "versions",
    )  # fmt: skip

    def __init__(
        self, op: OpDef | None, inputs: tuple[Tensor, ...], attrs: Mapping[str, Any]
    ) -> None:
        self.op = op
        self.attrs = attrs
        self.edges = tuple([edge_of(t) if t._requires_grad else None for t in inputs])
        self.inputs = inputs
        self.module = ""
        if mode.tracer is None:
            self.versions = tuple([t._cell.version for t in inputs])
        else:
            self.versions = tuple([t._version for t in inputs])
            if mode.tracer.modules:
                self.module = mode.tracer.modules[-1]
        self.serial = next(serials)
        self.hooks: list[Hook] | None = None
        self.retain: Any = None
        self.released = False
        self.out: Any = None

    def name(self) -> str:
        """PyTorch-like: ``MulBackward0``."""
        stem = self.op.name if self.op is not None else "function"
        return "".join(part.capitalize() for part in stem.split("_")) + "Backward0"

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The histories of the operands (None for those that want no gradient)."""
        return tuple((None if e is None else e.node or e.leaf, 0) for e in self.edges)

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The cotangent of every operand that wants one."""
        return self.cotangents_along(self.edges, builder, ct, create_graph)

    def cotangents_along(
        self, edges: Sequence[Edge | None], builder: Any, ct: Tensor, create_graph: bool
    ) -> list[Tensor | None]:
        """The cotangents of the operands that ``edges`` lead to; of the others None."""
        assert self.op is not None
        application = self._application(create_graph)
        if mode.tracer is not None and not create_graph:
            wants = tuple([edge is not None for edge in edges])
            found = repeated(mode.tracer, self.op, application, ct, wants)
            if found is not None:
                return found
        with as_types_do:
            return [
                None if edge is None else operand_cotangent(builder, self.op, application, ct, i)
                for i, edge in enumerate(edges)
            ]

    @property
    def gone(self) -> bool:
        """True when the saved values of this very operation are."""
        return self.released

    def spent(self, intact: set[GradNode]) -> bool:
        """True when a backward pass has let go of what another one would need, here or below.

        ``intact`` are operations of which this is known not to be so; others join them.
        """
        stack: list[GradNode] = [self]
        seen: set[GradNode] = set()
        while stack:
            node = stack.pop()
            if node in intact or node in seen:
                continue
            if node.gone:
                return True
            seen.add(node)
            below = (edge.node for edge in node.edges if edge is not None)
            stack.extend(other for other in below if other is not None)
        intact |= seen
        return False

    def release(self) -> None:
        """Let go of the saved values (backward without ``retain_graph``)."""
        self.inputs = ()
        self.out = None
        self.released = True

    def _application(self, create_graph: bool) -> Application:
        self.check()
        out = self.out.alias(self if create_graph else None)
        return Application(self.inputs, out, self.attrs)

    def check(self) -> None:
        """Raise if the saved values were freed, or changed since in place."""
        if self.released:
            raise GraphFlowError(
                "backward through the graph a second time, after its saved values were "
                "freed; pass retain_graph=True to the first backward()"
            )
        for i, (tensor, version) in enumerate(zip(self.inputs, self.versions, strict=True)):
            if tensor._version != version and self._needs(i):
                self.refuse(tuple(tensor.shape), version, tensor._version)
        out = self.out
        if out.__class__ is SavedOutput and out.is_changed and self._needs(len(self.inputs)):
            self.refuse(out.shape, out.version, out.version_now)

    def refuse(self, shape: tuple[int, ...], expected: int, version: int) -> None:
        """Raise: a saved value is not there any more."""
        what = self.name().partition("Backward")[0].lower()
        raise ChangedInPlaceError(
            f"a tensor of shape {list(shape)} needed for the gradient of {what} was modified by an "
            f"in-place operation (version {version}, expected {expected}); clone() it first"
        )

    def keep_from(self, cell: Cell) -> None:
        """``cell`` is about to be written to: have a saved result elsewhere that lies there."""
        out = self.out
        if out.__class__ is SavedOutput and out.lies_in(cell) and self._needs(len(self.inputs)):
            out.move()

    def _needs(self, position: int) -> bool:
        """Whether some rule reads the *value* of an operand or, after them, a result.

        Asked only when that has been modified since, or is about to be.
        """
        assert self.op is not None
        return position in values_read(self.op, self.inputs, self.attrs, self.edges)


class SavedOutput:
    """The result of a recorded operation, kept without a cycle through its history."""

    __slots__ = ("array", "cell", "chain", "seen", "version")

    def __init__(self, tensor: Tensor) -> None:
        """Hold the value of ``tensor`` as it is now."""
        self.cell, self.chain = tensor._cell, tensor._chain
        self.array, self.seen = tensor._array, tensor._seen
        self.version = self.cell.version if mode.tracer is None else tensor._version

    @property
    def version_now(self) -> int:
        """How often the memory has been changed."""
        return (self.cell if mode.tracer is None else mode.tracer.shadow(self.cell)).version

    @property
    def is_changed(self) -> bool:
        """Whether the memory has been changed in place since, so that the value is gone."""
        return self.version_now != self.version

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return tuple(self.alias(None).shape)

    def lies_in(self, cell: Cell) -> bool:
        """Whether the value is there, in this memory."""
        return self.cell is cell and not self.is_changed

    def move(self) -> None:
        """Have the value where nobody else writes to."""
        held, tracer = self.alias(None), mode.tracer
        if tracer is None:
            cell = Cell(copy_of(held._eager()))
        else:
            cell = Cell(tracer.node(held), tracer)
        SavedOutput.__init__(self, Tensor._of(cell))

    def traced_value(self, cell: Cell) -> Node:
        """The node of the value, given the traced cell that shadows its own."""
        array = self.array
        if self.cell is cell and self.seen == cell.version and array is not None:
            return array  # type: ignore[no-any-return]
        return self.alias(None)._traced_value(cell)

    def alias(self, history: GradNode | None) -> Tensor:
        """A tensor over the saved value, with or without its history."""
        out = Tensor._of(self.cell, self.chain)
        out._array, out._seen = self.array, self.seen
        if history is not None:
            out._grad_fn, out._requires_grad = history, True
        return out


def edge_of(tensor: Tensor) -> Edge | None:
    """Where the cotangent of ``tensor`` flows; None if it wants none."""
    if not tensor._requires_grad:
        return None
    node = tensor.grad_fn
    if node is None and mode.part is not None:
        node = mode.part.get(id(tensor))
    return Edge(node, None) if node is not None else Edge(None, tensor)


def record(op: OpDef, inputs: tuple[Tensor, ...], attrs: Mapping[str, Any], out: Tensor) -> None:
    """Give ``out`` its history (some input requires grad, and grad mode is on)."""
    if op.vjp is NON_DIFFERENTIABLE:
        return
    dtype = out.dtype
    if not (dtype.is_floating_point or dtype.is_complex):
        return
    if mode.packing is not None and mode.tracer is None:
        from graphflow.autograd.saved import record_packed

        record_packed(mode.packing, op, inputs, attrs, out)
        return
    node = GradNode(op, inputs, attrs)
    node.out = SavedOutput(out)
    out._grad_fn = node
    out._requires_grad = True
