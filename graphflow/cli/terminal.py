"""Colours and width, where the output is a terminal; plain text where it is not.

``NO_COLOR`` turns colours off, ``FORCE_COLOR`` on, as with other programs.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable

_CODES = {
    "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36",
    "bold": "1", "dim": "2",
}  # fmt: skip
_NODE = re.compile(r"(\s*)(%\S+)(: )(.+?)( = )([\w.]+)(\(.*?)(  # .*)?")
_MARKS = {"-": "red", "+": "green", "?": "dim", "@": "magenta"}


def coloured() -> bool:
    """Whether standard output shows colours."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """Columns of the terminal; None where lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def paint(text: str, style: str) -> str:
    """``text`` in a colour (or ``bold``, ``dim``), if standard output shows them."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if text and coloured() else text


def shorten(line: str, columns: int | None) -> str:
    """``line``, cut to so many columns."""
    return line if columns is None or len(line) <= columns else f"{line[: columns - 1]}…"


def ir(lines: Iterable[str]) -> str:
    """Lines of IR: values, types, operations and places told apart, cut to the width."""
    return "\n".join(_ir_line(shorten(line, width())) for line in lines)


def _ir_line(line: str) -> str:
    if line.startswith("# "):
        return paint(line, "bold")
    found = _NODE.fullmatch(line)
    if found is None:
        return paint(line, "dim") if line.lstrip()[:1] in ("#", "|") else line
    indent, label, colon, type, equals, op, rest, place = found.groups()
    return "".join(
        [
            indent, paint(label, "cyan"), colon, paint(type, "green"), equals,
            paint(op, "bold"), rest, paint(place or "", "dim"),
        ]
    )  # fmt: skip


def difference(lines: Iterable[tuple[str, str]]) -> str:
    """Marked lines of a difference: removed red, added green."""
    return "\n".join(
        paint(shorten(f"{mark} {text}", width()), _MARKS[mark]) for mark, text in lines
    )
