"""How compiling and calling scale: long chains, deep models, many steps.

    python -m benchmarks.scaling

Prints seconds for elementwise chains of many operations (every stage apart),
the number of Python calls a compiled step makes at two depths, and memory and
recompiles over a thousand training steps with a scheduler and a smaller last
batch.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.optim.lr_scheduler import StepLR
from graphflow.tables import duration, quantity, table

# Each keeps values near [-1, 1], so that a chain of thousands stays finite.
OPERATIONS: tuple[Callable[[Any], Any], ...] = (
    gf.tanh,
    gf.sin,
    gf.sigmoid,
    gf.neg,
    lambda x: x * 0.9 + 0.05,
    lambda x: gf.exp(-x * x),
    lambda x: gf.where(x > 0, x * 0.5, x + 0.25),
    lambda x: gf.clamp(x, -0.9, 0.8),
    lambda x: gf.sqrt(x * x + 0.01),
    lambda x: gf.maximum(x, -0.5 * x),
)


def chain(length: int, seed: int | None) -> Callable[[Any], Any]:
    """About ``length`` nodes in a row: operations drawn by ``seed``, or the same one again."""
    picks = [0] * length
    if seed is not None:
        spec = gf.TensorSpec((8,))
        nodes = np.array([sum(bool(n.inputs) for n in gf.trace(f, spec).nodes) for f in OPERATIONS])
        drawn = np.random.default_rng(seed).integers(0, len(OPERATIONS), length)
        picks = drawn[np.cumsum(nodes[drawn]) <= length].tolist()

    def function(x: Any) -> Any:
        for pick in picks:
            x = OPERATIONS[pick](x)
        return x

    return function


def compiling(length: int, seed: int | None, columns: int = 1000) -> list[str]:
    """A row: nodes, and the seconds of every stage of a chain."""
    gf.manual_seed(0)
    x = gf.randn(columns)
    function = chain(length, seed)
    begin = time.perf_counter()
    graph = gf.trace(function, x)
    traced = time.perf_counter()
    program = gf.compile(graph)
    compiled = time.perf_counter()
    out = program(x)
    expected = function(x)
    apart = float((out - expected).abs().max())
    return [
        "repeating" if seed is None else f"varied, seed {seed}",
        f"{len(graph.nodes):,}",
        duration(traced - begin),
        duration(program.passes_seconds),
        duration(compiled - traced),
        f"{len(program.kernels)}",
        f"{apart:.0e}",
    ]


def text(length: int) -> list[str]:
    """A row: nodes, and the seconds to trace, print, parse and verify."""
    times = [time.perf_counter()]
    graph = gf.trace(chain(length, 1), gf.TensorSpec((8,)))
    times.append(time.perf_counter())
    printed = str(graph)
    times.append(time.perf_counter())
    again = gf.Graph.parse(printed)
    times.append(time.perf_counter())
    again.verify()
    times.append(time.perf_counter())
    assert again.same_as(graph)
    steps = [duration(b - a) for a, b in itertools.pairwise(times)]
    return [f"{len(graph.nodes):,}", *steps]


def deep_step(layers: int) -> tuple[Any, Any, Any]:
    """A compiled training step of an MLP with this many hidden layers, and a batch."""
    modules: list[Any] = [nn.Linear(32, 32)]
    for _ in range(layers):
        modules += [nn.ReLU(), nn.Linear(32, 32)]
    model = nn.Sequential(*modules)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    @gf.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, gf.randn(16, 32), gf.randn(16, 32)


def python_calls(layers: int) -> int:
    """Python and C calls that one compiled step makes."""
    step, x, y = deep_step(layers)
    for _ in range(3):
        step(x, y)
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        step(x, y)
    finally:
        sys.setprofile(None)
    return count


def many_steps(steps: int) -> str:
    """Memory and recompiles over many steps, every tenth with a smaller batch."""
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=100, gamma=0.9)

    @gf.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    batches = [(gf.randn(n, 784), gf.randint(0, 10, (n,))) for n in (64, 30)]
    peaks = []
    for number in range(steps):
        step(*batches[number % 10 == 9])
        scheduler.step()
        if number in (steps // 10, steps - 1):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return (
        f"{steps} steps: {len(step.programs)} programs, {len(step.recompiles)} recompiles, "
        f"peak memory {quantity(peaks[0])} after a tenth, {quantity(peaks[1])} at the end, "
        f"learning rate {optimizer.param_groups[0]['lr']:.4f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", allow_abbrev=False)
    parser.add_argument("--length", type=int, default=10_000)
    parser.add_argument("--text-length", type=int, default=50_000)
    options = parser.parse_args()
    headers = ["chain", "nodes", "trace", "passes", "trace to ready", "kernels", "differ"]
    rows = [compiling(options.length, seed) for seed in (None, 1)]
    print(table(headers, rows))
    print(f"\n{table(['nodes', 'trace', 'print', 'parse', 'verify'], [text(options.text_length)])}")
    shallow, deep = python_calls(2), python_calls(20)
    print(f"\nPython calls of a compiled step: {shallow} with 2 hidden layers, {deep} with 20")
    print(many_steps(1000))


if __name__ == "__main__":
    main()
