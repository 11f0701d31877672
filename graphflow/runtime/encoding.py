"""A schedule written as a tape (:mod:`graphflow.runtime.tape`).

A process that finds a program's plan needs none of this: the tape is kept with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from graphflow.codegen.barriers import barriers, points
from graphflow.codegen.schedule import (
    MAX_LEVELS,
    Address,
    Argument,
    Branch,
    Call,
    FunctionAddress,
    HostCall,
    KernelSource,
    Loop,
    Schedule,
    Step,
    Value,
)
from graphflow.errors import CompileError
from graphflow.records import dataclass
from graphflow.runtime.tape import (
    AREA_HEADER,
    COUNTERS,
    ROW,
    SELF,
    Jump,
    Op,
    Operand,
    Tape,
    Who,
    Words,
)

_STILL = (0,) * MAX_LEVELS


@dataclass(frozen=True, slots=True)
class KernelNumber:
    """The address of a kernel, given by its number."""

    number: int


Word: TypeAlias = "int | Operand | tuple[Operand, int] | KernelNumber"
"""A number, an address, one with bytes to be added to it, or a kernel's."""


class TapeBuilder:
    """Assembles a tape, instruction by instruction.

    ``dynamic`` are the slots that change from call to call (inputs, outputs);
    addresses in all other slots are resolved once a generation.
    """

    def __init__(self, dynamic: frozenset[int] = frozenset()) -> None:
        self._dynamic = dynamic
        self._code: list[list[int]] = []
        self._area: list[int] = [0] * AREA_HEADER
        self._area[COUNTERS : COUNTERS + MAX_LEVELS] = [-1] * MAX_LEVELS
        self._entries: list[int] = []
        self._fixed: list[list[int]] = []
        self._changing: list[list[int]] = []
        self._loops: list[_OpenLoop] = []
        self._calls = 0
        # Filled in by finish(), when the number of relocations is known.
        self._emit(Op.RESOLVE)
        self._emit(Op.RESOLVE)

    @property
    def here(self) -> int:
        """The position of the next instruction."""
        return len(self._code)

    def block(self, words: Sequence[Word]) -> Operand:
        """Lay out an argument block; the result addresses it."""
        start = len(self._area)
        area = self._area
        for position, word in enumerate(words, start):
            if isinstance(word, int):
                area.append(word)
                continue
            if isinstance(word, KernelNumber):
                area.append(word.number)
                self._entries.append(position)
                continue
            area.append(0)
            if isinstance(word, tuple):
                self._relocate(position, *word)
            else:
                self._relocate(position, word)
        return Operand(SELF, 8 * start)

    def call(self, kernel: int, words: Sequence[Word], who: Who = Who.FIRST) -> int:
        """Call kernel number ``kernel``; returns the number of the call."""
        self._emit(Op.CALL, kernel, self.block(words).offset, who, self._calls)
        self._calls += 1
        return self._calls - 1

    def attempt(self, kernel: int, words: Sequence[Word]) -> int:
        """Call kernel number ``kernel``, and jump to a place that :meth:`target` names later
        unless it leaves 0 in the word before ``words``; returns the branch to name."""
        block = self.block([0, *words])
        self._emit(Op.CALL, kernel, block.offset, Who.FIRST, -1)  # no call of the schedule's
        return self.branch(Jump.IF_TRUE, block)

    def barrier(self) -> None:
        """Let all threads meet."""
        self._emit(Op.BARRIER)

    def host(self, number: int) -> None:
        """Return to Python to run host call ``number``."""
        self._emit(Op.HOST, number)

    def check(self) -> None:
        """Stop with a failure if the error word is set."""
        self._emit(Op.CHECK)

    def loop(self, trips: Word, parallel: bool = False) -> None:
        """Open a loop of ``trips`` iterations (a number, or the address of an int64).

        If it is ``parallel``, a thread takes the next iteration that none has taken.  How
        many are taken is counted in the first thread's area, and back at 0 once all threads
        have found that none is left; they must meet before they come here again.
        """
        if len(self._loops) == MAX_LEVELS:
            raise CompileError(f"loops nest deeper than {MAX_LEVELS}; unroll one of them")
        word, count = (-1, trips) if isinstance(trips, int) else (self._cell(trips), 0)
        level = len(self._loops)
        self._emit(Op.LOOP, level)
        self._loops.append(_OpenLoop(self.here, []))
        taken = self.block([0]).offset // 8 if parallel else 0
        self._emit(Op.NEXT, level, count, word, 0, taken)
        self._emit(Op.RESOLVE)

    def end_loop(self) -> None:
        """Close the innermost loop."""
        loop = self._loops.pop()
        self._emit(Op.BRANCH, Jump.ALWAYS, -1, loop.head)
        self._code[loop.head][4] = self.here
        first = len(self._fixed)
        self._fixed.extend(loop.relocations)
        # Rows of a loop lie among the fixed ones, so they are resolved there once
        # too: counters are -1 then, and nothing reads the result.
        self._code[loop.head + 1][1:3] = [first, len(self._fixed)]

    def branch(self, mode: Jump, condition: Operand | None = None) -> int:
        """Jump to a place that :meth:`target` names later; returns the branch to name."""
        word = -1 if condition is None else self._cell(condition)
        self._emit(Op.BRANCH, mode, word, 0)
        return self.here - 1

    def target(self, branch: int) -> None:
        """Let ``branch`` jump here."""
        self._code[branch][3] = self.here

    def finish(self) -> Tape:
        """Close the tape and return it."""
        if self._loops:
            raise CompileError("a loop of the tape is not closed")
        self._emit(Op.END)
        fixed = len(self._fixed)
        self._code[0][1:4] = [0, fixed, 1]
        self._code[1][1:4] = [fixed, fixed + len(self._changing), 0]
        return Tape(
            _table(self._code),
            _table([*self._fixed, *self._changing]),
            np.array(self._area, np.int64),
            np.array(self._entries, np.int64),
            self._calls,
        )

    def _emit(self, op: Op, *values: int) -> None:
        self._code.append([op, *values, *[0] * (ROW - 1 - len(values))])

    def _cell(self, address: Word) -> int:
        return self.block([address]).offset // 8

    def _relocate(self, word: int, operand: Operand, further: int = 0) -> None:
        strides = operand.strides
        if len(strides) > len(self._loops):
            raise CompileError("an address moves with a loop that is not open")
        rows = self._changing if operand.slot in self._dynamic else self._fixed
        levels = _STILL
        if strides:
            levels = (*strides, *_STILL[len(strides) :])
            moving = max((level for level, step in enumerate(strides) if step), default=-1)
            rows = self._loops[moving].relocations if moving >= 0 else rows
        rows.append([word, operand.slot, operand.offset + further, *levels, operand.thread])


