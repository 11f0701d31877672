"""Where temporary buffers live: one arena, offsets by liveness.

:func:`plan` is a pure function from lifetimes to offsets.  Two buffers whose
lifetimes overlap never share a byte.  Lifetimes are positions in program
order, and threads run ahead of each other, so *reused bytes are a dependence*:
:mod:`~graphflow.codegen.barriers` compares bytes of the arena, not buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from graphflow.codegen.owners import Offsets, Owners, Parts, parts_of_threads
from graphflow.codegen.schedule import (
    Branch,
    Buffer,
    BufferKind,
    Loop,
    Step,
    buffer_bytes,
    readable_bytes,
)
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.types import TensorType
from graphflow.records import dataclass

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""
MORE = 1.04
"""How much larger the arena may be for the sake of who has which bytes."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Buffer ``id`` of ``size`` bytes, in use from step ``first`` to step ``last``."""

    id: int
    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Byte offset of every buffer, the arena's size, and what no sharing would need.

    ``own_bytes``: how much of the arena each thread has for itself, at its end.
    """

    offsets: Mapping[int, int]
    arena_bytes: int
    naive_bytes: int
    own_bytes: int = 0

    def __str__(self) -> str:
        return f"{readable_bytes(self.naive_bytes)} → {readable_bytes(self.arena_bytes)}"


def aligned(size: int) -> int:
    """``size`` rounded up to whole cache lines; empty buffers get one."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def plan_arena(buffers: Sequence[Buffer], steps: Sequence[Step], threads: int) -> Plan:
    """What all threads share, then the parts that each of ``threads`` threads has for itself.

    Nobody else looks at a thread's part, so its bytes are no dependence between threads.
    """
    shared = plan(lifetimes(buffers, steps), parts_of_threads(buffers, steps, threads))
    if not any(buffer.kind is BufferKind.OWN for buffer in buffers):
        return shared
    own = plan(lifetimes(buffers, steps, BufferKind.OWN))
    begin = shared.arena_bytes
    offsets = {buffer: begin + offset for buffer, offset in own.offsets.items()}
    return Plan(
        {**shared.offsets, **offsets},
        begin + threads * own.arena_bytes,
        shared.naive_bytes + threads * own.naive_bytes,
        own.arena_bytes,
    )


def lifetimes(
    buffers: Iterable[Buffer], steps: Sequence[Step], kind: BufferKind = BufferKind.ARENA
) -> list[Interval]:
    """First and last use of every buffer of ``kind``; buffers nobody uses are left out.

    Positions count calls in program order.  A buffer that is used inside a loop and
    outside it is in use for the whole loop, as is the condition of a loop; one that
    is used inside only is made anew in every iteration.
    """
    uses = _Uses(buffers, kind)
    uses.walk(steps)
    return uses.intervals()


class _Uses:
    """Where every buffer of one kind is used, and where loops begin and end."""

    def __init__(self, buffers: Iterable[Buffer], kind: BufferKind) -> None:
        self.base: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        for buffer in buffers:
            if buffer.kind is kind:
                self.sizes[buffer.id] = buffer_bytes(buffer)
            elif buffer.kind is BufferKind.WINDOW:
                self.base[buffer.id] = buffer.base
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.loops: list[tuple[int, int]] = []  # inner before outer
        self.position = 0

    def walk(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, (Loop, Branch)):
                self._nested(step)
                continue
            for used in (*step.reads, *step.writes):
                self._use(used)
            self.position += 1

    def _nested(self, step: Loop | Branch) -> None:
        start = self.position
        if isinstance(step, Branch):
            self._use(step.test.buffer)
            self.position += 1
        for part in step.parts:
            self.walk(part)
            if isinstance(step, Loop) and step.test is not None:
                self._use(step.test.buffer)
            self.position += 1
        if isinstance(step, Loop):
            self.loops.append((start, self.position))
            self.position += 1

    def _use(self, buffer: int) -> None:
        buffer = self.base.get(buffer, buffer)
        if buffer in self.sizes:
            self.first.setdefault(buffer, self.position)
            self.last[buffer] = self.position

    def intervals(self) -> list[Interval]:
        for begin, end in self.loops:
            for buffer, first in self.first.items():
                last = self.last[buffer]
                if begin <= first and last <= end:
                    continue  # lives inside one iteration
                if first <= end and begin <= last:
                    self.first[buffer], self.last[buffer] = min(first, begin), max(last, end)
        return [Interval(b, self.sizes[b], f, self.last[b]) for b, f in self.first.items()]


