"""A job of the tests that says how its sums travelled; with ``apart`` rank 1 shares no memory."""

import os
import sys

import graphflow as gf
import graphflow.distributed as dist

dist.init_process_group("mpi")
rank, size = dist.get_rank(), dist.get_world_size()
if "apart" in sys.argv and rank == 1:
    del os.memfd_create


@gf.compile
def total(x):
    y = x * 1.0
    dist.all_reduce(y)
    return y


for count in (3, 500_000, 7, 2_000_000):  # the second and the fourth need more room than there is
    found = total(gf.ones(count) * (rank + 1))
    assert found.tolist() == [size * (size + 1) / 2] * count
said = [line for line in str(total.explain()).splitlines() if line.startswith("between ranks")]
print(rank, *said)
