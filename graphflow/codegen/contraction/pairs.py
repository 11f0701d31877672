"""LLVM bodies that multiply rows of 16-bit numbers by packed columns of 8-bit ones.

A lane has the sum of one column.  Two neighbours in depth of a row, one word of 32 bits, meet
those of eight columns (with AVX2) in one ``vpmaddwd``; nothing has to be added up across lanes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.dots import multiplied_pairs
from graphflow.codegen.contraction.tiling import PAIR_VECTORS, sum_lanes
from graphflow.codegen.target import host_target

_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_POINTER = ir.PointerType()


def widen_body(module: Any, element: str) -> Any:
    """``target[p * even + k] = a[steps[p] + k]`` for ``k < run``: see ``micro_kernels.widen``."""
    name = f"widen.{element}"
    lanes = 2 * sum_lanes(host_target())
    body = Body(module, name, element, lanes, "ppiip")
    b = body.builder
    a, steps, pieces, run, target = body.function.args
    extend = b.sext if element.startswith("i") else b.zext
    wide = ir.VectorType(_I16, lanes)
    even = b.and_(b.add(run, _I64(1)), _I64(-2))
    whole = b.and_(run, _I64(-lanes))

    with body.loop(pieces) as piece:
        step = b.load(b.gep(steps, [piece], source_etype=_I64), align=8, typ=_I64)
        start, goal = body.at(a, step), b.gep(target, [b.mul(piece, even)], source_etype=_I16)

        def move(position: Any) -> None:
            to = b.gep(goal, [position], source_etype=_I16)
            b.store(extend(body.load(body.at(start, position)), wide), to, align=2)

        with body.loop(whole, lanes) as position:
            move(position)
        with b.if_then(b.icmp_signed("<", whole, run)):
            with b.if_else(b.icmp_signed(">", whole, _I64(0))) as (long, short):
                with long:  # the last vector begins with elements of the one before
                    move(b.sub(run, _I64(lanes)))
                with short, body.loop(run) as position:
                    value = extend(body.load_scalar(body.at(start, position)), _I16)
                    b.store(value, b.gep(goal, [position], source_etype=_I16), align=2)
        with b.if_then(b.icmp_signed("<", run, even)):
            b.store(_I16(0), b.gep(goal, [run], source_etype=_I16), align=2)
    b.ret_void()
    return body.function


class _Pairs:
    """The body of :func:`pairs_body` being written."""

    def __init__(self, module: Any, name: str, element: str, rows: int) -> None:
        self.lanes, self.rows = sum_lanes(host_target()), rows
        self.body = Body(module, name, element, 2 * self.lanes, "ppippi")
        self.extend = self.body.builder.sext if element.startswith("i") else self.body.builder.zext
        self.wide = ir.VectorType(_I16, 2 * self.lanes)
        self.sum = ir.VectorType(_I32, self.lanes)

    def both(self, place: Any) -> Any:
        """Two neighbours of a row in every lane."""
        b = self.body.builder
        pair = b.load(place, align=2, typ=_I32)
        first = b.insert_element(ir.Constant(self.sum, ir.Undefined), pair, _I32(0))
        pattern = self.body.pattern([0] * self.lanes)
        return b.bitcast(b.shuffle_vector(first, first, pattern), self.wide)

    def sums(self) -> list[list[Any]]:
        """The loop over depth; the sums, a list of vectors a row."""
        body, b = self.body, self.body.builder
        panel, a, pitch, *_ = body.function.args
        zero = ir.Constant(self.sum, None)
        starts = [b.gep(a, [b.mul(pitch, _I64(row))], source_etype=_I16)
                  for row in range(self.rows)]  # fmt: skip
        entry, loop, after = b.block, *(body.function.append_basic_block(n)
                                        for n in ("loop", "after"))  # fmt: skip
        b.branch(loop)
        b.position_at_end(loop)
        depth, at = b.phi(_I64), b.phi(_POINTER)
        old = [[b.phi(self.sum) for _ in range(PAIR_VECTORS)] for _ in starts]
        columns = [self.extend(body.load(body.at(at, 2 * self.lanes * v)), self.wide)
                   for v in range(PAIR_VECTORS)]  # fmt: skip
        new = []
        for start, totals in zip(starts, old, strict=True):
            pair = self.both(b.gep(start, [depth], source_etype=_I16))
            new.append([b.add(total, multiplied_pairs(body, pair, column))
                        for total, column in zip(totals, columns, strict=True)])  # fmt: skip
        following = b.add(depth, _I64(2))
        moved = body.at(at, 2 * self.lanes * PAIR_VECTORS)
        pairs = [(depth, _I64(0), following), (at, panel, moved)]
        pairs += [(phi, zero, value) for phis, values in zip(old, new, strict=True)
                  for phi, value in zip(phis, values, strict=True)]  # fmt: skip
        for phi, first, value in pairs:
            phi.add_incoming(first, entry)
            phi.add_incoming(value, loop)
        body.keep_rolled(b.cbranch(b.icmp_signed("<", following, pitch), loop, after))
        b.position_at_end(after)
        return new


def pairs_body(module: Any, element: str, rows: int) -> Any:
    """A tile of ``rows`` by ``PAIR_VECTORS`` vectors of sums: see ``micro_kernels.pairs``."""
    name = f"pairs.{element}.{rows}"
    made = _Pairs(module, name, element, rows)
    body, b = made.body, made.body.builder
    c, targets, width = body.function.args[-3:]
    sums = made.sums()
    goals = [b.gep(c, [body.load_index(targets, row)], source_etype=_I32) for row in range(rows)]
    full = b.icmp_signed("==", width, _I64(PAIR_VECTORS * made.lanes))
    with b.if_else(full) as (whole, part):
        with whole:
            for goal, values in zip(goals, sums, strict=True):
                for v, value in enumerate(values):
                    b.store(value, b.gep(goal, [_I64(v * made.lanes)], source_etype=_I32), align=4)
        with part:
            room = cgutils.alloca_once(b, made.sum, size=_I32(PAIR_VECTORS))
            for goal, values in zip(goals, sums, strict=True):
                for v, value in enumerate(values):
                    b.store(value, b.gep(room, [_I64(v)], source_etype=made.sum), align=4)
                with body.loop(width) as column:
                    value = b.load(b.gep(room, [column], source_etype=_I32), align=4, typ=_I32)
                    b.store(value, b.gep(goal, [column], source_etype=_I32), align=4)
    b.ret_void()
    return body.function
