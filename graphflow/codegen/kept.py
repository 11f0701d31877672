"""What depends on state alone is computed once, and kept between calls.

Weights that a program reads and never writes are the same from call to call, and so is
whatever is made of them: taps transformed for Winograd's method, weights scaled by a frozen
normalisation.  The calls that make it go into a branch at the start of the schedule, over
memory that nobody else uses; the runtime asks for them (:attr:`Schedule.stale`) when a
weight was written to or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.buffers import BufferTable
from graphflow.codegen.schedule import (
    Address,
    Argument,
    BlockAddress,
    Branch,
    BufferKind,
    Call,
    Provenance,
    Step,
    Value,
    plain_steps,
)
from graphflow.codegen.sizes import is_fixed
from graphflow.ir.types import TensorType, bool_
from graphflow.records import dataclass, replace

LEAST_WORK = 200_000
"""Bytes moved, or operations over two, from which on keeping pays for looking at the state."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Steps that begin with what is kept, the buffer of the byte that asks for it, and the
    state it depends on."""

    steps: tuple[Step, ...]
    stale: int = -1
    watched: tuple[int, ...] = ()


def with_kept(table: BufferTable, steps: Sequence[Step]) -> Kept:
    """``steps`` in two parts, if enough of them depends on state alone."""
    first = _lasting(table, steps)
    work = sum(max(call.bytes, call.flops // 2) for call in first)
    if work < LEAST_WORK:
        return Kept(tuple(steps))
    chosen = set(map(id, first))
    rest = [step for step in steps if id(step) not in chosen]
    made = frozenset[int]().union(*(call.writes for call in first))
    read = frozenset[int]().union(*(call.reads for call in first))
    for number in made.intersection(frozenset[int]().union(*(step.reads for step in rest))):
        table.buffers[number] = replace(table.buffers[number], kind=BufferKind.KEPT)
    stale = table.buffer(BufferKind.KEPT, TensorType(bool_, ()), "stale")
    branch = Branch(
        "kept", Address(stale), tuple(first), (), read | {stale}, made,
        Provenance("what depends on state alone"),
    )  # fmt: skip
    watched = sorted(n for n in read if table.buffers[n].kind is BufferKind.STATE)
    return Kept((branch, *rest), stale, tuple(watched))


def _lasting(table: BufferTable, steps: Sequence[Step]) -> list[Call]:
    """The calls that read and write nothing but constants, state that no step writes to, and
    memory that only such calls write to, and that are the same for all sizes."""
    written = frozenset[int]().union(*(step.writes for step in plain_steps(steps)))
    fixed = {
        buffer.id
        for buffer in table.buffers
        if buffer.kind is BufferKind.CONSTANT
        or (buffer.kind is BufferKind.STATE and buffer.id not in written)
    }
    own = {buffer.id for buffer in table.buffers if buffer.kind is BufferKind.ARENA}
    calls = [step for step in steps if isinstance(step, Call) and not step.fallible]
    found = [call for call in calls if all(map(_same_for_all_sizes, call.arguments))]
    while True:
        chosen = set(map(id, found))
        others = frozenset[int]().union(*(s.writes for s in steps if id(s) not in chosen))
        known = fixed | (own - others)
        fewer = [c for c in found if c.reads | c.writes <= known and c.writes <= own]
        if len(fewer) == len(found):
            return found
        found = fewer


def _same_for_all_sizes(argument: Argument) -> bool:
    """Whether ``argument`` depends on no dimension.

    Positions in a batch, say, are made of nothing, but are others in another batch; programs of
    one schedule for several sizes share what they keep.
    """
    if isinstance(argument, BlockAddress):
        return all(map(_same_for_all_sizes, argument.arguments))
    if isinstance(argument, Value):
        return is_fixed(argument.value)
    return not isinstance(argument, Address) or is_fixed(argument.offset)
