"""The way through a schedule's steps, so that a later process need not read them to run them.

It is a few numbers and the tape, which names kernels by their number.  Barriers and tape of a deep
model take longer to find than everything else between its graph and its first step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow import flags
from graphflow.codegen.schedule import Call, HostCall, Schedule, plain_steps
from graphflow.records import dataclass
from graphflow.runtime.slots import Slots
from graphflow.runtime.tape import ROW, Tape

SERIAL_NS = 20_000
"""A step whose threads would share less work than this stays on the caller's: waking
others costs more."""


@dataclass(frozen=True)
class Walk:
    """``tape`` walks the steps of a schedule whose inputs ``scalars`` are given by value.

    It is ``serial`` if it is for one thread only.  ``estimate_ns`` is what a step takes, roughly,
    and ``shared_ns`` the part that threads would share; ``straight`` says that all steps are
    calls, ``hosts`` that some, perhaps inside others, are operations on the host.
    """

    scalars: frozenset[int]
    tape: Tape
    serial: bool
    estimate_ns: float
    shared_ns: float
    straight: bool
    hosts: bool

    def fits(self, scalars: frozenset[int], threads: int) -> bool:
        """Whether this is what a program with these scalars and threads would be given."""
        return self.scalars == scalars and self.serial == _is_serial(self.shared_ns, threads)

    @property
    def is_short(self) -> bool:
        """Whether a step is over before others would notice."""
        return self.estimate_ns < SERIAL_NS

    def to_row(self) -> list[Any]:
        """As plain data, for :meth:`from_row` on a machine of the same byte order."""
        tape = self.tape
        tables = [t.tobytes() for t in (tape.code, tape.relocations, tape.area, tape.entries)]
        times = [self.estimate_ns, self.shared_ns]
        facts = [self.serial, *times, self.straight, self.hosts]
        return [sorted(self.scalars), [*tables, tape.calls], *facts]

    @staticmethod
    def from_row(row: list[Any]) -> Walk:
        """The walk that :meth:`to_row` took apart."""
        scalars, (*tables, calls), *facts = row
        code, relocations, area, entries = (np.frombuffer(t, np.int64) for t in tables)
        tape = Tape(code.reshape(-1, ROW), relocations.reshape(-1, ROW), area, entries, calls)
        return Walk(frozenset(scalars), tape, *facts)


def walk_of(schedule: Schedule, slots: Slots, threads: int) -> Walk:
    """The walk through ``schedule``, whose buffers lie in ``slots``, for up to ``threads``."""
    from graphflow.codegen.estimate import estimate_ns, shared_ns  # plans that are kept need
    from graphflow.runtime.encoding import encode  # neither

    steps = schedule.steps
    shared = shared_ns(steps)
    serial = _is_serial(shared, threads)
    return Walk(
        slots.scalars,
        encode(schedule, slots.places, slots.dynamic, serial),
        serial,
        estimate_ns(steps),
        shared,
        all(isinstance(step, Call) for step in steps),
        any(isinstance(step, HostCall) for step in plain_steps(steps)),
    )


def _is_serial(shared: float, threads: int) -> bool:
    """Whether a step of so much shared work, in nanoseconds, is for one thread."""
    return threads == 1 or shared < SERIAL_NS or flags.DISABLE_JIT.value
