"""What this machine can do at best: copy bandwidth and float32 matrix products.

Both are measured by NumPy in a process of its own; a workload's floor is what
it must move over the one, or compute over the other, whichever takes longer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import numpy as np

from benchmarks.worker import environment
from benchmarks.workloads import Workload

_COPIED = 1 << 27  # bytes; far beyond any cache
_SIZE = 2048


def measure(threads: int) -> dict[str, float]:
    """Bytes a second (read plus written) and floating-point operations a second."""
    code = f"import benchmarks.floor as f; f.report({threads})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(threads),
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def report(threads: int) -> None:
    """Measure in this process and print JSON."""
    print(json.dumps({"bandwidth": bandwidth(threads), "flops": flops()}))


def bandwidth(threads: int) -> float:
    """Best of ten copies, shared between ``threads`` Python threads (NumPy lets go of the GIL)."""
    source = np.ones(_COPIED, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    best = float("inf")
    for _ in range(10):
        workers = [threading.Thread(target=np.copyto, args=(t, s)) for s, t in parts]
        begin = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, time.perf_counter() - begin)
    return 2 * _COPIED / best


def flops() -> float:
    """Best of five products of two 2048 × 2048 matrices, by NumPy's BLAS."""
    a = np.ones((_SIZE, _SIZE), np.float32)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * _SIZE**3 / best


def floor_of(workload: Workload, machine: dict[str, float]) -> float:
    """Seconds below which this machine cannot do the workload."""
    return max(workload.flops / machine["flops"], workload.bytes / machine["bandwidth"])
