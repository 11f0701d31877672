"""Every CUDA kernel of the operations' calls as PTX and machine code, without a GPU or a driver.

Prints what the kernels of the models' training steps need, the hot ones; writes that of all
kernels to ``out/cuda_kernels.txt``.  Fails where a kernel does not compile, where a block of
it cannot start for want of registers or shared memory, and where a hot one keeps anything in
local memory or is a map that divides in 64 bits.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import graphflow as gf
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.cuda.assemble import Resources, assemble, resources
from graphflow.codegen.cuda.compile import ptx
from graphflow.codegen.cuda.lower import CUDA
from graphflow.codegen.cuda.toolchain import find
from graphflow.codegen.schedule import Call, KernelSource, Schedule, plain_steps
from graphflow.errors import CompileError
from graphflow.passes.pipeline import PORTABLE, run_pipeline
from graphflow.tables import table
from tests.cudasim.calls import asked, chosen, schedule_of
from tests.cudasim.models import MODELS, WIDE, step_of

CAPABILITIES = ((8, 0), (9, 0))
TABLE = Path("out/cuda_kernels.txt")
HEADERS = ["kernel", "of", *(
    f"{what} {major}.{minor}" for major, minor in CAPABILITIES
    for what in ("registers", "frame", "shared", "occupancy")
)]  # fmt: skip
Found = dict[str, tuple[KernelSource, str]]
Needs = list[Resources] | str
"""What a kernel needs on each of ``CAPABILITIES``, or what is wrong with it."""
DIVISION = re.compile(r"(div|rem)\.[su]64")
"""Some seventy instructions, which no map of a training step needs."""


def kernels_of(schedule: Schedule, label: str) -> Found:
    """The kernels of a schedule by name, with a label."""
    return {
        step.kernel.name: (step.kernel, label)
        for step in plain_steps(schedule.steps)
        if isinstance(step, Call)
    }


def hot_kernels() -> Found:
    """The kernels of the models' training steps, small and at sizes of use."""
    found: Found = {}
    for name in (*WIDE, *MODELS):
        step, _, batch = step_of(name, "cpu")
        graph = run_pipeline(gf.trace(step, *batch), PORTABLE)[-1].graph
        for kernel, label in kernels_of(build_schedule(graph, backend=CUDA), name).values():
            found.setdefault(kernel.name, (kernel, label))
    return found


def needs_of(kernel: KernelSource, hot: bool, until: float) -> Needs | None:
    """What a kernel needs; None if it is too late to begin."""
    if time.time() > until:
        return None
    try:
        texts = [ptx(kernel, target) for target in CAPABILITIES]
        if hot and kernel.name.startswith("ew_") and (found := DIVISION.search(texts[0])):
            return f"{kernel.name}: {found[0]} in a map"
        return [
            resources(assemble(text, target))
            for text, target in zip(texts, CAPABILITIES, strict=True)
        ]
    except CompileError as error:
        return str(error)


def compiled(
    found: Found, hot: Found, until: float
) -> Iterator[tuple[KernelSource, str, Needs | None]]:
    """Every kernel with its label and needs, in order; processes share the work."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with ProcessPoolExecutor(cores) as pool:
        waiting = [
            (k, label, pool.submit(needs_of, k, k.name in hot, until))
            for k, label in found.values()
        ]
        for kernel, label, needs in waiting:
            yield kernel, label, needs.result()


def problem_of(kernel: KernelSource, needs: Needs, hot: bool) -> str:
    """What is wrong with a kernel, if anything is."""
    if isinstance(needs, str):
        return needs
    assert kernel.launch is not None
    for target, need in zip(CAPABILITIES, needs, strict=True):
        if not need.occupancy(kernel.launch.block, target):
            return f"{kernel.name}: a block of {kernel.launch.block} cannot start, {need}"
        if hot and need.frame:
            return f"{kernel.name}: {need.frame} bytes of local memory in a hot kernel, {need}"
    return ""


def row_of(kernel: KernelSource, label: str, needs: Sequence[Resources]) -> list[object]:
    """A row of the table."""
    assert kernel.launch is not None
    row: list[object] = [kernel.name, label]
    for target, need in zip(CAPABILITIES, needs, strict=True):
        share = need.occupancy(kernel.launch.block, target)
        row += [need.registers, need.frame, need.shared, f"{share:.0%}"]
    return row


def main() -> int:
    """Compile; 1 if a kernel fails, 0 also where nothing is installed to compile with."""
    options = asked(__doc__, most=2, unit="kernel")
    installed = find()
    if installed is None or installed.package == "numba":
        print("PTX: not compiled, since numba-cuda is not installed (graphflow[cuda])")
        return 0
    started = time.time()
    until = started + options.seconds if options.seconds else float("inf")
    hot = {} if options.names else hot_kernels()
    found = dict(hot)
    for case in chosen(options.names, options.most):
        for name, kernel in kernels_of(schedule_of(case), case.label).items():
            found.setdefault(name, kernel)
    wrong, left, frames, rows = [], 0, 0, []
    for kernel, label, needs in compiled(found, hot, until):
        if needs is None:
            left += 1
            continue
        problem = problem_of(kernel, needs, kernel.name in hot)
        if problem:
            wrong.append(f"{label}: {problem}")
        if not isinstance(needs, str):
            rows.append(row_of(kernel, label, needs))
            frames += any(need.frame for need in needs)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(HEADERS, rows) + "\n")
    print(table(HEADERS, [row for row in rows if row[0] in hot or options.names]))
    print("\n".join(wrong))
    targets = ", ".join(f"sm_{major}{minor}" for major, minor in CAPABILITIES)
    late = f", {left} left out for want of time" if left else ""
    print(f"machine code for {targets}: {len(found) - left - len(wrong)} of {len(found) - left} "
          f"kernels{late}; {len(hot)} of them hot, {frames} with local memory; all in {TABLE}; "
          f"{time.time() - started:.0f} s, {installed.package} {installed.version}")  # fmt: skip
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
