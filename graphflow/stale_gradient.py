"""What may stand in ``.grad``, and what is left of a gradient that nobody kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphFlowError

if TYPE_CHECKING:
    from graphflow.tensor import Tensor


class StaleGradient:
    """Stands in ``.grad`` for a gradient that a compiled step did not keep.

    What is added to it is not known either, and need not be computed.
    """

    def __init__(self, program: str) -> None:
        self.program = program


def fill_with_zeros(leaf: Tensor) -> None:
    """Set the gradient of ``leaf`` to 0 where it lies, as others may show that memory."""
    held = leaf._held_grad()
    if held.__class__ is StaleGradient or (held is not None and held._requires_grad):
        leaf.grad = leaf.detach().new_zeros(leaf.shape)
    elif held is not None:
        held.zero_()


def need_gradient_for(tensor: Tensor, value: Any) -> None:
    """Refuse what cannot be the gradient of ``tensor``."""
    from graphflow.device import device_of
    from graphflow.tensor import Tensor

    if not isinstance(value, Tensor):
        raise TypeError(
            f"assigned grad expected to be a Tensor or None but got {type(value).__name__}; "
            "make it one with gf.tensor(...)"
        )
    if value is tensor:
        raise GraphFlowError("a tensor cannot be its own gradient; assign a clone() of it")
    given, wanted = (value.shape, value.dtype), (tensor.shape, tensor.dtype)
    if given != wanted:
        raise GraphFlowError(
            f"a gradient of shape {list(given[0])} and {given[1]} does not fit a tensor of shape "
            f"{list(wanted[0])} and {wanted[1]}"
        )
    places = [device_of(t._memory()) for t in (value, tensor) if t._cell.tracer is None]
    if len(set(places)) > 1:  # a trace has one place for all that it makes
        raise GraphFlowError(
            f"a gradient on {places[0]} does not fit a tensor on {places[1]}; "
            f"move it with .to({str(places[1])!r})"
        )
