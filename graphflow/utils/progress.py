"""A progress bar in one file and without dependencies."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import IO, TypeVar

T = TypeVar("T")

_WIDTH = 24
_INTERVAL = 0.1  # seconds between two drawings


class Progress(Iterable[T]):
    """Iterate over ``items`` and show how far it got, with a note that may change.

    On a terminal a bar is redrawn in place, with the items a second and the time left;
    elsewhere nothing is drawn until the end, which writes one line.  ``bar.note = "loss 0.12"``
    sets the text after it.  ``begun``: items of ``total`` that were done before.
    """

    def __init__(
        self,
        items: Iterable[T],
        label: str = "",
        total: int | None = None,
        stream: IO[str] | None = None,
        begun: int = 0,
    ) -> None:
        self.items = items
        self.label = label
        if total is None:  # a stream's loader has a length, but does not know it
            total = length_hint(items, -1)
        self.total = None if total < 0 else total
        self.note = ""
        self.begun = begun
        self._stream = sys.stderr if stream is None else stream

    def __iter__(self) -> Iterator[T]:
        live = self._stream.isatty()
        begin = drawn = time.monotonic()
        done = 0
        for item in self.items:
            yield item
            done += 1
            now = time.monotonic()
            if live and now - drawn >= _INTERVAL:
                self._stream.write("\r" + self._line(done, now - begin) + "\x1b[K")
                self._stream.flush()
                drawn = now
        line = self._line(done, time.monotonic() - begin)
        self._stream.write(f"\r{line}\x1b[K\n" if live else f"{line}\n")
        self._stream.flush()

    def _line(self, done: int, seconds: float) -> str:
        rate = f"{done / seconds:.0f}/s" if seconds > 0 else ""
        if self.total and 0 < done < self.total - self.begun:
            rate += f", {clock(seconds / done * (self.total - self.begun - done))} left"
        done += self.begun
        share = 1.0 if not self.total else min(1.0, done / self.total)
        bar = ("█" * round(_WIDTH * share)).ljust(_WIDTH, "·")
        count = f"{done}/{self.total}" if self.total is not None else str(done)
        return "  ".join(part for part in (self.label, bar, count, rate, self.note) if part)


def clock(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``1:02:03``."""
    hours, rest = divmod(round(seconds), 3600)
    start = f"{hours}:{rest // 60:02d}" if hours else str(rest // 60)
    return f"{start}:{rest % 60:02d}"
