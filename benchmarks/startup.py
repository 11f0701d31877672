"""From a fresh process to a workload's first call done, with empty and with filled caches."""

from __future__ import annotations

import statistics
import tempfile

from benchmarks.worker import answer_of, environment

CALLS = 3  # after the first; what a steady step needs of memory shows by then

# Runs in the fresh process; prints seconds since its first line, and its peak of memory.
_CODE = """
import time; begin = time.perf_counter()
import sys, json, resource
from benchmarks.systems import prepare
from benchmarks.workloads import WORKLOADS
prepared = prepare({system!r}, WORKLOADS[{workload!r}], {threads})
built = time.perf_counter() - begin
prepared.read(prepared.call())
total, numba = time.perf_counter() - begin, "numba" in sys.modules
for _ in range({calls}):
    prepared.call()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(dict(call=total - built, total=total, numba=numba, peak=peak)))
"""


def measure(
    system: str, workload: str, threads: int, python: str, repeat: int
) -> dict[str, float | bool]:
    """Median seconds with ``cold`` (empty) and ``warm`` (filled) caches, and bytes at the peak.

    ``call`` is the first call alone, ``total`` with imports and what builds the model.
    """
    cold, warm = [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(_first_call(system, workload, threads, python, folder))
            warm.append(_first_call(system, workload, threads, python, folder))
    found: dict[str, float | bool] = {
        f"{state}_{part}_s": statistics.median(run[part] for run in runs)
        for state, runs in (("cold", cold), ("warm", warm))
        for part in ("call", "total")
    }
    found["warm_peak_bytes"] = statistics.median(run["peak"] for run in warm)
    found["warm_imports_numba"] = any(run["numba"] for run in warm)
    return found


def _first_call(
    system: str, workload: str, threads: int, python: str, folder: str
) -> dict[str, float]:
    code = _CODE.format(system=system, workload=workload, threads=threads, calls=CALLS)
    # Each system's cache on disk is empty, and then what the run before left there.
    caches = {
        "GRAPHFLOW_CACHE_DIR": folder,
        "TORCHINDUCTOR_CACHE_DIR": folder,
        "PYTENSOR_FLAGS": f"base_compiledir={folder}",
    }
    run: dict[str, float] = answer_of([python, "-c", code], {**environment(threads), **caches})
    return run
