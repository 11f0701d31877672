"""Between devices: where a tensor goes, with its history."""

from __future__ import annotations

from typing import Any

from graphflow.autograd.function import Function, FunctionCtx
from graphflow.cell import Cell
from graphflow.device import CPU, Device, available, is_placed, put
from graphflow.errors import TraceError
from graphflow.mode import mode
from graphflow.tensor import Tensor


class Move(Function):
    """A copy on another device; its gradient goes the other way."""

    @staticmethod
    def forward(ctx: FunctionCtx, input: Tensor, device: Device, wait: bool) -> Tensor:
        """The copy."""
        ctx.__dict__["source"] = input.device
        array: Any = input._eager()
        on_cpu = array.numpy() if is_placed(array) else array
        return Tensor._of(Cell(on_cpu if device == CPU else put(on_cpu, device, wait)))

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, back where the tensor came from."""
        return moved(gradient, ctx.__dict__["source"]), None, None


def moved(input: Tensor, device: Any, wait: bool = True) -> Tensor:
    """``input`` on ``device``: itself if it is there, else a copy that gradients flow through.

    In a trace everything is where the program runs, and nothing can leave.  Without ``wait`` a
    copy from page-locked memory to a device may go on after the return; work on the device
    comes after it, and the memory lives until then.
    """
    if device is None:
        return input
    wanted = available(device)
    if input.device == wanted:
        return input
    if mode.tracer is not None:
        raise TraceError(
            f"a compiled program runs on one device: a tensor on {input.device} cannot go to "
            f"{wanted} inside it"
        )
    out: Tensor = Move.apply(input, wanted, wait)
    return out
