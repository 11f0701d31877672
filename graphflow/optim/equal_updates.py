"""Updates of equal parameters are traced once.

An optimiser does the same to every parameter of a group, and a deep model has hundreds
of them in a few shapes.  In a trace, the update of the first of its kind is recorded: which
slots it asked for, which nodes it made of the old values, which values it wrote.  For the
others the nodes are made again over their own values, without dispatch, promotion and type
rules, which is a tenth of the work.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

from graphflow.ir.node import Node
from graphflow.records import dataclass
from graphflow.repeats import made_of, repeat
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.optim.optimizer import Optimizer
    from graphflow.optim.param_group import ParamGroup
    from graphflow.trace import Tracer

Slots = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """A slot that an update asks for: of the parameter's dtype, or a scalar."""

    name: str
    shape: tuple[int, ...] | None
    """``None`` for the scalar."""
    first: Any
    """What it holds when it is first asked for."""


COUNT = SlotRequest("step", None, 0.0)
"""The number of the update, which parameters share (:mod:`graphflow.optim.counts`)."""


@dataclass(frozen=True, slots=True)
class _Recording:
    """One update; memory is numbered: the parameter 0, then the slots as asked for."""

    requests: tuple[SlotRequest, ...]
    counts: bool
    """Whether the number of the update was asked for."""
    captured: tuple[int, ...]
    """Memory that the update was the first to read, in this order."""
    inputs: tuple[Node, ...]
    """The gradient, and the value that each memory had before."""
    body: tuple[Node, ...]
    """What was made of the inputs, operands first."""
    written: tuple[tuple[int, Node, int], ...]
    """Memory, its new value, and how often it was written to, in the order of first writes."""


class EqualUpdates:
    """The updates of one group in one trace.

    They must depend on nothing but parameter, gradient, slots and what the group has in common.
    """

    def __init__(self, tracer: Tracer, optimizer: Optimizer, group: ParamGroup) -> None:
        self._tracer, self._optimizer, self._group = tracer, optimizer, group
        self._known: dict[Hashable, _Recording | None] = {}

    def apply(self, parameter: Tensor, gradient: Tensor, slots: Slots) -> None:
        """Trace the update of ``parameter``, or repeat that of an equal one."""
        tensors = {name: value for name, value in slots.items() if isinstance(value, Tensor)}
        counter = tensors.pop(COUNT.name, None)
        key = None
        if self._is_fresh(parameter, gradient, tensors.values()):
            key = (
                parameter._type_now(), parameter._requires_grad, parameter.device,
                self._tracer.node(gradient).type, gradient._requires_grad, gradient._weak,
                None if counter is None else id(counter),
                *((name, value._type_now()) for name, value in tensors.items()),
            )  # fmt: skip
        recorded = self._known.get(key)
        if recorded is not None:
            self._repeat(recorded, parameter, gradient, slots)
        elif key is None or key in self._known:
            self._optimizer.update(parameter, gradient, self._group, slots)
        else:
            self._known[key] = self._record(parameter, gradient, slots)

    def _is_fresh(self, parameter: Tensor, gradient: Tensor, slots: Iterable[Tensor]) -> bool:
        """Whether the values before the update are those that the call begins with."""
        tracer = self._tracer
        return (
            tracer.region is None
            and not gradient._chain
            and parameter._cell.tracer is None
            and (parameter._cell in tracer.captured or parameter._cell not in tracer.shadows)
            and parameter._cell not in tracer.touched
            and not any(t._chain for t in (parameter, *slots))
            and not any(t._cell in tracer.shadows for t in slots)
        )

    def _record(self, parameter: Tensor, gradient: Tensor, slots: Slots) -> _Recording | None:
        """Trace an update; ``None`` if it used other memory than its own."""
        tracer, optimizer = self._tracer, self._optimizer
        own = tracer.node(gradient)
        known, touched = len(tracer.captured), len(tracer.touched)
        asked: dict[str, SlotRequest] = {}
        optimizer.requests = asked
        try:
            optimizer.update(parameter, gradient, self._group, slots)
        finally:
            optimizer.requests = None
        changed = list(tracer.touched)[touched:]
        counts = asked.pop(COUNT.name, None) is not None
        if counts:
            changed = [cell for cell in changed if cell is not slots[COUNT.name]._cell]
        cells = [parameter._cell, *(slots[name]._cell for name in asked)]
        numbers = {cell: number for number, cell in enumerate(cells)}
        inputs = (own, *(tracer.captured.get(cell, own) for cell in cells))
        if not numbers.keys() >= set(changed) or len(set(inputs)) < len(inputs):
            return None
        shadows = [(numbers[cell], tracer.shadows[cell]) for cell in changed]
        return _Recording(
            tuple(asked.values()),
            counts,
            tuple(numbers[cell] for cell in list(tracer.captured)[known:] if cell in numbers),
            inputs,
            made_of(inputs, [shadow.value for _, shadow in shadows]),
            tuple((number, shadow.value, shadow.version) for number, shadow in shadows),
        )

    def _repeat(
        self, recorded: _Recording, parameter: Tensor, gradient: Tensor, slots: Slots
    ) -> None:
        tracer = self._tracer
        if recorded.counts:
            self._optimizer.count(slots, parameter)
        asked = (self._optimizer.slot_for(slots, r, parameter) for r in recorded.requests)
        memory = [parameter, *asked]
        for number in recorded.captured:
            tracer.node(memory[number])
        values = [tracer.node(gradient), *map(tracer.node, memory)]
        made = dict(zip(recorded.inputs, values, strict=True))
        repeat(tracer, recorded.body, made)
        for number, value, times in recorded.written:
            cell = memory[number]._cell
            shadow = tracer.shadow(cell)
            shadow.value = made.get(value, value)
            shadow.version += times
            tracer.mutated(cell)
