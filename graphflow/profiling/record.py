"""The two ways to a profile: one program's step again and again, or all that a block runs."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from graphflow import dispatch
from graphflow.errors import GraphFlowError
from graphflow.inspection.program_data import program_data
from graphflow.profiling import watch
from graphflow.profiling.eager_modules import EagerModules
from graphflow.profiling.limits import limits
from graphflow.profiling.rows import Event, Profile, Row, static_rows

if TYPE_CHECKING:
    from graphflow.program import Program

T = TypeVar("T")

_BUDGET = 0.5
"""Seconds of steps to time when ``repeat`` is not given."""
_MOST_EVENTS = 100_000
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def profile_program(program: Program, args: tuple[Any, ...], repeat: int | None) -> Profile:
    """Time ``program(*args)`` ``repeat`` times; its state is put back afterwards."""
    steps, rows = timed(program, args, repeat, _rows_of)
    return Profile(program.graph.name, statistics.median(steps), len(steps), tuple(rows), limits())


def timed(
    program: Program, args: Sequence[Any], repeat: int | None, read: Callable[[Program], T]
) -> tuple[list[float], T]:
    """Seconds of each timed step, and what ``read`` found in the program while its clock was on.

    With symbolic sizes, ``read`` gets the program for those of ``args``.
    """
    if repeat is not None and (repeat.__class__ is not int or repeat < 1):
        raise ValueError(f"repeat must be a whole number of at least 1, not {repeat!r}")
    if watch.active:
        raise GraphFlowError("program.profile() inside gf.profile(): the block is timed already")
    saved = [(cell, np.array(cell.value)) for cell in program.cells]
    try:
        program(*args)  # once untimed: outputs, caches and threads are then warm
        here = program._for(args) if program.sizes else program
        here.loaded.profile()
        try:
            steps = _timed(lambda: program(*args), repeat)
            found = read(here)
        finally:
            here.loaded.profile(False)
    finally:
        for cell, value in saved:
            np.copyto(cell.value, value)
            cell.version += 1
    return steps, found


def _timed(step: Callable[[], Any], repeat: int | None) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < (repeat or 1000):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
        if repeat is None and len(seconds) >= 5 and sum(seconds) > _BUDGET:
            break
    return seconds


def _rows_of(program: Program) -> list[Row]:
    data = program_data(program)
    return static_rows(program.graph.name, data["steps"], limits())


class Recording:
    """``with gf.profile() as found:`` times every program and every eager operation in the block.

    ``found.result`` (and all of :class:`Profile` by name: ``found.table()``) is there
    after the block.
    """

    def __init__(self) -> None:
        self._result: Profile | None = None
        self._started = 0.0
        self._ops: dict[tuple[str, str, str], list[float]] = {}
        self._moved: dict[tuple[str, str, str], int] = {}
        self._modules = EagerModules()
        self._events: list[Event] = []

    def __enter__(self) -> Recording:
        if watch.active:
            raise GraphFlowError("gf.profile() inside gf.profile(): one at a time")
        watch.active.append(self)
        for program in list(watch.programs):
            program.loaded.profile()
        self._values = dispatch._values
        dispatch._values = self._timed_values
        self._watching = self._modules.watched()
        self._watching.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        seconds = time.perf_counter() - self._started
        dispatch._values = self._values
        self._watching.__exit__(None, None, None)
        watch.active.clear()
        rows: list[Row] = []
        try:
            for program in list(watch.programs):
                if any(runs for _, runs in program.loaded.timings()):
                    rows += _rows_of(program)
        finally:
            for program in list(watch.programs):
                program.loaded.profile(False)
        rows += self._eager_rows()
        self._result = Profile("profile", seconds, 0, tuple(rows), limits(), tuple(self._events))

    @property
    def result(self) -> Profile:
        """The profile of the block."""
        if self._result is None:
            raise GraphFlowError("the profile is there after the `with gf.profile()` block")
        return self._result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.result, name)

    def __str__(self) -> str:
        return str(self.result)

    def _timed_values(self, op: Any, reference: Any, inputs: Any, attrs: Any) -> Any:
        started = time.perf_counter()
        value = self._values(op, reference, inputs, attrs)
        seconds = time.perf_counter() - started
        line = _user_line()
        module = self._modules.path
        key = (op.name, line, module)
        self._ops.setdefault(key, []).append(seconds)
        results = value if isinstance(value, tuple) else (value,)
        moved = sum(t._array.nbytes for t in inputs) + sum(np.asarray(r).nbytes for r in results)
        self._moved[key] = self._moved.get(key, 0) + moved
        if len(self._events) < _MOST_EVENTS:
            self._events.append(Event(op.name, started - self._started, seconds, line, module))
        return value

    def _eager_rows(self) -> list[Row]:
        rows = []
        for (name, line, module), times in self._ops.items():
            mean = sum(times) / len(times)
            moved = self._moved[name, line, module] // len(times)
            least = limits().seconds(moved, 0)
            share = least / mean if mean > 0 else None
            rows.append(Row("eager", "", name, len(times), mean, moved, 0, share, line, module))
        return rows


def _user_line() -> str:
    """The innermost line outside the package."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def profile() -> Recording:
    """Time everything in a block: ``with gf.profile() as found: …; print(found)``.

    Programs are timed kernel by kernel by the executor, eager operations by their user line and
    module (a share of the limit counts their bytes only).  ``found.table()``,
    ``found.modules()``, ``found.modes()``, ``found.modes("module")`` (static and eager side by
    side), ``found.to_chrome(path)``, ``found.to_tensorboard(folder)``: see
    :class:`graphflow.profiling.rows.Profile`.
    """
    return Recording()
