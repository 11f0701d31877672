"""``requires_grad`` of parameters that a traced function switches: so does every call.

While the function is traced they have what it gives them, afterwards what they had before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from graphflow.tensor import Tensor
    from graphflow.trace import Tracer

Switched: TypeAlias = tuple[tuple["Tensor", bool], ...]
"""Tensors, and whether they want gradients when the function is over."""


class Switches:
    """The tensors that a trace has switched, with what they had before."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Tensor, bool]] = {}

    def note(self, tracer: Tracer, tensor: Tensor) -> None:
        """``tensor`` is about to be switched: what it has is assumed of later calls."""
        from graphflow.tensor import Tensor

        # A plain tensor, no parameter, may be the function's own: detach() of an argument.
        outer = tensor.__class__ is not Tensor and tensor._cell.tracer is None
        if outer and id(tensor) not in tracer.positions:
            if id(tensor) not in tracer.leaves:
                tracer.assume_leaf(tensor)
            self._before.setdefault(id(tensor), (tensor, tensor._requires_grad))

    def left(self) -> Switched:
        """What differs from before."""
        ends = ((tensor, tensor._requires_grad, was) for tensor, was in self._before.values())
        return tuple([(tensor, now) for tensor, now, was in ends if now is not was])

    def undo(self) -> None:
        """Have all as it was before the trace."""
        for tensor, was in self._before.values():
            tensor.requires_grad_(was)
