"""Where all threads of a step must meet.

Threads run ahead of each other, and buffers of the arena share bytes, so what is
compared is bytes.  Inside loops a third thing matters: a call may depend on one of
an *earlier iteration*.  Windows that move with the loop are told apart by how far:
row 5 of a result is no row that iteration 4 wrote.

Where two steps cut the same bytes into the same rows, and every thread touches rows of its own
(:mod:`.partition`), it waits for nobody but itself.

In a loop whose iterations each thread runs by itself nobody waits for anybody: they do
not touch each other's bytes.  All threads meet before it, always: who comes second must
not take iterations of the first time round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.partition import Rows
from graphflow.codegen.schedule import (
    UNKNOWN_TRIPS,
    Branch,
    Buffer,
    BufferKind,
    Call,
    Loop,
    Schedule,
    Step,
    buffer_bytes,
)
from graphflow.records import dataclass, replace


def barriers(schedule: Schedule) -> tuple[bool, ...]:
    """For every point: must all threads have finished what came before it?

    Every step has a point, in program order.  A loop has one before its first
    iteration (then come those of its ``head``, one before it reads its ``test``, if it
    has one, and those of its ``body``); a branch has one before it reads its test.

    True where a step reads or writes bytes that another thread may still be
    writing, or writes bytes that another thread may still be reading.  Steps
    that run on thread 0 alone need none between themselves; a host call ends
    and begins with all threads stopped.
    """
    walk = _Walk(schedule)
    walk.steps(schedule.steps, 0, set())
    return tuple(walk.needed.get(point, False) for point in range(points(schedule.steps)))


def points(steps: Sequence[Step]) -> int:
    """How many points ``steps`` have; see :func:`barriers`."""
    total = len(steps)
    for step in steps:
        if isinstance(step, (Loop, Branch)):
            total += sum(map(points, step.parts))
            total += isinstance(step, Loop) and step.test is not None
    return total


_SHARED, _OWN = -1, -2
"""The regions of the arena that all threads see, and that each has for itself."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes ``start … end`` of a region, in the first iteration of the open loops."""

    region: int
    start: int
    end: int
    strides: tuple[int, ...] = ()
    rows: Rows | None = None
    """The rows, from ``start`` on, of which each thread touches its own."""


@dataclass(frozen=True, slots=True)
class _Access:
    """What a step reads and writes.  ``level``: the loop of which it ran in an earlier
    iteration, -1 if it ran in this one."""

    reads: tuple[_Range, ...]
    writes: tuple[_Range, ...]
    parallel: bool
    level: int = -1


