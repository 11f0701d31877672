"""What a program keeps between calls: its memory, and whether it still holds.

Results that depend on state alone are made again when some of that state was written to
(its ``version`` counts), lies elsewhere, or is memory that others may write to unseen
(``shared``: NumPy has a view of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from graphflow.codegen.schedule import BufferKind, Schedule
from graphflow.runtime.storage import empty


class Holder(Protocol):
    """What a state can be bound to: row-major memory at ``address``, alive as long as it is."""

    version: int
    """How often it was written to."""

    @property
    def address(self) -> int:
        """Where the memory starts."""

    @property
    def shared(self) -> bool:
        """Whether it may be written to without another version."""


_Seen: TypeAlias = "tuple[Sequence[Holder], list[int]]"
"""State by identity, and its versions."""


class Kept:
    """The kept buffers of a schedule, and the state they were made of.

    :meth:`look` before a run and :meth:`done` after it, both under the program's lock.
    """

    __slots__ = ("_flag", "_next", "_seen", "storages")

    def __init__(self, schedule: Schedule) -> None:
        self.storages = {
            buffer.id: empty(buffer.type.static_shape, buffer.type.dtype.numpy)
            for buffer in schedule.buffers
            if buffer.kind is BufferKind.KEPT
        }
        found = self.storages.get(schedule.stale)
        self._flag = None if found is None else found.array
        self._seen: _Seen | None = None
        self._next: _Seen | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(storage.nbytes for storage in self.storages.values())

    def look(self, watched: Sequence[Holder]) -> None:
        """Ask for what is kept to be made in the coming run, unless it is what ``watched``,
        the state it depends on, would make."""
        if self._flag is None:
            return
        now = self._next = watched, [holder.version for holder in watched]
        stale = now != self._seen or any(holder.shared for holder in watched)
        self._flag[...] = stale
        if stale:
            self._seen = None

    def done(self) -> None:
        """The run is over, and it went well."""
        self._seen = self._next
