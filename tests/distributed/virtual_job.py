"""A job of the tests: parameters of the benchmarks' models after training as virtual ranks.

Every rank takes its rows of one global batch; with ``--apart`` MPI carries the gradients.
"""

import argparse
import os

import numpy as np

import graphflow as gf
import graphflow.distributed as dist
from benchmarks.systems import shared
from benchmarks.workloads import WORKLOADS
from graphflow.nn.parallel import DistributedDataParallel


def batches(workload, steps):
    """Global batches, another each step: inputs, and what they should become, by sample."""
    rng = np.random.default_rng(5)
    inputs, targets = workload.data()
    count = len(inputs)
    for _ in range(steps):
        order = rng.permutation(count)
        x = inputs[order]
        if x.dtype.kind == "f":
            x = x + rng.normal(0, 0.3, x.shape).astype(x.dtype)
        yield x, targets.reshape(count, -1)[order]


def trained(name, parts, steps, clip):
    """The parameters by name."""
    workload, rank, size = WORKLOADS[name], dist.get_rank(), dist.get_world_size()
    model, optimizer = shared.program(gf, workload)
    parallel = DistributedDataParallel(model, virtual_ranks=parts)

    def update():
        if clip:
            gf.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    step = gf.compile(shared.timed(gf, workload, parallel, optimizer, update))
    for x, y in batches(workload, steps):
        share = len(x) // size
        mine = slice(rank * share, (rank + 1) * share)
        step(gf.tensor(x[mine]), gf.tensor(y[mine].reshape(-1)))
    return {f"{name}/{key}": p.detach().numpy() for key, p in model.named_parameters()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--parts", type=int)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--clip", type=float, default=0.0)
    parser.add_argument("--apart", action="store_true")
    options = parser.parse_args()
    dist.init_process_group("mpi")
    if options.apart and dist.get_rank() == 0:
        del os.memfd_create
    found = {}
    for name in options.names:
        found |= trained(name, options.parts, options.steps, options.clip)
    if dist.get_rank() == 0:
        np.savez(options.out, **found)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
