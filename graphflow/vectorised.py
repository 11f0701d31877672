"""A function of one entry of a batch, applied to all entries at once.

The function runs once, traced, on one entry; then its operations are applied to whole batches
(:mod:`graphflow.ir.entries`): at once in eager code, in the trace under way in a compiled function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

import graphflow.regions as regions
from graphflow.cell import Cell
from graphflow.dispatch import TENSORS, TensorBuilder, apply, assign, literal
from graphflow.ir.dims import Dim
from graphflow.ir.entries import Walk
from graphflow.ir.node import Node
from graphflow.ir.op import Kind, lookup
from graphflow.ir.ops.batches import repeated
from graphflow.ir.types import TensorType
from graphflow.mode import mode
from graphflow.tensor import Tensor
from graphflow.trace import Tracer

if TYPE_CHECKING:
    from graphflow.regions import Body


def on_entries(
    function: Callable[[list[Tensor]], Sequence[Tensor]], operands: Sequence[Tensor], size: Dim,
    randomness: str,
) -> list[tuple[Tensor, bool]]:  # fmt: skip
    """``function`` of the ``size`` entries that ``operands`` have along axis 0.

    With each result: whether it has the entries along axis 0, or is the same for all of them.
    What the function writes to an entry is written to the operand.
    """
    eager = mode.tracer is None
    tracer, body, given = _traced(function, operands)
    outside = (_Eager if eager else _Traced)(tracer, body)
    builder = TENSORS if eager else _TRACED
    known = {node: (x, True) for node, x in zip(body.inputs, operands, strict=False)}
    walk = Walk(builder, size, randomness, known, outside.of, outside.at)
    pairs = zip(operands, given, body.inputs, strict=False)
    written = [(x, t._cell.value) for x, t, node in pairs if t._cell.value is not node]
    found = walk.of([*body.outputs, *(node for _, node in written)])
    count = len(body.outputs)
    results = [(outside.own(value, operands), own) for value, own in found[:count]]
    for (operand, _), (value, own) in zip(written, found[count:], strict=True):
        assign(operand, value if own else repeated(builder, value, size))
    outside.draw()
    return results


def of_all(x: Tensor, own: bool, size: Dim) -> Tensor:
    """A result with its entries along axis 0: one that is the same for all is repeated."""
    return x if own else x.expand((size, *x.shape))


def _traced(
    function: Callable[[list[Tensor]], Sequence[Tensor]], operands: Sequence[Tensor]
) -> tuple[Tracer, Body, list[Tensor]]:
    """The function's body for an entry, and the tensors that it was given.

    In eager code it has a trace of its own, in which loops are written out.
    """
    types = [TensorType(x.dtype, tuple(x._type.shape[1:])) for x in operands]
    given: list[Tensor] = []

    def of_entry(tensors: list[Tensor]) -> Sequence[Tensor]:
        given.extend(tensors)
        for tensor, operand in zip(tensors, operands, strict=True):
            tensor._requires_grad = mode.grad and operand._requires_grad
        return function(tensors)

    held = mode.tracer
    tracer = Tracer("vmap", unrolls=True) if held is None else held
    try:
        mode.tracer = tracer
        mode.note()
        return tracer, regions.trace_body("vmap", of_entry, types, "once"), given
    finally:
        mode.tracer = held
        mode.note()


class _Traced:
    """What a body traced in a compiled function uses of what there is outside of it."""

    def __init__(self, tracer: Tracer, body: Body) -> None:
        self._tracer, self._region = tracer, body.region

    def of(self, node: Node) -> Tensor | None:
        """The tensor of a node that no entry goes into; None: draws made in the body."""
        found = self._region.used.get(node)
        if found is None:
            return Tensor._of(Cell(node, self._tracer))
        return None if node.op.draws and found._cell in self._region.own else found

    def at(self, node: Node) -> AbstractContextManager[None]:
        """A stretch in which what is emitted has the place of ``node``."""
        return _placed(self._tracer, node)

    def own(self, value: Tensor, operands: Sequence[Tensor]) -> Tensor:
        """A result that is nothing but a result."""
        known = any(value is x for x in (*operands, *self._region.used.values()))
        return apply("copy", value) if known else value

    def draw(self) -> None:
        """Generators go on when the program is run."""


class _Eager(_Traced):
    """The same for a body that was traced only for this call, in eager code."""

    def __init__(self, tracer: Tracer, body: Body) -> None:
        super().__init__(tracer, body)
        self._cells = {node: cell for cell, node in tracer.captured.items()}
        self._numbers = {source.node: source.read for source in tracer.scalars.values()}
        self._given: list[Any] = []

    def of(self, node: Node) -> Tensor | None:
        """The eager tensor that was captured as ``node``, if it is one."""
        found = self._region.used.get(node)
        if found is None or found._cell.tracer is not None:
            if node in self._numbers:
                return literal(np.asarray(self._numbers[node](), np.float64))
            if node not in self._cells:
                return None
            found = Tensor._of(self._cells[node])
        self._given.append(found._eager())
        return found

    def at(self, node: Node) -> AbstractContextManager[None]:
        """Errors that arise are about values, and name them."""
        return nullcontext()

    def own(self, value: Tensor, operands: Sequence[Tensor]) -> Tensor:
        """A result in memory of its own."""
        array = value._eager()
        held = (*self._given, *(x._eager() for x in operands))
        shared = array.base is not None or any(array is other for other in held)
        return apply("copy", value) if shared else value

    def draw(self) -> None:
        """Generators have gone on."""
        for cell, count in self._tracer.draws.items():
            cell.value[1] += count
            cell.version += 1


@contextmanager
def _placed(tracer: Tracer, node: Node) -> Iterator[None]:
    held = tracer.rule_place
    tracer.rule_place = tracer.locations.get(node, held)
    try:
        yield
    finally:
        tracer.rule_place = held


class _TracedBuilder(TensorBuilder):
    """Operations on tensors in a trace, control flow among them."""

    def several(self, op: str, *inputs: Any, **attrs: Any) -> tuple[Tensor, ...]:
        """The results of ``op``, which has several."""
        if lookup(op).kind is Kind.CONTROL:
            return tuple(regions.apply_control(op, inputs, attrs))
        return super().several(op, *inputs, **attrs)


_TRACED = _TracedBuilder()
