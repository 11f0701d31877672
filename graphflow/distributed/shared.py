"""Sums over the ranks of one machine, by way of memory that all of them map.

Each rank has a row of a :class:`Ring`.  It puts a vector into the row and says so; once all have
said so, each reads what the others put there.  Nobody sends anything, so a rank that is ahead
leaves its vector and goes on, and those behind find it.

Where a vector lies follows from the sizes of those before it alone, and so do the ranks that it
must wait for: they have read what was there.  Every rank adds up in the order of the ranks, so
all have the same bits.  Only x86 shows stores in the order they were made, which this is built on.

The memory is a file without a name (``memfd_create``): it goes with the last process that maps
it, however that ends.
"""

from __future__ import annotations

import mmap
import os
import platform
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from graphflow.ir.op import Array
from graphflow.ir.ops.collectives import AVERAGES
from graphflow.runtime.end_to_end import add_scaled
from graphflow.runtime.storage import address_of

_LINE = 64  # bytes: what different ranks write has no cache line in common
_WORDS = _LINE // 8
_NAME = "graphflow-ranks"
_VIEWS = 64  # of rows: making one with cold caches is 40 µs
_ARRIVED, _ADDED, _READ = range(3)  # words of a rank's line: the last vector it has …
_fence = threading.Lock()


class Request(Protocol):
    """Something to wait for."""

    def Test(self) -> bool:
        """Whether it is done."""


Wait = Callable[[Request], None]
"""Returns when a request is done; raises when it never will be."""


class Mark:
    """Until all ranks have come to vector ``number``; ``look`` is called while they have not."""

    __slots__ = ("_look", "_number", "_places", "_words")

    def __init__(
        self, words: memoryview, places: range, number: int, look: Callable[[], object]
    ) -> None:
        self._words, self._places, self._number, self._look = words, places, number, look

    def Test(self) -> bool:
        """Whether they have."""
        words, number = self._words, self._number
        for place in self._places:
            if words[place] < number:
                self._look()
                return False
        return True