class _Walk:
    """Goes through the steps with the set of accesses since the last barrier.

    Iterations are repeated until nothing new is pending at their end: barriers are
    only ever added, so that ends.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.needed: dict[int, bool] = {}
        self.trips: list[int] = []
        self._ranges = {buffer.id: _range_of(buffer, schedule) for buffer in schedule.buffers}
        self._sparse = {buffer.id for buffer in schedule.buffers if not buffer.dense}
        """Windows whose elements have others between them."""

    def steps(self, steps: Sequence[Step], point: int, pending: set[_Access]) -> int:
        """Walk over ``steps``, the first of them at ``point``; returns the point after them."""
        for step in steps:
            if isinstance(step, Loop):
                way = self._apart if step.parallel else self._loop
                point = way(step, point, pending)
            elif isinstance(step, Branch):
                point = self._branch(step, point, pending)
            else:
                if isinstance(step, Call):
                    self._meet(point, self._access(step), pending)
                else:
                    pending.clear()
                point += 1
        return point

    def _meet(self, point: int, access: _Access, pending: set[_Access]) -> None:
        met = self.needed.get(point, False)
        if met or any(self._conflict(access, earlier) for earlier in pending):
            self.needed[point] = True
            pending.clear()
        pending.add(access)

    def _loop(self, loop: Loop, point: int, pending: set[_Access]) -> int:
        level = len(self.trips)
        before = set(pending)
        self.trips.append(loop.trips)
        inside = [self._widened(a, level) for a in self._inside(loop)]
        met = self.needed.get(point, False)
        self.needed[point] = met or any(self._conflict(a, p) for a in inside for p in before)
        if self.needed[point]:
            before.clear()
        carried: set[_Access] = set()
        while True:
            known = sum(self.needed.values())
            current = set(carried)
            end = self.steps(loop.head, point + 1, current)
            if loop.test is not None:
                self._meet(end, self._test(loop.test.buffer), current)
                before |= {self._widened(a, level) for a in current}
                end += 1
            end = self.steps(loop.body, end, current)
            again = carried | {replace(a, level=level) if a.level < 0 else a for a in current}
            if again == carried and known == sum(self.needed.values()):
                break
            carried = again
        pending.clear()
        pending |= before | {self._widened(a, level) for a in (*current, *carried)}
        self.trips.pop()
        return end

    def _apart(self, loop: Loop, point: int, pending: set[_Access]) -> int:
        """A loop whose iterations each thread runs by itself: what it does to others' bytes."""
        self.needed[point] = True
        pending.clear()
        level = len(self.trips)
        self.trips.append(loop.trips)
        inside = [self._widened(access, level) for access in self._inside(loop)]
        self.trips.pop()
        pending |= {replace(access, parallel=True) for access in inside}
        return point + points([loop])

    def _branch(self, branch: Branch, point: int, pending: set[_Access]) -> int:
        self._meet(point, self._test(branch.test.buffer), pending)
        other = set(pending)
        end = self.steps(branch.then, point + 1, pending)
        end = self.steps(branch.otherwise, end, other)
        pending |= other
        return end

    def _inside(self, step: Loop | Branch) -> list[_Access]:
        """All accesses inside a step, those of loops in it over all their iterations."""
        found = [] if step.test is None else [self._test(step.test.buffer)]
        for part in step.parts:
            for inner in part:
                if isinstance(inner, Loop):
                    self.trips.append(inner.trips)
                    level = len(self.trips) - 1
                    found += [self._widened(a, level) for a in self._inside(inner)]
                    self.trips.pop()
                elif isinstance(inner, Branch):
                    found += self._inside(inner)
                elif isinstance(inner, Call):
                    found.append(self._access(inner))
        return found

    def _access(self, call: Call) -> _Access:
        own = call.partition if call.parallel else {}
        return _Access(self._seen(call.reads, own), self._seen(call.writes, own), call.parallel)

    def _seen(self, buffers: frozenset[int], own: Mapping[int, Rows]) -> tuple[_Range, ...]:
        """The bytes of ``buffers`` that other threads look at too."""
        found = []
        for buffer in sorted(buffers):
            range = self._ranges[buffer]
            if buffer in own and buffer not in self._sparse:
                range = replace(range, rows=own[buffer])
            found.append(range)
        return tuple(range for range in found if range.region != _OWN)

    def _test(self, buffer: int) -> _Access:
        """Every thread reads a condition."""
        return _Access((self._ranges[buffer],), (), True)

    def _conflict(self, now: _Access, earlier: _Access) -> bool:
        if not now.parallel and not earlier.parallel:
            return False
        return self._overlap(now.reads, earlier.writes, earlier.level) or self._overlap(
            now.writes, (*earlier.reads, *earlier.writes), earlier.level
        )

    def _overlap(self, some: Sequence[_Range], others: Sequence[_Range], level: int) -> bool:
        return any(
            self._touches(one, other, level)
            for one in some
            for other in others
            if one.region == other.region
        )

    def _touches(self, one: _Range, other: _Range, level: int) -> bool:
        """Whether a thread can touch bytes of ``one`` that another one touches in ``other``, which
        is of an earlier iteration of ``level``."""
        if one.rows is not None and one.rows == other.rows and self._coincide(one, other, level):
            return False
        if one.strides != other.strides:
            deepest = max(len(one.strides), len(other.strides))
            for open_level in range(deepest):
                one, other = self._spread(one, open_level), self._spread(other, open_level)
            return one.start < other.end and other.start < one.end
        step = one.strides[level] if 0 <= level < len(one.strides) else 0
        if not step:
            return one.start < other.end and other.start < one.end
        if self.trips[level] <= 1:
            return False
        # The other lies at start - d * step, d from 1 to trips - 1: what d would make them meet?
        low, high = other.start - one.end, other.end - one.start  # low < d * step < high
        if step < 0:
            step, low, high = -step, -high, -low
        nearest = max(1, low // step + 1)
        return nearest < self.trips[level] and nearest * step < high

    def _coincide(self, one: _Range, other: _Range, level: int) -> bool:
        """Whether two ranges are one and the same wherever they share bytes."""
        if one.strides != other.strides:
            return False
        step = abs(one.strides[level]) if 0 <= level < len(one.strides) else 0
        apart = one.start - other.start
        size = max(one.end - one.start, other.end - other.start)
        return apart == 0 if not step else step >= size and apart % step == 0

    def _widened(self, access: _Access, level: int) -> _Access:
        """``access`` over all iterations of the loop ``level``."""
        reads = tuple(self._spread(r, level) for r in access.reads)
        writes = tuple(self._spread(r, level) for r in access.writes)
        outer = access.level if access.level < level else -1
        return _Access(reads, writes, access.parallel, outer)

    def _spread(self, range: _Range, level: int) -> _Range:
        step = range.strides[level] if level < len(range.strides) else 0
        if not step:
            return range if level >= len(range.strides) else _trimmed(range, level)
        way = step * max(0, min(self.trips[level], UNKNOWN_TRIPS) - 1)
        start, end = range.start + min(0, way), range.end + max(0, way)
        return _trimmed(replace(range, start=start, end=end, rows=None), level)


def _trimmed(range: _Range, level: int) -> _Range:
    """``range`` without a stride at ``level``."""
    strides = [0 if k == level else s for k, s in enumerate(range.strides)]
    while strides and not strides[-1]:
        strides.pop()
    return replace(range, strides=tuple(strides))


def _range_of(buffer: Buffer, schedule: Schedule) -> _Range:
    """Arena buffers share a region; others have their own."""
    size = max(1, buffer_bytes(buffer))
    if buffer.kind is not BufferKind.WINDOW:
        if buffer.kind in (BufferKind.ARENA, BufferKind.OWN):
            offset = schedule.offsets.get(buffer.id, 0)
            region = _SHARED if buffer.kind is BufferKind.ARENA else _OWN
            return _Range(region, offset, offset + size)
        return _Range(buffer.id, 0, size)
    base = next(b for b in schedule.buffers if b.id == buffer.base)
    whole = _range_of(base, schedule)
    if not buffer.dense:
        return whole
    strides = list(buffer.strides)
    while strides and not strides[-1]:
        strides.pop()
    start = whole.start + buffer.offset
    return _Range(whole.region, start, start + size, tuple(strides))