@dataclass(frozen=True, slots=True)
class _OpenLoop:
    head: int
    relocations: list[list[int]]


def _table(rows: list[list[int]]) -> Words:
    return np.array(rows, np.int64).reshape(len(rows), ROW)


def encode(
    schedule: Schedule,
    places: Mapping[int, Operand],
    dynamic: frozenset[int],
    serial: bool,
) -> Tape:
    """The tape of ``schedule``, with the numbers that its ``kernels`` have there.

    ``places`` tells the slot and offset of every buffer.  ``serial`` leaves
    barriers out: the tape is then for one thread only.  Failures are checked
    before a host call, before the first write of state that follows a fallible
    call, and at the end.
    """
    total = points(schedule.steps)
    meet = (False,) * total if serial else barriers(schedule)
    encoder = _Encoder(schedule, places, TapeBuilder(dynamic), meet, serial)
    encoder.steps(schedule.steps)
    encoder.guard.check()
    return encoder.builder.finish()


class _Encoder:
    """Writes steps to a tape; ``meet`` are the points at which threads meet."""

    def __init__(
        self,
        schedule: Schedule,
        places: Mapping[int, Operand],
        builder: TapeBuilder,
        meet: Sequence[bool],
        serial: bool,
    ) -> None:
        self.places, self.builder = places, builder
        self._numbers = {kernel: number for number, kernel in enumerate(schedule.kernels)}
        self.guard = _Guard(builder, serial)
        self._meet, self._serial = iter(meet), serial
        self._committed = frozenset(schedule.committed)
        self._hosts = 0
        self._apart = False  # inside a loop whose iterations each thread runs by itself

    def steps(self, steps: Sequence[Step]) -> None:
        """Write ``steps`` in order."""
        for step in steps:
            if isinstance(step, Loop):
                self._loop(step)
            elif isinstance(step, Branch):
                self._branch(step)
            elif isinstance(step, HostCall):
                self._host(step)
            elif isinstance(step, Call):
                self._call(step)
            else:
                raise CompileError(f"{step.routine.name} by a library is not for the processor")

    def _barrier(self) -> None:
        if next(self._meet):
            self.guard.barrier()

    def _host(self, step: HostCall) -> None:
        next(self._meet)
        self.guard.check()
        done = -1
        if step.attempt is not None and self._serial:
            operands = (*(buffer for buffer, _ in step.inputs), step.output)
            words = [self.places[buffer] for buffer in operands]
            done = self.builder.attempt(self._numbers[step.attempt], words)
        self.builder.host(self._hosts)
        if done >= 0:
            self.builder.target(done)
        self._hosts += 1

    def _call(self, step: Call) -> None:
        self._barrier()
        if not self._committed.isdisjoint(step.writes):
            self.guard.check()
        if step.fallible:
            self.guard.fallible()
        builder, places, numbers = self.builder, self.places, self._numbers
        words = [  # numbers are most of a plan's arguments
            a.value if a.__class__ is Value else _word(builder, a, places, numbers)
            for a in step.arguments
        ]
        who = Who.EACH if self._apart else Who.ALL if step.parallel else Who.FIRST
        builder.call(numbers[step.kernel], words, who)
        self.guard.called()

    def _loop(self, step: Loop) -> None:
        self._barrier()
        self.guard.joined(step)
        self.builder.loop(step.trips, step.parallel)
        around, self._apart = self._apart, self._apart or step.parallel
        self.steps(step.head)
        leave = -1
        if step.test is not None:
            self._barrier()
            # A condition computed from rubbish might hold for ever.
            self.guard.check()
            leave = self.builder.branch(Jump.IF_FALSE, self._address(step.test))
        self.steps(step.body)
        self._apart = around
        self.builder.end_loop()
        if leave >= 0:
            self.builder.target(leave)
        self.guard.joined(step)

    def _branch(self, step: Branch) -> None:
        self._barrier()
        other = self.builder.branch(Jump.IF_FALSE, self._address(step.test))
        self.guard.joined(step)
        self.steps(step.then)
        end = self.builder.branch(Jump.ALWAYS)
        self.builder.target(other)
        self.guard.joined(step)
        self.steps(step.otherwise)
        self.builder.target(end)
        self.guard.joined(step)

    def _address(self, address: Address) -> Operand:
        place = self.places[address.buffer]
        offset = place.offset + address.offset
        return Operand(place.slot, offset, place.strides, place.thread)


