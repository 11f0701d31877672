"""Memory that a thread makes resident while the program that will use it is still being made.

The first touch of every page stops the thread that touches it, and on a virtual machine the
host has to find memory too: a quarter of a gigabyte takes a tenth of a second to a whole one.
While a large program is scheduled one processor is busy, and another can do that.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from contextlib import suppress
from typing import Any

import numpy as np

from graphflow.runtime.storage import Storage, empty

LEAST = 16 << 20
"""Bytes below which the first touch is left to the first run."""
_PART = 4 << 20  # the kernel is asked for so much at a time, for others want memory meanwhile
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14: nothing is written


class Reserve:
    """Memory for an arena whose size is known roughly, or is ``exact``.

    Roughly: there is room for a quarter more than the ``expected`` bytes, of which three
    quarters are made resident; the rest follows when the size is known (:meth:`settle`).
    """

    def __init__(self, expected: int, exact: bool = False) -> None:
        self._block: Storage | None = None
        self.resident = 0
        """Bytes that have been made resident: the machine has so much less left."""
        room, self._wanted = expected, expected
        if not exact:
            room, self._wanted = expected + expected // 4, expected * 3 // 4
        if expected >= LEAST and sys.platform == "linux":
            with suppress(MemoryError):
                self._block = empty((room,), np.uint8)
        self._thread: threading.Thread | None = None
        self._start()

    def _start(self) -> None:
        if self._block is not None:
            self._thread = threading.Thread(target=self._populate, args=(self._block,), daemon=True)
            self._thread.start()

    def _populate(self, block: Storage) -> None:
        advise: Any = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        # Pages of ARM may be longer than what memory begins at a multiple of.
        first = block.address + -block.address % mmap.PAGESIZE
        end, done = block.address + block.nbytes, self.resident
        while done < self._wanted and first + done < end:
            part = min(_PART, end - first - done)
            if advise(first + done, part, _POPULATE_WRITE):
                return  # an older kernel, or too little memory
            done += part
            self.resident = done

    def settle(self, nbytes: int) -> None:
        """An arena of ``nbytes`` is needed: all of it is to be resident, if there is room."""
        fits = self._block is not None and nbytes <= self._block.nbytes
        self._wanted = nbytes if fits else 0
        if self._thread is not None and self.resident < self._wanted:
            self._thread.join(0)
            if not self._thread.is_alive():
                self._start()

    def take(self, nbytes: int) -> Storage:
        """An arena of ``nbytes``: the memory set aside, if it is enough."""
        block, self._block = self._block, None
        if block is None or nbytes > block.nbytes:
            self._wanted = 0
            return empty((nbytes,), np.uint8)
        self._wanted = min(self._wanted, nbytes)
        return Storage(block.array[:nbytes])
