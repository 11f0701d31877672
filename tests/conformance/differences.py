"""The part of ``docs/differences.md`` that follows from the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.conformance import table
from tests.conformance.outcome import MODES
from tests.conformance.table import Row

PAGE = Path(__file__).parent.parent.parent / "docs" / "differences.md"
START = "<!-- from the conformance table: python -m tests.conformance --update -->"
END = "<!-- end of what follows from the table -->"
TITLES = {
    "eager": "Results that differ",
    "compiled": "Compiled results that differ",
    "grad": "Gradients that differ",
    "compiled-grad": "Compiled gradients that differ",
    "in-place": "In-place forms that differ",
    "errors": "Bad arguments of which some are accepted, or refused for want of the operation",
}
WIDTH = 120


def page(rows: Mapping[str, Row], text: str) -> str:
    """``text`` with the part between the marks written anew."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{PAGE.name} has lost the lines that mark its generated part")
    return f"{before}{START}\n\n{_generated(rows)}\n{END}{after}"


def _generated(rows: Mapping[str, Row]) -> str:
    lines = ["Entries of PyTorch's databases of which every sample passes:", ""]
    lines += [f"- {line}" for line in table.totals(rows)]
    for mode in MODES:
        failing = {
            key: row.cells[mode] for key, row in rows.items()
            if "/" in row.cells[mode] and not table.passes(row.cells[mode])
        }  # fmt: skip
        # What is wrong eagerly is wrong compiled too; it is named once.
        if mode in ("compiled", "compiled-grad"):
            eager = "eager" if mode == "compiled" else "grad"
            failing = {k: v for k, v in failing.items() if table.passes(rows[k].cells[eager])}
        if failing:
            shown = (f"`{key}` {cell}" for key, cell in sorted(failing.items()))
            lines += ["", f"### {TITLES[mode]} ({len(failing)})", "", *_wrapped(shown)]
    apart = sorted(k for k, row in rows.items() if row.cells["compiled"] == "apart")
    if apart:
        lines += ["", f"### Eager only: the shape of the result depends on values ({len(apart)})"]
        lines += ["", *_wrapped(f"`{key}`" for key in apart)]
    host: dict[str, list[str]] = {}
    for key, row in sorted(rows.items()):
        for name in row.host:
            host.setdefault(name, []).append(key)
    if host:
        lines += ["", f"### Left to NumPy inside compiled programs ({len(host)} operations)"]
        lines += ["", *_wrapped(f"`{name}`" for name in sorted(host))]
    return "\n".join(lines) + "\n"


def _wrapped(items: Iterable[str]) -> list[str]:
    """Items separated by commas in lines of readable length."""
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) + 2 > WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += f"{item}, "
    return [*lines, line.rstrip(", ")]


def update(rows: Mapping[str, Row]) -> None:
    """Rewrite the page's generated part."""
    PAGE.write_text(page(rows, PAGE.read_text()))
