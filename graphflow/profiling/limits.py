"""What this machine could do at best, so that a time can be judged.

Measured once a process (some tenths of a second): copies of several sizes, for memory of
every cache level is faster than the next, and products of two matrices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np

from graphflow.records import dataclass

_SIZES = (16_000, 256_000, 4_000_000, 64_000_000)
_SIDES = (96, 128)
"""Products small enough for NumPy's library to stay on one thread, in the first caches."""


@dataclass(frozen=True)
class Limits:
    """Of one thread: bytes a second by working set, ``(size, rate)``, and operations a second."""

    copies: tuple[tuple[int, float], ...]
    flops: float

    def bandwidth(self, size: int, threads: int = 1) -> float:
        """Bytes a second that a kernel which moves ``size`` bytes could move at best.

        Caches belong to cores; memory is shared, and one thread nearly fills it.
        """
        for limit, rate in self.copies[:-1]:
            if size <= limit:
                return rate * threads
        return self.copies[-1][1]

    def seconds(self, bytes: int, flops: int, threads: int = 1) -> float:
        """The least time for so much work: the longer of moving and computing."""
        return max(bytes / self.bandwidth(bytes, threads), flops / (self.flops * threads))


@cache
def limits() -> Limits:
    """The limits of this machine."""
    copies = []
    for size in _SIZES:
        source, target = np.ones(size // 8), np.empty(size // 8)
        copies.append((2 * size, 2 * size / _best(partial(np.copyto, target, source))))
    flops = 0.0
    for side in _SIDES:
        a, out = np.ones((side, side), np.float32), np.empty((side, side), np.float32)
        flops = max(flops, 2 * side**3 / _best(partial(np.matmul, a, a, out)))
    return Limits(tuple(copies), flops)


def _best(work: Callable[[], object]) -> float:
    """The shortest of at least ten runs, in seconds, after one that warms up."""
    work()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 10 or (len(times) < 200 and time.perf_counter() - started < 0.03):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return max(min(times), 1e-9)
