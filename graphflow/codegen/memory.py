"""Where temporary buffers live: one arena, offsets by liveness.

:func:`plan` is a pure function from lifetimes to offsets.  Two buffers whose
lifetimes overlap never share a byte.  Lifetimes are positions in program
order, and threads run ahead of each other, so *reused bytes are a dependence*:
:func:`barriers` says before which steps all threads must meet, and it compares
bytes of the arena, not buffers.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence

from graphflow.codegen.schedule import Buffer, BufferKind, Call, Schedule, Step, readable_bytes
from graphflow.records import dataclass

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Buffer ``id`` of ``size`` bytes, in use from step ``first`` to step ``last``."""

    id: int
    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Byte offset of every buffer, the arena's size, and what no sharing would need."""

    offsets: Mapping[int, int]
    arena_bytes: int
    naive_bytes: int

    def __str__(self) -> str:
        return f"{readable_bytes(self.naive_bytes)} → {readable_bytes(self.arena_bytes)}"


def aligned(size: int) -> int:
    """``size`` rounded up to whole cache lines; empty buffers get one."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def buffer_bytes(buffer: Buffer) -> int:
    """Bytes of data in ``buffer``."""
    elements = 1
    for extent in buffer.type.static_shape:
        elements *= extent
    return elements * buffer.type.dtype.itemsize


def lifetimes(buffers: Iterable[Buffer], steps: Sequence[Step]) -> list[Interval]:
    """First and last use of every arena buffer; buffers nobody uses are left out."""
    sizes = {b.id: int(buffer_bytes(b)) for b in buffers if b.kind is BufferKind.ARENA}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, step in enumerate(steps):
        for used in (*step.reads, *step.writes):
            if used in sizes:
                first.setdefault(used, position)
                last[used] = position
    return [Interval(b, sizes[b], first[b], last[b]) for b in first]


def plan(intervals: Iterable[Interval]) -> Plan:
    """Offsets by greedy best fit, largest buffer first.

    Each buffer takes the smallest gap that holds it among the buffers placed
    already whose lifetimes overlap its own.
    """
    order = sorted(intervals, key=lambda i: (-aligned(i.size), i.first, i.id))
    placed: list[tuple[int, int, Interval]] = []  # (offset, end, interval), by offset
    offsets: dict[int, int] = {}
    top = 0
    for interval in order:
        size = aligned(interval.size)
        offset = _best_gap(placed, interval, size)
        offsets[interval.id] = offset
        insort(placed, (offset, offset + size, interval), key=lambda p: p[0])
        top = max(top, offset + size)
    return Plan(offsets, top, sum(aligned(i.size) for i in order))


def _best_gap(placed: list[tuple[int, int, Interval]], interval: Interval, size: int) -> int:
    best, best_slack, reached = -1, -1, 0
    for offset, end, other in placed:
        if other.last < interval.first or interval.last < other.first:
            continue
        slack = offset - reached - size
        if slack >= 0 and (best < 0 or slack < best_slack):
            best, best_slack = reached, slack
        reached = max(reached, end)
    return reached if best < 0 else best


def barriers(schedule: Schedule) -> tuple[bool, ...]:
    """For every step: must all threads have finished what came before it?

    True where a step reads or writes bytes that another thread may still be
    writing, or writes bytes that another thread may still be reading.  Steps
    that run on thread 0 alone need none between themselves; a host call ends
    and begins with all threads stopped.
    """
    place = _Places(schedule)
    needed: list[bool] = []
    pending: list[_Access] = []  # since the last barrier
    for step in schedule.steps:
        access = place.access(step)
        if access.host:
            pending.clear()
            needed.append(False)
            continue
        meet = any(access.conflicts(earlier) for earlier in pending)
        needed.append(meet)
        if meet:
            pending.clear()
        pending.append(access)
    return tuple(needed)


@dataclass(frozen=True, slots=True)
class _Access:
    """The byte ranges ``(region, start, end)`` that a step reads and writes."""

    reads: tuple[tuple[int, int, int], ...]
    writes: tuple[tuple[int, int, int], ...]
    parallel: bool
    host: bool

    def conflicts(self, earlier: _Access) -> bool:
        if not self.parallel and not earlier.parallel:
            return False
        return _overlap(self.reads, earlier.writes) or _overlap(
            self.writes, (*earlier.reads, *earlier.writes)
        )


class _Places:
    """Byte ranges of buffers: arena buffers share one region, others have their own."""

    def __init__(self, schedule: Schedule) -> None:
        self.ranges: dict[int, tuple[int, int, int]] = {}
        for buffer in schedule.buffers:
            size = max(1, buffer_bytes(buffer))
            if buffer.kind is BufferKind.ARENA:
                offset = schedule.offsets.get(buffer.id, 0)
                self.ranges[buffer.id] = (-1, offset, offset + size)
            else:
                self.ranges[buffer.id] = (buffer.id, 0, size)

    def access(self, step: Step) -> _Access:
        reads = tuple(self.ranges[b] for b in step.reads)
        writes = tuple(self.ranges[b] for b in step.writes)
        parallel = isinstance(step, Call) and step.parallel
        return _Access(reads, writes, parallel, not isinstance(step, Call))


def _overlap(some: Iterable[tuple[int, int, int]], others: Sequence[tuple[int, int, int]]) -> bool:
    return any(
        region == other and start < stop and begin < end
        for region, start, end in some
        for other, begin, stop in others
    )
