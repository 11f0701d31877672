"""What registering a hook gives back."""

from __future__ import annotations

from typing import Any

from graphflow.mode import structure


class RemovableHandle:
    """Takes a registered hook away again: ``handle.remove()``."""

    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)
            structure.bump()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
