"""From a fresh process to the first training step done, with empty and with warm caches."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile

from benchmarks.worker import environment

# Runs in the fresh process; prints seconds since its first line.
_CODE = """
import time; begin = time.perf_counter()
import sys, json
from benchmarks.systems import prepare
from benchmarks.workloads import WORKLOADS
workload = WORKLOADS["mlp"]
prepared = prepare({system!r}, workload, {threads})
built = time.perf_counter() - begin
prepared.read(prepared.call())
print(json.dumps(dict(built=built, total=time.perf_counter() - begin,
                      numba="numba" in sys.modules)))
"""


def measure(system: str, threads: int, python: str, repeat: int) -> dict[str, float]:
    """Median seconds to the first step: ``cold`` (caches empty) and ``warm`` (filled)."""
    cold, warm = [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(_first_step(system, threads, python, folder))
            warm.append(_first_step(system, threads, python, folder))
    return {
        "cold_s": statistics.median(run["total"] for run in cold),
        "warm_s": statistics.median(run["total"] for run in warm),
        "warm_build_s": statistics.median(run["built"] for run in warm),
        "warm_imports_numba": any(run["numba"] for run in warm),
    }


def _first_step(system: str, threads: int, python: str, folder: str) -> dict[str, float]:
    done = subprocess.run(
        [python, "-c", _CODE.format(system=system, threads=threads)],
        env={**environment(threads), "GRAPHFLOW_CACHE_DIR": folder},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{system}: {done.stderr.strip().splitlines()[-1]}")
    run: dict[str, float] = json.loads(done.stdout)
    return run
