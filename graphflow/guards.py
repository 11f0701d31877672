"""What a program assumed about the world around the traced function.

Two tiers.  *Reads* (:mod:`graphflow.reach`) are the names a function's code
reaches directly: they are compared by identity on every call, a few dozen
nanoseconds each.  *Guards* are everything behind those (a module's mode, a
parameter's memory, an optimiser's flags): they are looked at only when the
structure version moved, since whatever changes them bumps it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from graphflow.assigned import REPLACED
from graphflow.cell import Cell
from graphflow.places import user_place
from graphflow.reads import PLAIN
from graphflow.records import dataclass, replace
from graphflow.tensor import Tensor

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Guard:
    """One assumption: ``read()`` still gives ``expected``."""

    read: Callable[[], Any]
    expected: Any
    what: str

    def holds(self) -> bool:
        """True while the assumption is right (plain values by equality, others by identity)."""
        return same_value(self.read(), self.expected)

    def settled(self) -> Guard:
        """The same without what the function itself changed while it was traced."""
        now, before, read = self.read(), self.expected, self.read
        if not isinstance(now, dict) or same_value(now, before):
            return self
        kept = {k: v for k, v in now.items() if k in before and same_value(v, before[k])}
        moved = (now.keys() | before.keys()) - kept.keys()
        return replace(
            self, expected=kept, read=lambda: {k: v for k, v in read().items() if k not in moved}
        )

    def change(self) -> tuple[str, Any, Any]:
        """What differs now: its name, the value before, the value after."""
        now, before = self.read(), self.expected
        if isinstance(now, dict) and isinstance(before, dict):
            for key in [*before, *now]:
                old, new = before.get(key, _MISSING), now.get(key, _MISSING)
                if not same_value(old, new):
                    old, new = (_NOTHING if v is _MISSING else v for v in (old, new))
                    return f"{self.what}.{key}", old, new
        return self.what, before, now


def same_value(now: Any, before: Any) -> bool:
    """Equality of plain values (also in tuples and dictionaries), identity of all others."""
    if now is before:
        return True
    if type(now) is not type(before):
        return False
    if isinstance(now, dict):
        return now.keys() == before.keys() and all(
            same_value(value, before[key]) for key, value in now.items()
        )
    if isinstance(now, tuple):
        return len(now) == len(before) and all(map(same_value, now, before))
    return isinstance(now, PLAIN) and bool(now == before)


@dataclass(frozen=True, slots=True)
class Recompile:
    """Why a program was traced again: what changed, from what, to what, where."""

    what: str
    before: Any
    after: Any
    where: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}: {_spell(self.before)} → {_spell(self.after)}{place}"


OFTEN = 16
"""So many traces again for the same reason are told of."""


def tell_of_many(name: str, recompiles: Sequence[Recompile]) -> None:
    """Warn once if a function was traced :data:`OFTEN` times again because of one thing."""
    latest = recompiles[-1]
    if sum(recompile.what == latest.what for recompile in recompiles) == OFTEN:
        place = user_place()
        warnings.warn_explicit(
            f"{name} has been traced {OFTEN} times again because this differs from call to call: "
            f"{latest}. Tensors, and floats among the arguments, may change without a trace; so "
            "give it as one of those. explain() lists all causes",
            UserWarning, place.file, place.line,
        )  # fmt: skip


class Described(str):
    """Text that stands for a value in a message; printed as it is."""


def named_cells(roots: list[tuple[str, Any]]) -> dict[Cell, str]:
    """Readable names for memory that the function can reach: ``model.fc1.weight``."""
    names: dict[Cell, str] = {}
    for name, value in roots:
        for path, tensor in tensors_of(name, value):
            names.setdefault(tensor._cell, path)
    return names


def is_named(tensor: Tensor, roots: list[tuple[str, Any]]) -> bool:
    """Whether the function can reach this very tensor, and not only its memory."""
    return any(found is tensor for root in roots for _, found in tensors_of(*root))


def tensors_of(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a tensor or a module, with their paths below ``name``."""
    if isinstance(value, Tensor):
        yield name, value
        return
    named = getattr(value, "named_tensors", None)
    if callable(named) and not isinstance(value, type):
        for path, tensor in named():
            yield f"{name}.{path}", tensor


_ASSUMED = (bool, int, float, str, tuple, type(None), FunctionType, MethodType, partial)


def plain_attributes(module: Any) -> Mapping[str, Any]:
    """A module's own plain values and functions, its members, its hooks; of run-time scalars
    only whether they are 0, where a program may leave something out.  Not what programs assign."""
    skipped = getattr(type(module), "run_time", ())
    own = module.__dict__
    replaced = own.get(REPLACED, ())
    found = {
        name: value
        for name, value in own.items()
        if name not in skipped and isinstance(value, _ASSUMED) and name not in replaced
    }
    found.update({f"{name} == 0": own[name] == 0 for name in skipped if name in own})
    for table in ("_parameters", "_buffers", "_modules"):
        found.update({name: v for name, v in own[table].items() if name not in replaced})
    for table in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        found[table] = tuple(own[table])
    return found


_NOTHING = Described("nothing that is assumed")


def _spell(value: Any) -> str:
    if isinstance(value, Described):
        return str(value)
    if isinstance(value, Tensor):
        return f"<{type(value).__name__} {value._type_now()}>"
    kind = value if isinstance(value, type) else type(value)
    text = repr(value) if isinstance(value, PLAIN) else f"<{kind.__name__}>"
    return text if len(text) <= 60 else text[:57] + "…"
