"""Training on 1, 2 and 4 ranks of one machine, and what that means for more.

    python -m benchmarks.ranks

Every rank has one thread and a whole batch of the workload.  Jobs of different sizes take
turns.  The table has samples a second beside those of one rank, and the step that
:mod:`benchmarks.scaling_model` calculates; below it, what it says of up to 1,000 ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scaling_model import NETWORKS, Network, efficiency, fitted, step_seconds
from benchmarks.worker import answer_of
from graphflow.tables import duration, significant, table

JOB = Path(__file__).with_name("ranks_job.py")
MANY = (8, 32, 128, 1000)

Figures = Mapping[str, Any]


def run(workload: str, ranks: int, steps: int) -> Figures:
    """The figures of one job."""
    command = [sys.executable, "-m", "graphflow", "launch", "-n", str(ranks), "--threads", "1"]
    path = os.pathsep.join(p for p in (str(JOB.parent.parent), os.environ.get("PYTHONPATH")) if p)
    environment = {**os.environ, "PYTHONPATH": path}
    found: Figures = answer_of([*command, str(JOB), workload, "--steps", str(steps)], environment)
    return found


def measure(workload: str, sizes: Sequence[int], rounds: int, steps: int) -> dict[int, Figures]:
    """By number of ranks: the job whose median step is the middle one of ``rounds``."""
    jobs: dict[int, list[Figures]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, found in jobs.items():
            found.append(run(workload, size, steps))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        size: sorted(found, key=lambda job: statistics.median(job["step"]))[len(found) // 2]
        for size, found in jobs.items()
    }


def network_of(jobs: Mapping[int, Figures]) -> Network | None:
    """What carries messages between two ranks, if that was measured."""
    if 2 not in jobs:
        return None
    small, large = (statistics.median(jobs[2][key]) for key in ("small", "large"))
    return fitted(small, large, jobs[2]["bytes"], 2)


def measured_table(workload: str, jobs: Mapping[int, Figures]) -> str:
    """A row a number of ranks; ``calculated`` supposes a core for every rank."""
    network = network_of(jobs)
    rows = []
    one = statistics.median(jobs[1]["step"])
    for ranks, job in jobs.items():
        step = statistics.median(job["step"])
        made = network and step_seconds(
            jobs[1]["alone"], job["bytes"], ranks, network, messages=job["buckets"]
        )
        rows.append([
            f"{workload}, {ranks}", duration(step), significant(ranks * job["batch"] / step),
            significant(ranks * one / step), duration(made) if made else "",
        ])  # fmt: skip
    return table(["ranks", "step", "samples/s", "of one rank", "calculated"], rows)


def calculated_table(workload: str, jobs: Mapping[int, Figures]) -> str:
    """The efficiency on networks of many machines."""
    job = jobs[1]
    rows = []
    for network in NETWORKS:
        row = [f"{workload}, {network.name}"]
        for ranks in MANY:
            step = step_seconds(job["alone"], job["bytes"], ranks, network, messages=job["buckets"])
            row.append(f"{100 * efficiency(job['alone'], step):.0f} %")
        rows.append(row)
    return table(["ranks", *map(str, MANY)], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", allow_abbrev=False)
    parser.add_argument("--workloads", default="cnn,gpt")
    parser.add_argument("--ranks", default="1,2,4", help="sizes of jobs; 1 must be among them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="timed steps of a job")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    sizes = [int(size) for size in options.ranks.split(",")]
    figures = {
        name: measure(name, sizes, options.rounds, options.steps)
        for name in options.workloads.split(",")
    }
    for part in (measured_table, calculated_table):
        for name, jobs in figures.items():
            print(part(name, jobs), end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
