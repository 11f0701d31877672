"""Which bytes of the arena a thread has for itself, in buffers that come one after the other.

Threads fill a part each of most buffers.  If a byte is one thread's in a buffer and another
one's in the buffer that has its place later, the line goes from cache to cache, as it does if the
one read what the other wrote; between processors that are far apart that takes a fifth of a
step of a transformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphflow.codegen.schedule import Buffer, Call, PlainStep, Step, buffer_bytes, plain_steps

Offsets: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Parts: TypeAlias = tuple[int, ...]
"""Where the part of each thread but the first begins, in bytes from where the buffer does."""


def parts_of_threads(
    buffers: Sequence[Buffer], steps: Sequence[Step], threads: int
) -> dict[int, Parts]:
    """The parts, or nearly so, of buffers that threads fill part by part."""
    found: dict[int, Parts] = {}
    for call in plain_steps(steps):
        for buffer in call.writes:
            parts = _parts(call, buffers[buffer], threads)
            found[buffer] = parts if found.get(buffer, parts) == parts else ()
    return {buffer: parts for buffer, parts in found.items() if parts}


def _parts(call: PlainStep, buffer: Buffer, threads: int) -> Parts:
    if not isinstance(call, Call):
        return ()
    rows = call.partition.get(buffer.id)
    if rows is not None and not rows.count:
        part = rows.bytes  # one for each thread
    elif not call.parallel or buffer.id in call.across:
        return ()
    else:
        part = buffer_bytes(buffer) // threads
    return tuple(tid * part for tid in range(1, threads))


class Owners:
    """Places buffers, of which ``parts`` are known, where bytes keep their threads.

    Places are multiples of ``alignment`` bytes.
    """

    def __init__(self, parts: Mapping[int, Parts], alignment: int) -> None:
        self._parts, self._alignment = parts, alignment
        threads = 1 + len(next(iter(parts.values())))
        self._count = 0
        self._begin, self._end = (np.zeros(len(parts), np.int64) for _ in range(2))
        self._cuts = np.zeros((len(parts), threads - 1), np.int64)
        """Where the parts of buffers begin in the arena."""

    def place(self, buffer: int, size: int, begins: Offsets, ends: Offsets) -> int:
        """Where to put a buffer in one of the gaps from ``begins`` to ``ends``."""
        if buffer not in self._parts:
            return int(begins[(ends - begins).argmin()])
        parts = np.array(self._parts[buffer], np.int64)
        places = self._places(size, parts, begins, ends)
        place = int(places[self._foreign(size, parts, places).argmin()])
        number = self._count
        self._begin[number], self._end[number] = place, place + size
        self._cuts[number] = place + parts
        self._count += 1
        return place

    def _places(self, size: int, parts: Offsets, begins: Offsets, ends: Offsets) -> Offsets:
        """Either end of each gap, and where a part would begin with one that is there already."""
        middle = len(parts) // 2
        level = np.unique(self._cuts[: self._count, middle]) - parts[middle]
        level -= level % self._alignment
        fits = (level[:, None] >= begins) & (level[:, None] + size <= ends)
        last = ends - size
        return np.concatenate((begins, last - last % self._alignment, level[fits.any(1)]))

    def _foreign(self, size: int, parts: Offsets, places: Offsets) -> Offsets:
        """How many bytes would be another thread's than in other buffers, by place."""
        at, known = places[:, None], slice(self._count)
        low = np.maximum(at, self._begin[known])
        high = np.maximum(np.minimum(at + size, self._end[known]), low)
        total = np.zeros(len(places), np.int64)
        for part, cuts in zip(parts, self._cuts[known].T, strict=True):
            total += abs(np.clip(at + part, low, high) - np.clip(cuts, low, high)).sum(1)
        return total
