"""What every rank of a job on one machine is doing, in a small file that all of them map.

MPI cannot tell who is missing from a collective, nor that two ranks are in different ones.
Each rank writes here which one it comes to before it starts it, so that those who wait can say
for whom, and that no result of two different calls is used.  ``graphflow launch`` makes the file.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from graphflow.records import dataclass
from graphflow.runtime.storage import address_of

_KEPT = 64
_LENGTH = 80
_UNWATCHED_SECONDS = 5.0
_ENTRY = np.dtype(
    [
        ("seen", "i8"), ("stage", "i8"), ("pid", "i8"), ("watched", "i8"),
        ("number", "i8", (_KEPT,)), ("what", f"S{_LENGTH}", (_KEPT,)),
    ]
)  # fmt: skip
_PLACES: Any = _ENTRY.fields
_SEEN, _NUMBER, _WHAT = (int(_PLACES[name][1]) for name in ("seen", "number", "what"))
"""Where fields begin, in bytes.  NumPy's records cost 1 µs a look."""


class Stage(enum.IntEnum):
    """Where a rank is in its life."""

    ABSENT = 0
    RUNNING = 1
    COMPILING = 2
    ENDED = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One rank: ``seen`` collectives so far, the last of them ``what``."""

    rank: int
    stage: Stage
    seen: int
    what: str
    pid: int


class Board:
    """The file, as this rank sees it."""

    def __init__(self, file: Path, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._lines: Any = np.memmap(file, _ENTRY, "r+", shape=(size,))
        self._own = self._lines[rank]
        self._bytes: memoryview = self._lines.view(np.uint8).data
        self._words = self._bytes.cast("q")
        self._own["pid"] = os.getpid()
        self._address = address_of(self._lines)
        self.stage(Stage.RUNNING)

    @staticmethod
    def create(file: Path, size: int, watched: bool = True) -> None:
        """An empty board for ``size`` ranks, whose ends somebody will watch, or nobody."""
        empty = np.zeros(size, _ENTRY)
        empty["watched"] = not watched
        empty.tofile(file)

    def await_watcher(self) -> None:
        """Return when ``graphflow launch`` would see this rank end (or is too busy to look)."""
        give_up = time.monotonic() + _UNWATCHED_SECONDS
        while not self._own["watched"] and time.monotonic() < give_up:
            time.sleep(0.001)

    def stage(self, stage: Stage) -> None:
        """This rank has come to ``stage``."""
        self._own["stage"] = int(stage)

    def busy(self, on: bool) -> None:
        """This rank compiles (or waits until another has), or goes on."""
        self.stage(Stage.COMPILING if on else Stage.RUNNING)

    def come_to(self, what: str) -> int:
        """This rank comes to another collective; its number."""
        number = self.seen + 1
        slot, words = number % _KEPT, self._words
        begin, said = self._place(self.rank, slot), self._number_place(self.rank, slot) // 8
        words[said] = 0  # the words of two numbers are never one's
        self._bytes[begin : begin + _LENGTH] = description(what)
        words[said] = words[self._seen_place // 8] = number
        return number

    @property
    def seen(self) -> int:
        """The number of this rank's last collective: Python's, or a kernel's."""
        return self._words[self._seen_place // 8]

    def words_for(self, other: int) -> Sequence[int]:
        """What kernels that come to collectives have to know of the board.

        Rank ``other`` is the one that has to come to the same ones.  See
        :class:`graphflow.ir.ops.shared_sums.Head`, from SEEN to TEXT_WORDS.
        """
        start, ranks = self._address, (self.rank, other)
        return (
            start + self._seen_place, _KEPT,
            *(start + self._number_place(rank, 0) for rank in ranks),
            *(start + self._place(rank, 0) for rank in ranks), _LENGTH // 8,
        )  # fmt: skip

    @property
    def _seen_place(self) -> int:
        """Where this rank says how many collectives it has come to, in bytes."""
        return self.rank * _ENTRY.itemsize + _SEEN

    def _number_place(self, rank: int, slot: int) -> int:
        """Where ``rank`` says which collective is described in ``slot``, in bytes."""
        return rank * _ENTRY.itemsize + _NUMBER + 8 * slot

    def _number(self, rank: int, slot: int) -> int:
        """Of which collective ``rank`` says in ``slot`` what it is; 0 while it writes there."""
        return self._words[self._number_place(rank, slot) // 8]

    def _place(self, rank: int, slot: int) -> int:
        """Where ``rank`` says what its collective in ``slot`` is, in bytes."""
        return rank * _ENTRY.itemsize + _WHAT + slot * _LENGTH

    def others(self) -> list[Entry]:
        """The other ranks."""
        return [entry for entry in entries(self._lines) if entry.rank != self.rank]

    def astray(self, number: int) -> tuple[int, str] | None:
        """A rank whose collective ``number`` is another than this rank's, and which it is.

        None where this rank has begun so many since that it says no longer what that one was.
        """
        slot = number % _KEPT
        if self._number(self.rank, slot) != number:
            return None
        begin = self._place(self.rank, slot)
        own = self._bytes[begin : begin + _LENGTH]
        for rank in range(self.size):
            begin = self._place(rank, slot)
            if self._number(rank, slot) != number:
                continue
            said = bytes(self._bytes[begin : begin + _LENGTH])
            if said != own and self._number(rank, slot) == number:  # it was not written meanwhile
                return rank, said.rstrip(b"\0").decode()
        return None


@cache
def description(what: str) -> bytes:
    """What a rank writes down that comes to ``what``."""
    return what.encode()[:_LENGTH].ljust(_LENGTH, b"\0")


def entries(lines: Any) -> list[Entry]:
    """The ranks on a board, as they are now."""
    return [
        Entry(
            rank, Stage(int(line["stage"])), int(line["seen"]),
            line["what"][int(line["seen"]) % _KEPT].decode(), int(line["pid"]),
        )
        for rank, line in enumerate(lines)
    ]  # fmt: skip


def read_board(file: Path) -> list[Entry]:
    """The ranks on the board in ``file``."""
    return entries(np.fromfile(file, _ENTRY))


class Watched:
    """The file as the launcher sees it, who tells ranks that it will see them end."""

    def __init__(self, file: Path) -> None:
        self._lines: Any = np.memmap(file, _ENTRY, "r+")

    def entries(self) -> list[Entry]:
        """The ranks, as they are now."""
        return entries(self._lines)

    def mark(self, rank: int) -> None:
        """The end of ``rank`` will be seen."""
        self._lines[rank]["watched"] = 1


_posted: list[Board] = []


def post(board: Board) -> None:
    """Let this process keep its line of ``board``."""
    _posted[:] = [board]


def posted() -> Board | None:
    """This process's board, if it has one."""
    return _posted[0] if _posted else None
