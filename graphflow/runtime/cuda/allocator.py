"""Memory of a device, kept when it is freed for the next of its size.

Asking a driver for memory takes long, and giving it back waits for all work on the device.  Our
own work is in the order in which it is asked for, on one stream, so memory that nobody refers to
any more can be handed out again at once: what still reads it is before what will write it.  Memory
that another stream has used waits for an event on that stream; of memory whose address another
library was told without a stream nothing is known, so it goes back to the driver.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from graphflow.codegen.cuda.toolchain import is_simulated, toolchain
from graphflow.errors import OutOfMemoryError
from graphflow.records import dataclass
from graphflow.runtime.cuda.current import on
from graphflow.tables import quantity

LEAST, LARGE, PAGE = 256, 1 << 20, 2 << 20
"""Bytes: sizes are multiples of ``LEAST``, and above ``LARGE`` of a driver's ``PAGE``."""
LEGACY, PER_THREAD, ANY = 1, 2, -1
"""Numbers of streams: the default one, that of a thread, and one that is not known."""


def rounded(nbytes: int) -> int:
    """The size of the memory that ``nbytes`` get."""
    step = LEAST if nbytes <= LARGE else PAGE
    return max(LEAST, -(-nbytes // step) * step)


def stream_numbered(number: int | None) -> Any:
    """The stream of a number as protocols between libraries use it; None is our own."""
    cuda = toolchain().cuda
    named: dict[int | None, Callable[[], Any]] = {
        None: cuda.default_stream, LEGACY: cuda.legacy_default_stream,
        PER_THREAD: cuda.per_thread_default_stream,
    }  # fmt: skip
    return named[number]() if number in named else cuda.external_stream(number)


class Usage:
    """Bytes on a device: ``now``, the ``most`` at one time, and all ever added."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0

    def add(self, nbytes: int) -> None:
        """Count ``nbytes`` more, or fewer."""
        self.now += nbytes
        self.most = max(self.most, self.now)
        self.total += max(0, nbytes)


@dataclass(frozen=True, eq=False, slots=True)
class Freed:
    """Memory that nobody refers to any more, and the streams of others that have used it."""

    handle: Any
    size: int
    streams: set[int]


class Allocator:
    """The memory of one device.

    ``allocated`` is what tensors and programs hold, ``reserved`` that and what is kept.
    ``asked`` counts calls of the driver, ``reused`` what was kept and taken again, ``retries``
    times that everything kept was given back since the driver had no more, ``failures`` times
    that this did not help.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self.allocated, self.reserved = Usage(), Usage()
        self.asked = self.reused = self.retries = self.failures = self.blocks = 0
        self._free: dict[int, list[Any]] = {}
        self._waiting: deque[tuple[list[Any], Freed]] = deque()
        self._returned: deque[Freed] = deque()
        self._lock = threading.RLock()

    def take(self, nbytes: int) -> Any:
        """At least ``nbytes`` of memory.

        Raises :class:`OutOfMemoryError` when the driver has no more even after all that is kept
        was given back to it.
        """
        size = rounded(nbytes)
        with self._lock:
            self._collect()
            kept = self._free.get(size)
            if kept:
                self.reused += 1
                handle = kept.pop()
            else:
                handle = self._fresh(size)
                self.reserved.add(size)
            self.allocated.add(size)
            self.blocks += 1
            return handle

    def give(self, handle: Any, nbytes: int, streams: set[int]) -> None:
        """Take memory back that was taken for ``nbytes`` and used on ``streams`` of others.

        Called when an object dies, at any moment and in any thread: so it only takes note.
        """
        self._returned.append(Freed(handle, rounded(nbytes), streams))

    def collect(self) -> None:
        """Count what was given back as free."""
        with self._lock:
            self._collect()

    def empty(self) -> None:
        """Give everything that is kept back to the driver."""
        with self._lock:
            self._collect()
            while self._waiting:
                self.reserved.add(-self._awaited())
            self.reserved.add(-sum(size * len(kept) for size, kept in self._free.items()))
            self._free.clear()
            if not is_simulated():  # numba-cuda saves up what is to be freed
                with on(self.device):
                    toolchain().cuda.current_context().deallocations.clear()

    def _awaited(self) -> int:
        """Let go of what waited longest; its bytes.  Nothing may refer to it afterwards."""
        events, freed = self._waiting.popleft()
        for event in events:
            event.synchronize()
        return freed.size

    def reset_peaks(self) -> None:
        """Begin anew with the most at one time."""
        with self._lock:
            self._collect()
            for usage in (self.allocated, self.reserved):
                usage.most = usage.now

    def reset_totals(self) -> None:
        """Begin anew with what is only counted up."""
        with self._lock:
            self._collect()
            for usage in (self.allocated, self.reserved):
                usage.total = usage.now
            self.asked = self.reused = self.retries = self.failures = 0

    def _collect(self) -> None:
        while self._returned:
            freed = self._returned.popleft()
            self.allocated.add(-freed.size)
            self.blocks -= 1
            if ANY in freed.streams:
                self.reserved.add(-freed.size)
            elif freed.streams:
                self._waiting.append(([self._event(n) for n in freed.streams], freed))
            else:
                self._keep(freed)
        for _ in range(len(self._waiting)):
            events, freed = self._waiting.popleft()
            if all(event.query() for event in events):
                self._keep(freed)
            else:
                self._waiting.append((events, freed))

    def _keep(self, freed: Freed) -> None:
        self._free.setdefault(freed.size, []).append(freed.handle)

    def _event(self, stream: int) -> Any:
        """An event after all that a stream was given so far."""
        with on(self.device):
            event = toolchain().cuda.event(timing=False)
            event.record(stream_numbered(stream))
        return event

    def _fresh(self, size: int) -> Any:
        """Memory from the driver; all that is kept goes back to it first if there is no more."""
        try:
            return self._asked(size)
        except Exception as error:
            if not _is_lack(error):
                raise
        if self.reserved.now > self.allocated.now:
            self.retries += 1
            self.empty()
            try:
                return self._asked(size)
            except Exception as error:
                if not _is_lack(error):
                    raise
        self.failures += 1
        now, most = quantity(self.allocated.now), quantity(self.allocated.most)
        raise OutOfMemoryError(
            f"no {quantity(size)} of memory of cuda:{self.device} are free; {now} are held by "
            f"tensors and programs of this process, {most} at most so far"
        )

    def _asked(self, size: int) -> Any:
        self.asked += 1
        with on(self.device):
            return toolchain().cuda.device_array(size, np.uint8)


def _is_lack(error: Exception) -> bool:
    """Whether an error says that there is no more memory; how it does differs by package."""
    return isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error)


@cache
def allocator(device: int) -> Allocator:
    """The memory of a device."""
    return Allocator(device)
