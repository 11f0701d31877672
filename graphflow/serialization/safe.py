"""Classes whose instances ``gf.load`` may make: those that the user allowed, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_allowed: dict[tuple[str, str], Any] = {}


def add_safe_globals(safe_globals: Sequence[Callable[..., Any] | tuple[Any, str]]) -> None:
    """Let checkpoints call these classes and functions while they are loaded.

    Each may come with the name, dotted, by which files know it: ``(cls, "package.Class")``.
    """
    for entry in safe_globals:
        if isinstance(entry, tuple):
            module, _, name = entry[1].rpartition(".")
            _allowed[module, name] = entry[0]
        else:
            _allowed[entry.__module__, entry.__qualname__] = entry


def get_safe_globals() -> list[Any]:
    """What was allowed so far."""
    return list(_allowed.values())


def clear_safe_globals() -> None:
    """Allow nothing any more."""
    _allowed.clear()


@contextmanager
def safe_globals(safe_globals: Sequence[Any]) -> Iterator[None]:
    """:func:`add_safe_globals` within a ``with`` block."""
    before = dict(_allowed)
    add_safe_globals(safe_globals)
    try:
        yield
    finally:
        _allowed.clear()
        _allowed.update(before)


def allowed(module: str, name: str) -> Any:
    """What the user allowed under this name; None if nothing."""
    return _allowed.get((module, name))


def is_allowed(kind: type) -> bool:
    """Whether the user allowed this class, under any name."""
    return any(kind is own for own in _allowed.values())
