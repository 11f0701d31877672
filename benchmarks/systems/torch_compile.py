"""The workloads as PyTorch code whose model and update ``torch.compile`` compiles."""

from __future__ import annotations

import torch

from benchmarks.compiler import check_compiler
from benchmarks.systems import Prepared, torch_eager
from benchmarks.workloads import Workload


def prepare(workload: Workload, threads: int) -> Prepared:
    """The workload, compiled on its first call."""
    check_compiler()
    return torch_eager.prepare(workload, threads, torch.compile)
