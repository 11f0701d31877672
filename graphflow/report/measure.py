"""Timing every kernel of a program on given inputs, without changing its state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.inspection.program_data import program_data

if TYPE_CHECKING:
    from graphflow.program import Program

SECONDS, FEWEST, MOST = 0.5, 3, 100
"""Time to spend on runs, and how many there are at least and at most."""


def measured(program: Program, inputs: Sequence[Any]) -> dict[str, Any]:
    """The program's data with times: ``measured`` holds ``runs`` and the median ``seconds``."""
    saved = [(cell, np.array(cell.value)) for cell in program.cells]
    try:
        first = _run(program, inputs)
        first = min(first, _run(program, inputs))
        runs = max(FEWEST, min(MOST, int(SECONDS / max(first, 1e-6))))
        seconds = median(_run(program, inputs) for _ in range(runs))
        program.loaded.profile(True)
        for _ in range(runs):
            program(*inputs)
        data = program_data(program)
    finally:
        program.loaded.profile(False)
        for cell, value in saved:
            np.copyto(cell.value, value)
    data["measured"] = {"runs": runs, "seconds": seconds}
    return data


def _run(program: Program, inputs: Sequence[Any]) -> float:
    started = time.perf_counter()
    program(*inputs)
    return time.perf_counter() - started
