"""Marks for NVIDIA's profilers, by PyTorch's names; nothing listens where there is no device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphflow.profiler import record_function

__all__ = ["mark", "range", "range_pop", "range_push"]

_open: list[Any] = []


def range_push(msg: str) -> int:
    """Begin a range; in a profile of ``gf.profiler`` it is one of ``record_function``."""
    entered = record_function(msg)
    entered.__enter__()
    _open.append(entered)
    return len(_open) - 1


def range_pop() -> int:
    """End the innermost range; its depth, or -1 where none was begun."""
    if not _open:
        return -1
    _open.pop().__exit__(None, None, None)
    return len(_open)


def mark(msg: str) -> None:
    """Accepted: a moment is in no table."""


@contextmanager
def range(msg: str, *args: Any, **kwargs: Any) -> Iterator[None]:
    """A range for a block; ``msg`` is formatted with what follows."""
    with record_function(msg.format(*args, **kwargs)):
        yield
