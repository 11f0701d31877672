"""Training steps of small networks on CUDA, beside the CPU: an MLP, a CNN, an LSTM, a GPT.

``python -m tests.cudasim.models [names]`` trains each for three steps on both, in the
simulator unless there is a GPU, and fails where losses or parameters differ by more
than 1e-4.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")

import numpy as np

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from tests.cudasim.numpy_library import in_place_of_libraries

TOLERANCE = 1e-4
STEPS = 3


class Characters(nn.Module):
    """An LSTM over characters."""

    def __init__(self, words: int = 7, width: int = 4, hidden: int = 5) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(words, width), nn.Linear(hidden, words)
        self.lstm = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.output(self.lstm(self.embedding(x))[0]).flatten(0, 1)


class Block(nn.Module):
    """A block of a Transformer: attention to what came before, and a perceptron."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):  # type: ignore[no-untyped-def]
        b, t, d = x.shape
        parts = self.mix(self.norm1(x)).reshape(b, t, 3, self.heads, d // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).reshape(b, t, d))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class LanguageModel(nn.Module):
    """A GPT of one block."""

    def __init__(self, words: int = 7, length: int = 5, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.block, self.norm = Block(width, heads), nn.LayerNorm(width)
        self.output = nn.Linear(width, words, bias=False)

    def forward(self, x):  # type: ignore[no-untyped-def]
        h = self.token(x) + self.place(gf.arange(x.shape[1]))
        return self.output(self.norm(self.block(h))).flatten(0, 1)


def perceptron(inputs: int = 12, hidden: int = 10) -> nn.Module:
    """An MLP with dropout: its random numbers must be the CPU's."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 4)
    )


def convolutions(images: int = 1, channels: int = 3, size: int = 6) -> nn.Module:
    """A CNN with batch normalisation and pooling."""
    return nn.Sequential(
        nn.Conv2d(images, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * size * size // 4, 4),
    )  # fmt: skip


Made = tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]
MODELS: dict[str, Made] = {
    "mlp": (perceptron, (6, 12), (6,)),
    "cnn": (convolutions, (3, 1, 6, 6), (3,)),
    "lstm": (Characters, (2, 5), (10,)),
    "gpt": (LanguageModel, (2, 5), (10,)),
}
"""How a model is made, and the shapes of its inputs and targets."""
WIDE: dict[str, Made] = {
    "mlp-wide": (lambda: perceptron(784, 512), (128, 784), (128,)),
    "cnn-wide": (lambda: convolutions(16, 64, 32), (32, 16, 32, 32), (32,)),
    "lstm-wide": (lambda: Characters(96, 128, 256), (32, 64), (2048,)),
    "gpt-wide": (lambda: LanguageModel(512, 256, 256, 4), (8, 256), (2048,)),
}
"""The same networks at sizes of use: their kernels are compiled, not run in the simulator."""


def training_step(model: nn.Module, optimizer: Any) -> Callable[[gf.Tensor, gf.Tensor], gf.Tensor]:
    """One step on a batch and its classes; returns the loss."""

    def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def step_of(name: str, device: str) -> tuple[Any, nn.Module, list[gf.Tensor]]:
    """A training step of a model, the model, and a batch, all on ``device``."""
    make, inputs, targets = {**MODELS, **WIDE}[name]
    gf.manual_seed(0)
    rng = np.random.default_rng(1)
    model = make().to(device)
    words = name.startswith(("lstm", "gpt"))
    x = rng.integers(0, 7, inputs) if words else rng.standard_normal(inputs).astype(np.float32)
    y = rng.integers(0, 7 if words else 4, targets)
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if name.startswith("mlp"):
        optimizer = gf.optim.AdamW(model.parameters(), lr=1e-2)

    return (
        training_step(model, optimizer),
        model,
        [gf.tensor(x).to(device), gf.tensor(y).to(device)],
    )


def trained(name: str, device: str) -> tuple[list[float], list[np.ndarray]]:
    """The losses of a few steps, and the parameters after them."""
    step, model, batch = step_of(name, device)
    gf.manual_seed(5)
    compiled = gf.compile(step)
    losses = [float(compiled(*batch)) for _ in range(STEPS)]
    assert all(p.device.type == device for p in model.parameters())
    return losses, [p.detach().cpu().numpy() for p in model.parameters()]


def main(names: list[str]) -> int:
    """Train; 1 if a model differs.  With ``--library``, products are NumPy's, described."""
    wrong, libraries = 0, ()  # type: ignore[var-annotated]
    if "--library" in names:
        libraries = in_place_of_libraries(setattr)
        names.remove("--library")
    for name in names or MODELS:
        started = time.perf_counter()
        (a, p), (b, q) = trained(name, "cpu"), trained(name, "cuda")
        losses = max(abs(x - y) for x, y in zip(a, b, strict=True))
        weights = max(float(np.abs(x - y).max()) for x, y in zip(p, q, strict=True))
        made = [len(library.calls) for library in libraries]
        good = losses <= TOLERANCE and weights <= TOLERANCE and (not made or sum(made))
        wrong += not good
        print(
            f"{name}: {STEPS} steps, losses differ by {losses:.1e}, parameters by {weights:.1e}"
            f"{'' if good else ': TOO MUCH'} ({time.perf_counter() - started:.1f} s"
            f"{f', {made[0]} products and {made[1]} convolutions by libraries)' if made else ')'}"
        )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
