"""One rank of :mod:`benchmarks.ranks`: trains a workload and times steps and messages."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import graphflow as gf
import graphflow.distributed as dist
from benchmarks.systems import shared
from benchmarks.workloads import WORKLOADS, Training
from graphflow.ir.ops.collectives import transport
from graphflow.nn.parallel import DistributedDataParallel

WARM, MESSAGES = 5, 30
SMALL = 2  # elements of a message that costs its latency only


def seconds_of(call: Callable[[], Any], count: int) -> list[float]:
    """Seconds of each of ``count`` calls, which all ranks begin together."""
    for _ in range(WARM):
        call()
    dist.barrier()
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return found


def added_up(count: int) -> Callable[[], Any]:
    """A sum of ``count`` numbers over the ranks, as programs do it."""
    values, into = [np.zeros(count, np.float32)], np.zeros(count, np.float32)
    return lambda: transport().wait(transport().start(values, "sum", 0, False), into)


def main() -> None:
    """Print the figures of rank 0 as JSON."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    dist.init_process_group("mpi")
    workload: Any = WORKLOADS[options.workload]
    model, optimizer = shared.program(gf, workload)
    parallel = DistributedDataParallel(model)
    step = gf.compile(shared.timed(gf, workload, parallel, optimizer))
    batch = [gf.tensor(values) for values in workload.data()]
    together = seconds_of(lambda: step(*batch), options.steps)
    with parallel.no_sync():  # each rank by itself: what remains is what messages cost
        alone = seconds_of(lambda: step(*batch), options.steps)
    size = 4 * sum(p.numel() for p in model.parameters())
    figures = {
        "batch": workload.batch if isinstance(workload, Training) else len(batch[0]),
        "bytes": size,
        "buckets": len(parallel._buckets),
        "step": together,
        "alone": alone,
        "small": seconds_of(added_up(SMALL), MESSAGES),
        "large": seconds_of(added_up(size // 4), MESSAGES),
    }
    if dist.get_rank() == 0:
        print(json.dumps(figures))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
