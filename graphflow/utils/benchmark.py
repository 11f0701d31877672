"""Timers of statements, by the names of PyTorch's ``utils.benchmark``."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import numpy as np

from graphflow.device import devices
from graphflow.records import dataclass, field
from graphflow.runtime.threads import get_num_threads, set_num_threads
from graphflow.tables import duration, significant, table

__all__ = ["Compare", "Measurement", "TaskSpec", "Timer", "select_unit", "timer"]

_UNITS = ((1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s"))
_OVERHEAD = 1e-4
"""The part of a block's time that the loop around the statement may take."""
_MOST_RUNS = 1 << 31
_TRUSTED_IQR, _DOUBTED_IQR = 0.1, 0.25
"""Parts of the median; above the first a measurement is worth a word, above the second a louder
one."""


def timer() -> float:
    """Seconds, once all work on devices is done."""
    if devices.used:
        from graphflow import cuda

        cuda.synchronize()
    return timeit.default_timer()


def select_unit(t: float) -> tuple[str, float]:
    """The unit that suits ``t`` seconds, and how many seconds it has."""
    fitting = [(size, name) for size, name in _UNITS if t >= size] or [_UNITS[0]]
    size, name = fitting[-1]
    return name, size


@dataclass(frozen=True)
class TaskSpec:
    """What was timed, and what it is called in tables."""

    stmt: str
    setup: str = "pass"
    global_setup: str = ""
    label: str | None = None
    sub_label: str | None = None
    description: str | None = None
    env: str | None = None
    num_threads: int = 1

    @property
    def title(self) -> str:
        """The label, or the statement."""
        if self.label is not None:
            return self.label + (f": {self.sub_label}" if self.sub_label else "")
        if "\n" not in self.stmt:
            return f"stmt: ({self.stmt})"
        return "\n".join(["stmt:", *(f"  {line}" for line in self.stmt.splitlines())])


@dataclass
class Measurement:
    """How long blocks of ``number_per_run`` runs took, and what that says of one run.

    ``raw_times`` are seconds of blocks; ``times``, ``median``, ``mean`` and ``iqr`` of a run.
    """

    number_per_run: int
    raw_times: list[float]
    task_spec: TaskSpec
    metadata: dict[str, Any] | None = field(default=None)

    @property
    def times(self) -> list[float]:
        """Seconds of a run, by block."""
        return [t / self.number_per_run for t in self.raw_times]

    @property
    def median(self) -> float:
        """Of :attr:`times`; half of the blocks were as fast."""
        return float(np.median(self._some()))

    @property
    def mean(self) -> float:
        """Of :attr:`times`."""
        return fmean(self._some())

    @property
    def iqr(self) -> float:
        """The range in which the middle half of :attr:`times` lies."""
        low, high = self._quartiles()
        return high - low

    @property
    def significant_figures(self) -> int:
        """How many digits of the median may be believed: the error of a median is taken to be
        0.645 of the range of the middle half, over the root of their number."""
        times = self._some()
        error = max(self.iqr * 0.645 / len(times) ** 0.5, 1e-12 * self.median)
        digits = int(np.floor(np.log10(max(self.median / max(error, 1e-300), 1.0))))
        return min(max(digits, 1), 5)

    @property
    def has_warnings(self) -> bool:
        """Whether times differ by more than a measurement of one thing should."""
        return self.median > 0 and self.iqr / self.median > _TRUSTED_IQR

    @property
    def title(self) -> str:
        """What was timed."""
        return self.task_spec.title

    @property
    def num_threads(self) -> int:
        """Threads that kernels could use."""
        return self.task_spec.num_threads

    @property
    def as_row_name(self) -> str:
        """What its row in a table is called."""
        return self.task_spec.sub_label or self.task_spec.stmt or "[Unknown]"

    def _some(self) -> list[float]:
        if not self.raw_times:
            raise ValueError("a Measurement without times has no statistics: raw_times is empty")
        return self.times

    def _quartiles(self) -> tuple[float, float]:
        low, high = np.quantile(self._some(), [0.25, 0.75])
        return float(low), float(high)

    @staticmethod
    def merge(measurements: Iterable[Measurement]) -> list[Measurement]:
        """One measurement for each task, its times together, as of single runs."""
        found: dict[TaskSpec, list[float]] = {}
        for m in measurements:
            found.setdefault(m.task_spec, []).extend(m.times)
        return [Measurement(1, times, task) for task, times in found.items()]

    def __repr__(self) -> str:
        unit, size = select_unit(self.median)
        count = len(self.raw_times)
        lines = [f"<{type(self).__module__}.Measurement object at {id(self):#x}>", self.title]
        if self.task_spec.setup != "pass":
            lines.append(f"setup: {self.task_spec.setup}")
        if count > 1:
            low, high = (significant(t / size) for t in self._quartiles())
            lines.append(f"  Median: {significant(self.median / size)} {unit}")
            lines.append(f"  IQR:    {significant(self.iqr / size)} {unit} ({low} to {high})")
            blocks = f"  {count} measurements, {self.number_per_run} runs per measurement, "
        else:
            lines.append(f"  {significant(self.median / size)} {unit}")
            blocks = f"  1 measurement, {self.number_per_run} runs, "
        threads = self.num_threads
        lines.append(f"{blocks}{threads} thread{'s' if threads != 1 else ''}")
        if self.has_warnings:
            part = self.iqr / self.median
            what = "could indicate" if part < _DOUBTED_IQR else "probably comes from"
            lines.append(f"  WARNING: the IQR is {part:.0%} of the median. It {what} other load.")
        return "\n".join(lines)


