"""LLVM bodies that multiply rows of small numbers by packed columns of 8-bit ones.

A lane has the sum of one column.  Neighbours in depth of a row, one word of 32 bits, meet those
of a vector of columns in one instruction; nothing has to be added up across lanes.  They are two
numbers of 16 bits (``vpmaddwd``), or four of 8 (``vpdpbusd``, ARM's ``sdot``: :class:`_Quads`).
"""

from __future__ import annotations

from typing import Any

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.dots import flipped, multiplied_pairs, with_byte_products
from graphflow.codegen.contraction.instructions import (
    I8,
    I16,
    I32,
    I64,
    POINTER,
    Function,
    vector,
)
from graphflow.codegen.contraction.tiling import HEAD, PAIR_VECTORS, sum_lanes
from graphflow.codegen.target import chosen_target


def widen_body(element: str) -> Function:
    """``target[p * even + k] = a[steps[p] + k]`` for ``k < run``: see ``micro_kernels.widen``."""
    name = f"widen.{element}"
    lanes = 2 * sum_lanes(chosen_target())
    body = Body(name, element, lanes, "ppiip")
    b = body.builder
    a, steps, pieces, run, target = body.function.args
    extend = b.sext if element.startswith("i") else b.zext
    wide = vector(I16, lanes)
    even = b.and_(b.add(run, I64(1)), I64(-2))
    whole = b.and_(run, I64(-lanes))

    with body.loop(pieces) as piece:
        step = b.load(b.gep(steps, piece, source_etype=I64), align=8, typ=I64)
        start, goal = body.at(a, step), b.gep(target, b.mul(piece, even), source_etype=I16)

        def move(position: Any) -> None:
            to = b.gep(goal, position, source_etype=I16)
            b.store(extend(body.load(body.at(start, position)), wide), to, align=2)

        with body.loop(whole, lanes) as position:
            move(position)
        with b.if_then(b.icmp_signed("<", whole, run)):
            with b.if_else(b.icmp_signed(">", whole, I64(0))) as (long, short):
                with long:  # the last vector begins with elements of the one before
                    move(b.sub(run, I64(lanes)))
                with short, body.loop(run) as position:
                    value = extend(body.load_scalar(body.at(start, position)), I16)
                    b.store(value, b.gep(goal, position, source_etype=I16), align=2)
        with b.if_then(b.icmp_signed("<", run, even)):
            b.store(I16(0), b.gep(goal, run, source_etype=I16), align=2)
    b.ret_void()
    return body.function


