"""LLVM bodies of register tiles: products of a few rows and vectors of columns.

The sums of a tile fill the registers.  What a processor does beside multiplying decides how
it begins and ends, for which a tile of few steps has little time: on a Zen 4 a store of 64
bytes takes two cycles, and instructions behind a row of such stores wait until it is written
(28 of them cost 80 cycles, 3 steps); lines of ``c`` that are asked for all at once keep the
first loads waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.instructions import I64, Function
from graphflow.codegen.contraction.tiling import AVX512_BYTES
from graphflow.codegen.target import LINE_BYTES, chosen_target
from graphflow.records import dataclass

Rows: TypeAlias = list[list[Any]]
"""Vectors of sums: a list for each row."""
FEW_SUMS = 8
"""A tile of up to so many vectors of sums has no time to spare in a step."""
LAST_STEPS, PART_ROWS = 4, 2
"""Steps that are taken at last for so many rows at a time, and the rows before them stored."""
AHEAD_BYTES = 4096
"""How far ahead a tall tile asks for its panel: 64 lines of 14 cycles are time enough for
memory.  Processors that fetch unasked stop where a page ends, which is as far."""


def tile_body(element: str, rows: int, vectors: int, lanes: int) -> Function:
    """``c[rows, width] (+)= sum over depth of a[:, k] * b[k, :]`` held in registers.

    Rows of ``b`` are ``vectors * lanes`` elements wide and are read whole; only
    ``width`` columns of ``c`` are touched.
    """
    name = f"tile.{element}.{rows}x{vectors}x{lanes}"
    body = Body(name, element, lanes, "piipiipiii")
    panel, b_step, depth = body.function.args[3:6]
    left = _rows_apart(body) if chosen_target().is_arm64 else _rows_from_one(body)
    _Tile(body, rows, vectors, left, panel, b_step, streams=True).write(depth)
    return body.function


def _rows_from_one(body: Body) -> _Left:
    """Rows of ``a`` by their distances from a pointer that moves: those are multiples of one."""
    b, (a, a_row, a_step, *_) = body.builder, body.function.args

    def origins(rows: Sequence[int]) -> list[Any]:
        return [b.mul(a_row, I64(row)) for row in rows]

    def locate(place: Any, offsets: list[Any]) -> list[Any]:
        return [body.at(place, offset) for offset in offsets]

    return _Left(a, origins, locate, lambda place: body.at(place, a_step))


def _rows_apart(body: Body) -> _Left:
    """Rows of ``a`` by where each begins, in registers of which ARM has enough, and an index.

    If LLVM saw that rows are evenly apart, or steps, it would move a pointer along: additions
    that wait for each other, and loads into all lanes of a vector, which keep a vector unit
    from multiplying.  By an index elements are loaded alone, and multiplication takes a lane.
    """
    b, (a, a_row, a_step, *_) = body.builder, body.function.args
    a_step = body.hidden(a_step)

    def origins(rows: Sequence[int]) -> list[Any]:
        return [body.hidden(body.at(a, b.mul(a_row, I64(row)))) for row in rows]

    def locate(index: Any, starts: list[Any]) -> list[Any]:
        return [body.at(start, index) for start in starts]

    return _Left(I64(0), origins, locate, lambda index: b.add(index, a_step))


def tile_at_body(element: str, rows: int, vectors: int, lanes: int) -> Function:
    """The same where element ``[i, k]`` of ``a`` lies at ``spots[i] + steps[k]``."""
    name = f"tile_at.{element}.{rows}x{vectors}x{lanes}"
    body = Body(name, element, lanes, "ppppiipiii")
    a, spots, steps, panel, b_step, depth, *_ = body.function.args

    def origins(rows: Sequence[int]) -> list[Any]:
        return [body.at(a, body.load_index(spots, row)) for row in rows]

    def locate(place: Any, starts: list[Any]) -> list[Any]:
        step = body.load_index(place, 0)
        return [body.at(start, step) for start in starts]

    left = _Left(steps, origins, locate, lambda place: body.entry(place, 1))
    _Tile(body, rows, vectors, left, panel, b_step).write(depth)
    return body.function


@dataclass(frozen=True)
class _Left:
    """The left operand: a pointer or an index that moves, where rows begin, what gives their
    addresses from both, and what moves by a step.

    Where rows begin is found again where it is needed: registers are too few to remember it,
    and memory for it is written when stores are what is waited for.
    """

    start: Any
    origins: Callable[[Sequence[int]], list[Any]]
    locate: Callable[[Any, list[Any]], list[Any]]
    after: Callable[[Any], Any]


@dataclass(frozen=True)
class _Tile:
    """A tile being written: ``rows`` by ``vectors``, its left operand, its panel and the step.

    ``streams`` says that the panel, and the one behind it, may lie in memory.
    """

    body: Body
    rows: int
    vectors: int
    left: _Left
    panel: Any
    b_step: Any
    streams: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether its vectors are those of AVX-512, stores of which take long."""
        return self.body.lanes * self.body.size == AVX512_BYTES

    @property
    def is_tall(self) -> bool:
        """Whether a step takes long enough for more than multiplying: 28 cycles with AVX-512."""
        return self.is_wide and self.rows * self.vectors > FEW_SUMS

    def write(self, depth: Any) -> None:
        """All of the function.

        A tall tile asks for the lines of a row of ``c`` at each step, and if it is whole it
        takes the last steps a few rows at a time and stores these while it takes the next.
        Low tiles add in the same order, so that it does not matter in which tile a row is.
        """
        body, b = self.body, self.body.builder
        c, c_row, width, _ = body.function.args[-4:]
        origins = self.left.origins(range(self.rows))
        if not self.is_tall:
            for row in range(self.rows):
                body.expect(body.at(c, b.mul(c_row, I64(row))), writing=True)
        whole = b.icmp_signed("==", width, I64(self.vectors * body.lanes))
        parted = b.and_(whole, b.icmp_signed(">", depth, I64(LAST_STEPS)))
        looped = depth
        if self.is_wide:
            looped = b.sub(depth, b.select(parted, I64(LAST_STEPS), I64(0)))
        places, sums = self._loop(origins, looped)
        sums = self._with_what_is_there(sums, whole)
        if self.is_wide:
            with b.if_then(parted):
                self._finish_in_parts(places, sums)
                b.ret_void()
        for masks in self._kinds(whole):
            for values, target in zip(sums, self._targets(), strict=True):
                self._store(values, target, masks)
        b.ret_void()

    def _loop(self, origins: list[Any], depth: Any) -> tuple[tuple[Any, Any], Rows]:
        """Steps of all rows: where they end in both operands, and the sums."""
        body, b = self.body, self.body.builder
        c, c_row = body.function.args[-4:-2]
        last_row = body.at(c, b.mul(c_row, I64(self.rows - 1)))
        entry = b.block
        loop, after = (body.function.append_basic_block(n) for n in ("loop", "after"))
        b.cbranch(b.icmp_signed(">", depth, I64(0)), loop, after)
        b.position_at_end(loop)
        begin = [self.left.start, self.panel, depth, *([c] if self.is_tall else [])]
        state = [b.phi(value.type) for value in begin]
        a_at, b_at, count, *expected = state
        sums = [[b.phi(body.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        if self.streams and self.is_tall:
            self._expect(body.at(b_at, AHEAD_BYTES // body.size), writing=False)
        new = self._step(self.left.locate(a_at, origins), b_at, sums)
        moved = [self.left.after(a_at), body.at(b_at, self.b_step), b.sub(count, I64(1))]
        for row in expected:
            self._expect(row, writing=True)
            is_last = b.icmp_unsigned("==", row, last_row)
            moved.append(b.select(is_last, row, body.at(row, c_row)))
        zeros = [[body.zero] * self.vectors] * self.rows
        for phi, first, value in zip(
            (*state, *_flat(sums)), (*begin, *_flat(zeros)), (*moved, *_flat(new)), strict=True
        ):
            phi.add_incoming(first, entry)
            phi.add_incoming(value, loop)
        b.repeat(b.icmp_signed(">", moved[2], I64(0)), loop, after)
        b.position_at_end(after)
        a_at, b_at = (_either(body, ((entry, begin[i]), (loop, moved[i]))) for i in (0, 1))
        return (a_at, b_at), either_rows(body, ((entry, zeros), (loop, new)))

    def _expect(self, row: Any, writing: bool) -> None:
        """Have all lines of a row of ``c``, or of the panel, fetched while other work goes on."""
        for item in range(0, self.vectors * self.body.lanes, LINE_BYTES // self.body.size):
            self.body.expect(self.body.at(row, item), writing)

    def _step(self, places: list[Any], b_at: Any, sums: Rows) -> Rows:
        """The sums after a step of the rows whose elements of ``a`` are at ``places``."""
        body = self.body
        columns = [body.load(body.at(b_at, v * body.lanes)) for v in range(self.vectors)]
        new = []
        for place, row in zip(places, sums, strict=True):
            value = body.splat(body.load_scalar(place))
            new.append([body.multiply_add(value, column, total)
                        for column, total in zip(columns, row, strict=True)])  # fmt: skip
        return new

    def _with_what_is_there(self, sums: Rows, whole: Any) -> Rows:
        """The sums, added to what is there if asked."""
        body, b = self.body, self.body.builder
        before, adding, after = (
            b.block,
            *(body.function.append_basic_block(name) for name in ("adding", "added")),
        )
        b.cbranch(b.icmp_signed("!=", body.function.args[-1], I64(0)), adding, after)
        b.position_at_end(adding)
        ends = []
        for masks in self._kinds(whole):
            new = []
            for values, target in zip(sums, self._targets(), strict=True):
                there = [body.read(target, v * body.lanes, mask) for v, mask in enumerate(masks)]
                new.append([body.sum_of(old, own) for old, own in zip(there, values, strict=True)])
            ends.append((b.block, new))
        added, end = either_rows(body, ends), b.block
        b.branch(after)
        b.position_at_end(after)
        return either_rows(body, ((before, sums), (end, added)))

    def _kinds(self, whole: Any) -> Iterator[list[Any]]:
        """The masks of whole tiles and of others, where what is done with them is to be written.

        Those of AVX-512 cost nothing: all tiles have them.
        """
        if self.is_wide:
            yield self._masks(True)
            return
        with self.body.builder.if_else(whole) as branches:
            for branch, masked in zip(branches, (False, True), strict=True):
                with branch:
                    yield self._masks(masked)

    def _finish_in_parts(self, place: tuple[Any, Any], sums: Rows) -> None:
        """The last steps of a whole tile from ``place`` on, in ``a`` and in the panel.

        Stores come before the steps meanwhile, so that no two parts share what they load.
        """
        places = [place]
        for _ in range(LAST_STEPS - 1):
            a_at, b_at = places[-1]
            places.append((self.left.after(a_at), self.body.at(b_at, self.b_step)))
        masks, targets, finished = self._masks(False), self._targets(), list[list[Any]]()
        for first in range(0, self.rows, PART_ROWS):
            values = sums[first : first + PART_ROWS]
            origins = self.left.origins(range(first, first + len(values)))
            for a_at, b_at in places:
                if finished:
                    self._store(finished.pop(0), next(targets), masks)
                values = self._step(self.left.locate(a_at, origins), b_at, values)
            finished += values
        for row, target in zip(finished, targets, strict=True):
            self._store(row, target, masks)

    def _targets(self) -> Iterator[Any]:
        """Where rows of ``c`` begin, each found from the one before it once it is needed."""
        target, c_row = self.body.function.args[-4:-2]
        for row in range(self.rows):
            target = self.body.at(target, c_row) if row else target
            yield target

    def _store(self, values: list[Any], target: Any, masks: list[Any]) -> None:
        """A row of sums; ``masks`` limit the columns."""
        for v, (value, mask) in enumerate(zip(values, masks, strict=True)):
            self.body.write(value, target, v * self.body.lanes, mask)

    def _masks(self, masked: bool) -> list[Any]:
        """Which columns of each vector there are; None for all of them."""
        if not masked:
            return [None] * self.vectors
        body, width = self.body, self.body.function.args[-2]
        left = (body.builder.sub(width, I64(v * body.lanes)) for v in range(self.vectors))
        return [body.mask(count) for count in left]


def _either(body: Body, ends: Sequence[tuple[Any, Any]]) -> Any:
    """The value that belongs to the block from which control came."""
    phi = body.builder.phi(ends[0][1].type)
    for block, value in ends:
        phi.add_incoming(value, block)
    return phi


def either_rows(body: Body, ends: Sequence[tuple[Any, Rows]]) -> Rows:
    """The sums that belong to the block from which control came."""
    if len(ends) == 1:
        return ends[0][1]
    blocks, choices = zip(*ends, strict=True)
    return [
        [_either(body, list(zip(blocks, values, strict=True))) for values in zip(*rows)]
        for rows in zip(*choices)
    ]


def _flat(rows: Rows) -> list[Any]:
    return [value for row in rows for value in row]
