"""Tokens a second of a small GPT that writes one token after another.

    python -m benchmarks.generation

The model is that of ``models/gpt.py`` (4 layers of 128), batch 1, with a cache of keys
and values.  Its twin runs the same weights in PyTorch, eagerly: a cache allocated
beforehand, fused attention over the part of it that is filled, no gradients.  Every
system has a process of its own; they take turns, and must write the same tokens greedily.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import SETTLE_SECONDS, WARM_SECONDS, answer_of, environment, parser_of
from graphflow.tables import duration, significant, table

PROMPT, NEW, REPEATS = [4, 8, 15, 16, 23, 42], 120, 21
SYSTEMS = {"graphflow": "GraphFlow, compiled", "torch": "PyTorch, eager"}
KINDS = {True: "greedy", False: "drawn"}
SPREAD = 4.0
"""What weights are multiplied by: a model without training, but with some opinion."""


def config() -> Any:
    """The sizes, from ``models/gpt.py``."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    import gpt

    return gpt.CHARACTERS


def write_weights(path: Path) -> None:
    """Random weights by the names of the published GPT-2."""
    c, rng = config(), np.random.default_rng(0)
    shapes = {"wte.weight": (c.vocabulary, c.width), "wpe.weight": (c.length, c.width)}
    sides = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    for layer in range(c.layers):
        for name, (into, out) in sides.items():
            shapes[f"h.{layer}.{name}.weight"] = (into * c.width, out * c.width)
            shapes[f"h.{layer}.{name}.bias"] = (out * c.width,)
    found = {k: SPREAD * 0.02 * rng.standard_normal(s, np.float32) for k, s in shapes.items()}
    for name in [f"h.{layer}.ln_{k}" for layer in range(c.layers) for k in (1, 2)] + ["ln_f"]:
        found[f"{name}.weight"] = 1 + 0.1 * rng.standard_normal(c.width, np.float32)
        found[f"{name}.bias"] = 0.1 * rng.standard_normal(c.width, np.float32)
    np.savez(path, **found)


def graphflow_writer(weights: dict[str, Any]) -> Callable[[bool], list[int]]:
    """``models/gpt.py`` with ``models/generation.py``: one compiled call a token."""
    c = config()
    import gpt

    import graphflow as gf

    model = gpt.GPT(c)
    state = {f"transformer.{name}": gf.tensor(value) for name, value in weights.items()}
    model.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]})
    model.eval()
    prompt = gf.tensor([PROMPT])

    def write(greedy: bool) -> list[int]:
        tokens: list[int] = model.generate(prompt, NEW, greedy=greedy)[0].tolist()
        assert not any(step.recompiles for step in model.generations[1].programs.values())
        return tokens

    return write


def torch_writer(weights: dict[str, Any]) -> Callable[[bool], list[int]]:
    """The same in PyTorch."""
    from benchmarks.systems.torch_generation import Writer

    writer = Writer(config(), weights)
    return lambda greedy: writer(PROMPT, NEW, greedy)


def serve(system: str, path: Path) -> None:
    """Print as JSON what ``system`` writes greedily, and seconds a token of each kind."""
    weights = dict(np.load(path))
    write = {"graphflow": graphflow_writer, "torch": torch_writer}[system](weights)
    answer: dict[str, Any] = {"tokens": write(True)}
    for greedy, kind in KINDS.items():
        time.sleep(SETTLE_SECONDS)
        awake = time.perf_counter() + WARM_SECONDS
        write(greedy)
        while time.perf_counter() < awake:
            write(greedy)
        seconds = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            write(greedy)
            seconds.append((time.perf_counter() - begin) / NEW)
        answer[kind] = statistics.median(seconds)
    print(json.dumps(answer))


def ask(system: str, path: Path, threads: int) -> dict[str, Any]:
    """What :func:`serve` prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.generation", "--system", system]
    command += ["--weights", str(path), "--threads", str(threads)]
    answer: dict[str, Any] = answer_of(command, environment(threads))
    return answer


def measure(threads: int, rounds: int) -> str:
    """The table: the median round of every system."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        write_weights(path)
        found = [{s: ask(s, path, threads) for s in SYSTEMS} for _ in range(rounds)]
    first = found[0]["torch"]["tokens"]
    for answers in found:
        for system, answer in answers.items():
            if answer["tokens"] != first:
                raise RuntimeError(f"{SYSTEMS[system]} writes other tokens: {answer['tokens']}")
    rows = []
    for kind in KINDS.values():
        ours, theirs = (statistics.median(f[s][kind] for f in found) for s in SYSTEMS)
        speeds = [f"{1 / s:,.0f} ({duration(s)})" for s in (ours, theirs)]
        rows.append([kind, *speeds, significant(theirs / ours)])
    return table(["tokens a second", *SYSTEMS.values(), "times as fast"], rows)


def main() -> None:
    """Measure and print."""
    parser = parser_of("generation", SYSTEMS, threads=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.system:
        serve(options.system, options.weights)
        return
    print(measure(options.threads, options.rounds))


if __name__ == "__main__":
    main()