def expected_bytes(graph: Graph) -> int:
    """About how large the arena of a fused graph will be: the most bytes that are alive at once
    in the order of its nodes; 0 where extents are symbolic."""
    from graphflow.passes.dataflow import is_alias  # a process that finds its plan needs none

    base: dict[Node, Node] = {}
    last: dict[Node, int] = {}
    lasting = set(graph.roots)
    for position, node in enumerate(graph.nodes):
        for operand in node.inputs:
            last[base[operand]] = position
        base[node] = base[node.inputs[0]] if is_alias(node) else node
    alive = most = 0
    ends: dict[int, int] = {}
    for position, node in enumerate(graph.nodes):
        stored = base[node] is node and node not in lasting and node.op.kind is not Kind.LEAF
        if stored and isinstance(node.type, TensorType) and node in last:
            size = node.type.nbytes
            if not isinstance(size, int):
                return 0
            alive += size
            ends[last[node]] = ends.get(last[node], 0) + size
        most = max(most, alive)
        alive -= ends.pop(position, 0)
    return most


def plan(intervals: Iterable[Interval], parts: Mapping[int, Parts] | None = None) -> Plan:
    """Offsets by greedy best fit, largest buffer first.

    Each buffer takes the smallest gap that holds it among the buffers placed
    already whose lifetimes overlap its own; with ``parts``, by buffer, the place in any gap, or
    in the smallest one, where most bytes are those of the thread that has them in other buffers.
    Of these the first that costs little memory is taken.
    """
    order = sorted(intervals, key=lambda i: (-aligned(i.size), i.first, i.id))
    plain = _planned(order, lambda arena, interval: arena.smallest(interval))
    if parts:
        for anywhere in (True, False):
            found = _planned(order, _by_owners(Owners(parts, ALIGNMENT), anywhere))
            if found.arena_bytes <= plain.arena_bytes * MORE:
                return found
    return plain


def _by_owners(owners: Owners, anywhere: bool) -> Callable[[_Arena, Interval], int]:
    def choose(arena: _Arena, interval: Interval) -> int:
        begins, ends = arena.gaps(interval, anywhere)
        return owners.place(interval.id, aligned(interval.size), begins, ends)

    return choose


def _planned(order: Sequence[Interval], choose: Callable[[_Arena, Interval], int]) -> Plan:
    arena = _Arena(len(order))
    offsets: dict[int, int] = {}
    for interval in order:
        offsets[interval.id] = offset = choose(arena, interval)
        arena.add(interval, offset)
    return Plan(offsets, arena.top, sum(aligned(i.size) for i in order))


class _Arena:
    """Buffers that are placed already."""

    def __init__(self, room: int) -> None:
        self.top = 0
        self._number = 0
        self._columns = np.zeros((4, room), np.int64)  # offset, end, first, last; by offset

    def add(self, interval: Interval, offset: int) -> None:
        """Place a buffer."""
        columns, number = self._columns, self._number
        end = offset + aligned(interval.size)
        at = int(columns[0, :number].searchsorted(offset, "right"))
        columns[:, at + 1 : number + 1] = columns[:, at:number]
        columns[:, at] = (offset, end, interval.first, interval.last)
        self._number += 1
        self.top = max(self.top, end)

    def smallest(self, interval: Interval) -> int:
        """The start of the smallest gap, else where all that it overlaps ends."""
        return int(self.gaps(interval, anywhere=False)[0][0])

    def gaps(self, interval: Interval, anywhere: bool) -> tuple[Offsets, Offsets]:
        """Where gaps begin and end that hold a buffer: all of them, or the smallest."""
        size = aligned(interval.size)
        offset, end, first, last = self._columns[:, : self._number]
        near = ((last >= interval.first) & (first <= interval.last)).nonzero()[0]
        reached = np.maximum.accumulate(end[near], dtype=np.int64)
        begins = np.concatenate(((0,), reached))
        ends = np.concatenate((offset[near], (self.top,)))
        fitting = (ends - begins >= size).nonzero()[0]
        if not anywhere:
            inner = fitting[fitting < near.size]
            fitting = inner[(ends - begins)[inner].argmin() :][:1] if inner.size else inner
        if not fitting.size:
            return begins[-1:], begins[-1:] + size
        return begins[fitting], ends[fitting]
