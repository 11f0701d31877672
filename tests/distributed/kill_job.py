"""A job of the tests: trains with a checkpoint a step, to be killed and started again.

Every step prints a line once the one before is on the disk; at the end each rank prints a digest
of all that training changed.  ``KILL_JOB_DIE=rank,count`` lets a rank kill itself at its
``count``-th call that writes.
"""

import hashlib
import os
import signal
import sys

import graphflow as gf
import graphflow.distributed as dist
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.nn.parallel import DistributedDataParallel
from graphflow.serialization import safetensors
from graphflow.training import CheckpointManager, ResumableLoader
from graphflow.utils.data import DataLoader, DistributedSampler, TensorDataset
from graphflow.vision.datasets import Digits


def die_at(count):
    """Be killed in the middle of writing: before a sync, a change of name, a write."""
    left = [count]

    def wrapped(function):
        def counted(*arguments, **options):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counted

    for name in ("fsync", "rename", "replace", "unlink", "mkdir"):
        setattr(os, name, wrapped(getattr(os, name)))
    safetensors._is_little = wrapped(safetensors._is_little)  # asked for every tensor written


def digest(model, optimizer):
    """Of parameters, buffers, the optimiser's state and where random numbers stand."""
    tensors = [*model.state_dict().values(), gf.get_rng_state()]
    for slots in optimizer.state_dict()["state"].values():
        tensors += [value for value in slots.values() if isinstance(value, gf.Tensor)]
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def main():
    folder, steps = sys.argv[1], int(sys.argv[2])
    dist.init_process_group("mpi")
    rank = dist.get_rank()
    doomed, count = map(int, os.environ.get("KILL_JOB_DIE", "-1,0").split(","))
    if rank == doomed:
        die_at(count)
    gf.manual_seed(rank)
    digits = Digits()
    pixels = digits.data.to(gf.float32).reshape(-1, 784) / 255
    data = TensorDataset(pixels[:96], digits.targets[:96])
    loader = DataLoader(data, 8, sampler=DistributedSampler(data))
    batches = ResumableLoader(loader)
    model = nn.Sequential(nn.Linear(784, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Dropout(0.2),
                          nn.Linear(40, 10))  # fmt: skip
    parallel = DistributedDataParallel(model, bucket_cap_mb=0.05)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 10, 0.9)

    @gf.compile
    def step(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(parallel(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    parts = {"model": parallel, "optimizer": optimizer, "scheduler": scheduler, "data": batches}
    with CheckpointManager(folder, parts, keep=2) as checkpoints:
        found = checkpoints.restore()
        done = found.step if found else 0
        print(f"begins after {done}, process {os.getpid()} is rank {rank}", flush=True)
        while done < steps:
            for images, labels in batches:
                if done == steps:
                    break
                step(images, labels)
                scheduler.step()
                done += 1
                checkpoints.save(done)
                if rank == 0:
                    print(f"step {done}", flush=True)
    print(f"digest of rank {rank}: {digest(model, optimizer)}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
