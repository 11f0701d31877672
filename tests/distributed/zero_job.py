"""A job of the tests: trains with the optimiser's state divided over the ranks, or whole."""

import argparse

import job
import numpy as np

import graphflow as gf
import graphflow.distributed as dist
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.distributed.optim import ZeroRedundancyOptimizer
from graphflow.nn.parallel import DistributedDataParallel


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--resume")
    options = parser.parse_args()
    dist.init_process_group("mpi")
    rank, size = dist.get_rank(), dist.get_world_size()
    gf.manual_seed(5)
    model = nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 48), nn.Tanh(),
                          nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 5))  # fmt: skip
    parallel = DistributedDataParallel(model, bucket_cap_mb=0.005)
    if options.whole:
        optimizer = optim.AdamW(parallel.parameters(), lr=0.01)
    else:
        optimizer = ZeroRedundancyOptimizer(parallel.parameters(), optim.AdamW, lr=0.01)
    if options.resume:
        saved = gf.load(options.resume)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(parallel(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = step if options.eager else gf.compile(step)
    share = job.GLOBAL_BATCH // size
    given = list(job.batches(20))
    for x, y in given[10:] if options.resume else given[:10]:
        mine = slice(rank * share, (rank + 1) * share)
        optimizer.param_groups[0]["lr"] *= 0.99
        run(gf.tensor(x[mine]), gf.tensor(y[mine]))
    held = sum(t.numel() for slots in optimizer.state.values() for t in slots.values())
    kept = {name: p.detach().numpy() for name, p in model.named_parameters()}
    np.savez(f"{options.out}-{rank}.npz", held=held, **kept)
    if not options.whole:
        optimizer.consolidate_state_dict()
    if rank == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        gf.save(state, f"{options.out}.pt")
        x, y = (gf.tensor(v[:share]) for v in given[0])
        with open(f"{options.out}.ir", "w") as file:
            file.write(str(gf.trace(step, x, y)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
