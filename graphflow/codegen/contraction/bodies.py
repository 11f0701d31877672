"""LLVM bodies of the contraction vocabulary, in vector IR of the width the kernel asks for.

Each builder writes one function, compiled beside the kernels that call it; LLVM legalises
its vectors for the processor.  What the functions mean is written in plain
Python in :mod:`graphflow.codegen.contraction.micro_kernels`; strides count elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphflow.codegen.contraction.instructions import (
    F32,
    F64,
    I8,
    I32,
    I64,
    POINTER,
    VOID,
    Builder,
    Function,
    Kind,
    vector,
)

_ELEMENTS: dict[str, tuple[Kind, int]] = {
    "f32": (F32, 4),
    "f64": (F64, 8),
    "i8": (I8, 1),
    "u8": (I8, 1),
    "i32": (I32, 4),
    "u32": (I32, 4),
    "i64": (I64, 8),
    "u64": (I64, 8),
}


class Body:
    """A function being written, with its element type and its vectors of ``lanes``."""

    def __init__(self, name: str, element: str, lanes: int, parameters: str) -> None:
        self.scalar, self.size = _ELEMENTS[element]
        self.is_float, self.lanes = element.startswith("f"), lanes
        self.vector = vector(self.scalar, lanes)
        kinds = [POINTER if letter == "p" else I64 for letter in parameters]
        self.function = Function(name, VOID, kinds)
        self.builder = Builder(self.function.append_basic_block("entry"))
        self.zero = self.vector.zero

    def at(self, pointer: Any, *terms: Any) -> Any:
        """Address of the element at the sum of ``terms`` (values or Python ints)."""
        for term in terms:
            index = I64(term) if isinstance(term, int) else term
            pointer = self.builder.gep(pointer, index, inbounds=True, source_etype=self.scalar)
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
        arguments = [pointer, I32(int(writing)), I32(3), I32(1)]
        self.builder.call("llvm.prefetch.p0", VOID, arguments)

    def hidden(self, value: Any) -> Any:
        """A pointer or a 64-bit integer of which LLVM no longer knows what it was made from."""
        b, launder = self.builder, "llvm.launder.invariant.group.p0"
        if value.type is POINTER:
            return b.call(launder, POINTER, [value])
        return b.ptrtoint(b.call(launder, POINTER, [b.inttoptr(value, POINTER)]), value.type)

    def load_index(self, table: Any, position: Any) -> Any:
        """Entry ``position`` (a value or a Python int) of a table of 64-bit integers."""
        return self.builder.load(self.entry(table, position), align=8, typ=I64)

    def entry(self, table: Any, position: Any) -> Any:
        """Address of entry ``position`` of a table of 64-bit integers."""
        index = I64(position) if isinstance(position, int) else position
        return self.builder.gep(table, index, inbounds=True, source_etype=I64)

    def splat(self, value: Any) -> Any:
        """A vector with ``value`` in every lane."""
        undefined = vector(value.type, self.lanes).undefined
        first = self.builder.insert_element(undefined, value, I32(0))
        return self.builder.shuffle_vector(first, undefined, self.pattern([0] * self.lanes))

    def pattern(self, lanes: list[int]) -> Any:
        """A constant mask for shuffles."""
        return vector(I32, len(lanes))(lanes)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, fused where that is one instruction; integers wrap."""
        if not self.is_float:
            return self.builder.add(self.builder.mul(a, b), c)
        return self.builder.call(self.intrinsic("fmuladd"), self.vector, [a, b, c])

    def sum_of(self, a: Any, b: Any) -> Any:
        """``a + b``; integers wrap."""
        return (self.builder.fadd if self.is_float else self.builder.add)(a, b)

    def intrinsic(self, name: str, suffix: str = "") -> str:
        """The name of LLVM's function for this kind of vector."""
        bits = ("f" if self.is_float else "i") + str(8 * self.size)
        return f"llvm.{name}.v{self.lanes}{bits}{suffix}"

    def mask(self, count: Any) -> Any:
        """A mask of the first ``count`` lanes."""
        iota = vector(I64, self.lanes)(list(range(self.lanes)))
        return self.builder.icmp_signed("<", iota, self.splat(count))

    def masked_load(self, pointer: Any, mask: Any) -> Any:
        """Lanes under ``mask``, zero elsewhere; other memory is not touched."""
        arguments = [pointer, I32(self.size), mask, self.zero]
        return self.builder.call(self.intrinsic("masked.load", ".p0"), self.vector, arguments)

    def masked_store(self, value: Any, pointer: Any, mask: Any) -> None:
        """Store the lanes under ``mask``; other memory is not touched."""
        arguments = [value, pointer, I32(self.size), mask]
        self.builder.call(self.intrinsic("masked.store", ".p0"), VOID, arguments)

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
        whole = b.and_(count, I64(-self.lanes))
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
        b.cbranch(b.icmp_signed(">", end, I64(0)), top, after)
        b.position_at_end(top)
        index = b.phi(I64)
        index.add_incoming(I64(0), entry)
        yield index
        following = b.add(index, I64(step))
        index.add_incoming(following, b.block)
        b.repeat(b.icmp_signed("<", following, end), top, after)
        b.position_at_end(after)
