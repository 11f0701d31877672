"""A profile: rows of kernels and eager operations, and their tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from graphflow.profiling.limits import Limits
from graphflow.records import dataclass, field
from graphflow.tables import duration, quantity, table


@dataclass(frozen=True)
class Row:
    """One kernel of a program, or one eager operation of a user line.

    ``seconds`` is of one run (the mean of ``runs``); ``share`` the part of the machine's limit
    for so many bytes and operations that was reached, ``None`` where neither is known.
    ``mode`` is ``static`` or ``eager``; ``owner`` the program's name.
    """

    mode: str
    owner: str
    name: str
    runs: int
    seconds: float
    bytes: int
    flops: int
    share: float | None
    line: str
    module: str
    ir: str = ""

    @property
    def total(self) -> float:
        """Seconds of all runs."""
        return self.seconds * self.runs


@dataclass(frozen=True)
class Event:
    """One eager operation when it ran: seconds since the profile began, and how long."""

    name: str
    start: float
    seconds: float
    line: str
    module: str = ""


@dataclass(frozen=True)
class Profile:
    """Where the time went; prints as its table.

    ``seconds`` is the median of the timed steps (of :meth:`Program.profile`) or the time in the
    block (of ``gf.profile()``); ``rows`` are in the order of the schedule, eager ones last.
    """

    name: str
    seconds: float
    runs: int
    rows: tuple[Row, ...]
    limits: Limits
    events: tuple[Event, ...] = field(default=())

    def sorted(self) -> list[Row]:
        """The rows, the one that took most time first."""
        return sorted(self.rows, key=lambda row: -row.total)

    def table(self, most: int | None = None) -> str:
        """A row a kernel, the slowest first; ``most`` rows at most."""
        whole = sum(row.total for row in self.rows) or 1.0
        shown = self.sorted()[:most]
        rows = [
            [
                row.name, row.mode, row.runs, duration(row.seconds), f"{row.total / whole:.0%}",
                quantity(row.bytes), f"{row.flops:,}",
                "" if row.share is None else f"{row.share:.0%}", row.module, row.line,
            ]
            for row in shown
        ]  # fmt: skip
        head = [
            "kernel", "mode", "runs", "each", "of all", "bytes", "operations", "of limit",
            "module", "line",
        ]  # fmt: skip
        return table(head, rows)

    def modules(self) -> str:
        """A row a module path, the slowest first."""
        return self._grouped("module", lambda row: row.module or "(outside modules)")

    def lines(self) -> str:
        """A row a line of the user's code, the slowest first."""
        return self._grouped("line", lambda row: row.line or "(unknown)")

    def modes(self, by: str = "mode") -> str:
        """Static and eager side by side: all of it, or ``by`` module or line of the user's code."""
        if by == "mode":
            return self._grouped("mode", lambda row: row.mode)
        if by not in ("module", "line"):
            raise ValueError(f"modes(by): mode, module or line, not {by!r}")
        found: dict[str, dict[str, float]] = {}
        for row in self.rows:
            times = found.setdefault(getattr(row, by) or f"(no {by})", {})
            times[row.mode] = times.get(row.mode, 0.0) + row.total
        order = sorted(found.items(), key=lambda item: -sum(item[1].values()))
        return table([by, "static", "eager", "eager / static"], [
            [name, *(duration(t[m]) if m in t else "" for m in ("static", "eager")),
             f"{t['eager'] / t['static']:.1f}" if len(t) == 2 and t["static"] else ""]
            for name, t in order
        ])  # fmt: skip

    def _grouped(self, title: str, key: Callable[[Row], str]) -> str:
        whole = sum(row.total for row in self.rows) or 1.0
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(key(row), []).append(row)
        order = sorted(groups.items(), key=lambda item: -_total(item[1]))
        rows = [
            [
                name, len(found), sum(row.runs for row in found), duration(_total(found)),
                f"{_total(found) / whole:.0%}", quantity(sum(r.bytes * r.runs for r in found)),
                f"{sum(r.flops * r.runs for r in found):,}",
            ]
            for name, found in order
        ]  # fmt: skip
        head = [title, "kernels", "runs", "in all", "of all", "bytes", "operations"]
        return table(head, rows)

    def __str__(self) -> str:
        static = sum(row.total for row in self.rows if row.mode == "static")
        eager = sum(row.total for row in self.rows if row.mode == "eager")
        head = f"{self.name}: {duration(self.seconds)}"
        if self.runs:
            head += f" a step, of {self.runs}; kernels {duration(static / self.runs)} of it"
        else:
            head += f"; static kernels {duration(static)}, eager operations {duration(eager)}"
        return f"{head}\n{self.table(30)}"

    def to_json(self) -> str:
        """Everything as JSON."""
        names = ("mode", "owner", "name", "runs", "seconds", "bytes", "flops", "share", "line",
                 "module", "ir")  # fmt: skip
        whole = {
            "format": "graphflow-profile",
            "version": 1,
            "name": self.name,
            "seconds": self.seconds,
            "runs": self.runs,
            "rows": [{name: getattr(row, name) for name in names} for row in self.rows],
            "limits": {"flops": self.limits.flops, "copies": [list(c) for c in self.limits.copies]},
        }
        return json.dumps(whole, indent=2)

    def to_chrome(self, path: str | Path) -> None:
        """Write a trace for ``chrome://tracing`` or ui.perfetto.dev.

        Kernels of a program are laid one after the other, at their mean times; eager operations
        stand where they ran.
        """
        from graphflow.profiling.chrome import trace_events

        whole = {"traceEvents": trace_events(self), "displayTimeUnit": "ns"}
        Path(path).write_text(json.dumps(whole), encoding="utf-8")

    def to_tensorboard(self, folder: str | Path, worker: str | None = None) -> Path:
        """Write a trace into ``folder`` for TensorBoard's plug-in ``torch-tb-profiler``.

        ``worker`` names the run (host and process if left out).  Returns the file's path.
        """
        from graphflow.profiling.tensorboard import write_trace

        return write_trace(self, folder, worker)

    def plot(self, path: str | Path) -> None:
        """Draw the kernels under the machine's limits: a roofline (needs matplotlib)."""
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("Profile.plot needs matplotlib: pip install matplotlib") from error
        figure, axes = plt.subplots()
        points = [row for row in self.rows if row.bytes and row.flops and row.seconds]
        axes.loglog(
            [row.flops / row.bytes for row in points],
            [row.flops / row.seconds for row in points], "o",
        )  # fmt: skip
        intensities = [2.0**k for k in range(-6, 12)]
        slow = self.limits.copies[-1][1]
        axes.loglog(intensities, [min(self.limits.flops, i * slow) for i in intensities])
        axes.set_xlabel("operations a byte")
        axes.set_ylabel("operations a second")
        axes.set_title(self.name)
        figure.savefig(path)
        plt.close(figure)


def _total(rows: Iterable[Row]) -> float:
    return sum(row.total for row in rows)


def static_rows(owner: str, steps: Sequence[dict[str, Any]], machine: Limits) -> list[Row]:
    """Rows of the timed steps of ``program_data``."""
    rows = []
    for step in steps:
        rows += static_rows(owner, step["steps"], machine)
        seconds = step["seconds"]
        if seconds is None or not step["runs"]:  # not timed, or a loop, whose calls are rows
            continue
        least = machine.seconds(step["bytes"], step["flops"], step["threads"])
        places = step["locations"]
        first = next((p for p in places if p["file"]), None)
        rows.append(
            Row(
                "static",
                owner,
                step["name"],
                step["runs"],
                seconds,
                step["bytes"],
                step["flops"],
                least / seconds if seconds > 0 and least > 0 else None,
                f"{first['file']}:{first['line']}" if first is not None else "",
                next((p["module"] for p in places if p["module"]), ""),
                step["ir"],
            )
        )
    return rows
