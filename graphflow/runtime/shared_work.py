"""Many megabytes at once in eager code, by all threads.

The first touch of memory takes longer than a copy: the system has to find a page and clear it,
and on a virtual machine the host has to as well, which takes a second for a gigabyte.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np

from graphflow.runtime.storage import Array, address_of
from graphflow.runtime.threads import pool

_MUCH = 8 << 20
"""Bytes that are sooner copied with another thread."""
_MOMENT = 0.001
"""Seconds between looks at threads that Ctrl-C has to wait for."""


def share(work: Callable[[int, int], None], count: int, least: int) -> None:
    """Let threads call ``work(begin, end)`` for parts of ``count``, each ``least`` or more.

    No thread works on when this is over, Ctrl-C or not: what they write to is the caller's then.
    """
    parts = max(1, min(pool.budget, count // least))
    bounds = [count * i // parts for i in range(parts + 1)]
    begun: list[int] = []
    ended: list[int] = []
    given_up = False

    def take(begin: int, end: int) -> None:
        begun.append(begin)
        try:
            if not given_up:
                work(begin, end)
        finally:
            ended.append(begin)

    others = [threading.Thread(target=take, args=part) for part in pairwise(bounds[1:])]
    try:
        for thread in others:
            thread.start()
        work(*bounds[:2])
        for thread in others:
            thread.join()
    except BaseException:
        given_up = True  # of threads that have yet to begin
        while len(ended) < len(begun):  # join() takes threads for ended if it was interrupted
            time.sleep(_MOMENT)
        raise


def copy_all(pairs: Sequence[tuple[Array, Array]]) -> None:
    """``target[...] = source`` for each pair of arrays of one shape, as if in this order."""
    size = sum(target.nbytes for target, _ in pairs)
    if size < _MUCH or not _are_apart(pairs):
        for target, source in pairs:
            np.copyto(target, source)
        return
    starts = [*accumulate((target.nbytes for target, _ in pairs), initial=0)]

    def copy(begin: int, end: int) -> None:
        for (target, source), start in zip(pairs, starts):
            if target.flags.c_contiguous and source.flags.c_contiguous:
                first, last = (
                    min(max(bound - start, 0), target.nbytes) // target.itemsize
                    for bound in (begin, end)
                )
                np.copyto(target.reshape(-1)[first:last], source.reshape(-1)[first:last])
            elif begin <= start < end:
                np.copyto(target, source)

    share(copy, size, _MUCH // 2)


def _are_apart(pairs: Sequence[tuple[Array, Array]]) -> bool:
    """Whether nothing that is written is read or written elsewhere."""
    written = sorted(_range(target) for target, _ in pairs)
    if any(end > start for (_, end), (start, _) in pairwise(written)):
        return False
    firsts = [first for first, _ in written]
    for _, source in pairs:
        first, end = _range(source)
        before = bisect(firsts, end - 1) - 1  # the last one that begins below the end
        if before >= 0 and written[before][1] > first:
            return False
    return True


def _range(array: Array) -> tuple[int, int]:
    """Where an array lies in memory: from, and up to."""
    if array.flags.c_contiguous:
        start = address_of(array)
        return start, start + array.nbytes
    return np.lib.array_utils.byte_bounds(array)
