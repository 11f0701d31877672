"""Compiled meaning of :mod:`graphflow.codegen.atomics`.

All accesses are sequentially consistent: "announce, then look whether somebody
sleeps" on one side and "say that I sleep, then look again" on the other is only
right if neither side's look can overtake its announcement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from graphflow.codegen import atomics
from graphflow.codegen.target import chosen_target

_I64 = ir.IntType(64)
_WORD = 8
_ORDERING = "seq_cst"


def _register(function: Any, words: int, result: Any, lower: Callable[[Any, Any], Any]) -> None:
    """Give ``function`` of ``words`` integers the compiled body ``lower(builder, args)``."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != words or not all(isinstance(a, types.Integer) for a in args):
                return None
            return signature(result, *[types.int64] * words)

    def body(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = lower(builder, args)
        return context.get_dummy_value() if result is types.none else value

    infer_global(function)(Template)
    lower_builtin(function, *[types.Integer] * words)(body)


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


def _load(builder: Any, args: Any) -> Any:
    return builder.load_atomic(_word(builder, args[0]), _ORDERING, _WORD)


def _store(builder: Any, args: Any) -> Any:
    return builder.store_atomic(args[1], _word(builder, args[0]), _ORDERING, _WORD)


def _add(builder: Any, args: Any) -> Any:
    return builder.atomic_rmw("add", _word(builder, args[0]), args[1], _ORDERING)


def _pause(builder: Any, args: Any) -> Any:
    target = chosen_target()
    if target.is_x86:
        name, kinds, values = "llvm.x86.sse2.pause", [], []
    elif target.is_arm64:
        name, kinds, values = "llvm.aarch64.hint", [ir.IntType(32)], [ir.IntType(32)(1)]
    else:
        return None  # an empty loop waits too
    kind = ir.FunctionType(ir.VoidType(), kinds)
    callee = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(callee, values)


def _call_system(builder: Any, args: Any) -> Any:
    kind = ir.FunctionType(_I64, [_I64] * 5)
    return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])


_register(atomics.atomic_load, 1, types.int64, _load)
_register(atomics.atomic_store, 2, types.none, _store)
_register(atomics.atomic_add, 2, types.int64, _add)
_register(atomics.pause, 0, types.none, _pause)
_register(atomics.call_system, 6, types.int64, _call_system)
