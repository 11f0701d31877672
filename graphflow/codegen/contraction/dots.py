"""LLVM bodies that multiply small integers: scalar products of 8-bit rows, as 32-bit sums.

Neighbours in depth are widened to 16 bits, multiplied, and added in pairs, which is one
instruction on x86 (``vpmaddwd``).  With VNNI there is one for four bytes (``vpdpbusd``), if one
side is unsigned: that is ``b + 128``, the bits of ``b`` with the highest flipped, and ``128 a``
is taken off at the end.  ARM's (``sdot``) takes both as they are.  Sums wrap around, so they may
be beyond 32 bits in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.instructions import I8, I16, I32, I64, Function, vector
from graphflow.codegen.contraction.tiling import neighbours, sum_lanes
from graphflow.codegen.target import chosen_target

MASKED_LANES = 16
"""With so many sums in a vector bytes are loaded under a mask (AVX-512)."""
_PAIRS = {
    16: "llvm.x86.avx512.pmaddw.d.512",
    8: "llvm.x86.avx2.pmadd.wd",
    4: "llvm.x86.sse2.pmadd.wd",
}


def multiplied_pairs(body: Body, a: Any, c: Any) -> Any:
    """Products of neighbours in two vectors of 16-bit numbers, added in pairs."""
    builder, target, count = body.builder, chosen_target(), a.type.count
    sums = vector(I32, count // 2)
    if target.is_x86:
        return builder.call(_PAIRS[count // 2], sums, [a, c])
    whole = vector(I32, count)
    product = builder.mul(builder.sext(a, whole), builder.sext(c, whole))
    even, odd = (
        builder.shuffle_vector(product, product, body.pattern(list(range(first, count, 2))))
        for first in (0, 1)
    )
    return builder.add(even, odd)


def with_byte_products(body: Body, total: Any, columns: Any, row: Any) -> Any:
    """``total`` and the products of four bytes each of two vectors; those of ``columns`` are
    unsigned with VNNI."""
    kind, builder, bytes_ = total.type, body.builder, vector(I8, 4 * total.type.count)
    if chosen_target().has_signed_byte_products:
        name, taken = f"llvm.aarch64.neon.sdot.v{kind.count}i32.v{bytes_.count}i8", bytes_
    else:
        name, taken = f"llvm.x86.avx512.vpdpbusd.{32 * kind.count}", kind
    operands = (builder.bitcast(x, taken) for x in (columns, row))
    return builder.call(name, kind, [total, *operands])


def flipped(lanes: int) -> Any:
    """The highest bit of each of ``lanes`` bytes: as unsigned numbers, 128."""
    return vector(I8, lanes).splat(-128)


class _Dots:
    """The body of :func:`dots_body` being written, for ``rows`` by ``columns`` products."""

    def __init__(self, name: str, element: str, rows: int, columns: int) -> None:
        self.lanes = sum_lanes(chosen_target())
        self.group = neighbours(chosen_target(), element)
        self.body = Body(name, element, self.group * self.lanes, "iipppipiippi")
        self.signed = element.startswith("i")
        self.flips = self.group == 4 and not chosen_target().has_signed_byte_products
        self.rows, self.columns = rows, columns
        self.wide = vector(I16, self.body.lanes)
        self.sum = vector(I32, self.lanes)
        b = self.body.builder
        zero = self.sum.zero
        self.sums = [[b.variable(zero) for _ in range(columns)]
                     for _ in range(rows)]  # fmt: skip
        self.excess = [b.variable(zero) for _ in range(rows)]

    def widened(self, value: Any, kind: Any) -> Any:
        """8-bit numbers in more bits."""
        extend = self.body.builder.sext if self.signed else self.body.builder.zext
        return extend(value, kind)

    def read(self, start: Any, position: Any, mask: Any) -> Any:
        """Neighbours from ``position`` on, zeros where not under ``mask``: as bytes where those
        are multiplied, else as 16-bit numbers."""
        value = self.body.read(start, position, mask)
        return value if self.group == 4 else self.widened(value, self.wide)

    def add(self, row: int, column: int, value: Any) -> None:
        """Add ``value`` to the sum of one product."""
        place, builder = self.sums[row][column], self.body.builder
        builder.store(builder.add(builder.load(place, typ=self.sum), value), place)

    def step(
        self, starts: Sequence[Any], others: Sequence[Any], at: Any, mask: Any = None,
        kept: Any = None,
    ) -> None:  # fmt: skip
        """A vector of depth; what lies under ``mask`` is read, what ``kept`` says counts."""
        columns, flip = [self.read(start, at, mask) for start in others], flipped(self.body.lanes)
        if self.flips:
            columns = [self.body.builder.xor(column, flip) for column in columns]
        for i, start in enumerate(starts):
            row = self.read(start, at, mask)
            if kept is not None:
                row = self.body.builder.select(kept, row, row.type.zero)
            if self.group == 4:
                excess = [(self.excess[i], flip)] if self.flips else []
                for place, column in (*excess, *zip(self.sums[i], columns)):
                    total = self.body.builder.load(place, typ=self.sum)
                    total = with_byte_products(self.body, total, column, row)
                    self.body.builder.store(total, place)
                continue
            for j, column in enumerate(columns):
                self.add(i, j, multiplied_pairs(self.body, row, column))

    def total(self, row: int, column: int) -> Any:
        """The sums of one product, in lanes."""
        b = self.body.builder
        found = b.load(self.sums[row][column], typ=self.sum)
        return b.sub(found, b.load(self.excess[row], typ=self.sum)) if self.flips else found

    def single(self, starts: Sequence[Any], others: Sequence[Any], at: Any) -> None:
        """One element of depth."""
        builder = self.body.builder

        def element(start: Any) -> Any:
            return self.widened(self.body.load_scalar(self.body.at(start, at)), I32)

        columns = [element(start) for start in others]
        for i, start in enumerate(starts):
            row = element(start)
            for j, column in enumerate(columns):
                zero = self.sum.zero
                self.add(i, j, builder.insert_element(zero, builder.mul(row, column), I32(0)))


def dots_body(element: str, rows: int, columns: int) -> Function:
    """``c[targets[i] + j * c_column] = sum over k of a[spots[i] + k] * b[j * b_column + k]``.

    ``k`` runs over ``pieces`` of ``run`` neighbours; ``steps`` has for each where it begins
    in ``a`` and in ``b``.  Rows and columns past the last repeat it and are not written.
    """
    name = f"dots.{element}.{rows}x{columns}"
    made = _Dots(name, element, rows, columns)
    body = made.body
    b = body.builder
    m, n, a, spots, right, b_column, steps, pieces, run, *_ = body.function.args
    last_row, last_column = b.sub(m, I64(1)), b.sub(n, I64(1))
    lefts = []
    for i in range(rows):
        spot = b.gep(spots, body.smaller(I64(i), last_row), source_etype=I64)
        lefts.append(body.at(a, b.load(spot, align=8, typ=I64)))
    rights = [
        body.at(right, b.mul(body.smaller(I64(j), last_column), b_column)) for j in range(columns)
    ]
    with body.loop(pieces) as piece:
        at = b.gep(steps, b.mul(piece, I64(2)), source_etype=I64)
        starts = [body.at(left, body.load_index(at, 0)) for left in lefts]
        others = [body.at(one, body.load_index(at, 1)) for one in rights]
        _run(made, run, starts, others)
    _store(made)
    b.ret_void()
    return body.function


def _run(made: _Dots, run: Any, starts: Sequence[Any], others: Sequence[Any]) -> None:
    """Add the products of ``run`` neighbours in depth."""
    body, b = made.body, made.body.builder
    width = body.lanes
    whole = b.and_(run, I64(-width))
    rest = b.sub(run, whole)
    with body.loop(whole, width) as position:
        made.step(starts, others, position)
    with b.if_then(b.icmp_signed(">", rest, I64(0))):
        if made.lanes == MASKED_LANES:
            made.step(starts, others, whole, mask=body.mask(rest))
            return
        # What is left is read with elements before it, which count for nothing.
        iota = vector(I64, width)(list(range(width)))
        kept = b.icmp_signed(">=", iota, body.splat(b.sub(I64(width), rest)))
        with b.if_else(b.icmp_signed(">=", run, I64(width))) as (long, short):
            with long:
                made.step(starts, others, b.sub(run, I64(width)), kept=kept)
            with short, body.loop(run) as position:
                made.single(starts, others, position)


def _store(made: _Dots) -> None:
    """Add up the lanes of all sums and write them where they belong."""
    body, b = made.body, made.body.builder
    m, n, *_, c, targets, c_column = body.function.args
    values = _added(made)
    whole = b.and_(
        b.icmp_signed("==", m, I64(made.rows)), b.icmp_signed("==", n, I64(made.columns))
    )

    def write(i: int, j: int) -> None:
        place = b.add(body.load_index(targets, i), b.mul(c_column, I64(j)))
        b.store(values[i][j], b.gep(c, place, source_etype=I32), align=4)

    with b.if_else(whole) as (full, part):
        with full:
            for i in range(made.rows):
                for j in range(made.columns):
                    write(i, j)
        with part:
            for i in range(made.rows):
                for j in range(made.columns):
                    inside = b.and_(b.icmp_signed("<", I64(i), m), b.icmp_signed("<", I64(j), n))
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
        pairs = [(made.total(i, j), [(i, j)] * lanes)
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
            found[owner] = b.extract_element(value, I32(owners.index(owner)))
    return [[found[i, j] for j in range(made.columns)] for i in range(made.rows)]
