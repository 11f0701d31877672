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
}


class Body:
    """A function being written, with its element type and its vectors of ``lanes``."""

    def __init__(self, module: Any, name: str, element: str, lanes: int, parameters: str) -> None:
        self.scalar, self.size = _ELEMENTS[element]
        self.element, self.lanes = element, lanes
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
        """``a * b + c``, fused where that is one instruction."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(self.intrinsic("fmuladd", kind), [a, b, c])

    def intrinsic(self, name: str, kind: Any, suffix: str = "") -> Any:
        """The LLVM intrinsic of this vector type, declared once in the module."""
        bits = self.element
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


def tile_body(module: Any, element: str, rows: int, vectors: int, lanes: int) -> Any:
    """``c[rows, width] (+)= sum over depth of a[:, k] * b[k, :]`` held in registers.

    Rows of ``b`` are ``vectors * lanes`` elements wide and are read whole; only
    ``width`` columns of ``c`` are touched.
    """
    name = f"tile.{element}.{rows}x{vectors}x{lanes}"
    body = Body(module, name, element, lanes, "piipiipiii")
    b = body.builder
    a, a_row, a_step, panel, b_step, depth, *_ = body.function.args
    offsets = [b.mul(a_row, _I64(row)) for row in range(rows)]

    def locate(place: Any) -> tuple[list[Any], Any]:
        return [body.at(place, offset) for offset in offsets], body.at(place, a_step)

    _finish_tile(
        body, _accumulate(body, (a, rows, locate), (panel, b_step), depth, vectors), vectors
    )
    return body.function


def tile_at_body(module: Any, element: str, rows: int, vectors: int, lanes: int) -> Any:
    """The same where element ``[i, k]`` of ``a`` lies at ``spots[i] + steps[k]``."""
    name = f"tile_at.{element}.{rows}x{vectors}x{lanes}"
    body = Body(module, name, element, lanes, "ppppiipiii")
    b = body.builder
    a, spots, steps, panel, b_step, depth, *_ = body.function.args
    starts = [body.at(a, body.load_index(spots, row)) for row in range(rows)]

    def locate(place: Any) -> tuple[list[Any], Any]:
        step = body.load_index(place, 0)
        following = b.gep(place, [_I64(1)], inbounds=True, source_etype=_I64)
        return [body.at(start, step) for start in starts], following

    sums = _accumulate(body, (steps, rows, locate), (panel, b_step), depth, vectors)
    _finish_tile(body, sums, vectors)
    return body.function


def _accumulate(
    body: Body,
    left: tuple[Any, int, Callable[[Any], tuple[list[Any], Any]]],
    right: tuple[Any, Any],
    depth: Any,
    vectors: int,
) -> list[list[Any]]:
    """The loop over ``depth``; returns the sums, one list of vectors a row.

    ``left`` is a pointer that moves, the number of rows, and what gives their addresses in
    the left operand at it, and where it moves to; ``right`` a panel and its step.
    """
    b = body.builder
    (start, rows, locate), (panel, b_step) = left, right
    c, c_row = body.function.args[-4:-2]
    for number in range(rows):
        body.expect(body.at(c, b.mul(c_row, _I64(number))), writing=True)
    entry = b.block
    loop, after = (body.function.append_basic_block(n) for n in ("loop", "after"))
    b.cbranch(b.icmp_signed(">", depth, _I64(0)), loop, after)
    b.position_at_end(loop)
    state = [b.phi(_I64), b.phi(_POINTER), b.phi(_POINTER)]
    for phi, value in zip(state, (depth, start, panel), strict=True):
        phi.add_incoming(value, entry)
    left_count, a_at, b_at = state
    sums = [[b.phi(body.vector) for _ in range(vectors)] for _ in range(rows)]
    places, moved = locate(a_at)
    columns = [body.load(body.at(b_at, v * body.lanes)) for v in range(vectors)]
    new = []
    for place, row in zip(places, sums, strict=True):
        value = body.splat(body.load_scalar(place))
        new.append([body.multiply_add(value, column, total)
                    for column, total in zip(columns, row, strict=True)])  # fmt: skip
    following = (b.sub(left_count, _I64(1)), moved, body.at(b_at, b_step))
    for phi, value in zip(state, following, strict=True):
        phi.add_incoming(value, loop)
    for phis, values in zip(sums, new, strict=True):
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(body.zero, entry)
            phi.add_incoming(value, loop)
    body.keep_rolled(b.cbranch(b.icmp_signed(">", following[0], _I64(0)), loop, after))
    b.position_at_end(after)
    results = []
    for values in new:
        results.append([b.phi(body.vector) for _ in values])
        for phi, value in zip(results[-1], values, strict=True):
            phi.add_incoming(body.zero, entry)
            phi.add_incoming(value, loop)
    return results


def _finish_tile(body: Body, sums: list[list[Any]], vectors: int) -> None:
    """Write the sums back, in whole vectors where the tile is whole, and return."""
    b, width = body.builder, body.function.args[-2]
    blocks = [body.function.append_basic_block(name) for name in ("whole", "edge")]
    b.cbranch(b.icmp_signed("==", width, _I64(vectors * body.lanes)), *blocks)
    for block, masked in zip(blocks, (False, True), strict=True):
        b.position_at_end(block)
        masks = [body.mask(b.sub(width, _I64(v * body.lanes))) if masked else None
                 for v in range(vectors)]  # fmt: skip
        _write_back(body, sums, masks)
        b.ret_void()


def _write_back(body: Body, sums: list[list[Any]], masks: list[Any]) -> None:
    """Store the sums, added to what is there if asked; ``masks`` limit the columns."""
    b = body.builder
    c, c_row, _, add = body.function.args[-4:]
    adding = b.icmp_signed("!=", add, _I64(0))
    for row, values in enumerate(sums):
        start = body.at(c, b.mul(c_row, _I64(row)))
        for v, (value, mask) in enumerate(zip(values, masks, strict=True)):
            old = body.read(start, v * body.lanes, mask)
            # A select, not a branch: the line is fetched for writing anyhow.
            value = b.select(adding, b.fadd(old, value), value)
            body.write(value, start, v * body.lanes, mask)
