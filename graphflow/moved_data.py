"""``x.data = value`` in a traced function: other memory while it is traced, a copy at its end.

Eagerly the assignment gives ``x`` the memory of ``value``.  A program works on the memory that it
captured, so ``x`` has the other memory for the rest of the trace only, in which what shared its old
memory keeps the old values; at the end ``x`` has its own memory back, with the new values in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflow import pytree
from graphflow.errors import TraceError
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.trace import Tracer

_MEMORY = ("_cell", "_chain", "_base", "_array", "_seen")


class MovedData:
    """The tensors from outside a trace that have memory of the trace for now."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Tensor, tuple[Any, ...]]] = {}

    def note(self, tracer: Tracer, tensor: Tensor, value: Tensor) -> None:
        """``tensor.data`` is about to become ``value``; refuse what a copy cannot stand for."""
        if value._cell.tracer is not tracer:
            raise TraceError(
                "x.data = y inside a compiled function would let x share the memory of a tensor "
                "from outside of it; x.data.copy_(y) takes the values"
            )
        old, new = tensor._type, value._type
        if old != new:
            raise TraceError(
                f"x.data = y inside a compiled function needs a y of the type {old} that x has, "
                f"not {new}; assign x.data outside of it to change that"
            )
        if id(tensor) in tracer.positions or tracer.unrolls:
            raise TraceError(
                "x.data = y of an argument of a compiled function is not possible; x.data.copy_(y)"
            )
        if tensor._cell.tracer is tracer:
            return
        if tracer.region is not None:
            tracer.region.check_write(tensor._cell, "assigns the data of a tensor")
        if tensor._requires_grad:
            tracer.grad(tensor)  # while it is known as a tensor from outside
        before = tuple(getattr(tensor, name) for name in _MEMORY)
        self._before[id(tensor)] = tensor, before

    def settle(self, returned: Any) -> None:
        """Write the values into the memory that the tensors had, and give them that back."""
        if not self._before:
            return
        moved = [(t, Tensor._of(t._cell, t._chain)) for t, _ in self._before.values()]
        self.undo()
        cells = {tensor._cell for tensor, _ in moved}
        for leaf in pytree.flatten(returned)[0]:
            if isinstance(leaf, Tensor) and leaf._cell in cells:
                if all(leaf is not tensor for tensor, _ in moved):
                    raise TraceError(
                        "a compiled function returns a view of memory that x.data = y replaced "
                        "in it; return a clone() of that view, taken before"
                    )
        for tensor, value in moved:
            tensor.detach().copy_(value)

    def undo(self) -> None:
        """Give the tensors their memory back."""
        for tensor, before in self._before.values():
            for name, value in zip(_MEMORY, before, strict=True):
                setattr(tensor, name, value)
        self._before.clear()
