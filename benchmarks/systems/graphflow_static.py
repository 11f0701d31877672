"""The workloads compiled: the guarded call of ``gf.compile(function)`` is what is timed."""

from __future__ import annotations

import graphflow as gf
from benchmarks.systems import Prepared
from benchmarks.systems.graphflow_eager import function_of, prepared
from benchmarks.workloads import Workload


def prepare(workload: Workload, threads: int) -> Prepared:
    """The workload, compiled on its first call."""
    gf.set_num_threads(threads)
    function, arguments = function_of(workload)
    return prepared(gf.compile(function), arguments)
