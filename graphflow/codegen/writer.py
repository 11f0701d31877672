"""Indented text, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

INDENT = "    "


class Writer:
    """Collects lines; ``with w.block("for i in range(n):")`` indents what follows."""

    __slots__ = ("_lines", "_prefix")

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._prefix = ""

    def line(self, text: str = "") -> None:
        """Append one line at the present depth."""
        self._lines.append(self._prefix + text if text else "")

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """Append ``header`` and indent until the block is left."""
        self.line(header)
        before, self._prefix = self._prefix, self._prefix + INDENT
        length = len(self._lines)
        yield
        if len(self._lines) == length:
            self.line("pass")
        self._prefix = before

    def text(self) -> str:
        """Everything written, ending in a newline."""
        return "\n".join(self._lines) + "\n"
