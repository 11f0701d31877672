"""A job of the tests in which one rank does what the argument says, and the others wait for it."""

import atexit
import os
import signal
import sys
import time

import graphflow as gf
import graphflow.distributed as dist
from graphflow.nn.parallel import DistributedDataParallel

kind, unlike = sys.argv[1], int(sys.argv[2])
if kind == "before":
    raise ValueError("before joining")
dist.init_process_group("mpi", timeout=10 if kind == "late" else 200)
rank = dist.get_rank()
model = DistributedDataParallel(gf.nn.Linear(3, 2 + (rank == unlike and kind == "model")))


@gf.compile
def step(x):
    model.zero_grad()
    loss = model(x).sum()
    loss.backward()
    return loss


def unhappy():
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise ValueError("a worker is unhappy")
    if kind == "exit":
        sys.exit(7)
    if kind == "vanish":
        os._exit(9)
    if kind == "late":
        time.sleep(1000)
    if kind == "leave":
        sys.exit(0)
    if kind == "other":
        dist.barrier()
    if kind == "shape":
        dist.all_reduce(gf.ones(3))


x = gf.ones(4, 3)
for number in range(3):
    step(x)
    if number == 1 and rank == unlike:
        if kind == "nan":
            x = x * float("nan")
        unhappy()
if kind == "after" and rank == unlike:
    atexit.register(os.kill, os.getpid(), signal.SIGKILL)
print("done")
