"""The calls of operations that CUDA kernels are made for."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from op_cases import Case, all_cases

from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.cuda.lower import CUDA
from graphflow.codegen.schedule import HostCall, Schedule, plain_steps
from graphflow.passes.pipeline import PORTABLE, run_pipeline

QUICK = ("f32", "i64", "bool")


def chosen(names: Sequence[str], most: int) -> Iterator[Case]:
    """Up to ``most`` calls of each operation and dtype (0: all); quick: of one dtype."""
    count: Counter[tuple[str, str]] = Counter()
    for case in all_cases():
        if names and case.op.name not in names:
            continue
        if case.op.tiles is not None:
            continue  # forms that the passes choose on a processor only
        key = (case.op.name, case.dtype.short if most != 1 else "")
        if most == 1 and all(0 in a.shape or a.ndim == 0 for a in case.arrays) and case.arrays:
            continue
        if most and count[key] >= most:
            continue
        count[key] += 1
        yield case


def schedule_of(case: Case, cuda: bool = True) -> Schedule:
    """The schedule of a call for CUDA, or for the CPU."""
    if not cuda:
        return build_schedule(run_pipeline(case.graph())[-1].graph)
    return build_schedule(run_pipeline(case.graph(), PORTABLE)[-1].graph, backend=CUDA)


def has_kernels(schedule: Schedule) -> bool:
    """Whether nothing is left to the host."""
    return not any(isinstance(step, HostCall) for step in plain_steps(schedule.steps))


def asked(description: str | None, most: int, unit: str) -> argparse.Namespace:
    """What the command line asks for: ``names``, how many calls (``most``), ``seconds``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", help="operations (all, if none is named)")
    parser.add_argument("--quick", action="store_true", help="one call of each operation")
    parser.add_argument("--most", type=int, default=most, help="calls of an operation and dtype")
    parser.add_argument("--seconds", type=float, default=0, help=f"begin no {unit} after so long")
    options = parser.parse_args()
    options.most = 1 if options.quick else options.most
    return options
