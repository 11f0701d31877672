"""Kernels compiled beside each other, by processes of their own.

Numba compiles under the interpreter's lock, a quarter of a second a kernel, and a training step
of a deep network has some sixty.  A process that only compiles needs no GPU and no driver::

    python -m graphflow.runtime.cuda.compiling < (kernels, capability) > machine codes

What such a process does not bring about is left to the caller, which then says what is wrong.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from graphflow.codegen.cuda.assemble import assemble
from graphflow.codegen.cuda.compile import ptx
from graphflow.codegen.schedule import KernelSource
from graphflow.errors import CompileError

Capability = tuple[int, int]
EACH = 4
"""Kernels a process has at least: it imports Numba first, which takes as long as a few of them."""
MOST_PROCESSES = 8
LONGEST = 600
"""Seconds after which a process is given up."""


def processes(count: int) -> int:
    """How many processes compile ``count`` kernels; fewer than two: none is worth it."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MOST_PROCESSES, free or 1, count // EACH) if sys.executable else 0


def compiled_apart(
    kernels: Sequence[KernelSource], capability: Capability, count: int
) -> dict[KernelSource, bytes]:
    """The machine codes of ``kernels`` that ``count`` processes could make, and no others."""
    shares = [kernels[first::count] for first in range(count)]
    with ThreadPoolExecutor(count) as threads:
        answers = threads.map(lambda share: _asked(share, capability), shares)
        return {kernel: code for answer in answers for kernel, code in answer.items()}


def _asked(share: Sequence[KernelSource], capability: Capability) -> dict[KernelSource, bytes]:
    command = [sys.executable, "-m", __name__]
    folders = os.pathsep.join(path for path in sys.path if path)  # of a package that lies anywhere
    try:
        done = subprocess.run(
            command, input=pickle.dumps((list(share), capability)), capture_output=True,
            env={**os.environ, "PYTHONPATH": folders}, timeout=LONGEST,
        )  # fmt: skip
        codes = pickle.loads(done.stdout) if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired, pickle.UnpicklingError, EOFError):
        return {}
    return {kernel: code for kernel, code in zip(share, codes) if code is not None}


def _code(kernel: KernelSource, capability: Capability) -> bytes | None:
    try:
        return assemble(ptx(kernel, capability), capability)
    except CompileError:
        return None


def main() -> None:
    """Compile what is described on standard input, and write the codes to standard output."""
    kernels, capability = pickle.load(sys.stdin.buffer)
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever else is said is no answer
    codes = [_code(kernel, capability) for kernel in kernels]
    answer.buffer.write(pickle.dumps(codes))


if __name__ == "__main__":
    main()
