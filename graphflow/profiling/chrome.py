"""A profile as events of Chrome's trace format, which Perfetto reads too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphflow.profiling.rows import Profile, Row

_EAGER = 1
_MICRO = 1e6


def trace_events(profile: Profile) -> list[dict[str, Any]]:
    """Complete events ("X") in microseconds; a process a program, and one for eager work."""
    events: list[dict[str, Any]] = []
    owners: dict[str, list[Row]] = {}
    for row in profile.rows:
        if row.mode == "static":
            owners.setdefault(row.owner, []).append(row)
    if profile.events:
        events.append(_named(_EAGER, "process_name", "eager"))
    for event in profile.events:
        events.append(_complete(_EAGER, 1, event.name, event.start, event.seconds,
                                {"line": event.line}))  # fmt: skip
    for process, (owner, rows) in enumerate(owners.items(), _EAGER + 1):
        events.append(_named(process, "process_name", f"program {owner}"))
        events.append(_named(process, "thread_name", "kernels", 1))
        events.append(_named(process, "thread_name", "modules", 2))
        start = 0.0
        for row in rows:
            facts = {
                "runs": row.runs, "bytes": row.bytes, "flops": row.flops, "of limit": row.share,
                "line": row.line, "ir": row.ir,
            }  # fmt: skip
            events.append(_complete(process, 1, row.name, start, row.seconds, facts))
            events.append(_complete(process, 2, row.module or "-", start, row.seconds, {}))
            start += row.seconds
    return events


def _complete(
    process: int, thread: int, name: str, start: float, seconds: float, facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X", "pid": process, "tid": thread, "name": name, "cat": "graphflow",
        "ts": start * _MICRO, "dur": seconds * _MICRO, "args": facts,
    }  # fmt: skip


def _named(process: int, what: str, name: str, thread: int = 0) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}
