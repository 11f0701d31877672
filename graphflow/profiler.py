"""``profiler.profile`` with PyTorch's names: a thin form of ``gf.profile()``.

What is measured is GraphFlow's: kernels of compiled programs and operations of eager code, each
with its time, bytes, operations and share of the machine's limit (:mod:`graphflow.profiling`).
"""

from __future__ import annotations

import enum
import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from graphflow.errors import GraphFlowError
from graphflow.profiling.record import Recording
from graphflow.profiling.rows import Event, Profile, Row
from graphflow.records import dataclass, replace
from graphflow.tables import duration, quantity, table

__all__ = [
    "FunctionEventAvg", "KeyAverages", "ProfilerAction", "ProfilerActivity", "profile",
    "record_function", "schedule", "tensorboard_trace_handler",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
_running: list[profile] = []


class ProfilerActivity(enum.Enum):
    """What may be asked for; what runs is measured."""

    CPU = 0
    CUDA = 1


class ProfilerAction(enum.Enum):
    """What a profile does in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


_RECORDED = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0
) -> Callable[[int], ProfilerAction]:
    """Steps by number: ``skip_first``, then cycles of ``wait``, ``warmup`` and ``active`` ones.

    ``repeat`` cycles are made, 0 meaning without end; the last active step of each hands over
    what was found.
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active < 1:
        raise ValueError(
            "profiler.schedule: wait, warmup, repeat and skip_first are at least 0, active at "
            f"least 1, not {wait}, {warmup}, {repeat}, {skip_first} and {active}"
        )

    def action(step: int) -> ProfilerAction:
        cycle, place = divmod(step - skip_first, wait + warmup + active)
        if step < skip_first or (repeat and cycle >= repeat) or place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        last = place == wait + warmup + active - 1
        return ProfilerAction.RECORD_AND_SAVE if last else ProfilerAction.RECORD

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """An ``on_trace_ready`` that writes each trace into ``dir_name`` for TensorBoard."""
    if use_gzip:
        raise GraphFlowError("tensorboard_trace_handler: traces are written without gzip")

    def write(found: profile) -> None:
        found.result.to_tensorboard(dir_name, worker_name)

    return write


class record_function:
    """``with record_function("name"):``, or as a decorator: names a range in the profile."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name
        self._begin = 0.0

    def __enter__(self) -> record_function:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        for running in _running:
            running._ranged(self.name, self._begin, time.perf_counter())

    def __call__(self, function: F) -> F:
        """``function`` with each of its calls a range."""

        @functools.wraps(function)
        def named(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name):
                return function(*args, **kwargs)

        return named  # type: ignore[return-value]


class profile:
    """``with profile(...) as prof:`` measures a block, or the steps that ``schedule`` picks.

    ``prof.step()`` ends a step; ``on_trace_ready(prof)`` is called when what was picked has been
    measured.  ``prof.key_averages().table()`` prints it, ``prof.result`` is all of it
    (:class:`graphflow.profiling.rows.Profile`).  Bytes and operations, user lines and modules
    are always there, so the flags that ask for such things change nothing.
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        acc_events: bool = False,
    ) -> None:
        self._action = schedule or (lambda step: ProfilerAction.RECORD)
        self._on_trace_ready = on_trace_ready
        self.step_num = 0
        self._doing = ProfilerAction.NONE
        self._recording: Recording | None = None
        self._ranges: list[Event] = []
        self._started = 0.0
        self._found: Profile | None = None

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin with step 0."""
        if self in _running:
            raise GraphFlowError("profiler.profile: it is running already")
        _running.append(self)
        self.step_num = 0
        self._turn_to(self._action(0))

    def step(self) -> None:
        """End a step and begin the next."""
        if self not in _running:
            raise GraphFlowError("profiler.profile: step() before start()")
        self.step_num += 1
        self._turn_to(self._action(self.step_num))

    def stop(self) -> None:
        """End the last step; what was being recorded is handed over."""
        if self in _running:
            _running.remove(self)
            self._turn_to(ProfilerAction.NONE)

    def _turn_to(self, action: ProfilerAction) -> None:
        ended = action not in _RECORDED or self._doing is ProfilerAction.RECORD_AND_SAVE
        if self._recording is not None and ended:
            self._recording.__exit__(None, None, None)
            found, self._recording = self._recording.result, None
            self._found = replace(found, events=(*found.events, *self._ranges))
            if self._on_trace_ready is not None:
                self._on_trace_ready(self)
        self._doing = action
        if self._recording is None and action in _RECORDED:
            self._ranges, self._started = [], time.perf_counter()
            self._recording = Recording().__enter__()

    def _ranged(self, name: str, begin: float, end: float) -> None:
        if self._recording is not None and begin >= self._started:
            self._ranges.append(Event(name, begin - self._started, end - begin, ""))

    @property
    def result(self) -> Profile:
        """What was measured last."""
        if self._found is None:
            raise GraphFlowError("profiler.profile: nothing has been measured yet")
        return self._found

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0
    ) -> KeyAverages:
        """Kernels, operations and named ranges, by name; or by user line with a stack's depth."""
        keyed: dict[str, FunctionEventAvg] = {}
        for row in self.result.rows:
            key = f"{row.name}  {row.line}" if group_by_stack_n else row.name
            _add(keyed, key, _of_row(key, row))
        for event in self._ranges:
            _add(keyed, event.name, FunctionEventAvg(event.name, 1, event.seconds * 1e6, 0.0))
        return KeyAverages(keyed.values())

    def events(self) -> Sequence[Event]:
        """Eager operations and named ranges, when they ran."""
        return self.result.events

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a trace for ``chrome://tracing`` or ui.perfetto.dev."""
        self.result.to_chrome(Path(path))