class _Guard:
    """Places checks of the error word, and the barriers they need.

    All threads must read the same word at a check, or some would stop and the
    others wait for them for ever: nobody may still be about to write it before
    the check, nor write it before all have read it.
    """

    def __init__(self, builder: TapeBuilder, serial: bool) -> None:
        self._builder, self._serial = builder, serial
        self._at_stake = False  # a fallible call since the last check
        self._reading = False  # a check since the last barrier
        self._met = True  # no call since the last barrier

    def called(self) -> None:
        self._met = False

    def joined(self, step: Loop | Branch) -> None:
        """Ways through parts of ``step`` lead here: past calls that can fail, or checks."""
        self._met = False
        self._at_stake = self._at_stake or step.fallible
        self._reading = self._reading or (step.fallible and _has_checks(step))

    def barrier(self) -> None:
        self._builder.barrier()
        self._reading, self._met = False, True

    def check(self) -> None:
        if self._at_stake:
            if not self._serial and not self._met:
                self.barrier()
            self._builder.check()
            self._at_stake, self._reading = False, True

    def fallible(self) -> None:
        if self._reading and not self._serial:
            self.barrier()
        self._at_stake = True


def _has_checks(step: Step) -> bool:
    """Whether the error word is checked inside ``step``: before host calls and conditions."""
    if isinstance(step, Loop) and step.test is not None:
        return True
    if isinstance(step, (Loop, Branch)):
        return any(_has_checks(inner) for part in step.parts for inner in part)
    return isinstance(step, HostCall)


def _word(
    builder: TapeBuilder,
    argument: Argument,
    places: Mapping[int, Operand],
    numbers: Mapping[KernelSource, int],
) -> Word:
    """An argument as a word of the area, or as an address to resolve."""
    if isinstance(argument, Value):
        return argument.value
    if isinstance(argument, Address):
        return places[argument.buffer], argument.offset
    if isinstance(argument, FunctionAddress):
        return KernelNumber(numbers[argument.kernel])
    inner = [_word(builder, a, places, numbers) for a in argument.arguments]
    return builder.block(inner)
