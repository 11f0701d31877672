"""Hooks before and after the steps of optimisers: of one, and of all that there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from graphflow.handles import RemovableHandle
from graphflow.mode import structure

if TYPE_CHECKING:
    from graphflow.optim.optimizer import Optimizer

OF_ALL: dict[str, list[Callable[..., Any]]] = {"before": [], "after": []}
"""Hooks on the steps of all optimisers."""


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` before every step of every optimiser."""
    return added(OF_ALL["before"], hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` after every step of every optimiser."""
    return added(OF_ALL["after"], hook)


def added(
    hooks: list[Callable[..., Any]], hook: Callable[..., Any], first: bool = False
) -> RemovableHandle:
    """``hook`` among ``hooks``, at the end or the beginning."""
    hooks.insert(0 if first else len(hooks), hook)
    structure.bump()
    return RemovableHandle(hooks, hook)


def with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` of a class of optimisers, with what is to happen before and after it.

    A step that calls that of the class it is derived from is one step.
    """

    @wraps(step)
    def hooked(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:
            return step(self, *args, **kwargs)
        self._opt_called = self._stepping = True
        try:
            for hook in (*OF_ALL["before"], *self._hooks.get("before", ())):
                hook(self, args, kwargs)
            self._assume_groups()
            result = step(self, *args, **kwargs)
            for hook in (*self._hooks.get("after", ()), *OF_ALL["after"]):
                hook(self, args, kwargs)
        finally:
            self._stepping = False
        return result

    return hooked
