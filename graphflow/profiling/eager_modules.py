"""Which module eager work belongs to while a block is profiled.

For the time of the block, calls of modules are watched, and histories keep the module that
they were recorded in, so that gradients count for the module whose work they undo, as they do
in programs.  Outside of the block nothing is watched and nothing costs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphflow.autograd.engine import _Sweep
from graphflow.autograd.history import GradNode
from graphflow.mode import mode
from graphflow.profiling.watch import module_types


class EagerModules:
    """The path of the module at work, ``""`` outside of modules; see :meth:`watched`.

    ``entered`` are the paths of all modules that have been called.
    """

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.entered: set[str] = set()
        self._paths: dict[int, str] = {}
        self._kept: list[Any] = []

    @property
    def path(self) -> str:
        """The module that is at work now."""
        return self.stack[-1] if self.stack else ""

    @contextmanager
    def watched(self) -> Iterator[EagerModules]:
        """Watch calls of modules, eager histories and backward passes."""
        made, cotangents = GradNode.__init__, _Sweep._cotangents

        def watching(call: Any) -> Any:
            def watched_call(module: Any, *args: Any, **kwargs: Any) -> Any:
                if mode.tracer is not None:
                    return call(module, *args, **kwargs)
                path = self._path_of(module)
                self.entered.add(path)
                with self._inside(path):
                    return call(module, *args, **kwargs)

            return watched_call

        def watched_history(node: GradNode, *args: Any) -> None:
            made(node, *args)
            if mode.tracer is None:
                node.module = self.path

        def watched_cotangents(sweep: _Sweep, node: GradNode, *args: Any) -> Any:
            with self._inside(node.module):
                return cotangents(sweep, node, *args)

        calls = [(kind, "__call__", kind.__call__) for kind in module_types]
        changed: list[tuple[Any, str, Any, Any]] = [
            *((kind, name, call, watching(call)) for kind, name, call in calls),
            (GradNode, "__init__", made, watched_history),
            (_Sweep, "_cotangents", cotangents, watched_cotangents),
        ]
        for owner, name, _, watched in changed:
            setattr(owner, name, watched)
        try:
            yield self
        finally:
            for owner, name, plain, _ in changed:
                setattr(owner, name, plain)

    @contextmanager
    def _inside(self, path: str) -> Iterator[None]:
        self.stack.append(path)
        try:
            yield
        finally:
            self.stack.pop()

    def root_name(self, module: Any) -> str:
        """What a module is called that no module calls."""
        return _variable(module) or type(module).__name__.lower()

    def _path_of(self, module: Any) -> str:
        """The module's path below the outermost one, which goes by its variable's name."""
        found = self._paths.get(id(module))
        if found is None:
            root = self.path or self.root_name(module)
            for path, part in module.named_modules():
                self._paths.setdefault(id(part), f"{root}.{path}" if path else root)
            self._kept.append(module)  # an id stands for this module as long as it lives
            found = self._paths[id(module)]
        return found


def _variable(module: Any) -> str | None:
    """What the caller calls ``module``."""
    frame = sys._getframe(1)
    while frame is not None and __name__.rpartition(".")[0] in frame.f_globals.get("__name__", ""):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return None
    for names in (frame.f_locals, frame.f_globals):
        for name, value in names.items():
            if value is module:
                return str(name)
    return None