class Timer:
    """Time a statement as Python's ``timeit`` does, after a warm-up and with fixed threads.

    ``stmt`` and ``setup`` are source text that sees ``globals``; ``label``, ``sub_label`` and
    ``description`` name it in the tables of :class:`Compare`.  Kernels use ``num_threads``.
    """

    def __init__(
        self, stmt: str = "pass", setup: str = "pass", global_setup: str = "",
        timer: Callable[[], float] = timer, globals: Mapping[str, Any] | None = None,
        label: str | None = None, sub_label: str | None = None, description: str | None = None,
        env: str | None = None, num_threads: int = 1, language: str = "python",
    ) -> None:  # fmt: skip
        if not isinstance(stmt, str):
            raise ValueError(
                f"a Timer takes a statement as text, not {type(stmt).__name__}: "
                'Timer("f(x)", globals={"f": f, "x": x})'
            )
        if global_setup or str(language).lower() not in ("python", "py"):
            raise ValueError("statements are Python's: there is no other language, and no "
                             "global_setup; use setup")  # fmt: skip
        self._task = TaskSpec(
            stmt, setup, "", label, sub_label, description, env, int(num_threads)
        )  # fmt: skip
        self._timer = timeit.Timer(stmt, setup, timer, dict(globals or {}))

    def timeit(self, number: int = 1_000_000) -> Measurement:
        """One block of ``number`` runs, after a hundredth of them (two at least) untimed."""
        with self._threads():
            self._timer.timeit(max(number // 100, 2))
            return Measurement(number, [self._timer.timeit(number)], self._task)

    def repeat(self, repeat: int = -1, number: int = -1) -> None:
        """Not there: use :meth:`timeit` or :meth:`blocked_autorange`."""
        raise NotImplementedError("Timer.repeat: use timeit() or blocked_autorange()")

    def autorange(self, callback: Callable[..., Any] | None = None) -> None:
        """Not there: use :meth:`blocked_autorange`."""
        raise NotImplementedError("Timer.autorange: use blocked_autorange()")

    def blocked_autorange(
        self, callback: Callable[[int, float], Any] | None = None, min_run_time: float = 0.2
    ) -> Measurement:
        """Blocks for ``min_run_time`` seconds in all, each so long that its loop costs nothing.

        ``callback(number, seconds)`` is called after each.
        """
        with self._threads():
            number = self._block(min_run_time)
            times: list[float] = []
            while not times or sum(times) < min_run_time:
                times.append(self._timed(number, callback))
            return Measurement(number, times, self._task)

    def adaptive_autorange(
        self, threshold: float = 0.1, *, min_run_time: float = 0.01, max_run_time: float = 10.0,
        callback: Callable[[int, float], Any] | None = None,
    ) -> Measurement:  # fmt: skip
        """Blocks until the middle half of their times lies within ``threshold`` of the median.

        For ``min_run_time`` seconds at least, and ``max_run_time`` at most.
        """
        with self._threads():
            number = self._block(0.05)
            found = Measurement(number, [], self._task)
            while True:
                found.raw_times.append(self._timed(number, callback))
                spent = sum(found.raw_times)
                steady = len(found.raw_times) > 3 and found.iqr / found.median < threshold
                if spent >= max_run_time or (steady and spent >= min_run_time):
                    return found

    def _timed(self, number: int, callback: Callable[[int, float], Any] | None) -> float:
        seconds = self._timer.timeit(number)
        if callback is not None:
            callback(number, seconds)
        return seconds

    def _block(self, min_run_time: float) -> int:
        """How many runs make a block that is long beside its loop."""
        overhead = float(np.median([self._timer.timeit(0) for _ in range(5)]))
        number = 1
        while True:
            taken = self._timer.timeit(number)
            small = taken > 0 and overhead / taken <= _OVERHEAD and taken >= min_run_time / 1000
            if small or taken > min_run_time or number * 10 >= _MOST_RUNS:
                return number
            number *= 10

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = get_num_threads()
        if self._task.num_threads != before:
            set_num_threads(self._task.num_threads)
        try:
            yield
        finally:
            if get_num_threads() != before:
                set_num_threads(before)


class Compare:
    """Tables of measurements: one for each label, rows by sub-label, columns by description."""

    def __init__(self, results: Sequence[Measurement]) -> None:
        self._results = list(results)
        self._digits: bool = False

    def extend_results(self, results: Iterable[Measurement]) -> None:
        """More measurements."""
        self._results += results

    def trim_significant_figures(self) -> None:
        """Show only the digits that may be believed."""
        self._digits = True

    def colorize(self, rowwise: bool = False) -> None:
        """Accepted: tables are plain text."""

    def highlight_warnings(self) -> None:
        """Accepted: tables are plain text."""

    def print(self) -> None:
        """Print the tables."""
        print(str(self))

    def __str__(self) -> str:
        results = Measurement.merge(self._results)
        labels = dict.fromkeys(m.task_spec.label for m in results)
        return "\n\n".join(
            self._table(label, [m for m in results if m.task_spec.label == label])
            for label in labels
        )

    def _table(self, label: str | None, results: list[Measurement]) -> str:
        columns = list(dict.fromkeys(m.task_spec.description or "" for m in results))
        rows: dict[tuple[int, str], dict[str, str]] = {}
        for m in sorted(results, key=lambda m: m.num_threads):
            name = m.as_row_name + (f" ({m.task_spec.env})" if m.task_spec.env else "")
            row = rows.setdefault((m.num_threads, name), {})
            row[m.task_spec.description or ""] = self._shown(m)
        lines = [
            [name, str(n), *(row.get(c, "") for c in columns)] for (n, name), row in rows.items()
        ]
        return table([label or "statement", "threads", *columns], lines)

    def _shown(self, m: Measurement) -> str:
        if not self._digits:
            return duration(m.median)
        unit, size = select_unit(m.median)
        return f"{significant(m.median / size, m.significant_figures)} {unit}"
