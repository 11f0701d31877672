"""Where temporary buffers live: one arena, offsets by liveness.

:func:`plan` is a pure function from lifetimes to offsets.  Two buffers whose
lifetimes overlap never share a byte.  Lifetimes are positions in program
order, and threads run ahead of each other, so *reused bytes are a dependence*:
:mod:`~graphflow.codegen.barriers` compares bytes of the arena, not buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphflow.codegen.schedule import Branch, Buffer, BufferKind, Loop, Step, readable_bytes
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.types import TensorType
from graphflow.records import dataclass

Placed: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

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


def buffer_bytes(buffer: Buffer) -> int:
    """Bytes of data in ``buffer``."""
    return buffer.type.static_bytes


def plan_arena(buffers: Sequence[Buffer], steps: Sequence[Step], threads: int) -> Plan:
    """What all threads share, then the parts that each of ``threads`` threads has for itself.

    Nobody else looks at a thread's part, so its bytes are no dependence between threads.
    """
    shared = plan(lifetimes(buffers, steps))
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


def plan(intervals: Iterable[Interval]) -> Plan:
    """Offsets by greedy best fit, largest buffer first.

    Each buffer takes the smallest gap that holds it among the buffers placed
    already whose lifetimes overlap its own.
    """
    order = sorted(intervals, key=lambda i: (-aligned(i.size), i.first, i.id))
    placed = np.zeros((4, len(order)), np.int64)  # a column each: offset, end, first, last
    offsets: dict[int, int] = {}
    top = 0
    for number, interval in enumerate(order):
        size = aligned(interval.size)
        offset = _best_gap(placed[:, :number], interval, int(size))
        offsets[interval.id] = offset
        # By offset, and by number where that is the same.
        at = int(placed[0, :number].searchsorted(offset, "right"))
        placed[:, at + 1 : number + 1] = placed[:, at:number]
        placed[:, at] = (offset, offset + size, interval.first, interval.last)
        top = max(top, offset + size)
    return Plan(offsets, top, sum(aligned(i.size) for i in order))


def _best_gap(placed: Placed, interval: Interval, size: int) -> int:
    """The start of the smallest gap of ``size`` bytes, else where all memory used so far ends."""
    offset, end, first, last = placed
    near = ((last >= interval.first) & (first <= interval.last)).nonzero()[0]
    if not near.size:
        return 0
    reached = np.maximum.accumulate(end[near])
    begins = np.empty_like(reached)
    begins[0], begins[1:] = 0, reached[:-1]
    slack = offset[near] - begins
    slack -= size
    fitting = (slack >= 0).nonzero()[0]
    if not fitting.size:
        return int(reached[-1])
    return int(begins[fitting[slack[fitting].argmin()]])
