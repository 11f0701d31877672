"""Histories of outputs of compiled functions: backward is a program of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.history import GradNode
from graphflow.cell import Cell
from graphflow.errors import GraphFlowError
from graphflow.tensor import Tensor


class CompiledNode(GradNode):
    """One call of a compiled function: collects cotangents, then runs the backward program."""

    __slots__ = ("arrived", "run", "types", "watched")

    def __init__(
        self,
        leaves: Sequence[Tensor],
        types: Sequence[Any],
        watched: Sequence[Cell],
        run: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    ) -> None:
        super().__init__(None, tuple(leaves), {})
        self.arrived: dict[int, Tensor] = {}
        self.types = tuple(types)
        self.watched = tuple((cell, cell.version) for cell in watched)
        self.run: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = run
        self.inputs = ()

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The gradients of the leaves, from the backward program."""
        if create_graph:
            raise GraphFlowError(
                "create_graph=True cannot look into a compiled function whose backward runs "
                "outside; call autograd.grad inside the compiled function instead"
            )
        if self.run is None:
            raise GraphFlowError(
                "backward through a compiled call a second time, after its saved values were "
                "freed; pass retain_graph=True to the first backward()"
            )
        for cell, version in self.watched:
            if cell.version != version:
                raise GraphFlowError(
                    "a tensor needed for the gradient of a compiled function was modified by an "
                    "in-place operation after the call; clone() it first"
                )
        from graphflow.dispatch import full

        cts = [
            self.arrived[i] if i in self.arrived else full(t.static_shape, 0, t.dtype)
            for i, t in enumerate(self.types)
        ]
        return list(self.run(cts))

    def release(self) -> None:
        """Let go of the saved values."""
        super().release()
        self.run = None
        self.arrived.clear()


class OutputNode(GradNode):
    """One differentiable output of such a call; passes its cotangent on to the call."""

    __slots__ = ("call", "index")

    def __init__(self, call: CompiledNode, carrier: Tensor, index: int) -> None:
        super().__init__(None, (carrier,), {})
        self.call, self.index = call, index

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """Leave the cotangent with the call; what flows on is a token."""
        from graphflow.dispatch import full

        self.call.arrived[self.index] = ct
        return [full((), 0, ct.dtype)]


def attach(outputs: Sequence[Tensor], call: CompiledNode) -> None:
    """Give the outputs of one call their histories."""
    for index, output in enumerate(outputs):
        carrier: Tensor = Tensor._of(output._cell)
        carrier._requires_grad, carrier._grad_fn = True, call
        node = OutputNode(call, carrier, index)
        node.inputs = ()
        output._requires_grad, output._grad_fn = True, node
