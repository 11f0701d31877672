"""Work on large arrays shared among Python threads, where it lets go of the interpreter's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from graphflow.runtime.storage import Array
from graphflow.runtime.threads import pool

LARGE = 1 << 20
"""Bytes from which a copy is shared: to start a thread takes as long as to copy half of it."""


def by_threads(work: Callable[[int, int], object], count: int, alone: int) -> None:
    """Let threads call ``work(begin, end)`` for a part of ``count`` each, of at least ``alone``."""
    parts = max(1, min(pool.budget, count // alone))
    bounds = [count * i // parts for i in range(parts + 1)]
    others = [threading.Thread(target=work, args=part) for part in pairwise(bounds[1:])]
    for thread in others:
        thread.start()
    work(*bounds[:2])
    for thread in others:
        thread.join()


def copy_array(target: Array, source: Array) -> None:
    """``target[...] = source``, of the same shape; memory that is touched first costs the most."""
    if target.nbytes < LARGE or len(target) < 2 or np.may_share_memory(target, source):
        np.copyto(target, source)
        return

    def part(begin: int, end: int) -> None:
        np.copyto(target[begin:end], source[begin:end])

    by_threads(part, len(target), 1)
