"""Float attributes of modules that a compiled program reads anew at every call."""

from __future__ import annotations

from typing import Any

from graphflow.mode import mode


def run_time_scalar(module: Any, name: str) -> Any:
    """A module's float attribute: itself eagerly, a run-time scalar of a program in a trace."""
    tracer = mode.tracer
    if tracer is None:
        return getattr(module, name)
    return tracer.scalar((id(module), name), lambda: getattr(module, name), name)
