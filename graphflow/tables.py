"""Plain text tables and durations, for everything GraphFlow prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns: the first to the left, the others to the right.

    >>> print(table(["mode", "ms"], [["static", 1], ["eager", 20]]))
    mode    ms
    ------  --
    static   1
    eager   20
    """
    cells = [[str(cell) for cell in row] for row in rows]
    lines = [list(headers), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first = line[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
    return "  ".join((first, *rest)).rstrip()


def duration(seconds: float) -> str:
    """Three significant digits with the unit that suits: ``12.3 ms``."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if abs(seconds) * factor >= 1 or unit == "µs":
            return f"{significant(seconds * factor)} {unit}"
    raise AssertionError("the last unit takes everything")


def quantity(count: float) -> str:
    """A number of bytes: ``1.50 MB``."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(count) >= factor:
            return f"{significant(count / factor)} {unit}"
    return f"{count:.0f} B"


def significant(value: float, digits: int = 3) -> str:
    """``value`` with this many significant digits and no exponent: 0.0123, 1.50, 345."""
    if value == 0 or value != value or abs(value) in (float("inf"),):
        return f"{value:.0f}"
    whole = len(f"{abs(value):.0f}") if abs(value) >= 1 else 0
    decimals = digits - whole
    if whole == 0:
        scaled = abs(value)
        while scaled < 0.1 and decimals < 9:
            scaled *= 10
            decimals += 1
    return f"{value:.{max(decimals, 0)}f}"
