"""What every model script shares: flags, the two modes, progress, and the table at the end.

A model file says what is trained (a :class:`Session` for a seed); this file
trains it define-then-run (``static``), eagerly, or both in turn with the same
seeds, so that the two can be held against each other.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graphflow as gf
from graphflow.device import available
from graphflow.inspect import write_program
from graphflow.tables import duration, table
from graphflow.utils.progress import Progress

COMPARED = 100  # steps whose losses are compared between the modes


@dataclass
class Session:
    """One training run, before it starts.

    ``step(*batch)`` makes one update and returns the loss; ``specs`` are the
    types of a batch; ``evaluate()`` measures on held-out data; ``progress(done)``
    is told the part of the training that is done, from 0 to 1, before every step;
    ``show()`` gives text to print at the end.
    """

    step: Callable[..., Any]
    specs: tuple[Any, ...]
    batches: Collection[Any]
    evaluate: Callable[[], float]
    scheduler: Any = None
    progress: Callable[[float], None] | None = None
    show: Callable[[], str] | None = None


@dataclass
class Run:
    """What one training run measured: losses, seconds a step, and the result."""

    mode: str
    seed: int
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    result: float = 0.0


@dataclass(frozen=True)
class Task:
    """A model script: ``start(seed, data)`` makes a session; the rest is for people."""

    name: str
    start: Callable[[int, Path], Session]
    epochs: int
    metric: str
    describe: Callable[[Path], str]


def main(task: Task, arguments: Sequence[str] | None = None) -> list[Run]:
    """Run a model script with the flags of the command line; returns its runs."""
    options = parse(task, arguments)
    print(f"{task.name}: {task.describe(options.data)}")
    seeds = range(options.seed, options.seed + options.seeds)
    runs = []
    for number, seed in enumerate(seeds):
        modes = ["static", "eager"] if options.mode == "both" else [options.mode]
        for mode in modes[:: -1 if number % 2 else 1]:  # in turn, each first as often
            runs.append(train(task, mode, seed, options))
    print(f"\n{summary(task, runs)}")
    if options.mode == "both":
        print(comparison(runs))
    show(task, options)
    return runs


def show(task: Task, options: argparse.Namespace) -> None:
    """Write what ``--inspect`` and ``--export`` ask for (after training, which times compiling)."""
    if not (options.inspect or options.export):
        return
    program = define(task.start(options.seed, options.data), options.device)
    if options.inspect:
        paths = write_program(program, options.inspect)
        print(f"\nThe step, stage by stage, in {options.inspect}:")
        print("\n".join(f"  {path}" for path in paths))
    if options.export:
        Path(options.export).write_text(f"{program.graph}\n", encoding="utf-8")
        print(f"\nThe traced graph as text (gf.Graph.parse reads it): {options.export}")


def parse(task: Task, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the flags that all model scripts have."""
    parser = argparse.ArgumentParser(description=task.name, allow_abbrev=False)
    parser.add_argument("--mode", choices=["static", "eager", "both"], default="static")
    parser.add_argument("--device", default="cpu", help="where to run (default: cpu)")
    parser.add_argument("--epochs", type=positive, default=task.epochs)
    parser.add_argument("--minutes", type=minutes, help="train as long as this, not for epochs")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=positive, default=1, help="how many seeds to train")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of data sets")
    parser.add_argument("--inspect", metavar="FOLDER", help="write every stage as text")
    parser.add_argument("--export", metavar="FILE", help="write the traced graph as text")
    options = parser.parse_args(arguments)
    try:
        available(options.device)
    except gf.GraphFlowError as error:
        parser.error(str(error))
    return options


def positive(text: str) -> int:
    """An integer above zero, for argparse."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def minutes(text: str) -> float:
    """A time above zero, for argparse."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not a time above zero")
    return value


def define(session: Session, device: str) -> Any:
    """Define: one graph of forward, backward and update, compiled to a program."""
    graph = gf.trace(session.step, *session.specs)
    return gf.compile(graph, device=device)


