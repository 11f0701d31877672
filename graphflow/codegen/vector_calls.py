"""Calls of vector functions from lowered kernels, and the bodies those calls need.

A function of ``vm`` is an internal LLVM function ``vm.<name>.<types>``.  LLVM
inlines it first, so its body is written once a module however often it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from graphflow.codegen.llvm_expr import LLVMMachine, llvm_function
from graphflow.codegen.target import Target
from graphflow.codegen.vector_math import FUNCTIONS, VectorFunction

PREFIX = "vm."
_LLVM: dict[str, Any] = {
    "bool": ir.IntType(1), "f32": ir.FloatType(), "f64": ir.DoubleType(),
    **{f"{s}{n}": ir.IntType(n) for s in "iu" for n in (8, 16, 32, 64)},
}  # fmt: skip


def _name(function: VectorFunction, kinds: tuple[str, ...]) -> str:
    return f"{PREFIX}{function.name}.{'.'.join(kinds)}"


def call_vector_function(
    builder: Any, function: VectorFunction, kinds: tuple[str, ...], arguments: Sequence[Any]
) -> Any:
    """Emit a call of ``function`` at argument types ``kinds``; its module notes the need."""
    name = _name(function, kinds)
    callee = builder.module.globals.get(name)
    if callee is None:
        kind = ir.FunctionType(_LLVM[function.result(kinds)], [_LLVM[k] for k in kinds])
        callee = ir.Function(builder.module, kind, name)
        needed = builder.module.__dict__.setdefault("graphflow_functions", {})
        needed[name] = (function.name, kinds)
    return builder.call(callee, arguments)


@cache
def _definition(name: str, kinds: tuple[str, ...], target: Target) -> tuple[str, frozenset[str]]:
    function = FUNCTIONS[name]
    machine = LLVMMachine(target.has_fma, target.has_avx512)
    return llvm_function(_name(function, kinds), function.formula, kinds, machine)


def definitions(needed: Iterable[tuple[str, tuple[str, ...]]], target: Target) -> str:
    """A module's worth of LLVM text defining the ``vm`` functions in ``needed``."""
    bodies: list[str] = []
    declarations: set[str] = set()
    for name, kinds in needed:
        body, declared = _definition(name, kinds, target)
        bodies.append(body)
        declarations |= declared
    return "\n".join([*sorted(declarations), *bodies])
