"""A job of the tests: every collective, on every rank, against what NumPy says."""

import numpy as np

import graphflow as gf
import graphflow.distributed as dist

dist.init_process_group("mpi")
rank, size = dist.get_rank(), dist.get_world_size()
rng = np.random.default_rng(7)
everybody = rng.normal(size=(size, 3, 4))
NUMPY = {"SUM": np.sum, "AVG": np.mean, "MAX": np.max, "MIN": np.min, "PRODUCT": np.prod}


def same(tensor, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        tensor.to(gf.float64).numpy(), expected, rtol=tolerance, atol=tolerance
    )


for dtype, tolerance in [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 0.06)]:
    for name, fold in NUMPY.items():
        x = gf.tensor(everybody[rank]).to(getattr(gf, dtype))
        dist.all_reduce(x, dist.ReduceOp[name])
        same(x, fold(everybody, axis=0), tolerance)
    strided = gf.tensor(everybody[rank]).t()
    dist.all_reduce(strided)
    same(strided, everybody.sum(0).T)

counts = gf.arange(4) + rank
dist.all_reduce(counts)
assert counts.tolist() == [size * i + sum(range(size)) for i in range(4)]
flags = gf.tensor([rank == 0, False, True])
dist.all_reduce(flags)
assert flags.tolist() == [True, False, True]

mine, root = gf.tensor(everybody[rank]), size - 1
x = mine.clone()
dist.broadcast(x, root)
same(x, everybody[root])
x = mine.clone()
dist.reduce(x, root, dist.ReduceOp.AVG)
same(x, everybody.mean(0) if rank == root else everybody[rank])
parts = [gf.zeros(3, 4, dtype=gf.float64) for _ in range(size)]
dist.all_gather(parts, mine)
for part, expected in zip(parts, everybody):
    same(part, expected)
whole = gf.zeros(size * 3, 4, dtype=gf.float64)
dist.all_gather_into_tensor(whole, mine)
same(whole, everybody.reshape(-1, 4))
for part in parts:
    part.zero_()
dist.gather(mine, parts if rank == root else None, dst=root)
if rank == root:
    same(parts[0], everybody[0])
x = gf.zeros(3, 4, dtype=gf.float64)
given = [gf.tensor(row) for row in everybody] if rank == root else None
dist.scatter(x, given, src=root)
same(x, everybody[rank])
dist.reduce_scatter(x, [gf.tensor(everybody[rank] * (i + 1)) for i in range(size)])
same(x, everybody.sum(0) * (rank + 1))
dist.reduce_scatter_tensor(x, gf.tensor(np.concatenate([everybody[rank]] * size)),
                           dist.ReduceOp.AVG)  # fmt: skip
same(x, everybody.mean(0))

work = dist.all_reduce(mine.clone(), async_op=True)
assert work.wait() and work.is_completed()
found = [None] * size
dist.all_gather_object(found, {"rank": rank, "text": "x" * rank * 1000})
assert [f["rank"] for f in found] == list(range(size))
listed = ["from root", rank] if rank == root else [None, None]
dist.broadcast_object_list(listed, src=root)
assert listed == ["from root", root]

if size > 1:
    after, before = (rank + 1) % size, (rank - 1) % size
    x = gf.zeros(3, 4, dtype=gf.float64)
    sent = dist.isend(mine, after, tag=3)
    assert dist.recv(x, before, tag=3) == before
    sent.wait()
    same(x, everybody[before])
    half = dist.new_group(list(range(0, size, 2)))
    if rank % 2 == 0:
        x = gf.ones(2) * rank
        dist.all_reduce(x, group=half)
        assert x.tolist() == [sum(range(0, size, 2))] * 2
        assert dist.get_rank(half) == rank // 2

        @gf.compile
        def doubled(y):
            z = y * 2.0
            dist.all_reduce(z, group=half)
            return z

        assert doubled(gf.ones(2)).tolist() == [2.0 * half.size()] * 2
    else:
        assert half is dist.GroupMember.NON_GROUP_MEMBER


@gf.compile
def gradient(y):
    (found,) = gf.autograd.grad((dist.nn.all_reduce(y) ** 2).sum(), y)
    return found


y = gf.tensor([float(rank + 1)], requires_grad=True)
assert gradient(y).item() == size * 2 * sum(range(1, size + 1))
dist.barrier()
print(f"rank {rank} agrees")
