"""A job of the tests: what several kinds of training have after 50 steps of one global batch."""

import sys

import numpy as np

import graphflow as gf
import graphflow.distributed as dist
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.nn.parallel import DistributedDataParallel

STEPS, WIDTH, WORDS, LENGTH = 50, 32, 40, 16
BATCH = {"cnn": 24, "gpt": 8}
LEARNING_RATE = 1e-3
KINDS = [
    (model, dtype, name)
    for model, name in (("cnn", "SGD"), ("gpt", "SGD"), ("gpt", "AdamW"))
    for dtype in ("float32", "float64")
]


class Cnn(nn.Module):
    """With ``smooth``, nothing in it that changes at once: neither ReLU nor maxima."""

    def __init__(self, smooth):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.third, self.fourth = nn.Linear(16 * 4 * 4, 32), nn.Linear(32, 10)
        self.bend, self.pool = (F.gelu, F.avg_pool2d) if smooth else (F.relu, F.max_pool2d)

    def forward(self, x):
        x = self.pool(self.bend(self.second(self.bend(self.first(x)))), 2)
        return self.fourth(self.bend(self.third(x.flatten(1))))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        heads = (*x.shape[:2], 4, WIDTH // 4)
        q, k, v = (y.reshape(heads).transpose(1, 2) for y in self.qkv(self.before(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.between(x))))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, x):
        x = self.words(x) + self.places(gf.arange(LENGTH))
        return self.head(self.norm(self.blocks(x)))


def batches(kind, dtype):
    rng = np.random.default_rng(11)
    teacher = rng.normal(size=(144, 10))
    for _ in range(STEPS):
        if kind == "gpt":
            x = rng.integers(0, WORDS, (BATCH[kind], LENGTH))
            yield x, (x + 1) % WORDS
        else:
            x = rng.normal(size=(BATCH[kind], 1, 12, 12)).astype(dtype)
            yield x, (x.reshape(len(x), -1) @ teacher).argmax(1)


def trained(kind, dtype, name, rank, size):
    """The parameters by name."""
    gf.manual_seed(5)
    # In float64 no rounding is large enough to turn a ReLU or a maximum over.
    model = Gpt() if kind == "gpt" else Cnn(smooth=dtype == "float32")
    model.to(getattr(gf, dtype))
    parallel = DistributedDataParallel(model)
    if name == "SGD":
        optimizer = optim.SGD(parallel.parameters(), lr=0.05, momentum=0.9)
    else:
        optimizer = optim.AdamW(parallel.parameters(), lr=LEARNING_RATE)

    @gf.compile
    def step(x, y):
        optimizer.zero_grad()
        scores = parallel(x)
        loss = F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    share = BATCH[kind] // size
    for x, y in batches(kind, dtype):
        mine = slice(rank * share, (rank + 1) * share)
        step(gf.tensor(x[mine]), gf.tensor(y[mine]))
    return {key: p.detach().numpy() for key, p in model.named_parameters()}


def main():
    dist.init_process_group("mpi")
    rank, size = dist.get_rank(), dist.get_world_size()
    kept = {}
    for kind in KINDS:
        for key, value in trained(*kind, rank, size).items():
            kept[f"{'-'.join(kind)}/{key}"] = value
    if rank == 0:
        np.savez(sys.argv[1], **kept)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
