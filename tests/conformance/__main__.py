"""``python -m tests.conformance``: run entries, print what fails and why."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import torch

import graphflow as gf
from tests.conformance import (
    differences,
    distributions,
    loops,
    models,
    modules,
    operations,
    optimisers,
    pool,
    samples,
    surface,
    table,
    transforms,
)
from tests.conformance.outcome import MODES, Outcome

ENTRY_SECONDS = 300.0
"""How long all samples of an entry may take in one mode."""

RUN: dict[str, Callable[[str, str, bool], Outcome]] = {
    "operations": operations.run,
    "beside": operations.run,
    "modules": modules.run,
    "optimisers": optimisers.run,
    "models": models.run,
    "loops": loops.run,
    "distributions": distributions.run,
    "transforms": transforms.run,
    "surface": surface.run,
}


def main() -> int:
    """Parse arguments, run, report; 1 when something failed (with --table: got worse)."""
    options = _options()
    parts = (samples, modules, optimisers, models, loops, distributions, transforms, surface)
    known = [key for part in parts for key in part.entries()]
    chosen = [key for key in known if _wanted(key, options.ops)]
    if not chosen:
        print(f"no entry is called {', '.join(options.ops)}")
        return 2
    started = time.monotonic()
    outcomes = _run([(key, mode) for key in chosen for mode in options.mode], options)
    before = table.read()
    now = table.merge({k: row for k, row in before.items() if k in known}, outcomes)
    ran = table.merge({}, outcomes)
    print(*table.totals(ran), *_host_calls(ran), sep="\n")
    slowest = sorted(outcomes, key=lambda task: -outcomes[task].seconds)[:8]
    shown = ", ".join(f"{key} {mode} {outcomes[key, mode].seconds:.0f} s" for key, mode in slowest)
    print(f"{len(outcomes)} tasks in {time.monotonic() - started:.0f} s; slowest: {shown}")
    if options.update:
        table.write(now)
        differences.update(now)
        return 0
    if options.table:
        return _judge(before, now)
    return int(any(outcome.failures for outcome in outcomes.values()))


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--ops", type=_words, default=["*"], help="names or patterns: fft.*")
    parser.add_argument("--mode", type=_words, default=list(MODES), help=", ".join(MODES))
    parser.add_argument("--verbose", action="store_true", help="every failure, with its traceback")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="fail if the tracked table shrinks")
    parser.add_argument("--update", action="store_true", help="put what was run into the table")
    options = parser.parse_args()
    unknown = set(options.mode) - set(MODES)
    if unknown:
        parser.error(f"unknown mode {', '.join(sorted(unknown))}; there are {', '.join(MODES)}")
    return options


def _words(text: str) -> list[str]:
    return text.split(",")


def _wanted(key: str, patterns: list[str]) -> bool:
    return any(fnmatch(key, p) or fnmatch(key.partition(":")[0], p) for p in patterns)


def _run(tasks: list[tuple[str, str]], options: Any) -> dict[tuple[str, str], Outcome]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    gf.set_num_threads(1)

    def work(task: tuple[str, str]) -> Outcome:
        started = time.monotonic()
        with contextlib.redirect_stderr(io.StringIO()):  # notes on slow compilations
            outcome = RUN[table.kind_of(task[0])](*task, options.verbose)
        outcome.seconds = time.monotonic() - started
        return outcome

    outcomes: dict[tuple[str, str], Outcome] = {}
    for task, outcome in pool.each(work, tasks, options.jobs, ENTRY_SECONDS):
        outcomes[task] = Outcome(1, failures=[outcome]) if isinstance(outcome, str) else outcome
        if outcomes[task].failures and not options.table:
            _print_failures(task, outcomes[task], options.verbose)
    return outcomes


def _print_failures(task: tuple[str, str], outcome: Outcome, verbose: bool) -> None:
    print(f"FAIL {task[0]} {task[1]} {outcome.passed}/{outcome.total}")
    for failure in outcome.failures if verbose else outcome.failures[:1]:
        print("    " + failure.replace("\n", "\n    "))
    sys.stdout.flush()


def _host_calls(rows: dict[str, table.Row]) -> list[str]:
    calls = [f"{key} ({', '.join(row.host)})" for key, row in rows.items() if row.host]
    return [f"compiled with host calls: {', '.join(calls)}"] if calls else []


def _judge(before: dict[str, table.Row], now: dict[str, table.Row]) -> int:
    """What the table gained and lost; 1 when it lost something."""
    gained, lost = table.gained(before, now), table.lost(before, now)
    if gained:
        print(f"newly passing: {len(gained)}; --update keeps them: {', '.join(gained)}")
    if samples.without_samples():
        print(f"without samples in this PyTorch: {', '.join(samples.without_samples())}")
    print(*[f"LOST {line}" for line in lost], sep="\n", end="\n" if lost else "")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
