"""Compiled meaning of the vocabulary of CUDA kernels.

Casts, ``select`` and the functions of ``vm`` are intrinsics of the CUDA target.  The
formulas of ``vm`` are those of :mod:`graphflow.codegen.maths`, run on a machine that
writes LLVM instructions through llvmlite's builder; roots, roundings, fused
multiply-adds, and functions that a GPU has units for, are calls of libdevice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from llvmlite import ir

from graphflow.codegen.cuda.plain import VECTORS
from graphflow.codegen.cuda.toolchain import toolchain
from graphflow.codegen.llvm_expr import FLOATS, Value, bits
from graphflow.codegen.vector_math import FUNCTIONS, VectorFunction
from graphflow.errors import GraphFlowError

types: Any = toolchain().module("types")
intrinsic: Any = toolchain().module("extending").intrinsic
signature: Any = toolchain().module("typing").signature

_NUMBA: dict[str, Any] = {
    "bool": types.boolean, "u8": types.uint8, "u16": types.uint16, "u32": types.uint32,
    "u64": types.uint64, "i8": types.int8, "i16": types.int16, "i32": types.int32,
    "i64": types.int64, "f32": types.float32, "f64": types.float64,
}  # fmt: skip
_SHORT = {kind: short for short, kind in _NUMBA.items()}
_LLVM: dict[str, Any] = {
    "bool": ir.IntType(1), "f32": ir.FloatType(), "f64": ir.DoubleType(),
    **{f"{s}{n}": ir.IntType(n) for s in "iu" for n in (8, 16, 32, 64)},
}  # fmt: skip
NATIVE: dict[str, Callable[[Value], Value]] = {
    name: lambda x, name=name: x.call(name)
    for name in ("exp", "exp2", "log", "log2", "log10", "log1p", "tanh", "erf", "erfc")
} | {"sigmoid": lambda x: x.constant(1.0) / ((-x).call("exp") + 1.0)}
"""Functions of f32 in libdevice that take fewer instructions than our formulas: it uses a GPU's
units for powers and logarithms to base 2.  Errors are in the CUDA C++ programming guide."""
_BFLOAT16 = (8, 0)
"""The compute capability from which on there is an instruction that rounds to bfloat16."""
_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
_INTEGER = {"and": "and_", "or": "or_", "div": "sdiv", "rem": "srem", "shr": "ashr"}
_UNSIGNED = {"div": "udiv", "rem": "urem", "shr": "lshr"}
_PREDICATES = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


class BuilderMachine:
    """Writes instructions of the formula language into the kernel being compiled.

    Payloads are llvmlite values.  NVVM reads the LLVM of long ago, so newer
    instructions (``fneg``, ``freeze``, ``llvm.maximum``) are spelled in older ones.
    """

    has_fma, has_avx512 = True, False

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def constant(self, type: str, value: int | float) -> Any:
        """A literal; integers wrap."""
        if type in FLOATS:
            return ir.Constant(_LLVM[type], float(value))
        return ir.Constant(_LLVM[type], int(value) & ((1 << bits(type)) - 1))

    def binary(self, op: str, type: str, a: Any, b: Any) -> Any:
        """An arithmetic, bit or shift instruction."""
        if type in FLOATS:
            name = _FLOAT[op]
        elif type.startswith("u") and op in _UNSIGNED:
            name = _UNSIGNED[op]
        else:
            name = _INTEGER.get(op, op)
        return getattr(self.builder, name)(a, b)

    def compare(self, op: str, type: str, a: Any, b: Any) -> Any:
        """A comparison (ordered for floats, but ``ne``)."""
        predicate = _PREDICATES[op]
        if type in FLOATS:
            compare = self.builder.fcmp_unordered if op == "ne" else self.builder.fcmp_ordered
            return compare(predicate, a, b)
        unsigned = type.startswith("u") or type == "bool"
        return (self.builder.icmp_unsigned if unsigned else self.builder.icmp_signed)(
            predicate, a, b
        )

    def call(self, op: str, type: str, arguments: Sequence[Any]) -> Any:
        """A floating-point primitive."""
        builder = self.builder
        if op == "neg":
            return builder.fsub(ir.Constant(_LLVM[type], -0.0), arguments[0])
        if op in ("maximum", "minimum"):
            return self._extreme(op, *arguments)
        name = f"__nv_{'fabs' if op == 'abs' else op}{'f' if type == 'f32' else ''}"
        callee = builder.module.globals.get(name)
        if callee is None:
            kind = ir.FunctionType(_LLVM[type], [_LLVM[type]] * len(arguments))
            callee = ir.Function(builder.module, kind, name)
        return builder.call(callee, arguments)

    def _extreme(self, op: str, a: Any, b: Any) -> Any:
        """The larger or smaller operand; NaN if either is."""
        builder = self.builder
        first = builder.fcmp_ordered(">" if op == "maximum" else "<", a, b)
        taken = builder.or_(first, builder.fcmp_unordered("uno", a, a))
        return builder.select(taken, a, b)

    def select(self, type: str, condition: Any, a: Any, b: Any) -> Any:
        """A conditional move."""
        return self.builder.select(condition, a, b)

    def convert(self, source: str, target: str, a: Any) -> Any:
        """The same number in another type."""
        return converted(self.builder, source, target, a)

    def bitcast(self, source: str, target: str, a: Any) -> Any:
        """The same bits as another type."""
        return self.builder.bitcast(a, _LLVM[target])

    def lookup(self, table: Sequence[float], index: Any) -> Any:
        """No formula asks for it: a table would be read from memory."""
        raise NotImplementedError

    def scaled(self, x: Any, n: Any) -> Any:
        """No formula asks for it: there is no such instruction."""
        raise NotImplementedError


def converted(builder: Any, source: str, target: str, a: Any) -> Any:
    """``a`` of type ``source`` as ``target``: floats truncate to integers, integers wrap."""
    kind = _LLVM[target]
    unsigned = source.startswith("u") or source == "bool"
    if target == "bool":
        if source in FLOATS:
            return builder.fcmp_unordered("!=", a, ir.Constant(_LLVM[source], 0.0))
        return builder.icmp_unsigned("!=", a, ir.Constant(_LLVM[source], 0))
    if source in FLOATS and target in FLOATS:
        if source == target:
            return a
        return builder.fpext(a, kind) if source == "f32" else builder.fptrunc(a, kind)
    if target in FLOATS:
        return builder.uitofp(a, kind) if unsigned else builder.sitofp(a, kind)
    if source in FLOATS:
        # Through a wider signed integer, as on the CPU, so that negative numbers wrap.
        via = 32 if bits(target) < 32 or target == "i32" else 64
        whole = builder.fptosi(a, ir.IntType(via))
        return whole if via == bits(target) else builder.trunc(whole, kind)
    if bits(source) == bits(target):
        return a
    if bits(source) > bits(target):
        return builder.trunc(a, kind)
    return builder.zext(a, kind) if unsigned else builder.sext(a, kind)


def _short(kind: Any) -> str | None:
    """The short name of a Numba type, if it is a number's."""
    return _SHORT.get(types.unliteral(kind))


