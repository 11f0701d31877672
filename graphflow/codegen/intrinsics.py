"""Compiled meaning of the other prelude names: casts, select, share, calls and ``vm``.

Functions of ``vm`` become calls of internal LLVM functions, see
:mod:`graphflow.codegen.vector_calls`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir
from llvmlite.ir import instructions
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from graphflow.codegen import plain
from graphflow.codegen.bridge import lowers, register_template, types
from graphflow.codegen.pointers import narrow, widen
from graphflow.codegen.vector_calls import call_vector_function
from graphflow.codegen.vector_math import FUNCTIONS, VectorFunction

_NUMBA: dict[str, Any] = {
    "bool": types.boolean, "u8": types.uint8, "u16": types.uint16, "u32": types.uint32,
    "u64": types.uint64, "i8": types.int8, "i16": types.int16, "i32": types.int32,
    "i64": types.int64, "f32": types.float32, "f64": types.float64,
}  # fmt: skip
_SHORT = {kind: short for short, kind in _NUMBA.items()}
_I64 = ir.IntType(64)


# --- casts ------------------------------------------------------------------


def _register_cast(function: Any, target: Any, lower: Any) -> None:
    class CastTemplate(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != 1:
                return None
            source = types.unliteral(args[0])
            if isinstance(source, (types.Integer, types.Float, types.Boolean)):
                return signature(target, source)
            return None

    register_template(function, CastTemplate)
    for kind in (types.Integer, types.Float, types.Boolean):
        lowers(function, kind)(lower)


def _lower_cast(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    source, target = sig.args[0], sig.return_type
    if isinstance(source, types.Float) and isinstance(target, types.Integer):
        return _float_to_integer(builder, args[0], target.bitwidth, target.signed)
    return context.cast(builder, args[0], source, target)


def _float_to_integer(builder: Any, value: Any, width: int, signed: bool) -> Any:
    """Truncate; an out-of-range value gives some integer instead of poison."""
    # Narrow and unsigned integers go through a wider signed one, as C compilers do on
    # x86 and as NumPy therefore does, so that negative values wrap.
    via = 32 if width < 32 or (width == 32 and signed) else 64
    whole = _freeze(builder, builder.fptosi(value, ir.IntType(via)))
    return whole if via == width else builder.trunc(whole, ir.IntType(width))


def _freeze(builder: Any, value: Any) -> Any:
    """llvmlite's builder lacks the instruction; its generic form prints it."""
    frozen = instructions.Instruction(builder.block, value.type, "freeze", [value])
    builder._insert(frozen)
    return frozen


def _lower_half(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = context.cast(builder, args[0], sig.args[0], types.float32)
    return widen(builder, "f16", narrow(builder, "f16", value))


def _lower_bfloat(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = context.cast(builder, args[0], sig.args[0], types.float32)
    return widen(builder, "bf16", narrow(builder, "bf16", value))


for _name, _function in plain.CASTS.items():
    _register_cast(_function, _NUMBA[_name], _lower_cast)
_register_cast(plain.f16, types.float32, _lower_half)
_register_cast(plain.bf16, types.float32, _lower_bfloat)


# --- select, accumulation, share --------------------------------------------


def _common(context: Any, kinds: Iterable[Any]) -> Any:
    """The type that numbers of ``kinds`` share, or None."""
    plain_kinds = [types.unliteral(kind) for kind in kinds]
    if not all(kind in _SHORT for kind in plain_kinds):
        return None
    first = plain_kinds[0]
    if all(kind == first for kind in plain_kinds):
        return first
    return context.unify_types(*plain_kinds)


@infer_global(plain.select)
class _Select(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) != 3:
            return None
        kind = _common(self.context, args[1:])
        return signature(kind, types.boolean, kind, kind) if kind is not None else None


@lowers(plain.select, types.Boolean, types.Any, types.Any)
def _lower_select(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.select(*args)


def _register_accumulation(function: Any, float_op: str, integer_op: str) -> None:
    class AccumulationTemplate(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != 2:
                return None
            kind = _common(self.context, args)
            return signature(kind, kind, kind) if kind is not None else None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if isinstance(sig.return_type, types.Float):
            return getattr(builder, float_op)(*args, flags=("reassoc", "nsz", "contract"))
        return getattr(builder, integer_op)(*args)

    register_template(function, AccumulationTemplate)
    lowers(function, types.Any, types.Any)(lower)


_register_accumulation(plain.add_fast, "fadd", "add")
_register_accumulation(plain.mul_fast, "fmul", "mul")


@infer_global(plain.share)
class _Share(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) != 3 or not all(isinstance(a, types.Integer) for a in args):
            return None
        return signature(types.UniTuple(types.int64, 2), *[types.int64] * 3)


@lowers(plain.share, types.Integer, types.Integer, types.Integer)
def _lower_share(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    n, tid, nth = args
    large = builder.icmp_signed(">=", n, builder.mul(nth, _I64(plain.LARGE_SHARE)))
    mask = builder.select(large, _I64(-plain.ALIGNED_ITEMS), _I64(-1))

    def edge(thread: Any) -> Any:
        return builder.and_(builder.sdiv(builder.mul(n, thread), nth), mask)

    following = builder.add(tid, _I64(1))
    last = builder.icmp_signed("==", following, nth)
    end = builder.select(last, n, edge(following))
    return cgutils.pack_array(builder, [edge(tid), end])


# --- calls by address -------------------------------------------------------


def _register_call(function: Any, words: int) -> None:
    class CallTemplate(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != words or not all(isinstance(a, types.Integer) for a in args):
                return None
            return signature(types.none, *[types.int64] * words)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, *[_I64] * (words - 2)])
        callee = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(callee, [builder.inttoptr(args[1], pointer), *args[2:]])
        return context.get_dummy_value()

    register_template(function, CallTemplate)
    lowers(function, *[types.Integer] * words)(lower)


_register_call(plain.call_kernel, 4)
_register_call(plain.call_epilogue, 7)


# --- vector maths -----------------------------------------------------------


def _register_vector_function(function: VectorFunction) -> None:
    def choose(context: Any, args: Any) -> tuple[str, ...] | None:
        if function.fixed:
            whole = all(isinstance(a, (types.Integer, types.Float)) for a in args)
            return function.fixed if whole else None
        common = _common(context, args)
        short = _SHORT.get(common)
        if short is None:
            return None
        if short not in function.types:
            short = "f64" if "f64" in function.types else "i64"
        return (short,) * function.arity

    class VectorTemplate(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != function.arity:
                return None
            kinds = choose(self.context, args)
            if kinds is None:
                return None
            return signature(_NUMBA[function.result(kinds)], *[_NUMBA[k] for k in kinds])

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call_vector_function(builder, function, tuple(_SHORT[k] for k in sig.args), args)

    register_template(function.public, VectorTemplate)
    lowers(function.public, *[types.Any] * function.arity)(lower)


for _vector_function in FUNCTIONS.values():
    _register_vector_function(_vector_function)
