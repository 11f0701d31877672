"""Which part of a buffer is a thread's own.

Most kernels share their outermost loop: thread ``tid`` of ``nth`` takes the iterations
``share(count, tid, nth)``.  Where all that an iteration touches of a buffer lies between its own
step along the memory and the next one, threads have rows of it for themselves.  Two kernels
that cut a buffer alike need not meet in between (:mod:`graphflow.codegen.barriers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from graphflow.codegen.sizes import is_fixed
from graphflow.records import dataclass


@dataclass(frozen=True, slots=True)
class Rows:
    """``count`` rows of ``bytes`` from where a buffer begins, of which each thread has its share;
    of a ``count`` of 0 each has one, by its number."""

    count: int
    bytes: int


Partition: TypeAlias = Mapping[int, Rows | None]
"""By buffer: the rows that threads have for themselves; None where they touch others' too."""


def rows_of(
    count: int, step: int, first: int, others: Iterable[tuple[int, int]], itemsize: int
) -> Rows | None:
    """The rows of a buffer that iterations of a shared loop have for themselves, if they do.

    Iteration ``i`` of ``count`` touches elements ``first + i * step + sum(k * stride)`` for all
    ``k`` of the ``(extent, stride)`` in ``others``.
    """
    inner = list(others)
    if not all(map(is_fixed, (count, step, first, *(n for pair in inner for n in pair)))):
        return None
    low = first + sum(min(0, (extent - 1) * stride) for extent, stride in inner)
    high = first + sum(max(0, (extent - 1) * stride) for extent, stride in inner)
    return Rows(count, step * itemsize) if 0 <= low <= high < step else None


def together(*parts: Partition) -> Partition:
    """What is a thread's own in several accesses at once: where they agree."""
    found: dict[int, Rows | None] = {}
    for part in parts:
        for buffer, rows in part.items():
            found[buffer] = rows if found.get(buffer, rows) == rows else None
    return found


def certain(partition: Partition) -> dict[int, Rows]:
    """The buffers of which threads have rows for themselves."""
    return {buffer: rows for buffer, rows in partition.items() if rows is not None}
