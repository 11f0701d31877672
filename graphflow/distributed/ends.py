"""Which rank of a job ended first, and how: what Linux says about the processes on the board.

mpiexec names a rank, too, but after it has killed the others it takes the first in order that
did not end well, and mixes the exit statuses of all.  An epoll object gives ends in the order in
which they were, even when all of them are there by the time somebody looks.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import threading
from contextlib import suppress
from pathlib import Path

from graphflow.distributed.board import Entry, Stage, Watched

_LOOK_SECONDS = 0.05
_MISSING_SECONDS = 0.005
"""Ranks wait at their start until they are watched."""
_INFO = struct.Struct("=QQ11Ii")
"""``struct pidfd_info`` of include/uapi/linux/pidfd.h: what is asked for and given, a cgroup, 11
numbers of the process and its users, and how it ended, as ``wait`` says it."""
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_INFO_EXIT = 1 << 3


class Ends:
    """The processes of the ranks on a board, watched until the first that was not at its end."""

    def __init__(self, board: Path, ranks: int) -> None:
        self._board, self._ranks = Watched(board), ranks
        self._descriptors: dict[int, Entry] = {}
        self._waiting = select.epoll()
        self._ended: list[tuple[Entry, int]] = []
        self.first: Entry | None = None
        """The first that had not come to the end of its script."""

    @staticmethod
    def can_be_known() -> bool:
        """Whether this system tells of the ends of processes that are not our children."""
        return hasattr(os, "pidfd_open") and hasattr(select, "epoll")

    def watch(self, over: threading.Event) -> None:
        """Return when a rank has ended before its script, or ``over`` is set."""
        at_end = False
        while self.first is None and not at_end:
            at_end = over.is_set()  # once more after that: the last ends are there by then
            self._open_missing()
            seconds = _LOOK_SECONDS if self._all_open() else _MISSING_SECONDS
            for descriptor, _ in self._waiting.poll(seconds):
                self._waiting.unregister(descriptor)
                self._gone(self._descriptors[descriptor].rank, descriptor)

    def failed(self) -> tuple[Entry | None, int | None]:
        """The first that did not end well, and how, as ``os.waitstatus_to_exitcode`` says it.

        How is None if Linux (before 6.15) does not say, or while nobody has waited for the
        process.  A rank that dies after the end of its script is only known by how.
        """
        for entry, descriptor in self._ended:
            status = _status(descriptor)
            if status or entry.stage is not Stage.ENDED:
                return entry, status
        return None, None

    def stop(self) -> None:
        """End all ranks that are still there, those at their end too: they wait for one that is
        not."""
        for descriptor in list(self._descriptors):
            with suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def close(self) -> None:
        """Give everything back."""
        self._waiting.close()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _all_open(self) -> bool:
        return len(self._descriptors) == self._ranks

    def _open_missing(self) -> None:
        if self._all_open():
            return
        known = {entry.rank for entry in self._descriptors.values()}
        for entry in self._board.entries():
            if entry.pid and entry.rank not in known:
                try:
                    descriptor = os.pidfd_open(entry.pid)
                except ProcessLookupError:  # it did not wait for us
                    self._gone(entry.rank, -1)
                    continue
                self._descriptors[descriptor] = entry
                self._waiting.register(descriptor, select.EPOLLIN)
                self._board.mark(entry.rank)

    def _gone(self, rank: int, descriptor: int) -> None:
        entry = self._board.entries()[rank]
        self._ended.append((entry, descriptor))
        if entry.stage is not Stage.ENDED and self.first is None:
            self.first = entry


def _status(descriptor: int) -> int | None:
    """How the process of a descriptor ended, if Linux says."""
    if descriptor < 0:
        return None
    import fcntl

    found = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(descriptor, _GET_INFO, found)
    except OSError:
        return None
    given, *_, code = _INFO.unpack(found)
    return os.waitstatus_to_exitcode(code) if given & _INFO_EXIT else None
