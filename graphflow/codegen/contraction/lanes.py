"""LLVM bodies of register tiles in which both operands have an element for each column.

So it is where a batch axis runs along the vectors: channels under taps of their own, for which
a product has no columns.  Nothing is broadcast; a step loads a vector for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.instructions import I64, Function
from graphflow.codegen.contraction.tiles import Rows, either_rows


def lanes_at_body(element: str, rows: int, vectors: int, lanes: int) -> Function:
    """``c[i, j] (+)= sum over k of a[i, k, j] * b[k, j]``, ``a[i, k]`` at ``spots[i] + steps[k]``.

    Of ``a`` and ``c`` only ``width`` columns are touched; rows of ``b`` are read whole.
    """
    name = f"lanes_at.{element}.{rows}x{vectors}x{lanes}"
    body = Body(name, element, lanes, "ppppiipiii")
    a, spots, _, _, b_step, *_ = body.function.args

    def write(first: int, masks: list[Any]) -> None:
        places = [(first + v) * lanes for v in range(len(masks))]
        begins = [body.at(a, body.load_index(spots, row)) for row in range(rows)]

        def step(place: Any, panel: Any, sums: Rows) -> Rows:
            factors = [body.load(body.at(panel, at)) for at in places]
            new = []
            for begin, row in zip(begins, sums, strict=True):
                row_at = body.at(begin, place)
                values = [body.read(row_at, *two) for two in zip(places, masks, strict=True)]
                new.append([body.multiply_add(*x) for x in zip(values, factors, row, strict=True)])
            return new

        _store(body, _summed(body, (rows, len(masks)), (1, b_step), step), places, masks)

    return _whole_or_edge(body, vectors, write)


def lanes_run_body(
    element: str, rows: int, taken: tuple[int, int], pitches: tuple[int, int],
    lanes: int,
) -> Any:  # fmt: skip
    """The same, a vector wide, where rows and runs of taps are evenly apart.

    ``taken`` is a group of columns, with a step for each, and how many taps of them are taken
    together; :func:`~graphflow.codegen.contraction.micro_kernels.lanes_run` says what is where.
    What a row meets at a tap, another meets at another, so each vector is read once for them all.
    """
    (group, taps), (down, along) = taken, pitches
    name = f"lanes_run.{element}.{rows}x{taps}x{group}by{down}x{along}.{lanes}"
    body = Body(name, element, lanes, "pippiipiii")
    b = body.builder
    a, pitch, _, _, b_step, *_ = body.function.args
    meetings: dict[int, list[tuple[int, int]]] = {}
    for tap in range(taps):
        for row in range(rows):
            meetings.setdefault(row * down + tap * along, []).append((row, tap))

    def write(first: int, masks: list[Any]) -> None:
        (mask,) = masks

        def step(place: Any, panel: Any, sums: Rows) -> Rows:
            factors, at = [], panel
            for _ in range(taps * group):
                factors.append(body.load(at))
                at = body.at(at, b_step)
            new, at = [row[0] for row in sums], body.at(a, place)
            for position in range(max(meetings) + 1):
                at = body.at(at, pitch) if position else at
                if position in meetings:
                    read = body.read(at, 0, mask)
                    for column in range(group):
                        value = _of_groups(body, read, group, column)
                        for row, tap in meetings[position]:
                            factor = factors[tap * group + column]
                            new[row] = body.multiply_add(value, factor, new[row])
            return [[value] for value in new]

        moves = taps * group, b.mul(b_step, I64(taps * group))
        _store(body, _summed(body, (rows, 1), moves, step), [0], masks)

    return _whole_or_edge(body, 1, write)


def _of_groups(body: Body, value: Any, group: int, column: int) -> Any:
    """Element ``column`` of every group, in all of its lanes."""
    if group == 1:
        return value
    chosen = [lane - lane % group + column for lane in range(body.lanes)]
    return body.builder.shuffle_vector(value, value, body.pattern(chosen))


def _whole_or_edge(body: Body, vectors: int, write: Callable[[int, list[Any]], None]) -> Function:
    """The function: ``write(first, masks)`` for whole vectors of columns, or, where the last is
    not whole, for one after the other under a mask: all at once, masks would lack registers."""
    b, width = body.builder, body.function.args[-2]
    whole = b.icmp_signed("==", width, I64(vectors * body.lanes))
    with b.if_else(whole) as (full, edge):
        with full:
            write(0, [None] * vectors)
        with edge:
            for v in range(vectors):
                write(v, [body.mask(b.sub(width, I64(v * body.lanes)))])
    b.ret_void()
    return body.function


def _store(body: Body, sums: Rows, places: list[int], masks: list[Any]) -> None:
    """Write the sums to columns ``places`` of ``c``, or add them to what is there, under masks."""
    b = body.builder
    c, c_row, _, add = body.function.args[-4:]
    targets = [body.at(c, b.mul(c_row, I64(row))) for row in range(len(sums))]
    with b.if_else(b.icmp_signed("!=", add, I64(0))) as (onto, alone):
        for branch, adds in ((onto, True), (alone, False)):
            with branch:
                for target, row in zip(targets, sums, strict=True):
                    for value, at, mask in zip(row, places, masks, strict=True):
                        if adds:
                            value = body.sum_of(body.read(target, at, mask), value)
                        body.write(value, target, at, mask)


def _summed(
    body: Body, shape: tuple[int, int], moves: tuple[int, Any], step: Callable[..., Rows]
) -> Rows:
    """The sums after all steps: a list of vectors for each row.

    ``step(place, panel, sums)`` takes some; ``moves`` says how many entries of the table of
    places, and elements of the panel, that are.
    """
    b, function = body.builder, body.function
    _, _, steps, panel, _, count, *_ = function.args
    entry = b.block
    loop, after = (function.append_basic_block(name) for name in ("loop", "after"))
    b.cbranch(b.icmp_signed(">", count, I64(0)), loop, after)
    b.position_at_end(loop)
    state = [b.phi(value.type) for value in (steps, panel, count)]
    step_at, b_at, left = state
    rows, vectors = shape
    sums = [[b.phi(body.vector) for _ in range(vectors)] for _ in range(rows)]
    new = step(body.load_index(step_at, 0), b_at, sums)
    moved = [body.entry(step_at, moves[0]), body.at(b_at, moves[1]), b.sub(left, I64(1))]
    end, zeros = b.block, [[body.zero] * vectors] * rows
    for phi, first, value in zip(
        (*state, *chain(*sums)), (steps, panel, count, *chain(*zeros)), (*moved, *chain(*new)),
        strict=True,
    ):  # fmt: skip
        phi.add_incoming(first, entry)
        phi.add_incoming(value, end)
    b.repeat(b.icmp_signed(">", moved[2], I64(0)), loop, after)
    b.position_at_end(after)
    return either_rows(body, ((entry, zeros), (end, new)))
