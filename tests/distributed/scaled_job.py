"""A job of the tests: divided (or whole) optimiser state under a gradient scaler, checkpointed.

In one step a single rank's share of the batch is infinite, so that all ranks must skip it.
"""

import argparse

import numpy as np

import graphflow as gf
import graphflow.distributed as dist
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.distributed.optim import ZeroRedundancyOptimizer
from graphflow.nn.parallel import DistributedDataParallel
from graphflow.training import CheckpointManager

GLOBAL_BATCH, STEPS, OVERFLOWS = 24, 12, 4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--until", type=int, default=STEPS)
    options = parser.parse_args()
    dist.init_process_group("mpi")
    rank, size = dist.get_rank(), dist.get_world_size()
    gf.manual_seed(5)
    model = nn.Sequential(nn.Linear(20, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(),
                          nn.Linear(48, 5))  # fmt: skip
    parallel = DistributedDataParallel(model, bucket_cap_mb=0.005, check_finite=False)
    if options.whole:
        optimizer = optim.AdamW(parallel.parameters(), lr=0.01)
    else:
        optimizer = ZeroRedundancyOptimizer(parallel.parameters(), optim.AdamW, lr=0.01)
    scaler = gf.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(parallel(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    run = step if options.eager else gf.compile(step)
    rng, share = np.random.default_rng(11), GLOBAL_BATCH // size
    parts = {"model": parallel, "optimizer": optimizer, "scaler": scaler}
    with CheckpointManager(f"{options.out}-steps", parts, keep=2) as checkpoints:
        found = checkpoints.restore()
        begin = found.step if found else 0
        for number in range(options.until):
            x = rng.normal(size=(GLOBAL_BATCH, 20)).astype(np.float32)
            y = rng.integers(0, 5, GLOBAL_BATCH)
            if number == OVERFLOWS:
                x[0, 0] = np.inf
            if number >= begin:
                mine = slice(rank * share, (rank + 1) * share)
                run(gf.tensor(x[mine]), gf.tensor(y[mine]))
                checkpoints.save(number + 1)
    kept = {name: p.detach().numpy() for name, p in model.named_parameters()}
    held = sum(t.numel() for slots in optimizer.state.values() for t in slots.values())
    np.savez(f"{options.out}-{rank}.npz", held=held, scale=scaler.get_scale(), **kept)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
