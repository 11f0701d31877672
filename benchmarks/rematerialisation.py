"""A deep GPT's training step in less memory: bytes at the peak, time, and the same losses.

    python -m benchmarks.rematerialisation --layers 24 --batch 8

The step is that of ``gpt`` with more layers.  It is compiled without a limit and with
nothing made again, as it is by default, and for limits that halve the temporaries and all live
bytes.  Times are medians; the steps take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import graphflow as gf
from benchmarks.networks import Language
from benchmarks.systems import shared
from graphflow.errors import OutOfMemoryError
from graphflow.scheduling import bytes_beside
from graphflow.tables import duration, quantity, significant, table

LOSSES = 5
NOTHING_AGAIN = 1 << 62


def compiled(workload: Language, limit: int | None) -> tuple[Any, list[Any], list[float]]:
    """A step under this limit, its batch, and its first losses."""
    model, optimizer = shared.program(gf, workload)
    step = gf.compile(shared.timed(gf, workload, model, optimizer), memory_limit=limit)
    batch = [gf.from_numpy(values) for values in workload.data()]
    return step, batch, [step(*batch).item() for _ in range(LOSSES)]


def bytes_of(step: Any) -> tuple[int, int]:
    """Bytes of temporaries at the peak, and of all live tensors then."""
    schedule = step.latest.program.schedule
    return schedule.arena_bytes, schedule.arena_bytes + bytes_beside(schedule)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rematerialisation")
    for name, default in (("layers", 24), ("batch", 8), ("width", 128), ("length", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    gf.set_num_threads(options.threads)
    shape = {n: getattr(options, n) for n in ("layers", "batch", "width", "length")}
    workload = Language("gpt", **shape)
    plain = compiled(workload, NOTHING_AGAIN)
    arena, live = bytes_of(plain[0])
    found = {"everything kept": plain, "by default": compiled(workload, None)}
    goals = {"half the temporaries": live - arena // 2, "half of all": live // 2}
    for name, limit in goals.items():
        try:
            found[name] = compiled(workload, limit)
        except OutOfMemoryError as error:
            print(f"{name}: {error}")
    times = timed(found, options.rounds)
    base = times["everything kept"]
    rows = []
    for name, (step, _, losses) in found.items():
        temporaries, all_live = bytes_of(step)
        apart = max(abs(a - b) / abs(b) for a, b in zip(losses, plain[2], strict=True))
        again = len(step.explain().remade)
        rows.append(
            [name, quantity(temporaries), significant(temporaries / arena), quantity(all_live),
             significant(all_live / live), again, duration(times[name]),
             significant(times[name] / base), f"{apart:.1e}"]
        )  # fmt: skip
    headers = ["", "temporaries", "÷ all kept", "live", "÷ all kept", "made again", "step"]
    print(table([*headers, "÷ all kept", "losses apart"], rows))


def timed(found: dict[str, tuple[Any, list[Any], list[float]]], rounds: int) -> dict[str, float]:
    """Median seconds of each step; the second of two calls in a row counts."""
    taken: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, (step, batch, _) in found.items():
            step(*batch)
            start = time.perf_counter()
            step(*batch)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
