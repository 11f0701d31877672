"""How the time of a training step grows: with the batch, with depth, on one thread and two.

    python -m benchmarks.curves

The perceptron of 784-128-10 at batches of 1 to 4,096, and with 1 to 64 hidden layers at a
batch of 128.  Systems take turns as in `python -m benchmarks`, and their losses are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.__main__ import calls_a_block, compare
from benchmarks.plot import curves
from benchmarks.report import absent
from benchmarks.systems import SYSTEMS
from benchmarks.worker import Worker
from graphflow.tables import duration, significant, table

MEASURED = ("static", "torch", "jax")
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
DEPTHS = (1, 2, 4, 8, 16, 32, 64)


def sizes_of(kind: str, value: int) -> dict[str, Any]:
    """What is changed in the workload ``mlp``."""
    if kind == "batch":
        return {"batch": value}
    return {"sizes": (784, *(128,) * value, 10)}


def measure(workers: dict[str, Worker], sizes: dict[str, Any], rounds: int) -> dict[str, float]:
    """Median seconds of a step, by system."""
    samples = {}
    for system, worker in workers.items():
        try:
            samples[system] = worker.ask(do="prepare", workload="mlp", sizes=sizes)["sample"]
        except RuntimeError as error:
            if not absent(str(error)):
                raise
    compare(f"mlp {sizes}", samples)
    alive = {system: workers[system] for system in samples}
    counts = {system: calls_a_block(worker, 0.0) for system, worker in alive.items()}
    times: dict[str, list[float]] = {system: [] for system in alive}
    for _ in range(rounds):
        for system, worker in alive.items():
            times[system] += worker.ask(do="time", count=counts[system], pause=0.0)
    print(".", end="", file=sys.stderr, flush=True)
    return {system: statistics.median(found) for system, found in times.items()}


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most-batch", type=int, default=BATCHES[-1])
    parser.add_argument("--most-depth", type=int, default=DEPTHS[-1])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them, as SVG")
    options = parser.parse_args()
    limits = {"batch": (BATCHES, options.most_batch), "depth": (DEPTHS, options.most_depth)}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for threads in (1, 2):
        workers = {system: Worker(system, threads, sys.executable) for system in MEASURED}
        try:
            for kind, (values, most) in limits.items():
                figures[f"{kind}, {threads} threads"] = {
                    str(value): measure(workers, sizes_of(kind, value), options.rounds)
                    for value in values
                    if value <= most
                }
        finally:
            for worker in workers.values():
                worker.close()
    rows = [row for title, found in figures.items() for row in rows_of(title, found)]
    headers = ["a step of the mlp", "", *(SYSTEMS[s][1] for s in MEASURED), "÷ fastest peer"]
    print(f"\n{table(headers, rows)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        panels = [
            {s: {size: t[s] for size, t in found.items() if s in t} for s in MEASURED}
            for found in figures.values()
        ]
        options.plot.write_text(curves(list(figures), panels))


def rows_of(title: str, found: dict[str, dict[str, float]]) -> list[list[str]]:
    """A row a size."""
    rows = []
    for size, times in found.items():
        peers = [seconds for system, seconds in times.items() if system != "static"]
        ratio = significant(times["static"] / min(peers)) if peers else ""
        cells = [duration(times[s]) if s in times else "–" for s in MEASURED]
        rows.append([title, size, *cells, ratio])
    return rows


if __name__ == "__main__":
    main()