class Ring:
    """``size`` rows of ``capacity`` bytes in ``memory``, seen by ``rank``.

    ``look`` is called while this rank waits for others.
    """

    def __init__(
        self, memory: Any, capacity: int, rank: int, size: int, look: Callable[[], object]
    ) -> None:
        self.capacity, self.rank, self.size, self._look = capacity, rank, size, look
        self._words = memoryview(memory)[: size * _LINE].cast("q")
        self._rows = np.frombuffer(memory, np.uint8, offset=_head(size))[: size * capacity]
        self._rows = self._rows.reshape(size, capacity)
        self._count = self._next = 0
        self._regions: dict[int, tuple[int, int]] = {}
        self._open: dict[int, Sum] = {}
        self._views: dict[tuple[int, int, Any], Array] = {}
        self._address = address_of(self._rows[rank])

    @staticmethod
    def bytes(capacity: int, size: int) -> int:
        """How large the memory of a ring is."""
        return _head(size) + size * capacity

    def begin(
        self, count: int, dtype: Any, reduce: str, wait: Wait, scale: float = 1.0,
        finite: bool = False,
    ) -> Sum:  # fmt: skip
        """Room for ``count`` values in this rank's row, once nobody reads what lies there.

        What they are reduced to is multiplied by ``scale``.  Of two ranks that must have
        ``finite`` values both look whether they have (:attr:`Sum.faults`).
        """
        begin, end = self._region(self._next, count * dtype.itemsize, wait)
        self._count, self._next = self._count + 1, end
        self._regions[self._count] = (begin, end)
        made = self._open[self._count] = Sum(
            self, self._count, self._view(begin, count, dtype), _combination(reduce, dtype), wait
        )
        made.address = self._address + begin
        made.scale, made.looks = scale, finite and self.size == 2
        return made

    def ahead(self, sizes: Sequence[int], wait: Wait) -> list[int]:
        """The addresses of the vectors to be begun next, of ``sizes`` bytes, in this rank's row.

        They may be written to from now on.  Together they take half of the row at most.
        """
        found, end = [], self._next
        for size in sizes:
            begin, end = self._region(end, size, wait)
            found.append(self._address + begin)
        return found

    def _view(self, begin: int, count: int, dtype: Any) -> Array:
        """All rows of a vector."""
        key = begin, count, dtype
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= _VIEWS:
                self._views.clear()
            found = self._rows[:, begin : begin + count * dtype.itemsize].view(dtype)
            self._views[key] = found
        return found

    def _region(self, next: int, bytes: int, wait: Wait) -> tuple[int, int]:
        """Where a vector lies that follows on one before ``next``, once nobody reads there."""
        size = -(-bytes // _LINE) * _LINE
        begin = next if next + size <= self.capacity else 0
        end = begin + size
        before = [n for n, (b, e) in self._regions.items() if b < end and begin < e]
        if before:
            self.finish_to(before[-1])
            read = self.mark(_READ, before[-1])
            if not read.Test():
                wait(read)
            self._regions = {n: r for n, r in self._regions.items() if n > before[-1]}
        return begin, end

    def finish_to(self, number: int) -> None:
        """Finish the sums up to that one, in the order in which they were begun."""
        for begun in [s for n, s in self._open.items() if n <= number]:
            begun.finish()

    def finish_all(self) -> None:
        """Finish every sum."""
        self.finish_to(self._count)

    def close(self, number: int) -> None:
        """Sum ``number`` is finished."""
        del self._open[number]

    def mark(self, what: int, number: int) -> Mark:
        """What is done when all ranks have come to ``what`` of ``number``."""
        places = range(what, self.size * _WORDS, _WORDS)
        return Mark(self._words, places, number, self._look)

    def say(self, what: int, number: int) -> None:
        """This rank has come to ``what`` of ``number``; all that it wrote before is seen first."""
        with _fence:
            pass
        self._words[self.rank * _WORDS + what] = number


class Sum:
    """One reduction: fill :attr:`own`, :meth:`publish` it, and :meth:`finish`."""

    __slots__ = (
        "_combine", "_made", "_number", "_ring", "_rows", "_wait", "address", "faults", "looks",
        "scale",
    )  # fmt: skip

    def __init__(
        self, ring: Ring, number: int, rows: Array, combine: Callable[..., Any], wait: Wait
    ) -> None:
        self._ring, self._number, self._rows = ring, number, rows
        self._combine, self._wait = combine, wait
        self.scale, self.address = 1.0, 0
        self.looks = False
        """Whether :meth:`finish` looks for NaN and infinity."""
        self.faults: list[tuple[int, Array]] = []
        """The ranks that have some, and copies of their vectors."""
        self._made: Array | None = None

    @property
    def own(self) -> Array:
        """This rank's vector."""
        own: Array = self._rows[self._ring.rank]
        return own

    def publish(self) -> None:
        """Let the others have it."""
        self._ring.say(_ARRIVED, self._number)

    def advance(self) -> bool:
        """Whether all vectors are there."""
        return self._made is not None or self._ring.mark(_ARRIVED, self._number).Test()

    def finish(self, into: Array | None = None) -> Array:
        """The reduced vector: in ``into``, or where it had to be put before."""
        if self._made is None:
            self._ring.finish_to(self._number - 1)
            out = np.empty_like(self.own) if into is None else into
            self._wait(self._ring.mark(_ARRIVED, self._number))
            if self._ring.size == 2:
                self._of_two(out)
            else:
                with np.errstate(all="ignore"):
                    self._in_shares(out)
            self._made = out
            self._ring.say(_READ, self._number)
            self._ring.close(self._number)
        return self._made

    def _of_two(self, out: Array) -> None:
        """Each of two ranks adds up everything."""
        a, b = self._rows
        finite = add_scaled(a, b, self.scale, out) if self._combine is np.add else None
        if finite is None:
            with np.errstate(all="ignore"):
                self._combine(a, b, out=out)
                self._scaled(out)
        if self.looks and not finite:
            rows = enumerate(self._rows)
            self.faults = [(n, row.copy()) for n, row in rows if not np.isfinite(row).all()]

    def _scaled(self, out: Array) -> None:
        if self.scale != 1.0:
            np.multiply(out, out.dtype.type(self.scale), out=out)

    def _in_shares(self, out: Array) -> None:
        """Each rank adds up a share of the elements for all: less to read from three ranks on."""
        count, size, rank = len(out), self._ring.size, self._ring.rank
        shares = [slice(count * r // size, count * (r + 1) // size) for r in range(size)]
        share = shares[rank]
        in_pairs(self._combine, [row[share] for row in self._rows], out[share])
        self._scaled(out[share])
        self.own[share] = out[share]  # where no other rank reads before it has been said
        self._ring.say(_ADDED, self._number)
        self._wait(self._ring.mark(_ADDED, self._number))
        for other, share in enumerate(shares):
            if other != rank:
                out[share] = self._rows[other][share]


def _head(size: int) -> int:
    """Bytes before the rows."""
    return -(-size * _LINE // mmap.PAGESIZE) * mmap.PAGESIZE


def in_pairs(combine: Callable[..., Any], rows: Sequence[Array], out: Array) -> None:
    """Fill ``out`` with two or more rows, combined as a binary tree, ``((0 + 1) + (2 + 3))``."""
    while len(rows) > 2:
        whole = len(rows) // 2 * 2
        pairs = zip(rows[:whole:2], rows[1:whole:2], strict=True)
        rows = [*(combine(a, b) for a, b in pairs), *rows[whole:]]
    combine(rows[0], rows[1], out=out)


@cache
def _combination(reduce: str, dtype: Any) -> Callable[..., Any]:
    if dtype == np.bool_:
        return np.logical_and if reduce in ("min", "product") else np.logical_or
    made: dict[str, Callable[..., Any]] = {
        **dict.fromkeys(("sum", *AVERAGES), np.add),
        "max": np.maximum, "min": np.minimum, "product": np.multiply,
    }  # fmt: skip
    return made[reduce]


# ---- meeting ------------------------------------------------------------------------------------


def create(bytes: int) -> tuple[int, mmap.mmap]:
    """A descriptor of memory that others can :func:`join`, and the memory; zeros.

    ``OSError`` where there is none: it is all taken now, not when it is written to.
    """
    _check_machine()
    descriptor = os.memfd_create(_NAME)
    try:
        os.posix_fallocate(descriptor, 0, bytes)
        return descriptor, mmap.mmap(descriptor, bytes)
    except BaseException:
        os.close(descriptor)
        raise


def join(process: int, descriptor: int, bytes: int) -> mmap.mmap:
    """The memory that ``process`` made; ``OSError`` where it cannot be reached from here."""
    _check_machine()
    path = f"/proc/{process}/fd/{descriptor}"
    if _NAME not in os.readlink(path):  # a process of that number on this machine
        raise OSError(f"{path} is something else")
    opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(opened).st_size != bytes:
            raise OSError(f"{path} has another size")
        return mmap.mmap(opened, bytes)
    finally:
        os.close(opened)


def _check_machine() -> None:
    if not hasattr(os, "memfd_create") or platform.machine() not in ("x86_64", "AMD64"):
        raise OSError(f"memory is shared on Linux on x86 only, not on {platform.platform()}")