@dataclass(frozen=True)
class FunctionEventAvg:
    """All runs of one name; times are in microseconds."""

    key: str
    count: int
    cpu_time_total: float
    self_cpu_time_total: float
    bytes: int = 0
    flops: int = 0

    @property
    def cpu_time(self) -> float:
        """Microseconds of one run."""
        return self.cpu_time_total / self.count


def _of_row(key: str, row: Row) -> FunctionEventAvg:
    micro = row.total * 1e6
    runs = row.runs
    return FunctionEventAvg(key, runs, micro, micro, row.bytes * runs, row.flops * runs)


def _add(keyed: dict[str, FunctionEventAvg], key: str, new: FunctionEventAvg) -> None:
    old = keyed.get(key)
    if old is not None:
        new = FunctionEventAvg(
            key, old.count + new.count, old.cpu_time_total + new.cpu_time_total,
            old.self_cpu_time_total + new.self_cpu_time_total, old.bytes + new.bytes,
            old.flops + new.flops,
        )  # fmt: skip
    keyed[key] = new


_SORTED_BY = ("cpu_time_total", "self_cpu_time_total", "cpu_time", "count", "bytes", "flops")


class KeyAverages(list[FunctionEventAvg]):
    """Rows by name, with :meth:`table`."""

    def table(self, sort_by: str | None = None, row_limit: int = 100, **unused: Any) -> str:
        """A row a name, at most ``row_limit`` (-1: all), the largest ``sort_by`` first."""
        rows = list(self)
        if sort_by is not None:
            field = sort_by.replace("cuda", "cpu").replace("device", "cpu")
            if field not in _SORTED_BY:
                raise ValueError(f"sort_by is one of {', '.join(_SORTED_BY)}, not {sort_by!r}")
            rows.sort(key=lambda row: -float(getattr(row, field)))
        whole = self.self_cpu_time_total or 1.0
        head = ["name", "self %", "self", "total", "each", "calls", "bytes", "operations"]
        return table(head, [
            [row.key, f"{row.self_cpu_time_total / whole:.1%}",
             duration(row.self_cpu_time_total * 1e-6), duration(row.cpu_time_total * 1e-6),
             duration(row.cpu_time * 1e-6), row.count, quantity(row.bytes), f"{row.flops:,}"]
            for row in rows[: row_limit if row_limit >= 0 else None]
        ]) + f"\nself time in all: {duration(self.self_cpu_time_total * 1e-6)}"  # fmt: skip

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all kernels and operations; ranges hold others' time."""
        return sum(row.self_cpu_time_total for row in self)

    def __str__(self) -> str:
        return self.table()