class _Pairs:
    """The body of a tile being written, for rows of 16-bit numbers."""

    group = 2
    number: Any = I16

    def __init__(self, name: str, element: str, rows: int) -> None:
        self.lanes, self.rows = sum_lanes(chosen_target()), rows
        self.body = Body(name, element, self.group * self.lanes, "ppippi")
        self.extend = self.body.builder.sext if element.startswith("i") else self.body.builder.zext
        self.wide = vector(I16, 2 * self.lanes)
        self.sum = vector(I32, self.lanes)

    def everywhere(self, place: Any) -> Any:
        """The 32 bits at ``place`` in every lane."""
        b = self.body.builder
        word = b.load(place, align=self.number.bits // 8, typ=I32)
        first = b.insert_element(self.sum.undefined, word, I32(0))
        return b.shuffle_vector(first, first, self.body.pattern([0] * self.lanes))

    def row(self, a: Any, pitch: Any, row: int) -> tuple[Any, Any]:
        """Where a row begins, and what its sums begin with."""
        b = self.body.builder
        start = b.gep(a, b.mul(pitch, I64(row)), source_etype=I16)
        return start, self.sum.zero

    def columns(self, place: Any) -> Any:
        """Neighbours of a vector of columns."""
        return self.extend(self.body.load(place), self.wide)

    def added(self, total: Any, word: Any, columns: Any) -> Any:
        """``total`` and the products of a row's neighbours with those of columns."""
        b = self.body.builder
        return b.add(total, multiplied_pairs(self.body, b.bitcast(word, self.wide), columns))

    def sums(self) -> list[list[Any]]:
        """The loop over depth; the sums, a list of vectors a row."""
        body, b = self.body, self.body.builder
        panel, a, pitch, *_ = body.function.args
        starts, firsts = zip(*(self.row(a, pitch, row) for row in range(self.rows)), strict=True)
        entry, loop, after = b.block, *(body.function.append_basic_block(n)
                                        for n in ("loop", "after"))  # fmt: skip
        b.branch(loop)
        b.position_at_end(loop)
        depth, at = b.phi(I64), b.phi(POINTER)
        old = [[b.phi(self.sum) for _ in range(PAIR_VECTORS)] for _ in starts]
        step = self.group * self.lanes
        columns = [self.columns(body.at(at, step * v)) for v in range(PAIR_VECTORS)]
        new = []
        for start, totals in zip(starts, old, strict=True):
            word = self.everywhere(b.gep(start, depth, source_etype=self.number))
            new.append([self.added(total, word, column)
                        for total, column in zip(totals, columns, strict=True)])  # fmt: skip
        following = b.add(depth, I64(self.group))
        moved = body.at(at, step * PAIR_VECTORS)
        pairs = [(depth, I64(0), following), (at, panel, moved)]
        pairs += [(phi, first, value)
                  for first, phis, values in zip(firsts, old, new, strict=True)
                  for phi, value in zip(phis, values, strict=True)]  # fmt: skip
        for phi, first, value in pairs:
            phi.add_incoming(first, entry)
            phi.add_incoming(value, loop)
        b.repeat(b.icmp_signed("<", following, pitch), loop, after)
        b.position_at_end(after)
        return new


class _Quads(_Pairs):
    """The body of a tile being written, for rows of bytes, with columns' highest bits flipped.

    Where both sides may be signed they are flipped back, and sums begin with nothing.
    """

    group = 4
    number = I8

    def row(self, a: Any, pitch: Any, row: int) -> tuple[Any, Any]:
        """Before a row is what its sums begin with."""
        b = self.body.builder
        whole = b.add(pitch, I64(HEAD))
        head = b.gep(a, b.mul(whole, I64(row)), source_etype=I8)
        start = b.gep(head, I64(HEAD), source_etype=I8)
        if chosen_target().has_signed_byte_products:
            # Else LLVM would go from row to row, by additions that wait for each other.
            return self.body.hidden(start), self.sum.zero
        return start, self.everywhere(head)

    def columns(self, place: Any) -> Any:
        """Neighbours of a vector of columns."""
        value = self.body.load(place)
        if chosen_target().has_signed_byte_products:
            return self.body.builder.xor(value, flipped(self.body.lanes))
        return value

    def added(self, total: Any, word: Any, columns: Any) -> Any:
        """``total`` and the products of a row's neighbours with those of columns."""
        return with_byte_products(self.body, total, columns, word)


def gather_body(element: str) -> Function:
    """Rows as :class:`_Quads` wants them: see ``micro_kernels.gather``."""
    lanes = 4 * sum_lanes(chosen_target())
    body = Body("gather", element, lanes, "ppiip")
    b = body.builder
    a, steps, pieces, run, target = body.function.args
    sums = vector(I32, lanes // 4)
    total = b.variable(sums.zero)
    rest = b.variable(I32(0))
    ones = body.vector.splat(1)
    pitch = b.and_(b.add(run, I64(3)), I64(-4))
    whole = b.and_(run, I64(-lanes))
    with body.loop(pieces) as piece:
        step = b.load(b.gep(steps, piece, source_etype=I64), align=8, typ=I64)
        start, goal = body.at(a, step), body.at(target, HEAD, b.mul(piece, pitch))
        with body.loop(whole, lanes) as position:
            value = body.load(body.at(start, position))
            old = b.load(total, typ=sums)
            b.store(with_byte_products(body, old, ones, value), total)
            body.store(value, body.at(goal, position))
        with body.loop(b.sub(run, whole)) as position:
            at = b.add(whole, position)
            number = body.load_scalar(body.at(start, at))
            b.store(b.add(b.load(rest, typ=I32), b.sext(number, I32)), rest)
            body.store(number, body.at(goal, at))
        with body.loop(b.sub(pitch, run)) as position:
            body.store(I8(0), body.at(goal, run, position))
    add = f"llvm.vector.reduce.add.v{lanes // 4}i32"
    found = b.add(b.call(add, I32, [b.load(total, typ=sums)]), b.load(rest, typ=I32))
    b.store(b.neg(b.shl(found, I32(7))), target, align=1)
    b.ret_void()
    return body.function


def tile_of_integers(element: str, group: int, rows: int) -> Function:
    """A tile of ``rows`` by ``PAIR_VECTORS`` vectors of sums: see ``micro_kernels.pairs``, or
    ``quads`` where ``group`` is 4."""
    name = f"{'quads' if group == 4 else 'pairs'}.{element}.{rows}"
    made = (_Quads if group == 4 else _Pairs)(name, element, rows)
    body, b = made.body, made.body.builder
    c, targets, width = body.function.args[-3:]
    sums = made.sums()
    goals = [b.gep(c, body.load_index(targets, row), source_etype=I32) for row in range(rows)]
    full = b.icmp_signed("==", width, I64(PAIR_VECTORS * made.lanes))
    with b.if_else(full) as (whole, part):
        with whole:
            for goal, values in zip(goals, sums, strict=True):
                for v, value in enumerate(values):
                    b.store(value, b.gep(goal, I64(v * made.lanes), source_etype=I32), align=4)
        with part:
            room = body.function.room(made.sum, PAIR_VECTORS)
            for goal, values in zip(goals, sums, strict=True):
                for v, value in enumerate(values):
                    b.store(value, b.gep(room, I64(v), source_etype=made.sum), align=4)
                with body.loop(width) as column:
                    value = b.load(b.gep(room, column, source_etype=I32), align=4, typ=I32)
                    b.store(value, b.gep(goal, column, source_etype=I32), align=4)
    b.ret_void()
    return body.function
