"""Bodies of the vocabulary in modules of their own, beside the kernels that call them.

A body is the same function in every kernel, so it is written and compiled once a process
(:class:`graphflow.codegen.compile.Compilation`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from graphflow.codegen.contraction.instructions import Function
from graphflow.codegen.target import Target, chosen_target

_NOTES = "graphflow_bodies"
_texts: dict[tuple[Target, str], str] = {}
_KINDS = {"ptr": ir.PointerType(), "i64": ir.IntType(64), "void": ir.VoidType()}


def call_body(builder: Any, make: Callable[..., Function], key: Sequence[Any], values: Any) -> Any:
    """Emit a call of the function that ``make(*key)`` writes; the module notes the need."""
    module = builder.module
    function, text = _written(make, tuple(key), chosen_target())
    callee = module.globals.get(function.name)
    if callee is None:
        result, *taken = (_KINDS[kind.text] for kind in function.kinds)
        callee = ir.Function(module, ir.FunctionType(result, taken), function.name)
        callee.attributes.add("nounwind")
        module.__dict__.setdefault(_NOTES, {})[function.name] = text
    return builder.call(callee, values)


def bodies_of(module: Any) -> dict[str, str]:
    """The texts of the bodies that ``module`` calls, by name."""
    return dict(module.__dict__.get(_NOTES, {}))


@cache
def _written(
    make: Callable[..., Function], key: tuple[Any, ...], target: Target
) -> tuple[Function, str]:
    """A body and its text; ``target`` is the chosen one, which bodies may look at.

    A name stands for one text: kernels share bodies by it.
    """
    function = make(*key)
    text = str(function)
    if _texts.setdefault((target, function.name), text) != text:
        raise AssertionError(f"two bodies have one name: {function.name}")
    return function, text
