"""Ranks of a job that compile the same programs: one does, the others read what it stored.

Programs are made in turn, under a lock in the kernel cache that the operating system frees when
its holder dies.  Who comes later finds the plan and the kernels in the cache, and links them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from graphflow.runtime.folder import usable_folder


class _Turns:
    """This process's part: ``busy`` is told when it waits or compiles, and when that is over."""

    def __init__(self) -> None:
        self.shared = False
        self.busy: Callable[[bool], None] = lambda on: None
        self.inside = threading.RLock()
        self.depth = 0


_turns = _Turns()


def share_compilation(shared: bool, busy: Callable[[bool], None] | None = None) -> None:
    """Say that other processes of this machine compile the same programs (or no longer)."""
    _turns.shared = shared
    _turns.busy = (lambda on: None) if busy is None else busy


def is_compilation_shared() -> bool:
    """Whether this process is one of several that compile the same programs."""
    return _turns.shared


@contextmanager
def turn() -> Iterator[None]:
    """The stretch in which a program is made: one process at a time, if others make it too."""
    if not _turns.shared:
        yield
        return
    with _turns.inside:
        _turns.depth += 1
        try:
            if _turns.depth > 1:
                yield
                return
            _turns.busy(True)
            with _locked(usable_folder()):
                yield
        finally:
            _turns.depth -= 1
            if not _turns.depth:
                _turns.busy(False)


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    try:
        import fcntl

        if folder is None:
            raise OSError
        file = open(folder / "turn.lock", "ab")
    except (ImportError, OSError):  # each compiles for itself, then
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
