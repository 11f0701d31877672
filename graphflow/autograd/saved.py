"""Values that operations save for their gradients, as the user's hooks pack them.

Without hooks a history holds its operands and result, whatever its rule reads of them.  With
hooks (:mod:`graphflow.autograd.graph`) it is looked up which *values* the rule reads; those are
packed, and all the memory is let go of: of other operands only their types are known afterwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.autograd.history import Edge, GradNode, SavedOutput, edge_of
from graphflow.autograd.modes import in_grad_mode
from graphflow.autograd.recipes import values_read
from graphflow.autograd.several import SeveralNode, attach
from graphflow.cell import Cell, TypeOnlyCell, copy_of
from graphflow.errors import GraphFlowError, TraceError
from graphflow.ir.op import Application, OpDef
from graphflow.mode import mode
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.autograd.graph import saved_tensors_hooks


def hooks_at_work() -> saved_tensors_hooks | None:
    """The hooks that eager operations of this thread give what they save to."""
    return mode.packing if mode.tracer is None else None


def _need_eager() -> None:
    if mode.tracer is not None:
        raise TraceError(
            "backward() in a compiled function through operations recorded under "
            "saved_tensors_hooks: hooks are called eagerly only; call backward() outside"
        )


class Packed:
    """What a hook has made of a tensor, and what the tensor was."""

    __slots__ = ("edge", "kept", "memory", "type", "unpack", "version")

    def __init__(self, hooks: saved_tensors_hooks, tensor: Tensor, edge: Edge | None) -> None:
        cell = tensor._cell
        self.version, self.type = cell.version, tensor._type_now()
        self.memory = weakref.ref(cell)
        self.edge = edge
        self.unpack = hooks.unpack_hook
        self.kept = in_grad_mode(False, hooks.pack_hook, tensor)
        if cell.version != self.version:
            raise GraphFlowError(
                "a pack hook of saved_tensors_hooks changed the tensor it was given in place; "
                "clone() it there first"
            )

    def alias(self, history: GradNode | None) -> Tensor:
        """The value again, with the history ``history``, or that of the tensor that was saved.

        Raises if the hook gives no tensor of the saved one's type, or the saved memory itself
        and that was changed since in place.
        """
        _need_eager()
        found = self.unpack(self.kept)
        if not isinstance(found, Tensor):
            raise TypeError(
                "an unpack hook of saved_tensors_hooks must return a tensor, not "
                f"{type(found).__name__}"
            )
        if found._type_now() != self.type:
            raise GraphFlowError(
                f"an unpack hook of saved_tensors_hooks returned {found._type_now()} "
                f"where {self.type} was packed"
            )
        if found._cell is self.memory() and found._cell.version != self.version:
            raise GraphFlowError(
                f"a saved tensor of shape {list(found.shape)} that a pack hook kept by reference "
                f"was modified by an in-place operation (version {found._cell.version}, expected "
                f"{self.version}); have the hook clone() it"
            )
        if history is None and self.edge is not None:
            history = self.edge.node or _ToLeaf(self.edge)
        return SavedOutput(found).alias(history)


class _ToLeaf(GradNode):
    """Leads from another tensor that stands for a leaf to the leaf."""

    __slots__ = ()

    def __init__(self, edge: Edge) -> None:
        super().__init__(None, (), {})
        self.edges = (edge,)

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """All of it flows on."""
        return [ct]

    def release(self) -> None:
        """Nothing is saved here."""


def packed(hooks: saved_tensors_hooks, value: Any) -> Any:
    """``value`` packed if it is a tensor, and not a number that takes any dtype."""
    if not isinstance(value, Tensor) or value._weak:
        return value
    return Packed(hooks, value, edge_of(value))


def unpacked(item: Any) -> Any:
    """What :func:`packed` was given."""
    return item.alias(None) if isinstance(item, Packed) else item


def _operand(hooks: saved_tensors_hooks, tensor: Tensor) -> Any:
    """``tensor`` packed; one number without a gradient is copied: it may be that of ``x * 3``."""
    if tensor._type_now().shape == () and not tensor._requires_grad:
        return Tensor._of(Cell(copy_of(tensor._eager())))
    return packed(hooks, tensor)


def _type_only(tensor: Tensor) -> Tensor:
    """What has the type of ``tensor``, and no value."""
    type = tensor._type_now()
    shown = Tensor._of(Cell(np.broadcast_to(np.zeros((), type.dtype.numpy), type.static_shape)))
    shown._cell.__class__ = TypeOnlyCell
    shown._array = None
    return shown


class _Unread:
    """A result whose value no rule reads."""

    __slots__ = ("shown",)

    def __init__(self, tensor: Tensor) -> None:
        self.shown = _type_only(tensor)

    def alias(self, history: GradNode | None) -> Tensor:
        """What has its type."""
        return self.shown


class _Keeping(GradNode):
    """What operations with packed values have in common: ``operands`` in the place of inputs."""

    operands: tuple[Any, ...]

    def keep(self, hooks: saved_tensors_hooks, outs: Sequence[Tensor]) -> tuple[Any, ...]:
        """Pack what the rule reads of the operands, and of ``outs``; the latter are returned."""
        assert self.op is not None
        inputs, self.inputs, self.versions = self.inputs, (), ()
        read = values_read(self.op, inputs, self.attrs, self.edges)
        self.operands = tuple(
            _operand(hooks, t) if i in read else _type_only(t) for i, t in enumerate(inputs)
        )
        return tuple(
            Packed(hooks, t, None) if i in read else _Unread(t)
            for i, t in enumerate(outs, len(inputs))
        )

    def _application(self, create_graph: bool) -> Application:
        _need_eager()
        made = super()._application(create_graph)
        return Application(tuple(map(unpacked, self.operands)), made.out, made.attrs)

    def release(self) -> None:
        """Let go of the saved values."""
        super().release()
        self.operands = ()


class PackedNode(_Keeping):
    """An operation with one result, whose saved values are packed."""


class PackedSeveralNode(_Keeping, SeveralNode):
    """An operation with several results, whose saved values are packed."""


def record_packed(
    hooks: saved_tensors_hooks, op: OpDef, inputs: tuple[Tensor, ...],
    attrs: Mapping[str, Any], out: Tensor,
) -> None:  # fmt: skip
    """Give ``out`` its history, whose saved values are packed."""
    node = PackedNode(op, inputs, attrs)
    out._grad_fn, out._requires_grad = node, True
    (node.out,) = node.keep(hooks, (out,))


def record_packed_several(
    hooks: saved_tensors_hooks, op: OpDef, inputs: tuple[Tensor, ...],
    attrs: Mapping[str, Any], outs: Sequence[Tensor],
) -> None:  # fmt: skip
    """Give the results of ``op`` their histories, whose saved values are packed."""
    node = PackedSeveralNode(op, inputs, attrs)
    attach(outs, node)
    node.outs = node.keep(hooks, outs)
