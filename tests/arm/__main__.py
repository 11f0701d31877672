"""Every operation's kernels for ARM in the emulator, against the interpreter."""

# ruff: noqa: E402 - the emulator comes before what calls kernels

from __future__ import annotations

import sys
import time
import warnings

from tests.arm.emulator import calls, install

install()

import numpy as np

from graphflow.codegen.schedule import BufferKind, Schedule
from graphflow.ir.interp import interpret
from graphflow.runtime.launch import LoadedProgram
from graphflow.runtime.storage import Storage
from tests.cudasim.calls import Case, asked, chosen, has_kernels, schedule_of


def result_of(schedule: Schedule, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """The first result of a schedule on these inputs, wherever it lies."""
    given = [Storage(np.array(a, order="C")) for a in arrays]
    made = LoadedProgram(schedule, threads=1).run([x.address for x in given])[0]
    if made is not None:
        return made.array
    result = schedule.results[0]
    buffer = schedule.buffers[result.buffer]
    assert buffer.kind is BufferKind.INPUT
    base = given[schedule.inputs.index(buffer.id)].array
    dtype = result.type.dtype.numpy
    strides = [step * dtype.itemsize for step in result.strides]
    start = result.offset * dtype.itemsize
    return np.ndarray(result.type.static_shape, dtype, base.reshape(-1), start, strides)


def check(case: Case, schedule: Schedule) -> str:
    """What is wrong with a call, if anything."""
    from test_ops_matrix import assert_close

    try:
        (expected,) = interpret(case.graph(), case.arrays).outputs[:1]
        assert_close(case, result_of(schedule, case.arrays), expected)
    except Exception as error:
        return f"{case.label}: {type(error).__name__}: {str(error)[:300]}"
    return ""


def main() -> int:
    """Run the calls that were asked for; 1 if one is wrong."""
    options = asked(__doc__, most=2, unit="call")
    warnings.simplefilter("ignore")
    started, done, left = time.perf_counter(), 0, 0
    covered: set[str] = set()
    wrong: list[str] = []
    for case in chosen(options.names, options.most):
        if options.seconds and time.perf_counter() - started > options.seconds:
            left += 1
            continue
        schedule = schedule_of(case, cuda=False)
        if not has_kernels(schedule):
            continue
        done += 1
        covered.add(case.op.name)
        wrong += filter(None, [check(case, schedule)])
    print("\n".join(wrong))
    print(
        f"kernels for ARM that agree: {done - len(wrong)} of {done} calls of {len(covered)} "
        f"operations{f', {left} left out' if left else ''}, {calls[0]} calls into emulated code, "
        f"{time.perf_counter() - started:.0f} s"
    )
    return int(bool(wrong) or not calls[0])


if __name__ == "__main__":
    sys.exit(main())
