"""Bodies of the vocabulary in modules of their own, linked to the kernels that call them.

A body is the same text in every kernel, so it is written once a process; and it leaves LLVM
little to find, so it is linked to a kernel that has been optimised already
(:meth:`graphflow.codegen.compile._Backend.optimise`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from graphflow.codegen.target import Target, chosen_target

_NOTES = "graphflow_bodies"


def call_body(builder: Any, make: Callable[..., Any], key: Sequence[Any], values: Any) -> Any:
    """Emit a call of the function that ``make(module, *key)`` writes; the module notes the need."""
    module = builder.module
    name, kind, text = _written(make, tuple(key), chosen_target())
    callee = module.globals.get(name)
    if callee is None:
        callee = ir.Function(module, kind, name)
        callee.attributes.add("nounwind")
        module.__dict__.setdefault(_NOTES, {})[name] = text
    return builder.call(callee, values)


def bodies_of(module: Any) -> tuple[str, ...]:
    """The texts of the bodies that ``module`` calls."""
    return tuple(module.__dict__.get(_NOTES, {}).values())


@cache
def _written(
    make: Callable[..., Any], key: tuple[Any, ...], target: Target
) -> tuple[str, Any, str]:
    """Name, type and text of a body; ``target`` is the chosen one, which bodies may look at."""
    module = ir.Module()
    function = make(module, *key)
    function.linkage = ""
    lines = str(module).splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("target", ";")))
    return function.name, function.ftype, text
