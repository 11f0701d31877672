"""Sums over the ranks of one machine, by way of memory that all of them map.

Each rank has a row of a :class:`Ring`.  It puts a vector into the row and says so; once all have
said so, each reads what the others put there.  Nobody sends anything, so a rank that is ahead
leaves its vector and goes on, and those behind find it.

Where a vector lies follows from the sizes of those before it alone, and so do the ranks that it
must wait for: they have read what was there.  Every rank adds up in the order of the ranks, so
all have the same bits.  Only x86 shows stores in the order they were made, which this is built on.

What a program is about to reduce gets its place ahead (:meth:`Ring.ahead`); kernels then begin and
finish sums of two ranks without Python, which looks back at what they did before it does
anything itself.

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

from graphflow.distributed.ahead import LINE, Group, Vector, Wait
from graphflow.ir.op import ROOM_HEAD, Array
from graphflow.ir.ops.collectives import AVERAGES
from graphflow.ir.ops.shared_sums import Head, State
from graphflow.runtime.end_to_end import add_scaled
from graphflow.runtime.storage import address_of

_WORDS = LINE // 8
_NAME = "graphflow-ranks"
_VIEWS = 64  # of rows: making one with cold caches is 40 µs
_ARRIVED, _ADDED, _READ = range(3)  # words of a rank's line: the last vector it has …
_fence = threading.Lock()


class Request(Protocol):
    """Something to wait for."""

    def Test(self) -> bool:
        """Whether it is done."""


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
        self._words = memoryview(memory)[: size * LINE].cast("q")
        self._rows = np.frombuffer(memory, np.uint8, offset=_head(size))[: size * capacity]
        self._rows = self._rows.reshape(size, capacity)
        self._count = self._next = 0
        self._regions: dict[int, tuple[int, int]] = {}
        self._open: dict[int, Sum] = {}
        self._ahead: tuple[Group, int] | None = None
        self._left: list[tuple[Vector, int]] = []
        """What was given a place ahead and is for Python to begin, in order."""
        self._described: Group | None = None
        self._rooms: dict[int, list[int]] = {}
        """Of the group whose heads are filled in at these bytes: where its vectors are."""
        self._views: dict[tuple[int, int, Any], Array] = {}
        self._address = address_of(self._rows[rank])
        self._own = memoryview(self._rows[rank]).cast("q")
        self._marks = [self._line(rank, _ARRIVED), self._line(rank, _READ)]
        self._marks += [self._line(other, _ARRIVED) for other in range(size) if other != rank]

    @staticmethod
    def bytes(capacity: int, size: int) -> int:
        """How large the memory of a ring is."""
        return _head(size) + size * capacity

    def begin(self, vector: Vector, wait: Wait) -> Sum:
        """Room for ``vector`` in this rank's row, once nobody reads what lies there.

        Of two ranks that must have finite values both look whether they have
        (:attr:`Sum.faults`).
        """
        self.look_back()
        if self._left and self._left[0][0].room == vector.room:
            begin = self._left.pop(0)[1]
        else:
            self._left.clear()
            self._described = None  # it may lie over heads
            begin = self._region(vector.room, wait)
        return self._begun(vector, begin, wait)

    def _begun(self, vector: Vector, begin: int, wait: Wait) -> Sum:
        """The next sum, of what lies at byte ``begin`` of the row, under way."""
        self._take(1, begin, begin + vector.room)
        rows = self._view(begin + ROOM_HEAD, vector.count, vector.dtype)
        made = self._open[self._count] = Sum(self, self._count, vector, rows, wait)
        made.address = self._address + begin + ROOM_HEAD
        made.words = self._own[begin // 8 : (begin + ROOM_HEAD) // 8]
        made.words[Head.STATE] = State.BEGUN
        return made

    def _take(self, count: int, begin: int, end: int) -> None:
        """The next ``count`` vectors lie between those bytes of the row."""
        self._count, self._next = self._count + count, end
        self._regions[self._count] = (begin, end)

    def ahead(self, group: Group, wait: Wait) -> Sequence[int]:
        """The addresses of the vectors to be begun next in this rank's row.

        They may be written to from now on.  Together they take half of the row at most.
        Kernels may reduce them if all before are done.
        """
        self.look_back()
        self._left.clear()
        begin = self._region(group.bytes, wait)
        if self._described is not group:
            self._described, self._rooms = group, {}
        rooms = self._rooms.get(begin)
        if rooms is None:
            rooms = self._rooms[begin] = self._describe(group, begin)
        state = State.UNKNOWN if self._open or self.size != 2 else group.first_state
        own = self._own
        for offset in group.offsets:
            own[(begin + offset) // 8] = state
        self._ahead = group, begin
        return rooms

    def _describe(self, group: Group, begin: int) -> list[int]:
        """Fill in the heads of a group that lies at ``begin``; where its vectors are."""
        start = self._address + begin
        if self.size == 2:
            first = start - self.rank * self.capacity
            group.describe(self._own, begin, (first, first + self.capacity), self._marks)
        return [start + offset + ROOM_HEAD for offset in group.offsets]

    def look_back(self) -> None:
        """Take over what kernels have begun and done since :meth:`ahead`; they begin no more."""
        if self._ahead is not None:
            (group, begin), self._ahead = self._ahead, None
            if self._own[(begin + group.offsets[-1]) // 8] == State.DONE:  # and all before
                self._take(len(group.offsets), begin, begin + group.bytes)
            else:
                self._look_at(group, begin)
        for made in [s for s in self._open.values() if s.is_done]:
            self.close(made.number)

    def _look_at(self, group: Group, begin: int) -> None:
        """Take over what kernels have begun; Python may begin what is left where it lies."""
        for vector, offset in zip(group.vectors, group.offsets, strict=True):
            head = (begin + offset) // 8
            state = self._own[head]
            if self._left or state < State.BEGUN:
                self._own[head] = State.UNKNOWN
                self._left.append((vector, begin + offset))
            else:
                wait = group.waits(vector.what, self._own[head + Head.COLLECTIVE])
                self._begun(vector, begin + offset, wait)
                self._own[head] = state

    def begun_at(self, head: int) -> Sum | None:
        """The sum under way that a kernel began, whose head is there."""
        self.look_back()
        return next((s for s in self._open.values() if s.address == head + ROOM_HEAD), None)

    def _line(self, rank: int, what: int) -> int:
        """The address of the word in which ``rank`` says how far it has come."""
        start = self._address - self.rank * self.capacity - _head(self.size)
        return start + rank * LINE + 8 * what

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

    def _region(self, size: int, wait: Wait) -> int:
        """Where the next ``size`` bytes are that follow on the last, once nobody reads there."""
        begin = self._next if self._next + size <= self.capacity else 0
        end = begin + size
        before = [n for n, (b, e) in self._regions.items() if b < end and begin < e]
        if before:
            if self._open:
                self.finish_to(before[-1])
            if min(self._words[_READ : self.size * _WORDS : _WORDS]) < before[-1]:
                wait(self.mark(_READ, before[-1]))
            self._regions = {n: r for n, r in self._regions.items() if n > before[-1]}
        return begin

    def finish_to(self, number: int) -> None:
        """Finish the sums up to that one, in the order in which they were begun."""
        self.look_back()
        for begun in [s for n, s in self._open.items() if n <= number]:
            begun.finish()

    def finish_all(self) -> None:
        """Finish every sum."""
        self.look_back()
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
        "_combine", "_made", "_ring", "_rows", "_wait", "address", "faults", "looks", "number",
        "vector", "words",
    )  # fmt: skip

    def __init__(self, ring: Ring, number: int, vector: Vector, rows: Array, wait: Wait) -> None:
        self._ring, self.number, self.vector, self._rows = ring, number, vector, rows
        self._combine, self._wait = _combination(vector.reduce, vector.dtype), wait
        self.address = 0
        self.words: memoryview[int]
        """Its head."""
        self.looks = vector.finite and ring.size == 2
        """Whether :meth:`finish` looks for NaN and infinity."""
        self.faults: list[tuple[int, Array]] = []
        """The ranks that have some, and copies of their vectors."""
        self._made: Array | None = None

    @property
    def own(self) -> Array:
        """This rank's vector."""
        own: Array = self._rows[self._ring.rank]
        return own

    @property
    def is_done(self) -> bool:
        """Whether a kernel has finished it."""
        return self.words[Head.STATE] == State.DONE

    def publish(self) -> None:
        """Let the others have it."""
        self._ring.say(_ARRIVED, self.number)

    def advance(self) -> bool:
        """Whether all vectors are there."""
        return self._made is not None or self._ring.mark(_ARRIVED, self.number).Test()

    def finish(self, into: Array | None = None) -> Array:
        """The reduced vector: in ``into``, or where it had to be put before."""
        if self._made is None:
            self._ring.finish_to(self.number - 1)
            out = np.empty_like(self.own) if into is None else into
            self._wait(self._ring.mark(_ARRIVED, self.number))
            if self._ring.size == 2:
                self._of_two(out)
            else:
                with np.errstate(all="ignore"):
                    self._in_shares(out)
            self._made = out
            self._ring.say(_READ, self.number)
            self.words[Head.STATE] = State.DONE
            self._ring.close(self.number)
        return self._made

    def _of_two(self, out: Array) -> None:
        """Each of two ranks adds up everything."""
        a, b = self._rows
        finite = add_scaled(a, b, self.vector.scale, out) if self._combine is np.add else None
        if finite is None:
            with np.errstate(all="ignore"):
                self._combine(a, b, out=out)
                self._scaled(out)
        if self.looks and not finite:
            rows = enumerate(self._rows)
            self.faults = [(n, row.copy()) for n, row in rows if not np.isfinite(row).all()]

    def _scaled(self, out: Array) -> None:
        if self.vector.scale != 1.0:
            np.multiply(out, out.dtype.type(self.vector.scale), out=out)

    def _in_shares(self, out: Array) -> None:
        """Each rank adds up a share of the elements for all: less to read from three ranks on."""
        count, size, rank = len(out), self._ring.size, self._ring.rank
        shares = [slice(count * r // size, count * (r + 1) // size) for r in range(size)]
        share = shares[rank]
        in_pairs(self._combine, [row[share] for row in self._rows], out[share])
        self._scaled(out[share])
        self.own[share] = out[share]  # where no other rank reads before it has been said
        self._ring.say(_ADDED, self.number)
        self._wait(self._ring.mark(_ADDED, self.number))
        for other, share in enumerate(shares):
            if other != rank:
                out[share] = self._rows[other][share]


def _head(size: int) -> int:
    """Bytes before the rows."""
    return -(-size * LINE // mmap.PAGESIZE) * mmap.PAGESIZE


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