def _common(context: Any, kinds: Sequence[Any]) -> str | None:
    """The type that numbers of ``kinds`` share."""
    plain = [types.unliteral(kind) for kind in kinds]
    if not all(kind in _SHORT for kind in plain):
        return None
    found = plain[0] if len(set(plain)) == 1 else context.unify_types(*plain)
    return _SHORT.get(found)


Typing = Callable[[Any, Sequence[Any]], "tuple[str, Sequence[str]] | None"]
Lowering = Callable[[Any, Sequence[str], Sequence[Any]], Any]


def _define(name: str, arity: int, typing: Typing, lower: Lowering) -> Any:
    """An intrinsic of ``arity`` numbers; arguments arrive converted to the types of ``typing``."""

    def resolve(context: Any, kinds: Sequence[Any]) -> Any:
        found = typing(context, kinds)
        if found is None:
            return None
        result, taken = found

        def generate(context: Any, builder: Any, sig: Any, args: Sequence[Any]) -> Any:
            return lower(builder, taken, args)

        return signature(_NUMBA[result], *[_NUMBA[kind] for kind in taken]), generate

    def one(typingctx: Any, a: Any) -> Any:
        return resolve(typingctx, (a,))

    def two(typingctx: Any, a: Any, b: Any) -> Any:
        return resolve(typingctx, (a, b))

    def three(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        return resolve(typingctx, (a, b, c))

    def four(typingctx: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return resolve(typingctx, (a, b, c, d))

    function = (one, two, three, four)[arity - 1]
    function.__name__ = function.__qualname__ = name
    return intrinsic(function)


def _cast(target: str, rounding: str = "") -> Any:
    """A conversion to ``target``; ``rounding`` names a 16-bit format the result is rounded to."""

    def typing(context: Any, kinds: Sequence[Any]) -> tuple[str, Sequence[str]] | None:
        source = _short(kinds[0])
        return None if source is None else (target, (source,))

    def lower(builder: Any, taken: Sequence[str], args: Sequence[Any]) -> Any:
        value = converted(builder, taken[0], target, args[0])
        if rounding:
            for step in (f"f32_to_{rounding}", f"{rounding}_to_f32"):
                function = FUNCTIONS[step]
                value = _formula(builder, function, function.fixed, (value,))
        return value

    return _define(rounding or target, 1, typing, lower)


def _formula(
    builder: Any, function: VectorFunction, kinds: Sequence[str], args: Sequence[Any]
) -> Any:
    machine = BuilderMachine(builder)
    values = [Value(machine, kind, arg) for kind, arg in zip(kinds, args, strict=True)]
    if function.name in NATIVE and kinds[0] == "f32":
        return NATIVE[function.name](*values).payload
    if function.name in _CONVERSIONS:
        converted = _CONVERSIONS[function.name](builder, args[0])
        if converted is not None:
            return converted
    return function.formula(*values).payload


def _from_half(builder: Any, bits: Any) -> Any:
    return builder.fpext(builder.bitcast(bits, ir.HalfType()), ir.FloatType())


def _to_half(builder: Any, number: Any) -> Any:
    return builder.bitcast(builder.fptrunc(number, ir.HalfType()), ir.IntType(16))


def _to_bfloat16(builder: Any, number: Any) -> Any:
    """By one instruction; None where the GPU has none, or which GPU it is cannot be told."""
    try:
        flags = toolchain().module("core.targetconfig").ConfigStack.top_or_none()
    except GraphFlowError:
        return None
    if flags is None or tuple(getattr(flags, "compute_capability", ())[:2]) < _BFLOAT16:
        return None
    kind = ir.FunctionType(ir.IntType(16), [ir.FloatType()])
    return builder.asm(kind, "cvt.rn.bf16.f32 $0, $1;", "=h,f", [number], False)


_CONVERSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "f16_to_f32": _from_half, "f32_to_f16": _to_half, "f32_to_bf16": _to_bfloat16,
}  # fmt: skip
"""Conversions that GPUs have instructions for; they round as the formulas do."""


def _vector(function: VectorFunction) -> Any:
    def typing(context: Any, kinds: Sequence[Any]) -> tuple[str, Sequence[str]] | None:
        if function.fixed:
            return function.result(function.fixed), function.fixed
        short = _common(context, kinds)
        if short is None:
            return None
        if short not in function.types:
            short = "f64" if "f64" in function.types else "i64"
        taken = (short,) * function.arity
        return function.result(taken), taken

    def lower(builder: Any, taken: Sequence[str], args: Sequence[Any]) -> Any:
        return _formula(builder, function, taken, args)

    return _define(function.name, function.arity, typing, lower)


def _select() -> Any:
    def typing(context: Any, kinds: Sequence[Any]) -> tuple[str, Sequence[str]] | None:
        short = _common(context, kinds[1:])
        return None if short is None else (short, ("bool", short, short))

    def lower(builder: Any, taken: Sequence[str], args: Sequence[Any]) -> Any:
        return builder.select(*args)

    return _define("select", 3, typing, lower)


def _accumulation(name: str, op: str) -> Any:
    def typing(context: Any, kinds: Sequence[Any]) -> tuple[str, Sequence[str]] | None:
        short = _common(context, kinds)
        return None if short is None else (short, (short, short))

    def lower(builder: Any, taken: Sequence[str], args: Sequence[Any]) -> Any:
        return BuilderMachine(builder).binary(op, taken[0], *args)

    return _define(name, 2, typing, lower)


def _read() -> Any:
    """An element of memory that nothing writes while the kernel runs, at a place in bounds.

    So the read need not wait for stores before it.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Sequence[Any]) -> Any:
        memory = context.make_array(sig.args[0])(context, builder, args[0]).data
        value = builder.load(builder.gep(memory, [args[1]]))
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return context.data_model_manager[sig.return_type].from_data(builder, value)

    def read(typingctx: Any, memory: Any, place: Any) -> Any:
        return signature(memory.dtype, memory, types.int64), generate

    return intrinsic(read)


def _narrow(name: str, op: str) -> Any:
    def typing(context: Any, kinds: Sequence[Any]) -> tuple[str, Sequence[str]] | None:
        return "i64", ("i64", "i64")

    def lower(builder: Any, taken: Sequence[str], args: Sequence[Any]) -> Any:
        word, wide = ir.IntType(32), ir.IntType(64)
        result = getattr(builder, op)(*(builder.trunc(arg, word) for arg in args))
        return builder.zext(result, wide)

    return _define(name, 2, typing, lower)


def _ahead() -> Any:
    def typing(context: Any, kinds: Sequence[Any]) -> tuple[str, Sequence[str]] | None:
        return "i64", ("i64", "i64")

    def lower(builder: Any, taken: Sequence[str], args: Sequence[Any]) -> Any:
        return builder.add(*args)

    return _define("ahead", 2, typing, lower)


def _places(context: Any, builder: Any, sig: Any, args: Sequence[Any], memory: int) -> Any:
    """Pointers to the elements of a thread's own array, and to the vector of memory; what an
    element is in LLVM.  Places are in bounds, and none counts from the end."""
    found = [
        builder.gep(context.make_array(sig.args[k])(context, builder, args[k]).data, [args[k + 1]])
        for k in (memory, 2 - memory)
    ]
    return found[0], found[1], found[0].type.pointee


def _vectors(count: int, written: bool) -> Any:
    """Move ``count`` neighbours between memory and a thread's own array by one instruction.

    Arguments are where they go, the place there, where they come from, and the place there.
    """
    memory = 0 if written else 2

    def generate(context: Any, builder: Any, sig: Any, args: Sequence[Any]) -> Any:
        there, here, element = _places(context, builder, sig, args, memory)
        vector = ir.VectorType(element, count)
        align = count * context.get_abi_sizeof(element)
        there = builder.bitcast(there, vector.as_pointer())
        lanes = [ir.Constant(ir.IntType(32), lane) for lane in range(count)]
        if written:
            value = ir.Constant(vector, ir.Undefined)
            for lane in lanes:
                one = builder.load(builder.gep(here, [lane]))
                value = builder.insert_element(value, one, lane)
            builder.store(value, there, align=align)
        else:
            value = builder.load(there, align=align)
            for lane in lanes:
                builder.store(builder.extract_element(value, lane), builder.gep(here, [lane]))
        return context.get_dummy_value()

    def move(typingctx: Any, to: Any, at: Any, source: Any, place: Any) -> Any:
        return signature(types.void, to, types.int64, source, types.int64), generate

    move.__name__ = move.__qualname__ = f"{'store' if written else 'load'}_{count}"
    return intrinsic(move)


NAMES: dict[str, Any] = {
    **{name: _cast(name) for name in _NUMBA if name != "bool"},
    "f16": _cast("f32", "f16"),
    "bf16": _cast("f32", "bf16"),
    "select": _select(),
    "add_fast": _accumulation("add_fast", "add"),
    "mul_fast": _accumulation("mul_fast", "mul"),
    "read": _read(),
    "ahead": _ahead(),
    "quotient": _narrow("quotient", "udiv"),
    "remainder": _narrow("remainder", "urem"),
    **{f"load_{count}": _vectors(count, written=False) for count in VECTORS},
    **{f"store_{count}": _vectors(count, written=True) for count in VECTORS},
}

vm = ModuleType("vm", "The functions of :mod:`graphflow.codegen.vector_math`, for CUDA kernels.")
for _function in FUNCTIONS.values():
    setattr(vm, _function.name, _vector(_function))
NAMES["vm"] = vm
