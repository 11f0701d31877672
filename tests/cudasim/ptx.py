"""Every CUDA kernel of the operations' calls as PTX, without a GPU or a driver."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import graphflow as gf
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.cuda.compile import ptx
from graphflow.codegen.cuda.lower import CUDA
from graphflow.codegen.cuda.toolchain import find
from graphflow.codegen.schedule import Call, KernelSource, plain_steps
from graphflow.errors import CompileError
from graphflow.passes.pipeline import PORTABLE, run_pipeline
from tests.cudasim.calls import asked, chosen, schedule_of
from tests.cudasim.models import MODELS, step_of

CAPABILITIES = ((8, 0), (9, 0))


def found_kernels(names: Sequence[str], most: int) -> dict[str, tuple[KernelSource, str]]:
    """The kernels of the operations' calls, and of the models' steps if no names are given."""
    found = []
    for name in () if names else MODELS:
        step, _, batch = step_of(name, "cpu")
        graph = run_pipeline(gf.trace(step, *batch), PORTABLE)[-1].graph
        found.append((name, build_schedule(graph, backend=CUDA)))
    found += [(case.label, schedule_of(case)) for case in chosen(names, most)]
    return {
        step.kernel.name: (step.kernel, label)
        for label, schedule in found
        for step in plain_steps(schedule.steps)
        if isinstance(step, Call)
    }


def problem_of(kernel: KernelSource) -> str:
    """Why a kernel does not compile, if it does not."""
    for capability in CAPABILITIES:
        try:
            ptx(kernel, capability)
        except CompileError as error:
            return str(error)
    return ""


def main() -> int:
    """Compile; 1 if a kernel does not, 0 also where nothing is installed to compile with."""
    options = asked(__doc__, most=2, unit="kernel")
    found = find()
    if found is None or found.package == "numba":
        print("PTX: not compiled, since numba-cuda is not installed (graphflow[cuda])")
        return 0
    started, wrong = time.perf_counter(), []
    kernels = found_kernels(options.names, options.most)
    done = 0
    for kernel, label in kernels.values():
        if options.seconds and time.perf_counter() - started > options.seconds:
            break
        problem = problem_of(kernel)
        done += 1
        if problem:
            wrong.append(f"{label}: {problem}")
            print(wrong[-1], flush=True)
    targets = ", ".join(f"sm_{major}{minor}" for major, minor in CAPABILITIES)
    left = f", {len(kernels) - done} left out for want of time" if done < len(kernels) else ""
    print(f"PTX for {targets}: {done - len(wrong)} of {done} kernels{left}, "
          f"{time.perf_counter() - started:.0f} s, {found.package} {found.version}")  # fmt: skip
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
