"""What ``torch.compiler`` has beside ``compile``: questions, and marks that need nothing here.

A compiled function is one static program and everything in it is traced, so nothing can be left
out of one: what :func:`disable` marks is traced as well where a compiled function calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphflow.api import compile
from graphflow.mode import mode

__all__ = [
    "allow_in_graph", "assume_constant_result", "compile", "cudagraph_mark_step_begin",
    "disable", "is_compiling", "is_dynamo_compiling", "is_exporting", "list_backends", "reset",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def is_compiling() -> bool:
    """Whether this code is being traced into a program."""
    return mode.tracer is not None


is_dynamo_compiling = is_compiling


def is_exporting() -> bool:
    """False: exporting starts from programs that are compiled."""
    return False


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """``fn`` itself, or a decorator that gives its function: nothing is compiled unasked."""
    return _same if fn is None else fn


def _same(fn: F) -> F:
    return fn


def allow_in_graph(fn: F) -> F:
    """``fn``: everything is allowed in graphs."""
    return fn


def assume_constant_result(fn: F) -> F:
    """``fn``: what is no tensor is a constant of the program anyway."""
    return fn


def cudagraph_mark_step_begin() -> None:
    """Nothing: results are never written over by a later step."""


def reset() -> None:
    """Nothing: a compiled function is forgotten with its last reference."""


def list_backends(exclude_tags: Any = ()) -> list[str]:
    """The names of compilers: there is one."""
    return ["graphflow"]