def train(task: Task, mode: str, seed: int, options: argparse.Namespace) -> Run:
    """Train once; timing covers the step calls alone, not the loading of data."""
    session = task.start(seed, options.data)
    run = Run(mode, seed)
    begin = time.perf_counter()
    step = define(session, options.device) if mode == "static" else session.step
    defined = time.perf_counter() - begin
    for done, batch in schedule(session, options, f"{mode:>6} seed {seed}", run):
        if session.progress is not None:
            session.progress(done)
        begin = time.perf_counter()
        loss = step(*batch)
        run.losses.append(float(loss))
        run.seconds.append(time.perf_counter() - begin)
    run.first = defined + run.seconds[0]
    run.result = session.evaluate()
    if session.show is not None:
        print(f"\n{session.show()}\n")
    return run


def schedule(
    session: Session, options: argparse.Namespace, title: str, run: Run
) -> Iterator[tuple[float, Any]]:
    """The batches of all epochs, or of so many minutes; each with the part that is done."""
    limit = 60 * options.minutes if options.minutes else math.inf
    begin = time.perf_counter()
    spent = lambda: (time.perf_counter() - begin) / limit  # noqa: E731
    epochs = itertools.takewhile(lambda epoch: not epoch or spent() < 1, itertools.count())
    bar = Progress(range(options.epochs) if math.isinf(limit) else epochs, title)
    for epoch in bar:
        for number, batch in enumerate(session.batches):
            if spent() >= 1 and run.losses:
                break
            steps = (epoch + number / len(session.batches)) / options.epochs
            yield (steps if math.isinf(limit) else min(spent(), 1.0)), batch
        if session.scheduler is not None:
            session.scheduler.step()
        bar.note = f"loss {run.losses[-1]:.4f}"


def warm_cosine(optimizer: Any, highest: float, warm: float = 0.05) -> Callable[[float], None]:
    """A ``progress`` that sets the learning rate: up for ``warm`` of the training, then down.

    Up is linear from 1/100 of the highest rate, down is half a cosine to 1/10 of it.
    """

    def progress(done: float) -> None:
        if done < warm:
            share = 0.01 + 0.99 * done / warm
        else:
            share = 0.1 + 0.45 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
        for group in optimizer.param_groups:
            group["lr"] = highest * share

    return progress


def summary(task: Task, runs: list[Run]) -> str:
    """A row a mode: result over the seeds, and time."""
    rows = []
    for mode in dict.fromkeys(run.mode for run in runs):
        chosen = [run for run in runs if run.mode == mode]
        results = [run.result for run in chosen]
        rows.append(
            [
                mode,
                f"{statistics.mean(results):.4f}",
                f"{min(results):.4f}",
                f"{max(results):.4f}",
                duration(median_step(chosen)),
                duration(chosen[0].first),
            ]
        )
    headers = ["mode", f"{task.metric}: mean", "min", "max", "median step", "first call"]
    return f"{len({run.seed for run in runs})} seeds\n{table(headers, rows)}"


def median_step(runs: list[Run]) -> float:
    """Median seconds of a step, the first ones (which compile) left out."""
    return statistics.median(s for run in runs for s in (run.seconds[1:] or run.seconds))


def comparison(runs: list[Run]) -> str:
    """How far the losses of the two modes are apart, and how much faster static is."""
    static = {run.seed: run for run in runs if run.mode == "static"}
    eager = {run.seed: run for run in runs if run.mode == "eager"}
    apart = max(
        abs(a - b) / max(abs(b), 1e-30)
        for seed, run in static.items()
        for a, b in zip(run.losses[:COMPARED], eager[seed].losses[:COMPARED], strict=True)
    )
    ratio = median_step(list(eager.values())) / median_step(list(static.values()))
    steps = min(COMPARED, *(len(run.losses) for run in runs))
    return (
        f"static is {ratio:.2f}× as fast as eager\n"
        f"largest relative difference of the loss in the first {steps} steps: {apart:.1e}"
    )
