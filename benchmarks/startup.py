"""From a fresh process to a workload's first call done, with empty and with filled caches."""

from __future__ import annotations

import statistics
import tempfile

from benchmarks.systems import LIBRARIES
from benchmarks.worker import answer_of, environment
from benchmarks.workloads import relatives

CALLS = 3  # after the first; what a steady step needs of memory shows by then

PARTS = ("import", "build", "call", "step", "total", "arrays")
"""Seconds of a fresh process: the system's import, model and tensors, the first call, a later one,
the three first ones together; and apart from them the benchmark's own modules and the workload's
arrays, which NumPy makes for all."""

# Runs in the fresh process; prints PARTS, and its peak of memory.
_CODE = """
import time; begin = time.perf_counter()
import {library}
imported = time.perf_counter()
import importlib, json, resource, sys
from benchmarks.systems import SYSTEMS, prepare
from benchmarks.workloads import WORKLOADS, with_arrays
importlib.import_module("benchmarks.systems." + SYSTEMS[{system!r}][0])
workload = with_arrays(WORKLOADS[{workload!r}])
made = time.perf_counter()
prepared = prepare({system!r}, workload, {threads})
built = time.perf_counter()
prepared.read(prepared.call())
called, numba = time.perf_counter(), "numba" in sys.modules
steps = []
for _ in range({calls}):
    start = time.perf_counter()
    prepared.read(prepared.call())
    steps.append(time.perf_counter() - start)
seconds = dict(arrays=made - imported, build=built - made, call=called - built, step=min(steps))
seconds["import"] = imported - begin
seconds["total"] = called - begin - seconds["arrays"]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(dict(seconds, numba=numba, peak=peak)))
"""


def measure(
    system: str, workload: str, threads: int, python: str, repeat: int
) -> dict[str, float | bool]:
    """Median seconds with ``cold`` (empty) and ``warm`` (filled) caches, and bytes at the peak.

    Seconds are those of :data:`PARTS`.  ``akin`` is GraphFlow's with the caches that the
    workload's relatives have filled: a new model whose kernels are mostly known.
    """
    states: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    others = relatives(workload) if system == "static" else []
    for _ in range(repeat):
        if others:
            with tempfile.TemporaryDirectory() as folder:
                for other in others:
                    _first_call(system, other, threads, python, folder)
                akin = states.setdefault("akin", [])
                akin.append(_first_call(system, workload, threads, python, folder))
        with tempfile.TemporaryDirectory() as folder:
            for state in ("cold", "warm"):
                states[state].append(_first_call(system, workload, threads, python, folder))
    found: dict[str, float | bool] = {
        f"{state}_{part}_s": statistics.median(run[part] for run in runs)
        for state, runs in states.items()
        for part in PARTS
    }
    found["warm_peak_bytes"] = statistics.median(run["peak"] for run in states["warm"])
    found["warm_imports_numba"] = any(run["numba"] for run in states["warm"])
    return found


def _first_call(
    system: str, workload: str, threads: int, python: str, folder: str
) -> dict[str, float]:
    code = _CODE.format(
        library=LIBRARIES[system], system=system, workload=workload, threads=threads, calls=CALLS
    )
    # Each system's cache on disk is empty, and then what the run before left there.
    caches = {
        "GRAPHFLOW_CACHE_DIR": folder,
        "TORCHINDUCTOR_CACHE_DIR": folder,
        "PYTENSOR_FLAGS": f"base_compiledir={folder}",
    }
    run: dict[str, float] = answer_of([python, "-c", code], {**environment(threads), **caches})
    return run
