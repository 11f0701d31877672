"""Loops whose iterations each thread runs by itself.

A scan without carries has iterations that know nothing of each other.  Instead of sharing
every kernel of an iteration and meeting after it, threads take whole iterations, over
temporary memory of their own: what an iteration makes stays in the caches of one core,
nobody waits for anybody, and a thread that is held up takes fewer of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphflow.codegen.buffers import BufferTable
from graphflow.codegen.control_forms import can_fail
from graphflow.codegen.estimate import estimate_ns
from graphflow.codegen.memory import lifetimes, plan
from graphflow.codegen.schedule import Branch, BufferKind, Call, Loop, Step, buffer_bytes
from graphflow.codegen.units import Unit
from graphflow.records import replace

LEAST_NS = 200_000
"""All iterations together take so long where threads run them by themselves."""
SMALL_BYTES = 1 << 22
"""A thread's own memory that is always worth it; more of it where operands are large too."""


def steps_apart(
    table: BufferTable, unit: Unit, trips: int, make: Callable[[], tuple[Step, ...]]
) -> tuple[Step, ...] | None:
    """The steps of an iteration, as ``make()`` makes them, for one thread; None where threads
    had better share each of them, or have to."""
    assert unit.node is not None
    carries = unit.node.attrs["carried"] > 0
    if table.own or carries or unit.fallible or can_fail(unit.node):
        return None
    if not _divides(trips, table.threads):
        return None
    forget = table.begun()
    with table.apart():
        steps = make()
    if trips * estimate_ns(steps) >= LEAST_NS and _fits(table, steps):
        return tuple(map(_alone, steps))
    forget()
    return None


def _divides(trips: int, threads: int) -> bool:
    """Whether threads would have work most of the time."""
    rounds = -(-trips // threads)
    return threads > 1 and 4 * trips >= 3 * threads * rounds


def _fits(table: BufferTable, steps: Sequence[Step]) -> bool:
    """Whether memory for every thread is little, or little beside what the loop works on."""
    own = plan(lifetimes(table.buffers, steps, BufferKind.OWN)).arena_bytes
    used = frozenset[int]().union(*(step.reads | step.writes for step in steps))
    outside = {table.root(number) for number in used}
    given = sum(
        buffer_bytes(table.buffers[number])
        for number in outside
        if table.buffers[number].kind is not BufferKind.OWN
    )
    return own <= SMALL_BYTES or own * table.threads <= given


def _alone(step: Step) -> Step:
    """``step`` by one thread."""
    if isinstance(step, Call):
        return replace(step, parallel=False)
    if isinstance(step, Loop):
        head, body = (tuple(map(_alone, part)) for part in step.parts)
        return replace(step, head=head, body=body)
    if isinstance(step, Branch):
        then, otherwise = (tuple(map(_alone, part)) for part in step.parts)
        return replace(step, then=then, otherwise=otherwise)
    return step
