"""A profile as a trace that TensorBoard's PyTorch profiler plug-in reads (torch-tb-profiler).

The plug-in looks for ``WORKER.TIME.pt.trace.json`` in a folder: Chrome's trace format with some
facts beside the events.  It goes by the category of an event (``cpu_op``, ``python_function``
for modules, ``user_annotation`` for steps) and nests events of one thread by their times.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.version import __version__

if TYPE_CHECKING:
    from graphflow.profiling.rows import Event, Profile, Row

Span = tuple[float, float]


def write_trace(profile: Profile, folder: str | Path, worker: str | None) -> Path:
    """Write the file; returns its path."""
    stem = worker or f"{socket.gethostname()}_{os.getpid()}"
    plain = re.sub(r"[^\w-]", "_", stem)
    path = Path(folder) / f"{plain}.{time.time_ns() // 1_000_000}.pt.trace.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(trace(profile)), encoding="utf-8")
    return path


def trace(profile: Profile) -> dict[str, Any]:
    """What the file holds.  A thread a program, whose kernels follow each other at their means
    as one step; one more for eager operations, which stand where they ran."""
    owners: dict[str, list[Row]] = {}
    for row in profile.rows:
        if row.mode == "static":
            owners.setdefault(row.owner, []).append(row)
    events: list[dict[str, Any]] = []
    for thread, (owner, rows) in enumerate(owners.items(), 2):
        events += _program(rows, thread, owner)
    if profile.events:
        events += _eager(profile.events)
    return {
        "schemaVersion": 1, "deviceProperties": [], "graphflow": __version__,
        "displayTimeUnit": "ms", "traceEvents": events,
    }  # fmt: skip


def _program(rows: Sequence[Row], thread: int, owner: str) -> Iterator[dict[str, Any]]:
    ends = list(accumulate(row.seconds for row in rows))
    spans = list(zip([0.0, *ends], ends))
    yield _thread(thread, f"program {owner}")
    yield _event("user_annotation", f"ProfilerStep#{thread - 2}", thread, (0.0, ends[-1]))
    yield from _modules([row.module for row in rows], spans, thread)
    for row, span in zip(rows, spans):
        facts = {
            "Call stack": _stack(row.line), "bytes": row.bytes, "flops": row.flops, "ir": row.ir,
            "runs": row.runs,
        }  # fmt: skip
        yield _event("cpu_op", row.name, thread, span, facts)


def _eager(events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    spans = [(event.start, event.start + event.seconds) for event in events]
    yield _thread(1, "eager")
    yield from _modules([event.module for event in events], spans, 1)
    for event, span in zip(events, spans):
        yield _event("cpu_op", event.name, 1, span, {"Call stack": _stack(event.line)})


def _modules(
    modules: Sequence[str], spans: Sequence[Span], thread: int
) -> Iterator[dict[str, Any]]:
    """An event for each stretch of work in one module, modules in modules included."""
    paths = [tuple(module.split(".")) if module else () for module in modules]
    known: dict[tuple[str, ...], int] = {}
    number = count()
    for depth in range(1, max(map(len, paths), default=0) + 1):
        for prefix, group in groupby(range(len(paths)), lambda i: paths[i][:depth]):  # noqa: B023
            if len(prefix) < depth:
                continue
            members = list(group)
            facts = {
                "Python id": next(number), "Python parent id": None,
                "Python module id": known.setdefault(prefix, len(known)),
            }  # fmt: skip
            span = spans[members[0]][0], spans[members[-1]][1]
            yield _event("python_function", f"nn.Module: {'.'.join(prefix)}", thread, span, facts)


def _stack(line: str) -> str:
    """``file:12`` as the plug-in spells a frame."""
    file, _, number = line.rpartition(":")
    return f"{file}({number})" if file else ""


def _thread(thread: int, name: str) -> dict[str, Any]:
    return {
        "ph": "M", "pid": thread, "tid": thread, "name": "thread_name", "args": {"name": name},
    }  # fmt: skip


def _event(
    category: str, name: str, thread: int, span: Span, facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """An event in microseconds, whole 1,024ths of them: sums of such numbers are exact, and
    what ends where the next begins does not overlap it."""
    start, end = (round(seconds * 1e6 * 1024) / 1024 for seconds in span)
    return {
        "ph": "X", "cat": category, "name": name, "pid": thread, "tid": thread, "ts": start,
        "dur": end - start, "args": facts or {},
    }  # fmt: skip
