"""LLVM bodies of the contraction vocabulary, in vector IR of the width the kernel asks for.

Each builder adds one internal function to the kernel's module; LLVM legalises
its vectors for the processor.  What the functions mean is written in plain
Python in :mod:`graphflow.codegen.contraction.micro_kernels`; strides count elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_POINTER, _VOID = ir.PointerType(), ir.VoidType()
_ELEMENTS: dict[str, tuple[Any, int]] = {
    "f32": (ir.FloatType(), 4),
    "f64": (ir.DoubleType(), 8),
    "i8": (ir.IntType(8), 1),
    "u8": (ir.IntType(8), 1),
    "i32": (_I32, 4),
    "u32": (_I32, 4),
    "i64": (_I64, 8),
    "u64": (_I64, 8),
}


class Body:
    """A function being written, with its element type and its vectors of ``lanes``."""

    def __init__(self, module: Any, name: str, element: str, lanes: int, parameters: str) -> None:
        self.scalar, self.size = _ELEMENTS[element]
        self.is_float, self.lanes = element.startswith("f"), lanes
        self.vector = ir.VectorType(self.scalar, lanes)
        kinds = [_POINTER if letter == "p" else _I64 for letter in parameters]
        self.function = ir.Function(module, ir.FunctionType(_VOID, kinds), name)
        self.function.linkage = "internal"
        self.function.attributes.add("nounwind")
        # A body has many call sites; one copy keeps compiling quick and the code small.
        self.function.attributes.add("noinline")
        for argument, letter in zip(self.function.args, parameters, strict=True):
            if letter == "p":
                argument.add_attribute("noalias")
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.zero = ir.Constant(self.vector, None)

    def at(self, pointer: Any, *terms: Any) -> Any:
        """Address of the element at the sum of ``terms`` (values or Python ints)."""
        for term in terms:
            index = _I64(term) if isinstance(term, int) else term
            pointer = self.builder.gep(pointer, [index], inbounds=True, source_etype=self.scalar)
        return pointer

    def load(self, pointer: Any) -> Any:
        """A vector from an address that is aligned to the element only."""
        return self.builder.load(pointer, align=self.size, typ=self.vector)

    def store(self, value: Any, pointer: Any) -> None:
        """A vector or scalar to an address that is aligned to the element only."""
        self.builder.store(value, pointer, align=self.size)

    def load_scalar(self, pointer: Any) -> Any:
        """One element."""
        return self.builder.load(pointer, align=self.size, typ=self.scalar)

    def expect(self, pointer: Any, writing: bool) -> None:
        """Have the line at ``pointer`` fetched while other work goes on."""
        kind = ir.FunctionType(_VOID, [_POINTER, _I32, _I32, _I32])
        fetch = cgutils.get_or_insert_function(self.function.module, kind, "llvm.prefetch.p0")
        self.builder.call(fetch, [pointer, _I32(int(writing)), _I32(3), _I32(1)])

    def hidden(self, value: Any) -> Any:
        """A pointer or a 64-bit integer of which LLVM no longer knows what it was made from."""
        b, kind = self.builder, ir.FunctionType(_POINTER, [_POINTER])
        name = "llvm.launder.invariant.group.p0"
        launder = cgutils.get_or_insert_function(self.function.module, kind, name)
        if value.type == _POINTER:
            return b.call(launder, [value])
        return b.ptrtoint(b.call(launder, [b.inttoptr(value, _POINTER)]), value.type)

    def load_index(self, table: Any, position: Any) -> Any:
        """Entry ``position`` (a value or a Python int) of a table of 64-bit integers."""
        return self.builder.load(self.entry(table, position), align=8, typ=_I64)

    def entry(self, table: Any, position: Any) -> Any:
        """Address of entry ``position`` of a table of 64-bit integers."""
        index = _I64(position) if isinstance(position, int) else position
        return self.builder.gep(table, [index], inbounds=True, source_etype=_I64)

    def splat(self, value: Any) -> Any:
        """A vector with ``value`` in every lane."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, value, _I32(0))
        return self.builder.shuffle_vector(first, undefined, self.pattern([0] * self.lanes))

    def pattern(self, lanes: list[int]) -> Any:
        """A constant mask for shuffles."""
        return ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, fused where that is one instruction; integers wrap."""
        if not self.is_float:
            return self.builder.add(self.builder.mul(a, b), c)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(self.intrinsic("fmuladd", kind), [a, b, c])

    def sum_of(self, a: Any, b: Any) -> Any:
        """``a + b``; integers wrap."""
        return (self.builder.fadd if self.is_float else self.builder.add)(a, b)

    def intrinsic(self, name: str, kind: Any, suffix: str = "") -> Any:
        """The LLVM intrinsic of this vector type, declared once in the module."""
        bits = ("f" if self.is_float else "i") + str(8 * self.size)
        full = f"llvm.{name}.v{self.lanes}{bits}{suffix}"
        return cgutils.get_or_insert_function(self.function.module, kind, full)

    def mask(self, count: Any) -> Any:
        """A mask of the first ``count`` lanes."""
        iota = ir.Constant(ir.VectorType(_I64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", iota, self.splat(count))

    def masked_load(self, pointer: Any, mask: Any) -> Any:
        """Lanes under ``mask``, zero elsewhere; other memory is not touched."""
        kind = ir.FunctionType(self.vector, [_POINTER, _I32, mask.type, self.vector])
        call = self.intrinsic("masked.load", kind, ".p0")
        return self.builder.call(call, [pointer, _I32(self.size), mask, self.zero])

    def masked_store(self, value: Any, pointer: Any, mask: Any) -> None:
        """Store the lanes under ``mask``; other memory is not touched."""
        kind = ir.FunctionType(_VOID, [self.vector, _POINTER, _I32, mask.type])
        call = self.intrinsic("masked.store", kind, ".p0")
        self.builder.call(call, [value, pointer, _I32(self.size), mask])

    def read(self, base: Any, position: Any, mask: Any) -> Any:
        """The vector at ``position`` after ``base``; all of it, or the lanes under ``mask``."""
        place = self.at(base, position)
        return self.load(place) if mask is None else self.masked_load(place, mask)

    def write(self, value: Any, base: Any, position: Any, mask: Any) -> None:
        """Store what :meth:`read` reads."""
        place = self.at(base, position)
        if mask is None:
            self.store(value, place)
        else:
            self.masked_store(value, place, mask)

    def for_vectors(self, count: Any, step: Callable[[Any, Any], None]) -> None:
        """Write ``step(position, mask)`` for ``count`` elements: whole vectors, then the rest."""
        b = self.builder
        whole = b.and_(count, _I64(-self.lanes))
        with self.loop(whole, self.lanes) as position:
            step(position, None)
        with b.if_then(b.icmp_signed("<", whole, count)):
            step(whole, self.mask(b.sub(count, whole)))

    def smaller(self, a: Any, b: Any) -> Any:
        """The smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    @contextmanager
    def loop(self, end: Any, step: int = 1) -> Iterator[Any]:
        """Write the body of ``for index in range(0, end, step)``; yields the index."""
        b, entry = self.builder, self.builder.block
        top, after = (self.function.append_basic_block(name) for name in ("top", "after"))
        b.cbranch(b.icmp_signed(">", end, _I64(0)), top, after)
        b.position_at_end(top)
        index = b.phi(_I64)
        index.add_incoming(_I64(0), entry)
        yield index
        following = b.add(index, _I64(step))
        index.add_incoming(following, b.block)
        self.keep_rolled(b.cbranch(b.icmp_signed("<", following, end), top, after))
        b.position_at_end(after)

    def keep_rolled(self, branch: Any) -> None:
        """Tell LLVM to leave the loop that ``branch`` closes alone: its body is full already."""
        module = self.function.module
        unroll = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        vectorise = module.add_metadata(
            [ir.MetaDataString(module, "llvm.loop.vectorize.enable"), _I1(0)]
        )
        unique = f"loop {len(module.metadata)}"
        node = module.add_metadata([ir.MetaDataString(module, unique)])
        node.operands = (node, unroll, vectorise)  # LLVM wants a loop's node to begin with itself
        branch.set_metadata("llvm.loop", node)
