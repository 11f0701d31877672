"""A job of the tests that says how its sums travelled; with ``apart`` rank 1 shares no memory."""

import os
import sys

import graphflow as gf
import graphflow.distributed as dist
from graphflow.ir.ops.collectives import transport

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
x, begun, begin = gf.ones(3), [], transport().start
transport().start = lambda *args: begun.append(args) or begin(*args)
for step in range(20):
    assert total(x * (rank + step)).tolist() == [size * (size - 1) / 2 + size * step] * 3
by_kernels = size == 2 and "apart" not in sys.argv  # and by one thread: it is a small step
assert len(begun) == (0 if by_kernels else 20), begun
said = [line for line in str(total.explain()).splitlines() if line.startswith("between ranks")]
print(rank, *said)
