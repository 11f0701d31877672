"""LLVM bodies that bring operands into the order in which register tiles read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.instructions import I64, POINTER, Builder, Function

Locate: TypeAlias = Callable[[Any, Any], Iterator[Any]]
AHEAD = 16
"""Steps before they are read, lines are asked for: rows so far apart no prefetcher follows."""
SHORT_DEPTH = 4
"""With fewer neighbours a row, single elements are moved sooner than a block is transposed."""


def pack_body(element: str, lanes: int) -> Function:
    """``target[k * width + r] = source[r * row + k * step]`` for ``r < count``, ``k < depth``.

    Places with ``count <= r < room`` receive anything: no result depends on them.
    """
    name = f"pack.{element}.{lanes}"
    body = Body(name, element, lanes, "iippiiii")
    b = body.builder
    width, room, target, source, row, step, count, depth = body.function.args
    rows_touch = b.icmp_signed("==", row, I64(1))
    steps_touch = b.and_(
        b.icmp_signed("==", step, I64(1)), b.icmp_signed(">=", depth, I64(SHORT_DEPTH))
    )
    with b.if_then(rows_touch):
        with body.loop(count, lanes) as first:
            _pack_rows(body, first)
        b.ret_void()
    with b.if_then(steps_touch):
        _pack_transposed(body, (source, row, count), (target, room), depth, _every(body, width))
        b.ret_void()
    with body.loop(depth) as k, body.loop(count) as r:
        value = body.load_scalar(body.at(source, b.mul(r, row), b.mul(k, step)))
        body.store(value, body.at(target, b.mul(k, width), r))
    b.ret_void()
    return body.function


def pack_to_body(element: str, lanes: int) -> Function:
    """``target[places[k] + r] = source[r * row + k]`` for ``r < count``, ``k < depth``.

    Places with ``count <= r < room`` receive anything: no result depends on them.
    """
    body = Body(f"pack_to.{element}.{lanes}", element, lanes, "ipppiii")
    room, target, places, source, row, count, depth = body.function.args

    def locate(start: Any, k: Any) -> Iterator[Any]:
        table = body.entry(places, k)
        return (body.at(start, body.load_index(table, lane)) for lane in range(lanes))

    _pack_transposed(body, (source, row, count), (target, room), depth, locate)
    body.builder.ret_void()
    return body.function


def turn_body(element: str, lanes: int) -> Function:
    """``target[k * width + r] = source[r * row + k]`` for ``r < count`` and ``k < depth``.

    Places after the last ``r``, up to whole vectors, receive anything; and where ``depth`` is less
    than ``lanes``, so many steps before the last one are read and stored.  So there is one
    transposition, which LLVM is done with in a third of the time of :func:`pack_body`.
    """
    body = Body(f"turn.{element}.{lanes}", element, lanes, "ippiii")
    b = body.builder
    width, target, source, row, count, depth = body.function.args
    last_row, last_block = b.sub(count, I64(1)), b.sub(depth, I64(lanes))
    locate = _every(body, width)
    with body.loop(count, lanes) as first:
        rows = _rows(body, source, row, first, last_row)
        with body.loop(depth, lanes) as begin:
            k = body.smaller(begin, last_block)
            read = [body.load(body.at(place, k)) for place in rows]
            start = body.at(target, first)
            for value, place in zip(_transpose(body, read), locate(start, k), strict=True):
                body.write(value, place, 0, None)
    b.ret_void()
    return body.function


def _rows(body: Body, source: Any, row: Any, first: Any, last: Any) -> list[Any]:
    """Where ``lanes`` rows from ``first`` on begin; those past the last one repeat it."""
    b = body.builder
    return [
        body.at(source, b.mul(body.smaller(b.add(first, I64(r)), last), row))
        for r in range(body.lanes)
    ]


def _every(body: Body, width: Any) -> Locate:
    """Rows of a target that are ``width`` apart."""

    def locate(start: Any, k: Any) -> Iterator[Any]:
        place = body.at(start, body.builder.mul(k, width))
        for _ in range(body.lanes):
            yield place
            place = body.at(place, width)

    return locate


def pack_strips_body(element: str, lanes: int, height: int) -> Function:
    """Rows that are neighbours, to strips of ``height`` rows, one after the other.

    Step by step, so that a line of memory serves all strips while it is in cache.
    What pads a strip to whole vectors receives anything: no result depends on it.
    """
    name = f"pack_strips.{element}.{height}x{lanes}"
    body = Body(name, element, lanes, "ppiii")
    b = body.builder
    *_, count, depth = body.function.args
    strip = -(-height // lanes) * lanes
    fits = b.icmp_signed(">=", count, I64(strip))
    whole = b.add(b.sdiv(b.sub(count, I64(strip)), I64(height)), I64(1))
    whole = b.select(fits, whole, I64(0))  # strips that may be read beyond their last row
    strips = b.sdiv(b.add(count, I64(height - 1)), I64(height))
    with body.loop(depth) as k:
        with body.loop(whole) as s:
            _pack_strip(body, (height, strip), k, s, masked=False)
        with body.loop(b.sub(strips, whole)) as s:
            _pack_strip(body, (height, strip), k, b.add(whole, s), masked=True)
    b.ret_void()
    return body.function


def _pack_strip(body: Body, sizes: tuple[int, int], k: Any, s: Any, masked: bool) -> None:
    """Step ``k`` of strip ``s``."""
    b, (height, strip) = body.builder, sizes
    target, source, step, count, depth = body.function.args
    row = b.mul(s, I64(height))
    target = body.at(target, b.mul(b.add(b.mul(s, depth), k), I64(strip)))
    source = body.at(source, b.mul(k, step), row)
    body.expect(body.at(source, b.mul(step, I64(AHEAD))), writing=False)
    for lane in range(0, strip, body.lanes):
        mask = body.mask(b.sub(count, b.add(row, I64(lane)))) if masked else None
        body.write(body.read(source, lane, mask), target, lane, None)


def _pack_rows(body: Body, first: Any) -> None:
    """Copy ``lanes`` neighbours, from ``first`` on, of every step.

    Where there is room, vectors that are not full are written as if they were: masked
    stores are slow.
    """
    b = body.builder
    width, room, target, source, _, step, count, depth = body.function.args
    left, wide = b.sub(count, first), I64(body.lanes)

    def copy(read: Any, write: Any) -> None:
        with body.loop(depth) as k:
            value = body.read(body.at(source, first), b.mul(k, step), read)
            body.write(value, body.at(target, first), b.mul(k, width), write)

    with b.if_else(b.icmp_signed(">=", left, wide)) as (whole, edge):
        with whole:
            copy(None, None)
        with edge:
            mask = body.mask(left)
            roomy = b.icmp_signed(">=", b.sub(room, first), wide)
            with b.if_else(roomy) as (free, tight):
                with free:
                    copy(mask, None)
                with tight:
                    copy(mask, mask)


def _pack_transposed(
    body: Body, left: tuple[Any, Any, Any], right: tuple[Any, Any], depth: Any, locate: Locate
) -> None:
    """Rows of ``depth`` neighbours each: transpose blocks of ``lanes`` by ``lanes``.

    ``left`` is where the rows begin, how far apart, and how many they are; ``right`` where
    they go, and how many may be overwritten there.  ``locate`` says where a step goes, and
    the ``lanes - 1`` after it.
    """
    (source, row, count), (target, room), b = left, right, body.builder
    with body.loop(count, body.lanes) as first:
        last_row, last_block = b.sub(count, I64(1)), b.sub(depth, I64(body.lanes))
        # The last block begins early enough to be whole.
        rows = _rows(body, source, row, first, last_row)
        start = body.at(target, first)
        whole = b.icmp_signed(">=", b.sub(room, first), I64(body.lanes))
        mask = body.mask(b.sub(count, first))
        short = b.icmp_signed("<", depth, I64(body.lanes))
        with b.if_then(short):
            _transpose_short(body, rows, (start, mask), depth, locate)
        with b.if_then(b.not_(short)), b.if_else(whole) as (plain, edge):
            for block, limit in ((plain, None), (edge, mask)):
                with block, body.loop(depth, body.lanes) as begin:
                    k = body.smaller(begin, last_block)
                    read = [body.load(body.at(place, k)) for place in rows]
                    for value, place in zip(_transpose(body, read), locate(start, k), strict=True):
                        body.write(value, place, 0, limit)


def _transpose_short(
    body: Body, rows: list[Any], right: tuple[Any, Any], depth: Any, locate: Locate
) -> None:
    """A block of fewer than ``lanes`` neighbours: read under a mask, stored as far as it goes."""
    (start, mask), b = right, body.builder
    inside = body.mask(depth)
    columns = _transpose(body, [body.masked_load(place, inside) for place in rows])
    for k, value in enumerate(columns[:-1]):
        with b.if_then(b.icmp_signed("<", I64(k), depth)):
            body.masked_store(value, next(locate(start, I64(k))), mask)


def _transpose(body: Body, rows: list[Any]) -> list[Any]:
    """Transpose ``lanes`` vectors by log2(lanes) perfect shuffles."""
    lanes, half = body.lanes, body.lanes // 2
    low = body.pattern([lane for i in range(half) for lane in (i, i + lanes)])
    high = body.pattern([lane for i in range(half, lanes) for lane in (i, i + lanes)])
    distance = lanes
    while distance > 1:
        rows = [
            body.builder.shuffle_vector(rows[i], rows[i + half], mask)
            for i in range(half)
            for mask in (low, high)
        ]
        distance //= 2
    return rows


def place_body() -> Function:
    """The sum of digits of ``index``, in the base of the axes' extents, times their strides."""
    function = Function("place", I64, [POINTER, *[I64] * 4])
    words, at, axes, index, which = function.args
    entry = function.append_basic_block("entry")
    top, after = (function.append_basic_block(text) for text in ("top", "after"))
    b = Builder(entry)
    b.cbranch(b.icmp_signed(">", axes, I64(0)), top, after)
    b.position_at_end(top)
    left, rest, total = (b.phi(I64) for _ in range(3))
    axis = b.sub(left, I64(1))
    word = b.add(at, b.mul(axis, I64(4)))
    extent, stride = (
        b.load(b.gep(words, b.add(word, k), source_etype=I64), align=8, typ=I64)
        for k in (I64(0), which)
    )
    quotient = b.udiv(rest, extent)
    digit = b.sub(rest, b.mul(quotient, extent))
    following = b.add(total, b.mul(digit, stride))
    for phi, start, value in ((left, axes, axis), (rest, index, quotient)):
        phi.add_incoming(start, entry)
        phi.add_incoming(value, top)
    total.add_incoming(I64(0), entry)
    total.add_incoming(following, top)
    b.cbranch(b.icmp_signed(">", axis, I64(0)), top, after)
    b.position_at_end(after)
    result = b.phi(I64)
    result.add_incoming(I64(0), entry)
    result.add_incoming(following, top)
    b.ret(result)
    return function
