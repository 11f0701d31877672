"""Every operation in the CUDA simulator, against the interpreter."""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")

import warnings

import numpy as np

from graphflow.ir.interp import interpret
from graphflow.ir.op import all_ops
from graphflow.runtime.cuda.launch import CudaProgram
from graphflow.runtime.cuda.library import NOTHING, Wanted
from graphflow.runtime.cuda.memory import DeviceArray
from tests.cudasim.calls import asked, chosen, has_kernels, schedule_of

LEAST_SHARE = 0.95


def result_of(schedule, arrays, library=NOTHING):  # type: ignore[no-untyped-def]
    """The first result of a schedule on these inputs, wherever it lies."""
    given = [DeviceArray.of(np.ascontiguousarray(a).reshape(a.shape)) for a in arrays]
    made = CudaProgram(schedule, library=library).run(given)[0]
    if made is None:
        result = schedule.results[0]
        base = given[schedule.inputs.index(result.buffer)]
        dtype = result.type.dtype.numpy
        strides = [step * dtype.itemsize for step in result.strides]
        shape, offset = result.type.static_shape, result.offset * dtype.itemsize
        made = DeviceArray(base.block, shape, dtype, offset, strides)
    return made.numpy()


def check(case, library: Wanted = NOTHING) -> str:  # type: ignore[no-untyped-def]
    """What is wrong with a call on CUDA, if anything."""
    from test_ops_matrix import assert_close

    try:
        found = result_of(schedule_of(case), case.arrays, library)
        (expected,) = interpret(case.graph(), case.arrays).outputs[:1]
        assert_close(case, found, expected)
    except Exception as error:
        return f"{case.label}: {type(error).__name__}: {str(error)[:300]}"
    return ""


def main() -> int:
    """Run the calls that were asked for; 1 if one is wrong or too few have kernels."""
    options = asked(__doc__, most=4, unit="call")
    warnings.simplefilter("ignore")
    started, calls, left = time.perf_counter(), 0, 0
    expected: set[str] = set()
    wrong: dict[str, str] = {}
    host: set[str] = set()
    for case in chosen(options.names, options.most):
        if options.seconds and time.perf_counter() - started > options.seconds:
            left += 1
            continue
        if not has_kernels(schedule_of(case, cuda=False)):
            continue
        expected.add(case.op.name)
        calls += 1
        if not has_kernels(schedule_of(case)):
            host.add(case.op.name)
        problem = check(case)
        if problem:
            wrong.setdefault(case.op.name, problem)
    for problem in wrong.values():
        print(problem)
    covered = expected - host - set(wrong)
    share = len(covered) / max(1, len(expected))
    for what, names in (("no CUDA kernel", host), ("wrong", set(wrong) - host)):
        if names:
            print(f"{what}: {', '.join(sorted(names))}")
    print(
        f"CUDA kernels that agree: {len(covered)} of {len(expected)} operations with CPU kernels "
        f"({share:.1%}; {len(all_ops())} operations in all), {calls} calls"
        f"{f', {left} left out' if left else ''}, {time.perf_counter() - started:.1f} s"
    )
    return int(bool(wrong) or share < LEAST_SHARE)


if __name__ == "__main__":
    sys.exit(main())
