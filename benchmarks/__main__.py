"""GraphFlow, static and eager, beside its peers, taking turns in one run.

    python -m benchmarks --workloads mlp,softmax --json out.json
    python -m benchmarks --systems static,torch,torch_compile,jax,pytensor,ort
    python -m benchmarks --workloads convolutions --systems static,torch

Workloads are named, or chosen by group: `twelve`, `perturbed` (the same at other sizes),
`convolutions` (ResNet-18's, one by one).  `python -m benchmarks.suite` runs all there is.

Every system has its own process.  In each round each system times a block of
calls in turn (A B C A B C …), so that what disturbs the machine disturbs all of
them; medians are over all calls, the spread is that of the block medians.
Results are compared before anything is timed.  Absolute times mean little
between machines; ratios of one run do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import floor, startup
from benchmarks.plot import bars
from benchmarks.report import absent, report
from benchmarks.systems import OURS, SYSTEMS, USUAL
from benchmarks.worker import LIMITS, Worker
from benchmarks.workloads import GROUPS, MODELS, WORKLOADS

BLOCK_SECONDS = 0.1
MOST_CALLS = 400
CHANGEABLE = ("static", "model", "eager", "torch")  # a JAX step is a function of all it depends on
TOLERANCE = 1e-3  # of losses and outputs between the systems, relative


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", allow_abbrev=False)
    parser.add_argument("--workloads", type=_known(WORKLOADS, GROUPS), default=list(MODELS))
    parser.add_argument("--systems", type=_known(SYSTEMS, {}), default=list(USUAL))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11, help="turns of each system")
    parser.add_argument(
        "--pause", type=float, default=0.0, metavar="MS", help="busy Python before each call"
    )
    parser.add_argument("--startup", action="store_true", help="also time fresh processes")
    parser.add_argument(
        "--fresh", type=int, default=3, help="fresh processes of each kind (median)"
    )
    parser.add_argument("--isa", choices=LIMITS, help="keep every system to these instructions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them, as SVG")
    parser.add_argument(
        "--peers-python", default=sys.executable, help="interpreter that has PyTorch and JAX"
    )
    parser.add_argument(
        "--pytensor-python", help="interpreter that has PyTensor, which needs a Numba of its own"
    )
    return parser.parse_args(arguments)


def _known(table: Iterable[str], groups: dict[str, list[str]]) -> Any:
    known = (*groups, *table)

    def read(text: str) -> list[str]:
        names: list[str] = []
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
            names += groups.get(name, [name])
        return names

    return read


def main(arguments: list[str] | None = None) -> None:
    """Measure and report."""
    options = parse(arguments)
    os.environ.update(LIMITS.get(options.isa, {}))
    machine = floor.measure(options.threads)
    workers = {}
    for system in options.systems:
        workers[system] = Worker(system, options.threads, interpreter(system, options))
    results = {}
    try:
        for name in options.workloads:
            results[name] = measure(name, workers, options)
            print(".", end="", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    # Once before and once after: what the machine *can* do is the better of the two.
    again = floor.measure(options.threads)
    machine = {key: max(machine[key], again[key]) for key in machine}
    for name in results:
        results[name]["floor"] = floor.floor_of(WORKLOADS[name], machine)
    figures: dict[str, Any] = {"machine": machine, "threads": options.threads}
    figures |= {"pause_ms": options.pause, "isa": options.isa, "workloads": results}
    if options.startup:
        figures["startup"] = first_calls(figures["workloads"], options)
    print(f"\n{report(figures)}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        options.plot.write_text(bars(figures))


def first_calls(results: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """What fresh processes take, by workload and system (those that can do the workload)."""
    found: dict[str, Any] = {}
    for name, result in results.items():
        able = [s for s, measured in result["systems"].items() if "error" not in measured]
        found[name] = {
            s: startup.measure(s, name, options.threads, interpreter(s, options), options.fresh)
            for s in able
        }
        print(".", end="", file=sys.stderr, flush=True)
    return found


def interpreter(system: str, options: argparse.Namespace) -> str:
    """Which Python runs a system."""
    if system in OURS:
        return sys.executable
    python: str = options.peers_python
    return (options.pytensor_python or python) if system == "pytensor" else python


def measure(name: str, workers: dict[str, Worker], options: argparse.Namespace) -> dict[str, Any]:
    """One workload on every system, in turn."""
    systems: dict[str, Any] = {}
    for system, worker in workers.items():
        try:
            systems[system] = worker.ask(do="prepare", workload=name)
        except RuntimeError as error:
            if not absent(str(error)):
                print(f"\n{name}: {error}", file=sys.stderr)
            systems[system] = {"error": str(error)}
    alive = {s: w for s, w in workers.items() if "error" not in systems[s]}
    disagreement = compare(name, {s: systems[s].pop("sample") for s in alive})
    counts = {s: calls_a_block(w, options.pause / 1e3) for s, w in alive.items()}
    blocks: dict[str, list[list[float]]] = {system: [] for system in alive}
    for _ in range(options.rounds):
        for system, worker in alive.items():
            answer = worker.ask(do="time", count=counts[system], pause=options.pause / 1e3)
            blocks[system].append(answer)
    for system, times in blocks.items():
        systems[system] |= statistics_of(times)
    changed = {s: w.ask(do="change") for s, w in alive.items() if s in CHANGEABLE}
    unnoticed = compare(name, changed) if all(changed.values()) else 0.0
    return {
        "systems": systems,
        "largest_difference": disagreement,
        "largest_difference_after_changes": unnoticed,
    }


def calls_a_block(worker: Worker, pause: float) -> int:
    """How many calls fill a block."""
    call = statistics.median(worker.ask(do="time", count=5, pause=pause))
    return int(min(MOST_CALLS, max(3, BLOCK_SECONDS / (call + pause))))


def statistics_of(blocks: list[list[float]]) -> dict[str, float]:
    """Median of all calls, and how far the quartiles of the block medians are apart."""
    medians = [statistics.median(block) for block in blocks]
    low, high = np.percentile(medians, [25, 75])
    middle = statistics.median(s for block in blocks for s in block)
    return {"median": middle, "spread": float(high - low) / middle, "n": sum(map(len, blocks))}


def compare(name: str, samples: dict[str, list[float]]) -> float:
    """The largest relative difference of results between the systems; too much is an error."""
    if not samples:
        return 0.0
    values = np.array(list(samples.values()))
    scale = np.abs(values).max(axis=0) + np.abs(values).mean()
    apart = float((np.ptp(values, axis=0) / scale).max())
    if not apart < TOLERANCE:
        raise SystemExit(f"{name}: the systems disagree by {apart:.1e}: {', '.join(samples)}")
    return apart


if __name__ == "__main__":
    main()
