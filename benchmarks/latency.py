"""How long a caller waits when several threads of one process ask at once.

    python -m benchmarks.latency

Four Python threads each call the same model on one sample, again and again.  Every system
has a process of its own, and they take turns; a row gives the median and the 99th percentile
of all callers' waits, and the calls a second of all threads together.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import answer_of, environment, parser_of
from graphflow.tables import duration, significant, table

SYSTEMS = {"static": "GraphFlow", "torch": "PyTorch eager", "ort": "ONNX Runtime"}
WORKLOADS = ("mlp", "resnet18_infer")
WARM, SECONDS = 30, 3.0


def callers(system: str, name: str, threads: int) -> Callable[[], Any]:
    """What each thread calls; ``NotImplementedError`` if the system cannot."""
    from benchmarks.systems import prepare, shared
    from benchmarks.workloads import WORKLOADS, Training

    workload: Any = dataclasses.replace(WORKLOADS[name], batch=1)
    if not isinstance(workload, Training):
        return prepare(system, workload, threads).call
    if system == "ort":
        raise NotImplementedError("ONNX Runtime is measured with image networks")
    framework = importlib.import_module("graphflow" if system == "static" else "torch")
    framework.set_num_threads(threads)
    model, _ = shared.program(framework, workload)
    scores = shared.timed(framework, workload, model.eval(), None)
    batch = [framework.from_numpy(values) for values in workload.data()]
    run = framework.compile(scores) if system == "static" else scores
    return lambda: run(*batch)


def waits(call: Callable[[], Any], threads: int, seconds: float) -> dict[str, float]:
    """Median and 99th percentile of a call's seconds, and the calls a second."""
    for _ in range(WARM):
        call()
    ready = threading.Barrier(threads + 1)
    found: list[list[float]] = [[] for _ in range(threads)]

    clock = time.perf_counter

    def ask(into: list[float]) -> None:
        ready.wait()
        now = begin  # a thread that is kept from running waits too
        while now < begin + seconds:
            call()
            before, now = now, clock()
            into.append(now - before)

    asking = [threading.Thread(target=ask, args=(into,)) for into in found]
    for thread in asking:
        thread.start()
    begin = clock()
    ready.wait()
    for thread in asking:
        thread.join()
    every = np.concatenate(found)
    middle, late = np.percentile(every, [50, 99])
    rate = every.size / (clock() - begin)
    return {"median": float(middle), "p99": float(late), "rate": rate}


def measure(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians over the rounds, by system."""
    runs: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    command = [sys.executable, "-m", "benchmarks.latency", "--workloads", name]
    command += ["--callers", str(options.callers), "--threads", str(options.threads)]
    for _ in range(options.rounds):
        for system, found in runs.items():
            try:
                answer = answer_of([*command, "--system", system], environment(options.threads))
            except RuntimeError as error:
                if "NotImplementedError" not in str(error):
                    raise
                continue
            found.append(answer)
            print(".", end="", file=sys.stderr, flush=True)
    return {
        system: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for system, found in runs.items()
        if found
    }


def main() -> None:
    """Measure and print."""
    parser = parser_of("latency", SYSTEMS)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--callers", type=int, default=4, help="Python threads that call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    if options.system:
        call = callers(options.system, options.workloads, options.threads)
        print(json.dumps(waits(call, options.callers, SECONDS)))
        return
    figures = {name: measure(name, options) for name in options.workloads.split(",")}
    rows = []
    for name, found in figures.items():
        fastest = min(f["p99"] for system, f in found.items() if system != "static")
        for system, f in found.items():
            times = [duration(f["median"]), duration(f["p99"])]
            row = [name, SYSTEMS[system], *times, f"{f['rate']:,.0f}"]
            rows.append([*row, significant(f["p99"] / fastest)])
    head = [f"{options.callers} callers, batch 1", "", "median wait", "99th percentile"]
    print(f"\n{table([*head, 'calls a second', '÷ fastest peer'], rows)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
