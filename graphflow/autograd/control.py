"""Histories of ``cond``, ``scan`` and ``while_loop`` in a trace.

Their gradients are control operations again (:mod:`graphflow.passes.autodiff_control`),
which are recorded like the operation itself, so that they have gradients too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.autograd.several import Collector, OutputNode
from graphflow.cell import Cell
from graphflow.ir import build
from graphflow.ir.cotangent import carries_gradient
from graphflow.ir.node import Node
from graphflow.ir.types import TupleType
from graphflow.mode import mode
from graphflow.passes.autodiff_control import control_gradient, with_saved
from graphflow.tensor import Tensor


class ControlNode(Collector):
    """One control operation: ``whole`` as written, ``saving`` with what its gradient needs."""

    __slots__ = ("saving", "whole")

    whole: Node
    saving: Node

    def output(self, index: int, history: bool) -> Tensor:
        """Result ``index`` of the operation that is computed."""
        from graphflow.regions import taken

        assert mode.tracer is not None
        out = taken(self.saving, index, mode.tracer.locations[self.whole])
        if history and carries_gradient(out):
            out._grad_fn, out._requires_grad = OutputNode(self, index), True
        return out

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The cotangents of the operands: results of another control operation."""
        from graphflow.regions import apply_control

        self.check()
        tracer = mode.tracer
        assert tracer is not None
        arrived = {i: self.arrived.pop(i) for i in sorted(self.arrived)}
        whole = self.saving if any(i >= _count(self.whole) for i in arrived) else self.whole
        parts = {i: tracer.node(t) for i, t in arrived.items()}
        wanted = [edge is not None for edge in self.edges]
        found = control_gradient(whole, parts, wanted).cotangents
        known = dict(zip(whole.inputs, self.inputs))
        known.update(zip(parts.values(), arrived.values()))
        for i in range(_count(self.saving)):
            known[build.emit("get", self.saving, index=i)] = self.output(i, create_graph)
        made = next((n.inputs[0] for n in found if n is not None), None)
        if made is None:
            return [None] * len(found)
        inputs: list[Tensor] = [
            known[n] if n in known else Tensor._of(Cell(n, tracer)) for n in made.inputs
        ]
        outs = apply_control(made.op.name, inputs, dict(made.attrs))
        return [None if n is None else outs[n.attrs["index"]] for n in found]

    def _needs(self, position: int) -> bool:
        return True


def _count(node: Node) -> int:
    assert isinstance(node.type, TupleType)
    return len(node.type.items)


def record_control(whole: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The results of ``whole`` with their histories (some input requires grad)."""
    node = ControlNode(whole.op, tuple(inputs), whole.attrs)
    node.whole, node.saving = whole, with_saved(whole)
    tracer = mode.tracer
    assert tracer is not None
    tracer.locations.setdefault(node.saving, tracer.locations[whole])
    return [node.output(i, True) for i in range(_count(whole))]
