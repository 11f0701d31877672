"""LLVM bodies that multiply small integers: scalar products of 8-bit rows, as 32-bit sums.

Neighbours in depth are widened to 16 bits, multiplied, and added in pairs, which is one
instruction on x86 (``vpmaddwd``, with VNNI ``vpdpwssd``, which also adds to the sum).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.tiling import sum_lanes
from graphflow.codegen.target import host_target

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_PAIRS = {
    16: "llvm.x86.avx512.pmaddw.d.512",
    8: "llvm.x86.avx2.pmadd.wd",
    4: "llvm.x86.sse2.pmadd.wd",
}


def multiplied_pairs(body: Body, a: Any, c: Any) -> Any:
    """Products of neighbours in two vectors of 16-bit numbers, added in pairs."""
    builder, target, count = body.builder, host_target(), a.type.count
    sums = ir.VectorType(_I32, count // 2)
    if target.is_x86:
        kind = ir.FunctionType(sums, [a.type, a.type])
        module = body.function.module
        function = cgutils.get_or_insert_function(module, kind, _PAIRS[count // 2])
        return builder.call(function, [a, c])
    whole = ir.VectorType(_I32, count)
    product = builder.mul(builder.sext(a, whole), builder.sext(c, whole))
    even, odd = (
        builder.shuffle_vector(product, product, body.pattern(list(range(first, count, 2))))
        for first in (0, 1)
    )
    return builder.add(even, odd)


class _Dots:
    """The body of :func:`dots_body` being written, for ``rows`` by ``columns`` products."""

    def __init__(self, module: Any, name: str, element: str, rows: int, columns: int) -> None:
        self.lanes = sum_lanes(host_target())
        self.body = Body(module, name, element, 2 * self.lanes, "iipppipiippi")
        self.signed = element.startswith("i")
        self.rows, self.columns = rows, columns
        self.wide = ir.VectorType(_I16, 2 * self.lanes)
        self.sum = ir.VectorType(_I32, self.lanes)
        b = self.body.builder
        zero = ir.Constant(self.sum, None)
        self.sums = [[cgutils.alloca_once_value(b, zero) for _ in range(columns)]
                     for _ in range(rows)]  # fmt: skip

    def widened(self, value: Any, kind: Any) -> Any:
        """8-bit numbers in more bits."""
        extend = self.body.builder.sext if self.signed else self.body.builder.zext
        return extend(value, kind)

    def read(self, start: Any, position: Any) -> Any:
        """Neighbours from ``position`` on, as 16-bit numbers."""
        return self.widened(self.body.load(self.body.at(start, position)), self.wide)

    def add(self, row: int, column: int, value: Any) -> None:
        """Add ``value`` to the sum of one product."""
        place, builder = self.sums[row][column], self.body.builder
        builder.store(builder.add(builder.load(place, typ=self.sum), value), place)

    def step(self, starts: Sequence[Any], others: Sequence[Any], at: Any, mask: Any) -> None:
        """A vector of depth; lanes of it under ``mask``."""
        builder = self.body.builder
        columns = [self.read(start, at) for start in others]
        for i, start in enumerate(starts):
            row = self.read(start, at)
            if mask is not None:
                row = builder.select(mask, row, ir.Constant(self.wide, None))
            for j, column in enumerate(columns):
                self.add(i, j, multiplied_pairs(self.body, row, column))

    def single(self, starts: Sequence[Any], others: Sequence[Any], at: Any) -> None:
        """One element of depth."""
        builder = self.body.builder

        def element(start: Any) -> Any:
            return self.widened(self.body.load_scalar(self.body.at(start, at)), _I32)

        columns = [element(start) for start in others]
        for i, start in enumerate(starts):
            row = element(start)
            for j, column in enumerate(columns):
                zero = ir.Constant(self.sum, None)
                self.add(i, j, builder.insert_element(zero, builder.mul(row, column), _I32(0)))


def dots_body(module: Any, element: str, rows: int, columns: int) -> Any:
    """``c[targets[i] + j * c_column] = sum over k of a[spots[i] + k] * b[j * b_column + k]``.

    ``k`` runs over ``pieces`` of ``run`` neighbours; ``steps`` has for each where it begins
    in ``a`` and in ``b``.  Rows and columns past the last repeat it and are not written.
    """
    name = f"dots.{element}.{rows}x{columns}"
    made = _Dots(module, name, element, rows, columns)
    body = made.body
    b = body.builder
    m, n, a, spots, right, b_column, steps, pieces, run, *_ = body.function.args
    last_row, last_column = b.sub(m, _I64(1)), b.sub(n, _I64(1))
    lefts = []
    for i in range(rows):
        spot = b.gep(spots, [body.smaller(_I64(i), last_row)], source_etype=_I64)
        lefts.append(body.at(a, b.load(spot, align=8, typ=_I64)))
    rights = [
        body.at(right, b.mul(body.smaller(_I64(j), last_column), b_column)) for j in range(columns)
    ]
    width = body.lanes
    whole = b.and_(run, _I64(-width))
    rest = b.sub(run, whole)
    fits = b.icmp_signed(">=", run, _I64(width))
    # What is left of a run is read with elements before it, which count for nothing.
    iota = ir.Constant(ir.VectorType(_I64, width), list(range(width)))
    mask = b.icmp_signed(">=", iota, body.splat(b.sub(_I64(width), rest)))
    with body.loop(pieces) as piece:
        at = b.gep(steps, [b.mul(piece, _I64(2))], source_etype=_I64)
        starts = [body.at(left, body.load_index(at, 0)) for left in lefts]
        others = [body.at(one, body.load_index(at, 1)) for one in rights]
        with body.loop(whole, width) as position:
            made.step(starts, others, position, None)
        with b.if_then(b.icmp_signed(">", rest, _I64(0))), b.if_else(fits) as (long, short):
            with long:
                made.step(starts, others, b.sub(run, _I64(width)), mask)
            with short, body.loop(run) as position:
                made.single(starts, others, position)
    _store(made)
    b.ret_void()
    return body.function


def _store(made: _Dots) -> None:
    """Add up the lanes of all sums and write them where they belong."""
    body, b = made.body, made.body.builder
    m, n, *_, c, targets, c_column = body.function.args
    values = _added(made)
    whole = b.and_(
        b.icmp_signed("==", m, _I64(made.rows)), b.icmp_signed("==", n, _I64(made.columns))
    )

    def write(i: int, j: int) -> None:
        place = b.add(body.load_index(targets, i), b.mul(c_column, _I64(j)))
        b.store(values[i][j], b.gep(c, [place], source_etype=_I32), align=4)

    with b.if_else(whole) as (full, part):
        with full:
            for i in range(made.rows):
                for j in range(made.columns):
                    write(i, j)
        with part:
            for i in range(made.rows):
                for j in range(made.columns):
                    inside = b.and_(b.icmp_signed("<", _I64(i), m), b.icmp_signed("<", _I64(j), n))
                    with b.if_then(inside):
                        write(i, j)


def _added(made: _Dots) -> list[list[Any]]:
    """The sum of the lanes of each vector, of which there are a power of two.

    Two vectors fold into one whose lanes are theirs in turn, until each has few lanes left.
    """
    body, b, lanes = made.body, made.body.builder, made.lanes
    numbers = [(i, j) for i in range(made.rows) for j in range(made.columns)]
    half = lanes // 2
    low = body.pattern([lane for i in range(half) for lane in (i, i + lanes)])
    high = body.pattern([lane for i in range(half, lanes) for lane in (i, i + lanes)])

    def folded(one: tuple[Any, list[Any]], other: tuple[Any, list[Any]]) -> tuple[Any, list[Any]]:
        (u, of_u), (v, of_v) = one, other
        parts = [b.shuffle_vector(u, v, pattern) for pattern in (low, high)]
        return b.add(*parts), [of for i in range(half) for of in (of_u[i], of_v[i])]

    found: dict[tuple[int, int], Any] = {}
    for begin in range(0, len(numbers), lanes):
        pairs = [(b.load(made.sums[i][j], typ=made.sum), [(i, j)] * lanes)
                 for i, j in numbers[begin : begin + lanes]]  # fmt: skip
        count = len(pairs)
        while len(pairs) > 1:
            pairs = [folded(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
        value, owners = pairs[0]
        distance = half
        while distance >= count:
            turned = body.pattern([(k + distance) % lanes for k in range(lanes)])
            value = b.add(value, b.shuffle_vector(value, value, turned))
            distance //= 2
        for owner in numbers[begin : begin + count]:
            found[owner] = b.extract_element(value, _I32(owners.index(owner)))
    return [[found[i, j] for j in range(made.columns)] for i in range(made.rows)]
