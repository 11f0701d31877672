"""``python -m tests.conformance``: run entries, print what fails and why."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
import warnings
from fnmatch import fnmatch
from typing import Any

import torch

import graphflow as gf
from tests.conformance import operations, pool, samples
from tests.conformance.operations import MODES, Outcome

ENTRY_SECONDS = 150.0


def main() -> int:
    """Parse arguments, run, report; 1 when something failed."""
    options = _options()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    gf.set_num_threads(1)
    infos = samples.entries()
    chosen = [key for key in infos if _wanted(key, options.ops)]
    if not chosen:
        print(f"no entry is called {', '.join(options.ops)}")
        return 2
    modes = options.mode
    tasks = [(key, mode) for key in chosen for mode in modes]
    started = time.monotonic()

    def work(task: tuple[str, str]) -> Outcome:
        with contextlib.redirect_stderr(io.StringIO()):  # notes on slow compilations
            return operations.run(infos[task[0]], task[1], options.verbose)

    results: dict[tuple[str, str], Outcome] = {}
    for task, outcome in pool.each(work, tasks, options.jobs, ENTRY_SECONDS):
        results[task] = Outcome(1, failures=[outcome]) if isinstance(outcome, str) else outcome
        if results[task].failures:
            _print_failures(task, results[task], options.verbose)
    _print_totals(results, modes)
    print(f"{time.monotonic() - started:.0f} s")
    return int(any(outcome.failures for outcome in results.values()))


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--ops", type=names, default=["*"], help="names or patterns (fft.*)")
    parser.add_argument("--mode", type=names, default=list(MODES), help=", ".join(MODES))
    parser.add_argument("--verbose", action="store_true", help="every failure, with its traceback")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    unknown = set(options.mode) - set(MODES)
    if unknown:
        parser.error(f"unknown mode {', '.join(sorted(unknown))}; there are {', '.join(MODES)}")
    return options


def _wanted(key: str, patterns: list[str]) -> bool:
    return any(fnmatch(key, p) or fnmatch(key.partition(":")[0], p) for p in patterns)


def _print_failures(task: tuple[str, str], outcome: Outcome, verbose: bool) -> None:
    key, mode = task
    print(f"FAIL {key} {mode} {outcome.passed}/{outcome.total}")
    shown = outcome.failures if verbose else outcome.failures[:1]
    for failure in shown:
        print("    " + failure.replace("\n", "\n    "))
    sys.stdout.flush()


def _print_totals(results: dict[tuple[str, str], Outcome], modes: list[str]) -> None:
    for mode in modes:
        states = [outcome.state for (_, m), outcome in results.items() if m == mode]
        counted = [s for s in states if s in ("pass", "fail")]
        line = f"{mode}: {counted.count('pass')} of {len(counted)} entries pass"
        if states.count("apart"):
            line += f", {states.count('apart')} apart (results of unknown size)"
        host = [key for (key, m), outcome in results.items() if m == mode and outcome.host]
        if host:
            line += f"; with host calls: {len(host)} ({', '.join(host)})"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
