"""Where to cut chains of elementwise work that are too long for one kernel.

Cut every ``limit`` operations, a chain that repeats a block of seven gives seven
different kernels of forty, one for each place in the block where a cut can fall.
So the cuts look for a place they know: within a window ahead of the limit they
fall where the operations around have the largest checksum.  A block that
repeats is then cut at the same place every time, and its pieces are equal.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from graphflow.passes.dataflow import Dataflow, Role

REACH = 8
"""How far back a chain's operation reads at most what the chain made, to be part of it."""
WINDOW = 0.4
"""The part of the limit in which a cut looks for its place."""


def segments(flow: Dataflow, free: Sequence[bool], limit: int) -> dict[int, int]:
    """A number for the piece each operation of a long chain belongs to.

    ``free[n]`` says that work node ``n`` is in no group yet.  Operations of
    different pieces do not share a kernel; those of no long chain have no piece.
    """
    found: dict[int, int] = {}
    piece = 0
    for first, end in _runs(flow, free):
        if end - first <= limit:
            continue
        places = [_checksum(flow, number, first) for number in range(first, end)]
        for size in _cut(places, limit):
            for number in range(first, first + size):
                found[number] = piece
            first += size
            piece += 1
    return found


def _runs(flow: Dataflow, free: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Work nodes in a row, each an elementwise operation that reads one shortly before it."""
    first, count = 0, len(flow.work)
    while first < count:
        end = first + 1
        if _fits(flow, first, free):
            while end < count and _fits(flow, end, free) and _follows(flow, end, first):
                end += 1
        yield first, end
        first = end


def _fits(flow: Dataflow, number: int, free: Sequence[bool]) -> bool:
    return free[number] and flow.role[flow.work[number]] is Role.ELEMENTWISE


def _follows(flow: Dataflow, number: int, first: int) -> bool:
    if flow.work[number].shape != flow.work[first].shape:
        return False
    earliest = max(first, number - REACH)
    return any(earliest <= edge.source < number for edge in flow.edges[number])


def _checksum(flow: Dataflow, number: int, first: int) -> int:
    """What an operation is and reads, the same in every process."""
    node = flow.work[number]
    reads = [
        number - edge.source if edge.source >= max(first, number - REACH) else 0
        for edge in flow.edges[number]
    ]
    text = f"{node.op.name} {node.dtype.short} {node.attrs_key} {reads}"
    return zlib.crc32(text.encode())


def _cut(places: Sequence[int], limit: int) -> Iterator[int]:
    """The sizes of the pieces."""
    start, count = 0, len(places)
    window = max(1, round(limit * WINDOW))
    while count - start > limit:
        candidates = range(start + limit - window + 1, start + limit + 1)
        best = max(candidates, key=lambda end: (_around(places, end), end))
        yield best - start
        start = best
    yield count - start


def _around(places: Sequence[int], end: int) -> int:
    """A checksum of the operations on both sides of a cut before operation ``end``."""
    return zlib.crc32(repr(places[end - 3 : end + 3]).encode())
