"""A job of the tests: trains a small network on every rank's share of a global batch.

``--caches``: a folder with kernel caches, one for each rank.
"""

import argparse
import os

import numpy as np

import graphflow as gf
import graphflow.distributed as dist
import graphflow.nn.functional as F
from graphflow import flags, nn, optim
from graphflow.nn.parallel import DistributedDataParallel

GLOBAL_BATCH = 24


def batches(count):
    rng = np.random.default_rng(11)
    for _ in range(count):
        yield (
            rng.normal(size=(GLOBAL_BATCH, 20)).astype(np.float32),
            rng.integers(0, 5, GLOBAL_BATCH),
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--caches")
    parser.add_argument("--accumulate", type=int, default=1)
    options = parser.parse_args()
    dist.init_process_group("mpi")
    rank, size = dist.get_rank(), dist.get_world_size()
    if options.caches:
        flags.CACHE_DIR.value = f"{options.caches}/{rank}"
    gf.manual_seed(100 + rank)  # unlike on every rank: the wrapper takes over rank 0's
    if rank == 0:
        gf.manual_seed(5)
    model = nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 48), nn.Tanh(),
                          nn.Linear(48, 5))  # fmt: skip
    parallel = DistributedDataParallel(model, bucket_cap_mb=0.005)
    optimizer = optim.SGD(parallel.parameters(), lr=0.05, momentum=0.9)

    def gradients(x, y):
        loss = F.cross_entropy(parallel(x), y) / options.accumulate
        loss.backward()
        return loss

    def step(x, y):
        optimizer.zero_grad()
        parts = list(zip(x.chunk(options.accumulate), y.chunk(options.accumulate)))
        for part in parts[:-1]:
            with parallel.no_sync():
                gradients(*part)
        loss = gradients(*parts[-1])
        optimizer.step()
        return loss

    run = step if options.eager else gf.compile(step)
    share = GLOBAL_BATCH // size
    for x, y in batches(options.steps):
        mine = slice(rank * share, (rank + 1) * share)
        given = gf.tensor(x[mine]), gf.tensor(y[mine])
        run(*given)
    kept = {name: p.detach().numpy() for name, p in model.named_parameters()}
    np.savez(f"{options.out}-{rank}.npz", **kept)
    if rank == 0:
        with open(f"{options.out}.ir", "w") as file:
            file.write(str(gf.trace(step, *given)))
    print(f"rank {rank} of {size} with {os.environ.get('GRAPHFLOW_NUM_THREADS')} threads done")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
