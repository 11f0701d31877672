"""What a program assumed about the world around the traced function.

Two tiers.  *Reads* are the names a function's code reaches directly (closure
cells and globals): they are compared by identity on every call, a few dozen
nanoseconds each.  *Guards* are everything behind those (a module's mode, a
parameter's memory, an optimiser's flags): they are looked at only when the
structure version moved, since whatever changes them bumps it.
"""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from graphflow.cell import Cell
from graphflow.tensor import Tensor

_PLAIN = (bool, int, float, str, bytes, type(None), tuple, frozenset)


@dataclass(frozen=True, slots=True)
class Read:
    """A name the function reaches: how to read it again, and what it was."""

    holder: Any
    key: Any
    value: Any
    name: str

    def now(self) -> Any:
        """The value at this moment (a closure cell, or an entry of a namespace)."""
        if self.key is None:
            return self.holder.cell_contents
        return self.holder.get(self.key)


@dataclass(frozen=True, slots=True)
class Guard:
    """One assumption: ``read()`` still gives ``expected``."""

    read: Callable[[], Any]
    expected: Any
    what: str

    def holds(self) -> bool:
        """True while the assumption is right (plain values by equality, others by identity)."""
        value = self.read()
        return value is self.expected or (
            type(value) is type(self.expected)
            and isinstance(value, (bool, int, float, str, tuple, dict))
            and bool(value == self.expected)
        )


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


def reads_of(function: Callable[..., Any]) -> list[Read]:
    """The names that ``function`` and the user functions it reaches read from outside."""
    found: list[Read] = []
    seen: set[int] = set()
    pending: list[Any] = [function]
    while pending:
        current = pending.pop()
        for inner in _functions(current):
            if id(inner) in seen or _is_ours(inner):
                continue
            seen.add(id(inner))
            for read in _direct_reads(inner):
                found.append(read)
                if isinstance(read.value, (types.FunctionType, types.MethodType)):
                    pending.append(read.value)
    return found


def watched(reads: list[Read]) -> list[Read]:
    """The reads worth comparing on every call: values, not functions or imported modules."""
    return [r for r in reads if not isinstance(r.value, (types.ModuleType, type))]


def named_cells(function: Callable[..., Any], reads: list[Read]) -> dict[Cell, str]:
    """Readable names for memory that the function can reach: ``model.fc1.weight``."""
    names: dict[Cell, str] = {}
    owner = getattr(function, "__self__", None)
    roots = [(r.name, r.value) for r in reads]
    if owner is not None:
        roots.append((type(owner).__name__.lower(), owner))
    for name, value in roots:
        for path, tensor in _tensors_of(name, value):
            names.setdefault(tensor._cell, path)
    return names


def _tensors_of(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
        return
    named = getattr(value, "named_tensors", None)
    if callable(named) and not isinstance(value, type):
        for path, tensor in named():
            yield f"{name}.{path}", tensor


def _functions(value: Any) -> Iterator[types.FunctionType]:
    if isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, types.MethodType):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        yield value
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, types.FunctionType):
            yield wrapped


def _is_ours(function: types.FunctionType) -> bool:
    module = function.__module__ or ""
    return module == "graphflow" or module.startswith("graphflow.")


def _direct_reads(function: types.FunctionType) -> Iterator[Read]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield Read(cell, None, cell.cell_contents, name)
        except ValueError:
            continue  # a free variable that is not bound yet
    namespace = function.__globals__
    for name in _global_names(code):
        if name in namespace:
            yield Read(namespace, name, namespace[name], name)


def _global_names(code: types.CodeType) -> Iterator[str]:
    for name in code.co_names:
        if not hasattr(builtins, name):
            yield name
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _global_names(inner)


def _spell(value: Any) -> str:
    text = repr(value) if isinstance(value, _PLAIN) else f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "…"
