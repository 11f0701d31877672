"""An autoencoder, 784-128-32-128-784: handwritten digits through 32 numbers.

python models/autoencoder.py --mode both
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from harness import Session, Task, main

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.utils.data import DataLoader, TensorDataset
from graphflow.vision import datasets

BATCH = 64


class Autoencoder(nn.Module):
    """An encoder to ``code`` numbers, a decoder back; ``decoder`` ends in logits."""

    def __init__(self, code: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, code), nn.Tanh()
        )
        self.decoder = nn.Sequential(nn.Linear(code, 128), nn.ReLU(), nn.Linear(128, 784))

    def forward(self, images: gf.Tensor) -> gf.Tensor:
        """Logits of the pixels ``[batch, 784]``."""
        return self.decoder(self.encoder(images))


def training_step(model: nn.Module, optimizer: Any) -> Any:
    """One update towards the batch itself."""

    def step(images: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(images), images)
        loss.backward()
        optimizer.step()
        return loss

    return step


def make() -> tuple[Autoencoder, Any]:
    """The model and its optimiser."""
    model = Autoencoder()
    return model, optim.Adam(model.parameters(), lr=1e-3)


def specs(batch: int = BATCH) -> tuple[gf.TensorSpec]:
    """The type of a batch."""
    return (gf.TensorSpec((batch, 784)),)


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    return training_step(*make()), specs()


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/autoencoder.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return make()[0].eval(), (gf.TensorSpec(("batch", 784)),)


def load(root: Path, train: bool) -> TensorDataset:
    """MNIST if it is there, else the digits: images ``[n, 784]``, 0 to 1."""
    mnist = datasets.MNIST.available(root, train=True) and datasets.MNIST.available(root, False)
    data = datasets.MNIST(root, train) if mnist else datasets.Digits(train)
    pixels = data.data.numpy().reshape(len(data), 784)
    return TensorDataset(gf.from_numpy(pixels.astype(np.float32) / 255))


def start(seed: int, root: Path) -> Session:
    """A fresh model and its data, the same for every mode."""
    gf.manual_seed(seed)
    model, optimizer = make()
    (test,) = load(root, train=False).tensors

    def reconstruction_error() -> float:
        with gf.no_grad():
            return float(((gf.sigmoid(model(test)) - test) ** 2).mean().sqrt())

    return Session(
        step=training_step(model, optimizer),
        specs=specs(),
        batches=DataLoader(load(root, True), BATCH, shuffle=True, drop_last=True, generator=seed),
        evaluate=reconstruction_error,
    )


def describe(root: Path) -> str:
    """What is trained on what."""
    return f"784-128-32-128-784 on {len(load(root, True))} images, {len(load(root, False))} to test"


TASK = Task("autoencoder", start, epochs=30, metric="rms pixel error", describe=describe)

if __name__ == "__main__":
    main(TASK)
