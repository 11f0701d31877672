"""Storage cells: what tensors share when one is a view of another.

A tensor is a :class:`Cell` and a chain of view operations on the cell's value.
Eagerly the value is a NumPy array, and NumPy's own views share its memory.
In a trace it is a graph node: a mutation *rebinds* the cell to the node of the
new whole value, and every view re-derives its own value from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.ir.build import emit
from graphflow.ir.node import Node
from graphflow.ir.op import OpDef

if TYPE_CHECKING:
    from graphflow.runtime.cuda.memory import DeviceArray
    from graphflow.trace import Tracer


class ViewStep(NamedTuple):
    """One view operation of a chain: the record and its attributes."""

    op: OpDef
    attrs: Mapping[str, Any]


Chain = tuple[ViewStep, ...]
Layout = tuple[Any, Any]
"""A NumPy dtype and a shape; equal ones are one object."""

CAPTURED: Layout = (None, None)
_LAYOUTS: dict[Layout, Layout] = {}


def layout_of(dtype: Any, shape: Any) -> Layout:
    """The one layout of this dtype and shape, to be compared by identity."""
    layout = (dtype, shape)
    return _LAYOUTS.setdefault(layout, layout)


class Cell:
    """The memory (eager) or the current value (traced) behind one or more tensors.

    ``version`` counts mutations; autograd compares it to refuse a backward pass
    over values that are gone.  ``tracer`` is None for eager memory.

    ``shared`` says that memory may change without being counted: it is that of an array the
    user has.  What a program makes of it is not kept from call to call.

    ``layout`` is what :func:`layout_of` gives for row-major memory whose address is
    known, None as long as nobody asked, and ``CAPTURED`` once a program may reach
    this memory by itself: arguments over it need a closer look.
    """

    __slots__ = ("__weakref__", "_address", "layout", "shared", "tracer", "value", "version")

    value: Any
    version: int
    shared: bool
    tracer: Tracer | None
    layout: Layout | None
    _address: int

    def __init__(
        self,
        value: np.ndarray[Any, Any] | DeviceArray | Node,
        tracer: Tracer | None = None,
        address: int = 0,
    ) -> None:
        self.value = value
        self.version = 0
        self.shared = False
        self.tracer = tracer
        self._address = address
        self.layout = None
        if tracer is not None and tracer.region is not None:
            tracer.region.own.add(self)

    @property
    def address(self) -> int:
        """Where the array starts in memory; read once, as NumPy's answer costs 1 µs."""
        if not self._address:
            self._address = self.value.__array_interface__["data"][0]
        return self._address


def view_of(op: OpDef, array: Any, attrs: Mapping[str, Any]) -> Any:
    """View ``op`` of an array, over the same memory, wherever it lies."""
    if array.__class__ is np.ndarray:
        return op.reference(array, **attrs)
    from graphflow.on_device import viewed

    return viewed(op, array, dict(attrs))


def copy_of(array: Any) -> Any:
    """A copy of an array, where it lies."""
    if array.__class__ is np.ndarray:
        return np.array(array)
    from graphflow.on_device import copied

    return copied(array)


def derive(value: Node, chain: Chain) -> Node:
    """The value of a view: the chain of operations applied to the whole value."""
    for step in chain:
        value = emit(step.op, value, **step.attrs)
    return value


def write_through(whole: Node, chain: Chain, new: Node) -> Node:
    """The whole value after the view ``chain`` of it has been set to ``new``."""
    parents = [whole] if chain else []
    for step in chain[:-1]:
        parents.append(emit(step.op, parents[-1], **step.attrs))
    for step, parent in zip(reversed(chain), reversed(parents), strict=True):
        new = invert_view(step, parent, new, emit)
    return new


def invert_view(step: ViewStep, parent: Any, new: Any, emit_op: Any) -> Any:
    """``parent`` with the part that view ``step`` shows replaced by ``new``.

    Works on nodes and on tensors: ``emit_op(op, *values, **attrs)`` builds either.
    """
    inverse = step.op.view_inverse
    if inverse is None:
        raise GraphFlowError(
            f"cannot write through a view made by {step.op.name}: several elements "
            "share one memory location; call .clone() before the in-place operation"
        )
    return inverse(emit_op, parent, new, step.attrs)
