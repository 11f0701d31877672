"""What the debugging flags show of a program beyond its graphs.

``GRAPHFLOW_DEBUG``: 1 a summary of every compilation, 2 also the time of every
kernel when the process ends, 4 also every kernel's source (3 and 5 belong to the
passes).  ``GRAPHFLOW_DUMP=folder`` writes schedule, kernels and summary beside
the graphs.
"""

from __future__ import annotations

import atexit
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from graphflow import flags
from graphflow.codegen.schedule import Call, plain_steps
from graphflow.explain import explain_program, kernels_of
from graphflow.passes.pipeline import dump_folder
from graphflow.tables import duration, table

if TYPE_CHECKING:
    from graphflow.program import Program


def report(program: Program) -> None:
    """Print and write what the flags ask for, once a program has been built."""
    level = flags.DEBUG.value
    if level >= 1:
        print(explain_program(program), file=sys.stderr)
    if level >= 2:
        program.loaded.profile()
        atexit.register(_print_timings, program)
    if level >= 4:
        for kernel in {k.name: k for k in kernels_of(program)}.values():
            print(f"# {kernel.source_path}\n{kernel.source}", file=sys.stderr)
    folder = dump_folder(program.graph)
    if folder is not None:
        _write(program, folder)


def _print_timings(program: Program) -> None:
    calls = [step for step in plain_steps(program.schedule.steps) if isinstance(step, Call)]
    rows = [
        [call.kernel.name, runs, duration(seconds / runs), duration(seconds)]
        for call, (seconds, runs) in zip(calls, program.loaded.timings())
        if runs
    ]
    if rows:
        print(f"kernels of {program.graph.name}:", file=sys.stderr)
        print(table(["kernel", "runs", "each", "in all"], rows), file=sys.stderr)


def _write(program: Program, folder: Path) -> None:
    kernels = folder / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    (folder / "schedule.txt").write_text(f"{program.schedule}\n", encoding="utf-8")
    (folder / "explain.txt").write_text(f"{explain_program(program)}\n", encoding="utf-8")
    for kernel in kernels_of(program):
        (kernels / f"{kernel.name}.py").write_text(kernel.source, encoding="utf-8")
