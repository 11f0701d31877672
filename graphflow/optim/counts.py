"""How often parameters were updated: one counter for all that are updated together.

PyTorch keeps a number for each parameter, and so does :meth:`Optimizer.state_dict`.  But all
parameters of a usual model are updated in the same steps.  With one number for all of them, a
step corrects the bias of its moments once, and a traced step has a state, an increment and
what is computed from it once instead of once a parameter.

Parameters hold the same counter for as long as each step updates all of them or none.  Where
one stays without a gradient, those that have one go on with a counter of their own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from graphflow.autograd.modes import no_grad
from graphflow.device import Device
from graphflow.functions.creation import full
from graphflow.ir.types import DType, float32, float64
from graphflow.mode import mode, structure
from graphflow.promotion import get_default_dtype
from graphflow.tensor import Tensor

STEP = "step"
"""The name of the slot that holds a parameter's counter, as in PyTorch."""

State: TypeAlias = Mapping[Tensor, dict[str, Any]]


class Counts:
    """The counters of one optimiser, and those that the step under way has advanced."""

    def __init__(self) -> None:
        self._advanced: set[int] = set()
        self._new: dict[Device, Tensor] = {}

    def begin(self, state: State, updated: Iterable[Tensor]) -> None:
        """A step begins that counts for the parameters ``updated`` and no others."""
        self._advanced.clear()
        self._new.clear()
        self._separate(state, updated)

    def count(self, slots: dict[str, Any], parameter: Tensor) -> Tensor:
        """The parameter's counter, advanced by one in this step."""
        counter: Tensor | None = slots.get(STEP)
        if counter is None:
            device = parameter.device
            if device not in self._new:
                self._new[device] = _counter(0.0, device)
            counter = slots[STEP] = self._new[device]
        if mode.tracer is not None:
            mode.tracer.private.add(counter._cell)
        if id(counter) not in self._advanced:
            self._advanced.add(id(counter))
            counter.add_(1)
        return counter

    def load(self, state: State, counts: Mapping[Tensor, float]) -> None:
        """Set the parameters' counts; those that had and get an equal one go on to share it."""
        self._separate(state, counts)
        chosen: dict[tuple[int | None, Device, float], Tensor] = {}
        taken: set[int] = set()
        for parameter, count in counts.items():
            slots, device = state[parameter], parameter.device
            held: Tensor | None = slots.get(STEP)
            key = (None if held is None else id(held), device, count)
            if key not in chosen:
                if held is None or id(held) in taken:
                    chosen[key] = _counter(count, device)
                    structure.bump()
                else:
                    taken.add(id(held))
                    chosen[key] = held
                    with no_grad():
                        held.fill_(count)
            rest = {name: value for name, value in slots.items() if name != STEP}
            slots.clear()
            slots.update({STEP: chosen[key], **rest})  # first, as a step makes it

    def _separate(self, state: State, together: Iterable[Tensor]) -> None:
        """Let ``together`` share counters among themselves, but with no other parameter."""
        holders = Counter(id(slots.get(STEP)) for slots in state.values())
        members: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for parameter in together:
            slots = state.get(parameter, {})
            if slots.get(STEP) is not None:
                members[id(slots[STEP])].append(slots)
        for number, held in members.items():
            if len(held) < holders[number]:
                own = _copied(held[0][STEP])
                for slots in held:
                    slots[STEP] = own
                structure.bump()


def is_count(value: Any) -> bool:
    """Whether a saved value is a number of updates: a scalar tensor, or a plain number."""
    return isinstance(value, (int, float)) or (isinstance(value, Tensor) and not value.ndim)


def separate_counters(state: Iterable[dict[str, Any]]) -> None:
    """Replace what several slots share by a tensor each, as other readers expect it."""
    state = [slots for slots in state if isinstance(slots.get(STEP), Tensor)]
    holders = Counter(id(slots[STEP]) for slots in state)
    for slots in state:
        if holders[id(slots[STEP])] > 1:
            slots[STEP] = slots[STEP].clone()


def scalar_dtype() -> DType:
    """The dtype of counts and other single numbers of a state, as in PyTorch: double precision
    where that is the default, else single."""
    return float64 if get_default_dtype() is float64 else float32


def _counter(count: float, device: Device) -> Tensor:
    """A new counter: real memory, also where a trace asks for it."""
    from graphflow.trace import outside_trace

    with outside_trace():
        made = full((), count, dtype=scalar_dtype(), device=device)
    made.name = STEP
    return made


def _copied(counter: Tensor) -> Tensor:
    """Another counter that stands where ``counter`` does."""
    from graphflow.trace import outside_trace

    with outside_trace():
        own = _counter(counter.item(), counter.device)
    if mode.tracer is not None and counter._cell in mode.tracer.touched:
        own.copy_(counter)  # this call has counted already; the next is traced anew
    return own
