"""The tracked table of what passes: one line an entry, and it may only grow."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.outcome import MODES, Outcome

PATH = Path(__file__).parent / "table.txt"
KINDS = (
    "operations",
    "beside",
    "modules",
    "optimisers",
    "models",
    "loops",
    "distributions",
    "transforms",
    "surface",
)


@dataclass
class Row:
    """One entry: ``passed/total``, ``apart`` or ``-`` a mode, and its host calls."""

    cells: dict[str, str] = field(default_factory=lambda: dict.fromkeys(MODES, "-"))
    host: tuple[str, ...] = ()


@functools.cache
def names(file: str) -> tuple[str, ...]:
    """The names that a tracked list holds, one a line."""
    lines = (PATH.parent / file).read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def cell(outcome: Outcome) -> str:
    """What the table shows of an outcome."""
    if outcome.state in ("apart", "none"):
        return "apart" if outcome.state == "apart" else "-"
    return f"{outcome.passed}/{outcome.total}"


def passes(shown: str) -> bool:
    """Whether a cell says that every sample passed."""
    passed, slash, total = shown.partition("/")
    return bool(slash) and passed == total


def kind_of(key: str) -> str:
    """Which of KINDS an entry is."""
    if key.startswith("optim."):
        return "optimisers"
    for kind in ("models", "loops", "distributions", "transforms", "surface"):
        if key.startswith(f"{kind}."):
            return kind
    if key.partition(":")[0] in names("beside.txt"):
        return "beside"
    name = key.removeprefix("nn.")
    return "modules" if name != key and name[0].isupper() else "operations"


def read(path: Path = PATH) -> dict[str, Row]:
    """The rows of the table by entry."""
    rows: dict[str, Row] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        if line and not line.startswith("#"):
            key, *cells = line.split()
            shown, host = cells[: len(MODES)], cells[len(MODES) :]
            rows[key] = Row(dict(zip(MODES, shown, strict=True)), tuple(host))
    return rows


def merge(rows: Mapping[str, Row], outcomes: Mapping[tuple[str, str], Outcome]) -> dict[str, Row]:
    """``rows`` with what was run now in place of what was there."""
    merged = {key: Row(dict(row.cells), row.host) for key, row in rows.items()}
    for (key, mode), outcome in outcomes.items():
        row = merged.setdefault(key, Row())
        row.cells[mode] = cell(outcome)
        if mode == "compiled":
            row.host = tuple(sorted(outcome.host))
    return merged


def lost(before: Mapping[str, Row], now: Mapping[str, Row]) -> list[str]:
    """What passed before and does not now: a line each."""
    lines = []
    for key, old in before.items():
        new = now.get(key)
        if new is None:
            lines.append(f"{key}: no longer measured")
            continue
        for mode in MODES:
            if passes(old.cells[mode]) and not passes(new.cells[mode]):
                lines.append(f"{key} {mode}: {new.cells[mode]}, was {old.cells[mode]}")
        if passes(old.cells["compiled"]) and set(new.host) - set(old.host):
            lines.append(f"{key}: calls the host for {', '.join(new.host)}")
    return lines


def gained(before: Mapping[str, Row], now: Mapping[str, Row]) -> list[str]:
    """What passes now and did not before: ``entry mode``."""
    return [
        f"{key} {mode}"
        for key, row in now.items()
        for mode in MODES
        if passes(row.cells[mode]) and not (key in before and passes(before[key].cells[mode]))
    ]


def totals(rows: Mapping[str, Row]) -> list[str]:
    """For each kind of entry, how many pass in each mode."""
    lines = []
    for kind in KINDS:
        chosen = [row for key, row in rows.items() if kind_of(key) == kind]
        parts = []
        for mode in MODES:
            counted = [row.cells[mode] for row in chosen if "/" in row.cells[mode]]
            if counted:
                good = sum(map(passes, counted))
                parts.append(f"{mode} {good}/{len(counted)} ({good / len(counted):.1%})")
        if parts:
            lines.append(f"{kind}: " + ", ".join(parts))
        apart = sum(row.cells["compiled"] == "apart" for row in chosen)
        if apart:
            lines.append(f"{kind} whose results have unknown sizes, not compiled: {apart}")
        compiled = [row for row in chosen if passes(row.cells["compiled"])]
        if compiled and kind == "operations":
            free = sum(not row.host for row in compiled)
            share = free / len([row for row in chosen if "/" in row.cells["compiled"]])
            lines.append(f"compiled without a host call: {free} ({share:.1%})")
    return lines


def write(rows: Mapping[str, Row], path: Path = PATH) -> None:
    """Rewrite the table, sorted, totals first."""
    width = max(map(len, rows), default=0)
    lines = [
        "# What passes of PyTorch's own samples (float32, CPU): passed/total samples a mode,",
        "# '-' where there is nothing to check, then the operations a compiled call leaves to",
        "# the host. Written by python -m tests.conformance --update; read by --table.",
        *(f"# {line}" for line in totals(rows)),
        "# " + "entry".ljust(width - 2) + "".join(mode.rjust(15) for mode in MODES),
    ]
    for key in sorted(rows, key=lambda k: (KINDS.index(kind_of(k)), k)):
        row = rows[key]
        shown = "".join(row.cells[mode].rjust(15) for mode in MODES)
        lines.append(" ".join([key.ljust(width) + shown, *row.host]))
    path.write_text("\n".join(lines) + "\n")
