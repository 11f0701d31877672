"""Static against eager, honestly: ``gf.benchmark(fn, *args)``.

Both modes take turns in one process, each step on the state the step before
left; first the results of one step from the same state are compared.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.cell import Cell
from graphflow.compiled import Compiled
from graphflow.guards import tensors_of
from graphflow.mode import operation_by_operation, structure
from graphflow.reach import Reach
from graphflow.rng import default_generator
from graphflow.tables import duration, quantity, table
from graphflow.tensor import Tensor

_BUDGET = 2.0
"""Seconds to spend on timing when ``repeat`` is not given."""


@dataclass(frozen=True)
class Timing:
    """Median, 10th to 90th percentile spread (both in seconds), and number of steps."""

    median: float
    spread: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """What compiling costs and gains; prints as a table.  Times in seconds."""

    name: str
    trace_s: float
    passes_s: float
    codegen_s: float
    first_call_s: float
    static: Timing
    eager: Timing
    speedup: float
    peak_bytes: int
    max_abs_difference: float

    def __str__(self) -> str:
        rows = [
            ["eager", duration(self.eager.median), duration(self.eager.spread), self.eager.n, "1"],
            [
                "static", duration(self.static.median), duration(self.static.spread),
                self.static.n, f"{self.speedup:.2f}",
            ],
        ]  # fmt: skip
        return "\n".join(
            [
                f"{self.name}: static against eager",
                table(["mode", "median step", "spread", "steps", "speed-up"], rows),
                f"first call {duration(self.first_call_s)} (trace {duration(self.trace_s)}, "
                f"passes {duration(self.passes_s)}, kernels {duration(self.codegen_s)}); "
                f"temporaries {quantity(self.peak_bytes)}; "
                f"largest difference {self.max_abs_difference:.2e}",
            ]
        )

    def to_json(self) -> str:
        """The figures as JSON."""
        return json.dumps(asdict(self), indent=2)

    def plot(self, path: str | Path) -> None:
        """Draw both medians as bars (needs matplotlib)."""
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("Comparison.plot needs matplotlib: pip install matplotlib") from error
        figure, axes = plt.subplots()
        axes.bar(["eager", "static"], [self.eager.median * 1e3, self.static.median * 1e3])
        axes.set_ylabel("ms a step")
        axes.set_title(self.name)
        figure.savefig(path)
        plt.close(figure)


def benchmark(fn: Callable[..., Any], *args: Any, repeat: int | None = None) -> Comparison:
    """Time ``fn(*args)`` compiled and eager, in turn, and compare their results.

    State that the function changes (parameters, optimiser slots, random state)
    is put back when done.
    """
    eager = fn.original if isinstance(fn, Compiled) else fn
    compiled = Compiled(eager)
    started = time.perf_counter()
    entry = compiled.prepare(*args)
    prepared = time.perf_counter() - started
    snapshot = Snapshot(eager, entry.capture.cells)
    started = time.perf_counter()
    static_result = _numbers(compiled(*args))
    first_call = prepared + time.perf_counter() - started
    snapshot.restore()
    plain = operation_by_operation(eager)
    difference = _difference(static_result, _numbers(plain(*args)))
    snapshot.restore()
    static, slow = _time(compiled, plain, args, repeat)
    snapshot.restore()
    program = entry.program
    return Comparison(
        name=compiled.__name__,
        trace_s=program.trace_seconds,
        passes_s=program.passes_seconds + program.schedule_seconds,
        codegen_s=program.loaded.loaded.seconds,
        first_call_s=first_call,
        static=static,
        eager=slow,
        speedup=slow.median / static.median,
        peak_bytes=program.schedule.arena_bytes,
        max_abs_difference=difference,
    )


def on_host(memory: Any) -> np.ndarray[Any, Any]:
    """A copy of memory, an array's or a device's, as an array."""
    if isinstance(memory, (np.ndarray, np.generic)):
        return np.array(memory)
    return np.array(Tensor._of(Cell(memory)).numpy(force=True))


class Snapshot:
    """Memory and gradients before the first call, to be put back."""

    def __init__(self, function: Callable[..., Any], captured: Sequence[Cell]) -> None:
        reach = Reach(function)
        tensors = [t for name, value in reach.roots for _, t in tensors_of(name, value)]
        self._grads = [(t, t._grad) for t in tensors]
        held = [grad._cell for _, grad in self._grads if isinstance(grad, Tensor)]
        cells = [default_generator._cell, *captured, *(t._cell for t in tensors), *held]
        for read in reach.reads:
            slots = read.value.state if _is_optimizer(read.value) else {}
            cells += [slot._cell for names in slots.values() for slot in names.values()]
        self._saved = {cell: on_host(cell.value) for cell in cells}

    def values(self) -> list[np.ndarray[Any, Any]]:
        """What the memory holds now."""
        return [on_host(cell.value) for cell in self._saved]

    def restore(self) -> None:
        """Put everything back."""
        for cell, value in self._saved.items():
            if isinstance(cell.value, np.ndarray):
                np.copyto(cell.value, value)
            else:
                from graphflow.on_device import copy_into

                copy_into(cell.value, value)
            cell.version += 1
        for tensor, grad in self._grads:
            tensor._grad = grad
        structure.bump()


def _is_optimizer(value: Any) -> bool:
    return hasattr(value, "param_groups") and not isinstance(value, type)


def _time(
    compiled: Callable[..., Any], eager: Callable[..., Any], args: Sequence[Any], repeat: int | None
) -> tuple[Timing, Timing]:
    pair = _once(compiled, args) + _once(eager, args)
    steps = repeat or max(5, min(2000, int(_BUDGET / max(pair, 1e-7))))
    fast, slow = [], []
    for _ in range(steps):
        fast.append(_once(compiled, args))
        slow.append(_once(eager, args))
    return _timing(fast), _timing(slow)


def _once(function: Callable[..., Any], args: Sequence[Any]) -> float:
    started = time.perf_counter()
    function(*args)
    return time.perf_counter() - started


def _timing(seconds: list[float]) -> Timing:
    ordered = sorted(seconds)
    low, high = ordered[len(ordered) // 10], ordered[(9 * len(ordered)) // 10]
    return Timing(statistics.median(ordered), high - low, len(ordered))


def _numbers(result: Any) -> list[np.ndarray[Any, Any]]:
    leaves = pytree.flatten(result)[0]
    return [
        np.array(x.numpy(force=True) if isinstance(x, Tensor) else x, np.float64)
        for x in leaves
        if isinstance(x, (Tensor, bool, int, float))
    ]


def _difference(one: list[np.ndarray[Any, Any]], other: list[np.ndarray[Any, Any]]) -> float:
    gaps = [float(np.max(np.abs(a - b))) for a, b in zip(one, other, strict=True) if a.size]
    return max(gaps, default=0.0)
