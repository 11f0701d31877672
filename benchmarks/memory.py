"""What a steady training step needs of memory: live tensor bytes at the peak, and the process's.

    python -m benchmarks.memory

PyTorch's allocator is watched by its profiler during a step; what lives before the step
(parameters, buffers, gradients, the optimiser's state, the batch) is added.  GraphFlow's
plan states the arena that holds everything a step makes; what lives between steps is added
in the same way.  The second figure is the most memory a fresh process ever had, caches warm.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.worker import answer_of, environment, parser_of
from graphflow.tables import quantity, significant, table

SYSTEMS = {"static": "GraphFlow", "torch": "PyTorch eager"}
WORKLOADS = ("gpt", "resnet18_train", "mlp", "cnn", "lstm")
STEPS = 4  # before memory is looked at: the optimiser's state is made by then


def between_steps(model: Any, optimizer: Any, batch: Iterable[Any]) -> int:
    """Bytes of all distinct tensors that live while no step runs, but for gradients."""
    found = [*model.parameters(), *model.buffers(), *batch]
    found += [slot for slots in optimizer.state.values() for slot in slots.values()]
    tensors = {id(t): t.numel() * t.element_size() for t in found if hasattr(t, "element_size")}
    return sum(tensors.values())


def of_torch(workload: Any, threads: int) -> int:
    """Peak of PyTorch's live tensor bytes."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.systems import shared

    torch.set_num_threads(threads)
    model, optimizer = shared.program(torch, workload)
    batch = [torch.from_numpy(values) for values in workload.data()]
    step = shared.timed(torch, workload, model, optimizer)
    for _ in range(STEPS):
        step(*batch)
    lives = between_steps(model, optimizer, batch)
    lives += sum(p.grad.numel() * p.grad.element_size() for p in model.parameters())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step(*batch)
    changes = [
        (event.start_ns(), event.nbytes())
        for event in watched.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    peak = now = 0
    for _, change in sorted(changes):
        now += change
        peak = max(peak, now)
    return lives + peak


def of_graphflow(workload: Any, threads: int) -> int:
    """Peak of GraphFlow's live tensor bytes."""
    import graphflow as gf
    from benchmarks.systems import shared

    gf.set_num_threads(threads)
    model, optimizer = shared.program(gf, workload)
    batch = [gf.from_numpy(values) for values in workload.data()]
    step = gf.compile(shared.timed(gf, workload, model, optimizer))
    for _ in range(STEPS):
        step(*batch)
    arena: int = step.latest.program.schedule.arena_bytes
    return between_steps(model, optimizer, batch) + arena


def look(system: str, name: str, threads: int) -> dict[str, int]:
    """Both figures of this process."""
    from benchmarks.systems import prepare
    from benchmarks.workloads import WORKLOADS

    call = prepare(system, WORKLOADS[name], threads).call
    for _ in range(STEPS):
        call()
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    live = (of_graphflow if system == "static" else of_torch)(WORKLOADS[name], threads)
    return {"live": live, "process": process}


def main() -> None:
    """Measure and print."""
    parser = parser_of("memory", SYSTEMS)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    if options.system:
        print(json.dumps(look(options.system, options.workloads, options.threads)))
        return
    figures: dict[str, dict[str, dict[str, int]]] = {}
    command = [sys.executable, "-m", "benchmarks.memory", "--threads", str(options.threads)]
    for name in options.workloads.split(","):
        for system in SYSTEMS:  # twice: the first run fills the caches
            for _ in range(2):
                found = answer_of(
                    [*command, "--workloads", name, "--system", system],
                    environment(options.threads),
                )
            figures.setdefault(name, {})[system] = found
    rows = [
        [name, SYSTEMS[system], *(cell for key in found for cell in _cells(key, found, systems))]
        for name, systems in figures.items()
        for system, found in systems.items()
    ]
    headers = ["memory at the peak", "", "live tensors", "÷ PyTorch", "process", "÷ PyTorch"]
    print(table(headers, rows))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _cells(key: str, found: dict[str, int], systems: dict[str, dict[str, int]]) -> list[str]:
    return [quantity(found[key]), significant(found[key] / systems["torch"][key])]


if __name__ == "__main__":
    main()
