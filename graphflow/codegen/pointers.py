"""Pointers in compiled kernels: Numba types lowered directly to loads and stores.

``pointer_f32(args, slot)`` has type ``Pointer("f32", slot)``.  Accesses through
different slots never alias: each slot is an LLVM alias scope, and every access
names the scopes of all other slots of the kernel as ``noalias`` (attached by
:func:`attach_scopes` once the kernel is lowered and its slots are known).
Accesses are aligned to the element only.  ``f16`` and ``bf16`` load as f32 and
round when stored; ``bool`` is one byte, true when not zero.

Typing templates and ``lower_builtin`` are used, not ``@overload``, which would
compile a function for each use.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import models, register_model

from graphflow.codegen import plain
from graphflow.codegen.bridge import lowers, register_template, types
from graphflow.codegen.target import chosen_target
from graphflow.codegen.vector_calls import call_vector_function
from graphflow.codegen.vector_math import FUNCTIONS

_VALUE_TYPES: dict[str, Any] = {
    "bool": types.boolean, "u8": types.uint8, "u16": types.uint16, "u32": types.uint32,
    "u64": types.uint64, "i8": types.int8, "i16": types.int16, "i32": types.int32,
    "i64": types.int64, "f16": types.float32, "bf16": types.float32,
    "f32": types.float32, "f64": types.float64,
}  # fmt: skip
_STORAGE: dict[str, tuple[Any, int]] = {
    "bool": (ir.IntType(8), 1), "u8": (ir.IntType(8), 1), "i8": (ir.IntType(8), 1),
    "u16": (ir.IntType(16), 2), "i16": (ir.IntType(16), 2), "f16": (ir.IntType(16), 2),
    "bf16": (ir.IntType(16), 2), "u32": (ir.IntType(32), 4), "i32": (ir.IntType(32), 4),
    "u64": (ir.IntType(64), 8), "i64": (ir.IntType(64), 8),
    "f32": (ir.FloatType(), 4), "f64": (ir.DoubleType(), 8),
}  # fmt: skip
_INT16, _INT64 = ir.IntType(16), ir.IntType(64)
ANY_SLOT = -1
"""The slot of a raw pointer: it may alias everything."""


class Pointer(types.Type):  # type: ignore[misc]
    """Numba type of a pointer to ``element`` that came from argument ``slot``."""

    def __init__(self, element: str, slot: int) -> None:
        self.element, self.slot = element, slot
        super().__init__(name=f"graphflow.Pointer({element}, {slot})")


class ArgumentBlock(types.Type):  # type: ignore[misc]
    """Numba type of ``args``: read-only int64 words."""

    def __init__(self) -> None:
        super().__init__(name="graphflow.ArgumentBlock")


ARGUMENT_BLOCK = ArgumentBlock()


@register_model(Pointer)
@register_model(ArgumentBlock)
class _AddressModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _pointer_type(kind))


def _pointer_type(kind: Any) -> Any:
    """llvmlite's pointer type; Numba still wants to know the pointee."""
    storage = _STORAGE[kind.element][0] if isinstance(kind, Pointer) else _INT64
    return storage.as_pointer()


# --- typing -----------------------------------------------------------------


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        base, index = args
        if isinstance(index, types.Integer):
            if isinstance(base, Pointer):
                return signature(_VALUE_TYPES[base.element], base, types.int64)
            if isinstance(base, ArgumentBlock):
                return signature(types.int64, base, types.int64)
        return None


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        base, index, value = args
        if isinstance(base, Pointer) and isinstance(index, types.Integer):
            if isinstance(value, (types.Number, types.Boolean)):
                return signature(types.none, base, types.int64, _VALUE_TYPES[base.element])
        return None


