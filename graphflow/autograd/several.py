"""Histories of operations with several results.

Each result has a history of its own, which leaves its cotangent with the operation's.  That
one runs after all of them (it is older) and then knows every cotangent there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.autograd.history import Edge, GradNode, SavedOutput, serials
from graphflow.cell import Cell
from graphflow.device import devices
from graphflow.ir.op import NON_DIFFERENTIABLE, Application, OpDef
from graphflow.ir.types import float32
from graphflow.mode import mode
from graphflow.tensor import Tensor
from graphflow.traced_sizes import as_types_do


class Collector(GradNode):
    """An operation whose results have histories of their own; ``arrived``: their cotangents."""

    __slots__ = ("arrived",)

    def __init__(
        self, op: OpDef | None, inputs: tuple[Tensor, ...], attrs: Mapping[str, Any]
    ) -> None:
        super().__init__(op, inputs, attrs)
        self.arrived: dict[int, Tensor] = {}

    def release(self) -> None:
        """Let go of the saved values."""
        super().release()
        self.arrived.clear()


TOKEN: Tensor = Tensor._of(Cell(np.zeros((), np.float32)))
"""What flows from results of an operation that collects: it knows what has arrived."""


class OutputNode(GradNode):
    """One result of a :class:`Collector`; passes its cotangent on to it."""

    __slots__ = ("call", "index")

    def __init__(self, call: Collector, index: int) -> None:
        # All that a recorded operation without operands has, at once: this is waited for.
        self.op, self.attrs, self.inputs, self.versions = None, {}, (), ()
        self.edges, self.serial = (Edge(call, None),), next(serials)
        self.module = call.module
        self.hooks = self.retain = self.out = None
        self.released = False
        self.call, self.index = call, index

    def name(self) -> str:
        """The name of the operation."""
        return self.call.name()

    @property
    def gone(self) -> bool:
        """True when the operation's saved values are gone, whichever result let go of them."""
        return self.released or self.call.released

    def keep_from(self, cell: Cell) -> None:
        """Have the operation keep what lies in ``cell``."""
        self.call.keep_from(cell)

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """Leave the cotangent with the call; what flows on is a token.

        It lies where the cotangent does: there the operation's rule makes its constants.
        """
        from graphflow.dispatch import apply, full

        held = self.call.arrived.get(self.index)
        self.call.arrived[self.index] = ct if held is None else apply("add", held, ct)
        return [full((), 0, float32, ct.device) if devices.used else TOKEN]


class SeveralNode(Collector):
    """A primitive with several results."""

    __slots__ = ("outs",)

    outs: tuple[Any, ...]
    """A :class:`SavedOutput` each, or what stands for it."""

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The cotangent of every operand, from those that have arrived (None for others)."""
        from graphflow.ir.cotangent import operand_cotangent

        assert self.op is not None
        cts = tuple(self.arrived.pop(i, None) for i in range(len(self.outs)))
        application = self._application(create_graph)
        with as_types_do:
            return [
                None if edge is None else operand_cotangent(builder, self.op, application, cts, i)
                for i, edge in enumerate(self.edges)
            ]

    def _application(self, create_graph: bool) -> Application:
        self.check()
        outs = tuple(self._result(i, create_graph) for i in range(len(self.outs)))
        return Application(self.inputs, outs, self.attrs)

    def _result(self, index: int, create_graph: bool) -> Tensor:
        out: Tensor = self.outs[index].alias(None)
        if create_graph and _has_gradient(out):
            out._grad_fn, out._requires_grad = OutputNode(self, index), True
        return out

    def release(self) -> None:
        """Let go of the saved values."""
        super().release()
        self.outs = ()

    def check(self) -> None:
        """Raise if the saved values were freed, or changed since in place."""
        super().check()
        for i, out in enumerate(self.outs, len(self.inputs)):
            if isinstance(out, SavedOutput) and out.is_changed and self._needs(i):
                self.refuse(out.shape, out.version, out.version_now)

    def keep_from(self, cell: Cell) -> None:
        """Have saved results elsewhere that lie in ``cell``."""
        for i, out in enumerate(self.outs, len(self.inputs)):
            if isinstance(out, SavedOutput) and out.lies_in(cell) and self._needs(i):
                out.move()


def attach(outputs: Sequence[Tensor], call: Collector) -> None:
    """Give the outputs of one call that can have a gradient their histories."""
    for index, output in enumerate(outputs):
        if _has_gradient(output):
            output._grad_fn, output._requires_grad = OutputNode(call, index), True


def record_several(
    op: OpDef, inputs: tuple[Tensor, ...], attrs: Mapping[str, Any], outs: Sequence[Tensor]
) -> None:
    """Give the results of ``op`` their histories (some input requires grad)."""
    if op.vjp is NON_DIFFERENTIABLE or not any(map(_has_gradient, outs)):
        return
    if mode.packing is not None and mode.tracer is None:
        from graphflow.autograd.saved import record_packed_several

        record_packed_several(mode.packing, op, inputs, attrs, outs)
        return
    node = SeveralNode(op, inputs, attrs)
    node.outs = tuple(map(SavedOutput, outs))
    attach(outs, node)


def _has_gradient(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex
