"""Attributes of modules that a traced function assigns: further results of the program.

``self.hidden = h`` in ``forward`` happens at every call of a compiled function, as it does
eagerly: what is assigned is a new tensor each time, and the program goes on with the one that lies
there when it is called, as long as that has the type it was made for.  While the function is
traced the module gets tensors of the trace, and afterwards what it had before.

The state of an optimiser of the user's own is such a place, too; numbers in it, such as a count
of steps, are run-time scalars.  So is the history of an argument to which a value with one was
written in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from graphflow import pytree
from graphflow.autograd.history import serials
from graphflow.cell import Cell
from graphflow.errors import TraceError
from graphflow.mode import structure
from graphflow.records import dataclass
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.autograd.history import GradNode
    from graphflow.capture import Capture, Result
    from graphflow.trace import Tracer

REPLACED, HIDDEN = "_replaced", "_hidden"
"""Where a module keeps the names of attributes that programs assign, and the values of those, while
a function is traced that may read them."""

_ABSENT = object()
_NUMBERS = (int, float)

State: TypeAlias = MutableMapping[Any, dict[str, Any]]
"""The state of an optimiser: slots by name for each parameter."""


@dataclass(frozen=True, slots=True)
class Member:
    """An attribute of a module."""

    module: Any
    name: str
    wrap: Callable[[Tensor], Tensor] | None = None
    """What makes a parameter of a value, where one is assigned."""

    @property
    def holder(self) -> dict[str, Any]:
        """Where its value lies."""
        own: dict[str, Any] = self.module.__dict__
        if self.name in own:
            return own
        tables = (own["_parameters"], own["_buffers"], own.get(HIDDEN, {}))
        return next((table for table in tables if self.name in table), own)

    def now(self) -> Any:
        """Its value."""
        return self.holder.get(self.name, _ABSENT)

    def kind(self) -> Any:
        """What a program assumes of it."""
        return _kind(self.now())

    def put(self, value: Any, arguments: Sequence[Any]) -> None:
        """Assign what a program has made; programs that assumed something else look again."""
        from graphflow.guards import same_value

        before = self.kind()
        made = value if self.wrap is None else self.wrap(value)
        if self.wrap is None or type(self.holder.get(self.name)) is type(made):
            self.holder[self.name] = made
        else:  # the module says where such a member belongs
            setattr(self.module, self.name, made)
        replaced = self.module.__dict__.setdefault(REPLACED, set())
        trained = self.wrap is not None and made._requires_grad  # whose very self may be assumed
        if trained or self.name not in replaced or not same_value(self.kind(), before):
            replaced.add(self.name)
            structure.bump()

    def restore(self, value: Any, lay: dict[str, Any]) -> None:
        """Have it as it was where it ``lay``, if it was there."""
        if value is _ABSENT or self.holder is not lay:
            self.holder.pop(self.name, None)
        if value is not _ABSENT:
            lay[self.name] = value


@dataclass(frozen=True, slots=True)
class Slot:
    """An entry of an optimiser's state for a parameter."""

    slots: dict[str, Any]
    name: str

    def now(self) -> Any:
        """Its value."""
        return self.slots.get(self.name, _ABSENT)

    def kind(self) -> Any:
        """What a program assumes of it."""
        now = self.now()
        return type(now).__name__ if type(now) in _NUMBERS else _kind(now)

    def put(self, value: Any, arguments: Sequence[Any]) -> None:
        """Assign what a program has made; a whole number stays one."""
        before = self.kind()
        self.slots[self.name] = int(value) if before == "int" else value
        if self.kind() != before:
            structure.bump()

    def restore(self, value: Any) -> None:
        """Have it as it was, if it was there."""
        if value is _ABSENT:
            self.slots.pop(self.name, None)
        else:
            self.slots[self.name] = value


@dataclass(frozen=True, slots=True)
class WrittenArgument:
    """Argument number ``index``, to which something with a history was written in place."""

    index: int
    traced: Tensor
    """Its last value in the trace, with that history."""

    def now(self) -> Tensor:
        """That value."""
        return self.traced

    def put(self, value: Any, arguments: Sequence[Any]) -> None:
        """Give the argument of a call the history that is wanted of it."""
        arguments[self.index]._adopt(value)


@dataclass(frozen=True, slots=True)
class FoundMember:
    """State number ``position`` of the graph is tensor ``leaf`` of an attribute or a slot."""

    position: int
    member: Member | Slot
    leaf: int

    def now(self) -> Tensor:
        """What lies there."""
        found: Tensor = pytree.flatten(self.member.now())[0][self.leaf]
        return found


Place: TypeAlias = Member | Slot | WrittenArgument


class Assigned:
    """What one trace assigns to attributes, and which it reads that programs assign."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, str], tuple[Member, Any, dict[str, Any]]] = {}
        self._states: dict[int, tuple[State, State]] = {}
        self._numbers: dict[int, tuple[Tensor, Any]] = {}
        self._met: dict[int, Any] = {}
        self._names: set[tuple[int, str]] = set()
        self._histories: dict[int, tuple[Tensor, GradNode | None, bool]] = {}
        self._began = next(serials)
        self.differentiated: set[int] = set()
        """The leaves that results are differentiated by when the function is done."""

    def note(self, tracer: Tracer, module: Any, name: str, value: Any) -> None:
        """``module.name`` is about to become ``value``."""
        member = Member(module, name)
        before = member.now()
        if value is before:
            return
        if tracer.region is not None and _made(value):
            raise TraceError(
                f"the body of a loop or branch assigns a tensor to {name!r} of a module, which a "
                "body that is traced once cannot do at every step; carry the value, or return it"
            )
        self._before.setdefault((id(module), name), (member, before, member.holder))

    def note_history(self, tensor: Tensor) -> None:
        """An in-place operation is about to give ``tensor``, from outside, another history."""
        before = tensor, tensor._grad_fn, tensor._requires_grad
        self._histories.setdefault(id(tensor), before)

    def is_from_outside(self, history: GradNode) -> bool:
        """Whether this operation was recorded before the function was called."""
        return history.serial < self._began

    def restore_histories(self) -> None:
        """Give tensors from outside the histories back that they had before the trace."""
        for tensor, grad_fn, requires_grad in self._histories.values():
            tensor._grad_fn, tensor._requires_grad = grad_fn, requires_grad
            tensor._origin += 1
            for view in [known() for known in tensor._cell.views or ()]:
                if view is not None and view._base is tensor:
                    view._rederive()

    def _written(self, tracer: Tracer, arguments: Sequence[Any]) -> Iterator[WrittenArgument]:
        """The arguments that leave the function with a history that is still wanted."""
        for index, leaf in enumerate(arguments):
            history = leaf.grad_fn if id(leaf) in self._histories else None
            if history is not None and not history.spent(set()):
                traced: Tensor = Tensor._of(Cell(tracer.node(leaf), tracer))
                traced._grad_fn, traced._requires_grad = history, True
                yield WrittenArgument(index, traced)

    def meet(self, module: Any) -> None:
        """The function reaches ``module``: what it reads there of what programs assign is noted."""
        own = module.__dict__
        if REPLACED in own and id(module) not in self._met:
            self._met[id(module)] = module
            hidden = own.setdefault(HIDDEN, {})
            for name in [name for name in own[REPLACED] if name in own]:
                hidden[name] = own[name]  # it lies in one of them at every moment
                del own[name]

    def read(self, module: Any, name: str) -> None:
        """The function reads what lay at ``module.name`` before it began."""
        self._names.add((id(module), name))

    def watch(self, tracer: Tracer, state: State) -> None:
        """The function may change the state of an optimiser."""
        if id(state) in self._states:
            return

        def names() -> tuple[Any, ...]:
            return tuple((id(key), tuple(slots)) for key, slots in state.items() if slots)

        tracer.guard(names, names(), "which state an optimiser has")
        self._states[id(state)] = state, {key: dict(slots) for key, slots in state.items()}
        for slots in state.values():
            for name, value in slots.items():
                if type(value) in _NUMBERS:
                    slots[name] = tracer.scalar((id(slots), name), Slot(slots, name).now, name)
                    self._numbers[id(slots[name])] = slots[name], slots[name]._cell.value

    def _changed_slots(self) -> Iterator[tuple[Slot, Any]]:
        """What was made in the trace, with what was there before."""
        for state, before in self._states.values():
            for key, slots in state.items():
                for name, value in slots.items():
                    if any(t._cell.tracer is not None for t in _tensors(value)):
                        yield Slot(slots, name), before.get(key, {}).get(name, _ABSENT)

    def members(self, tracer: Tracer, arguments: Sequence[Any]) -> tuple[Place, ...]:
        """The attributes and slots that hold other tensors than before, and the ``arguments`` that
        have another history."""
        found = [Member(m.module, m.name, _wrapping(m, tracer)) for m, _ in self.left()]
        slots = [slot for slot, _ in self._changed_slots() if not self._is_as_given(slot.now())]
        return (*found, *slots, *self._written(tracer, arguments))

    def left(self) -> list[tuple[Member, Any]]:
        """The attributes that hold what the function has made so far, with that."""
        found = [(m, m.now(), before) for m, before, _ in self._before.values()]
        return [(m, now) for m, now, before in found if now is not before and _made(now)]

    def _is_as_given(self, value: Any) -> bool:
        """Whether this is a run-time number to which nothing was added in place."""
        given = self._numbers.get(id(value))
        return given is not None and given[1] is value._cell.value

    def undo(self) -> None:
        """Give modules back what they had instead of tensors; other values stay assigned."""
        for member, before, lay in self._before.values():
            if member.now() is not before and _made(member.now()):
                member.restore(before, lay)
        for slot, before in list(self._changed_slots()):
            slot.restore(before)
        for module in self._met.values():
            for name, value in module.__dict__.get(HIDDEN, {}).items():
                module.__dict__.setdefault(name, value)
            module.__dict__.pop(HIDDEN, None)

    def _read(self) -> Iterator[tuple[Member | Slot, Any]]:
        """What was read that programs assign, with the values that the trace began with."""
        for module in self._met.values():
            for name in sorted(module.__dict__[REPLACED]):
                if (id(module), name) not in self._names:
                    continue
                noted = self._before.get((id(module), name))
                member = Member(module, name)
                yield member, member.now() if noted is None else noted[1]
        for state, before in self._states.values():
            for key, slots in before.items():
                for name, value in slots.items():
                    yield Slot(state[key], name), value

    def _has_gradient(self, tracer: Tracer, value: Any) -> bool:
        """Whether this is a parameter that gets a gradient, which is left at that very one."""
        if type(value) is Tensor or not isinstance(value, Tensor):
            return False
        left = tracer.grads.get(id(value), (None, None))[1]
        return id(value) in self.differentiated or isinstance(left, Tensor)

    def moving(self) -> frozenset[Cell]:
        """Memory that will be another when the program is called again."""
        return frozenset(t._cell for _, value in self._read() for t in _tensors(value))

    def found(self, tracer: Tracer) -> tuple[FoundMember, ...]:
        """What is looked up at each call; assumes what must hold of it."""
        positions = {cell: position for position, cell in enumerate(tracer.captured)}
        for own, before, _ in self._before.values():
            if _made(own.now()) and self._has_gradient(tracer, before):
                raise _refusal(own)
        read = list(self._read())
        counts = Counter(t._cell for _, value in read for t in _tensors(value))
        found = []
        for member, value in read:
            owner = "state" if isinstance(member, Slot) else type(member.module).__name__
            what = f"{owner}.{member.name}"
            cells = [t._cell for t in _tensors(value)]
            fixed = any(counts[cell] > 1 or cell in tracer.input_leaf for cell in cells)
            if fixed or self._has_gradient(tracer, value):
                tracer.guard(member.now, value, what)
                continue
            number = type(value) in _NUMBERS and isinstance(member, Slot)
            tracer.guard(member.kind, type(value).__name__ if number else _kind(value), what)
            for place, leaf in enumerate(pytree.flatten(value)[0]):
                if isinstance(leaf, Tensor) and leaf._cell in positions and not _is_fixed(leaf):
                    found.append(FoundMember(positions[leaf._cell], member, place))
        return tuple(found)


def put_all(captured: Capture, returned: Any, arguments: Sequence[Any]) -> Any:
    """Assign the attributes, whose values follow what the function returns; that is left."""
    if any(r.chain and r.kind == "new" for r in captured.results):
        returned = _without_views(captured.results, returned)
    returned, values = returned
    for member, value in zip(captured.members, values, strict=True):
        member.put(value, arguments)
    return returned


def _without_views(results: Sequence[Result], given: Any) -> Any:
    """What a call gives; views of new memory of which nobody sees more are all of a memory.

    Then a program goes on with whatever lies in an attribute.
    """
    leaves, nest = pytree.flatten(given)
    returned = len(pytree.flatten(given[0])[0])
    by_memory: dict[Cell, list[int]] = {}
    for number, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            by_memory.setdefault(leaf._cell, []).append(number)
    for numbers in by_memory.values():
        if numbers[-1] < returned:
            continue  # no attribute has it
        first = leaves[numbers[0]]
        shown = [leaves[n]._chain for n in numbers if results[n].kind == "new"]
        histories = any(results[n].differentiable is not None for n in numbers)
        if first._chain and shown == [first._chain] * len(numbers) and not histories:
            made = first.detach().clone()
            for n in numbers:
                leaves[n] = Tensor._of(made._cell)
    return pytree.unflatten(nest, leaves)


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in a nest."""
    if isinstance(value, Tensor):
        return [value]
    return [leaf for leaf in pytree.flatten(value)[0] if type(leaf) is Tensor]


def _made(value: Any) -> list[Tensor]:
    """The tensors in a nest that are assigned at every call; parameters from outside and modules
    are assigned once, while tracing."""
    outer = type(value) is not Tensor and isinstance(value, Tensor) and value._cell.tracer is None
    return [] if outer else _tensors(value)


def _wrapping(member: Member, tracer: Tracer) -> Callable[[Tensor], Tensor] | None:
    """What makes another such parameter or buffer of a tensor."""
    value = member.now()
    if type(value) is Tensor or not isinstance(value, Tensor):
        return None
    kind, trained = type(value), value._requires_grad
    if isinstance(tracer.grads.get(id(value), (None, None))[1], Tensor):
        raise _refusal(member)

    def wrap(result: Tensor) -> Tensor:
        made = kind._of(result._cell, result._chain)
        made._requires_grad = trained
        return made

    return wrap


def _refusal(member: Member) -> TraceError:
    return TraceError(
        f"backward() gives a gradient to {member.name!r}, a parameter that the compiled function "
        "replaces, so there is nowhere to leave it: write to the parameter in place, under "
        "no_grad(), or take the gradient with autograd.grad() and return it"
    )


def _is_fixed(leaf: Tensor) -> bool:
    """Whether a program can work on this very tensor only."""
    return bool(leaf._chain) or leaf.grad_fn is not None or not leaf._eager().flags.c_contiguous


def _kind(value: Any) -> Any:
    leaves, nest = pytree.flatten(value)
    kinds = [_leaf_kind(leaf) for leaf in leaves]
    return kinds[0] if nest == pytree.LEAF else (*kinds, nest)


def _leaf_kind(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or _is_fixed(leaf):
        return leaf
    trained = ", requires_grad" if leaf._requires_grad else ""
    return f"{leaf._type_now()} on {leaf.device}{trained}"
