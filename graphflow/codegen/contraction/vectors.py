"""LLVM bodies that multiply a vector by a matrix, which is read once and never packed.

Most of the time goes into reading the matrix from a cache or from memory, so its rows are
read in the order that hardware prefetchers follow, and little else is done meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.instructions import I32, I64, Function

DOT_COLUMNS = 4  # enough independent sums to hide the latency of a multiply-add
STREAMS = 4  # rows read at a time: prefetchers follow more, but the first-level cache has few ways
PIECE = 4  # vectors of a row that are read before the next one is turned to


def dot_body(element: str, lanes: int) -> Function:
    """``c[j] = sum over k of a[k] * b[j, k]`` for ``count`` rows ``j`` of ``b``."""
    name = f"dot.{element}.{lanes}"
    body = Body(name, element, lanes, "ppiipii")
    b = body.builder
    _, rows, b_row, _, c, c_step, count = body.function.args
    together = b.icmp_signed("==", c_step, I64(1))
    whole = b.and_(count, I64(-DOT_COLUMNS))
    with body.loop(whole, DOT_COLUMNS) as j:
        starts = [body.at(rows, b.mul(b.add(j, I64(n)), b_row)) for n in range(DOT_COLUMNS)]
        totals = _totals(body, starts)
        with b.if_else(together) as (as_one, apart):
            with as_one:
                body.store(totals, body.at(c, j))
            with apart:
                for n in range(DOT_COLUMNS):
                    place = body.at(c, b.mul(b.add(j, I64(n)), c_step))
                    body.store(b.extract_element(totals, I32(n)), place)
    with body.loop(b.sub(count, whole)) as rest:
        j = b.add(whole, rest)
        total = _totals(body, [body.at(rows, b.mul(j, b_row))])
        body.store(b.extract_element(total, I32(0)), body.at(c, b.mul(j, c_step)))
    b.ret_void()
    return body.function


def _totals(body: Body, starts: Sequence[Any]) -> Any:
    """A short vector: the scalar products of ``a`` and the rows that begin at ``starts``."""
    b = body.builder
    a, _, _, depth, *_ = body.function.args
    sums = [b.variable(body.zero) for _ in starts]

    def step(position: Any, mask: Any) -> None:
        left = body.read(a, position, mask)
        for total, start in zip(sums, starts, strict=True):
            old = b.load(total, typ=body.vector)
            b.store(body.multiply_add(left, body.read(start, position, mask), old), total)

    body.for_vectors(depth, step)
    return _added_up(body, [b.load(total, typ=body.vector) for total in sums])


def _added_up(body: Body, vectors: list[Any]) -> Any:
    """The sums over all lanes of each of the (one, two or four) ``vectors``, as one vector.

    Halves are added to halves, those of two vectors at a time (the last one and itself): the
    result has them in blocks of ``block`` lanes, in order.
    """
    b, lanes, block, count = body.builder, body.lanes, body.lanes, len(vectors)
    while block > 1:
        half = block // 2
        pairs = list(zip(vectors[::2], vectors[1::2])) or [(vectors[0], vectors[0])]
        lower = [i for i in range(2 * lanes) if i % block < half][:lanes]
        vectors = []
        for first, second in pairs:
            low, high = (
                b.shuffle_vector(first, second, body.pattern([i + far for i in lower]))
                for far in (0, half)
            )
            vectors.append(body.sum_of(low, high))
        block = half
    return b.shuffle_vector(vectors[0], vectors[-1], body.pattern(list(range(count))))


def combine_body(element: str, lanes: int) -> Function:
    """``c[j] = sum over k of a[k] * b[k, j]`` for ``j < width``: rows of ``b`` stream by.

    Several rows at a time are added to ``c``, which stays in the first-level cache.  They
    are far apart, so that each is followed by the next one: prefetchers never stop.
    The columns that are left, all of a narrow matrix, are added up in registers.
    """
    name = f"combine.{element}.{lanes}"
    body = Body(name, element, lanes, "pipiipi")
    b = body.builder
    *_, depth, c, width = body.function.args
    each = b.sdiv(depth, I64(STREAMS))
    whole = b.mul(each, I64(STREAMS))
    pieces = b.and_(width, I64(-PIECE * lanes))
    with b.if_then(b.icmp_signed(">", pieces, I64(0))):
        body.for_vectors(pieces, lambda j, mask: body.write(body.zero, c, j, mask))
        with body.loop(each) as k:
            _add_rows(body, _apart(body, each, k), pieces)
        with body.loop(b.sub(depth, whole)) as k:
            _add_rows(body, [b.add(whole, k)], pieces)
    pairs = b.and_(b.sub(width, pieces), I64(-2 * lanes))
    with body.loop(pairs, 2 * lanes) as j:
        _add_columns(body, each, [b.add(pieces, b.add(j, I64(far))) for far in (0, lanes)], None)
    done = b.add(pieces, pairs)
    body.for_vectors(
        b.sub(width, done), lambda j, mask: _add_columns(body, each, [b.add(done, j)], mask)
    )
    b.ret_void()
    return body.function


def _apart(body: Body, each: Any, k: Any) -> list[Any]:
    """Row ``k`` of every stream of ``each`` rows."""
    b = body.builder
    return [b.add(b.mul(each, I64(stream)), k) for stream in range(STREAMS)]


def _add_rows(body: Body, numbers: Sequence[Any], width: Any) -> None:
    """Add multiples of the rows ``numbers`` to ``c``, whose ``width`` is in whole pieces."""
    b = body.builder
    a, a_step, rows, b_step, _, c, _ = body.function.args
    factors = [body.splat(body.load_scalar(body.at(a, b.mul(n, a_step)))) for n in numbers]
    starts = [body.at(rows, b.mul(n, b_step)) for n in numbers]
    with body.loop(width, PIECE * body.lanes) as first:
        positions = [b.add(first, I64(n * body.lanes)) for n in range(PIECE)]
        totals = [body.load(body.at(c, position)) for position in positions]
        for factor, start in zip(factors, starts, strict=True):
            for n, position in enumerate(positions):
                read = body.load(body.at(start, position))
                totals[n] = body.multiply_add(factor, read, totals[n])
        for position, total in zip(positions, totals, strict=True):
            body.store(total, body.at(c, position))


def _add_columns(body: Body, each: Any, positions: Sequence[Any], mask: Any) -> None:
    """Write the vectors of ``c`` at ``positions``: all rows, added up in registers."""
    b = body.builder
    a, a_step, rows, b_step, depth, c, _ = body.function.args
    sums = [[b.variable(body.zero) for _ in positions] for _ in range(STREAMS)]

    def add(numbers: Sequence[Any]) -> None:
        for number, totals in zip(numbers, sums):
            factor = body.splat(body.load_scalar(body.at(a, b.mul(number, a_step))))
            start = body.at(rows, b.mul(number, b_step))
            for position, total in zip(positions, totals, strict=True):
                old, read = b.load(total, typ=body.vector), body.read(start, position, mask)
                b.store(body.multiply_add(factor, read, old), total)

    with body.loop(each) as k:
        add(_apart(body, each, k))
    whole = b.mul(each, I64(STREAMS))
    with body.loop(b.sub(depth, whole)) as k:
        add([b.add(whole, k)])
    for n, position in enumerate(positions):
        total, *others = (b.load(totals[n], typ=body.vector) for totals in sums)
        for other in others:
            total = body.sum_of(total, other)
        body.write(total, c, position, mask)
