"""Float attributes of modules that a compiled program reads anew at every call."""

from __future__ import annotations

from typing import Any

from graphflow.mode import mode


def run_time_scalar(module: Any, name: str) -> Any:
    """A module's float attribute: itself eagerly, a run-time scalar of a program in a trace.

    Except 0, which a program may assume and build less for: it is retraced when the
    attribute (one of the class's ``run_time``) becomes another number.
    """
    tracer, value = mode.tracer, getattr(module, name)
    if tracer is None or value == 0:
        return value
    return tracer.scalar((id(module), name), lambda: getattr(module, name), name)
