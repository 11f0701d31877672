"""The workloads compiled: the guarded call of ``gf.compile(function)`` is what is timed."""

from __future__ import annotations

import graphflow as gf
from benchmarks.systems import Prepared, graphflow_eager
from benchmarks.workloads import Workload


def prepare(workload: Workload, threads: int) -> Prepared:
    """The workload, compiled on its first call."""
    return graphflow_eager.prepare(workload, threads, gf.compile)
