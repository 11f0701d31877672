"""What this machine could do at best, so that a time can be judged.

Measured once a process (about a tenth of a second): copies of several sizes, for memory of
every cache level is faster than the next, and a product of two matrices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np

from graphflow.records import dataclass
from graphflow.runtime.threads import get_num_threads

_SIZES = (16_000, 256_000, 4_000_000, 64_000_000)


@dataclass(frozen=True)
class Limits:
    """Bytes a second by working set, ``(size, rate)``, and floating operations a second."""

    copies: tuple[tuple[int, float], ...]
    flops: float

    def bandwidth(self, size: int) -> float:
        """Bytes a second that a kernel which moves ``size`` bytes could move at best."""
        return next((rate for limit, rate in self.copies if size <= limit), self.copies[-1][1])

    def seconds(self, bytes: int, flops: int) -> float:
        """The least time for so much work: the longer of moving and computing."""
        return max(bytes / self.bandwidth(bytes), flops / self.flops)


@cache
def limits() -> Limits:
    """The limits of this machine for the threads that programs may use."""
    threads = get_num_threads()
    copies = []
    for size in _SIZES:
        source, target = np.ones(size // 8), np.empty(size // 8)
        seconds = _best(partial(np.copyto, target, source))
        # Caches belong to cores; memory is shared, and one thread nearly fills it.
        share = threads if size < _SIZES[-1] else 1
        copies.append((2 * size, 2 * size / seconds * share))
    a = np.ones((384, 384), np.float32)
    return Limits(tuple(copies), 2 * 384**3 / _best(lambda: a @ a))


def _best(work: Callable[[], object]) -> float:
    """The shortest of some runs, in seconds."""
    best = float("inf")
    started = time.perf_counter()
    for _ in range(200):
        begun = time.perf_counter()
        work()
        now = time.perf_counter()
        best = min(best, now - begun)
        if now - started > 0.03:
            break
    return max(best, 1e-9)
