"""The tape: a schedule as int64 tables that native code walks.

Every instruction is a row of eight words, its operation first::

    CALL     kernel address, byte offset of its arguments, parallel, call number
    BARRIER                                  all threads meet
    RESOLVE  first, end, once                fill in relocations (see below)
    LOOP     level                           start counting
    NEXT     level, trips, word, exit        next iteration, or jump to exit
    BRANCH   mode, word, target              jump always / if the byte is 0 / if it is not
    HOST     number                          return to Python; resume after it
    CHECK                                    stop if a fallible call failed
    END

Every thread walks the whole tape with its own *area*: the argument blocks of all
calls, one after the other.  What depends on where buffers lie is a
*relocation*, a row of eight words::

    word of the area, slot, byte offset, bytes per iteration of loop 0, 1, 2, 3, (unused)

``RESOLVE`` sets the word to ``slots[slot] + offset + sum(stride * counter)``; slot
-1 is the area itself.  Python writes only the slots of inputs and outputs at a
call; each thread resolves for itself, so nothing need be copied or awaited.
``NEXT`` and ``BRANCH`` find the trip count (int64) or condition (one byte) through a
word of the area that holds its address, which may itself be relocated.  All
threads read them, each in its own time, so a barrier must lie between that and
any call that writes them, before and after.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from graphflow.records import dataclass, replace

Words: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

ROW = 8
"""Words of an instruction and of a relocation."""
AREA_HEADER = 8
"""Words at the start of an area: the generation it is resolved for, then loop counters."""
COUNTERS = 4
"""Word of the area where the loop counters start."""
TAKEN = 5
"""Word of a NEXT that says where in the first thread's area is counted what threads took."""
SELF = -1
"""The slot that means the thread's own area."""


class Op(enum.IntEnum):
    """What an instruction does."""

    END = 0
    CALL = 1
    BARRIER = 2
    RESOLVE = 3
    LOOP = 4
    BRANCH = 5
    HOST = 6
    CHECK = 7
    NEXT = 8


class Who(enum.IntEnum):
    """Who runs a CALL."""

    FIRST = 0  # thread 0
    ALL = 1  # every thread its share
    EACH = 2  # every thread the whole of it, by itself


class Jump(enum.IntEnum):
    """When a BRANCH jumps."""

    ALWAYS = 0
    IF_FALSE = 1
    IF_TRUE = 2


@dataclass(frozen=True, slots=True)
class Operand:
    """An address in the area: slot, byte offset, bytes per iteration of each open loop, and
    from one thread to the next."""

    slot: int
    offset: int = 0
    strides: tuple[int, ...] = ()
    thread: int = 0


@dataclass(frozen=True, slots=True)
class Tape:
    """The encoded tables.  ``area`` is the template every thread's area starts from.

    Until it is :meth:`linked`, a tape has the numbers of kernels where their addresses will be:
    in its calls, and in the words ``entries`` of the area.  It can be kept for other processes.
    """

    code: Words
    relocations: Words
    area: Words
    entries: Words
    calls: int

    def linked(self, addresses: Sequence[int]) -> Tape:
        """This tape for kernels that lie at ``addresses``, which are in the order of numbers."""
        places = np.array(addresses, np.int64)
        code, area = self.code.copy(), self.area.copy()
        calls = code[:, 0] == Op.CALL
        code[calls, 1] = places[code[calls, 1]]
        area[self.entries] = places[area[self.entries]]
        return replace(self, code=code, area=area)

    def __str__(self) -> str:
        """One instruction a line, for people."""
        lines = []
        for position, row in enumerate(self.code):
            values = " ".join(map(str, row[1:]))
            lines.append(f"{position:4d}  {Op(int(row[0])).name.lower():8s}{values}")
        return "\n".join(lines)