@infer_global(operator.add)
class _Add(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        base, offset = args
        if isinstance(base, Pointer) and isinstance(offset, types.Integer):
            return signature(base, base, types.int64)
        return None


def _register_constructor(element: str) -> None:
    class SlotTemplate(AbstractTemplate):  # type: ignore[misc]
        prefer_literal = True

        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != 2 or not isinstance(args[0], ArgumentBlock):
                return None
            if not isinstance(args[1], types.IntegerLiteral):
                return None
            return signature(Pointer(element, args[1].literal_value), *args)

    class RawTemplate(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != 1 or not isinstance(args[0], types.Integer):
                return None
            return signature(Pointer(element, ANY_SLOT), types.int64)

    slot_function, raw_function = plain.POINTERS[element], plain.RAW_POINTERS[element]
    register_template(slot_function, SlotTemplate)
    register_template(raw_function, RawTemplate)
    lowers(slot_function, ArgumentBlock, types.IntegerLiteral)(_lower_constructor)
    lowers(raw_function, types.Integer)(_lower_raw_constructor)


@infer_global(plain.address_of)
class _AddressOf(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        if not kws and len(args) == 1 and isinstance(args[0], (Pointer, ArgumentBlock)):
            return signature(types.int64, *args)
        return None


# --- lowering ---------------------------------------------------------------


def _lower_constructor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    word = _load_word(builder, args[0], _INT64(sig.args[1].literal_value))
    return builder.inttoptr(word, _pointer_type(sig.return_type))


def _lower_raw_constructor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.inttoptr(args[0], _pointer_type(sig.return_type))


def _load_word(builder: Any, block: Any, index: Any) -> Any:
    loaded = builder.load(builder.gep(block, [index], inbounds=True), align=8)
    # Nothing writes the block while the kernel runs.
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


@lowers(plain.address_of, Pointer)
@lowers(plain.address_of, ArgumentBlock)
def _lower_address_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.ptrtoint(args[0], _INT64)


@lowers(operator.getitem, ArgumentBlock, types.Integer)
def _lower_word(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _load_word(builder, *args)


@lowers(operator.add, Pointer, types.Integer)
def _lower_offset(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.gep(args[0], [args[1]], inbounds=True)


@lowers(operator.getitem, Pointer, types.Integer)
def _lower_load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer = sig.args[0]
    storage, size = _STORAGE[pointer.element]
    place = builder.gep(args[0], [args[1]], inbounds=True)
    loaded = builder.load(place, align=size)
    _record(builder, loaded, pointer.slot)
    if pointer.element == "bool":
        return builder.icmp_unsigned("!=", loaded, storage(0))
    if pointer.element in ("f16", "bf16"):
        return widen(builder, pointer.element, loaded)
    return loaded


@lowers(operator.setitem, Pointer, types.Integer, types.Any)
def _lower_store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer = sig.args[0]
    storage, size = _STORAGE[pointer.element]
    value = args[2]
    if pointer.element == "bool":
        value = builder.zext(value, storage)
    elif pointer.element in ("f16", "bf16"):
        value = narrow(builder, pointer.element, value)
    place = builder.gep(args[0], [args[1]], inbounds=True)
    stored = builder.store(value, place, align=size)
    _record(builder, stored, pointer.slot)
    return context.get_dummy_value()


def widen(builder: Any, element: str, bits: Any) -> Any:
    """The f32 value of the 16 ``bits`` of an f16 or bf16."""
    if element == "f16" and chosen_target().has_half_conversion:
        return builder.fpext(builder.bitcast(bits, ir.HalfType()), ir.FloatType())
    function = FUNCTIONS[f"{element}_to_f32"]
    return call_vector_function(builder, function, function.fixed, [bits])


def narrow(builder: Any, element: str, value: Any) -> Any:
    """The 16 bits of f32 ``value`` rounded to f16 or bf16."""
    if element == "f16" and chosen_target().has_half_conversion:
        return builder.bitcast(builder.fptrunc(value, ir.HalfType()), _INT16)
    function = FUNCTIONS[f"f32_to_{element}"]
    return call_vector_function(builder, function, function.fixed, [value])


# --- alias scopes -----------------------------------------------------------


def _record(builder: Any, access: Any, slot: int) -> None:
    if slot == ANY_SLOT:
        return
    accesses = builder.module.__dict__.setdefault("graphflow_accesses", [])
    accesses.append((access, slot))


def attach_scopes(module: Any) -> None:
    """Tell LLVM that the recorded accesses of ``module`` alias only within their slot."""
    accesses = module.__dict__.get("graphflow_accesses", [])
    slots = sorted({slot for _, slot in accesses})
    if len(slots) < 2:
        return
    domain = module.add_metadata([ir.MetaDataString(module, "graphflow")])
    scopes = {
        slot: module.add_metadata([ir.MetaDataString(module, f"slot {slot}"), domain])
        for slot in slots
    }
    own = {slot: module.add_metadata([scopes[slot]]) for slot in slots}
    others = {slot: module.add_metadata([scopes[s] for s in slots if s != slot]) for slot in slots}
    for access, slot in accesses:
        access.set_metadata("alias.scope", own[slot])
        access.set_metadata("noalias", others[slot])


for _element in plain.ELEMENTS:
    _register_constructor(_element)
