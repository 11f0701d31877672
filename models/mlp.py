"""A multilayer perceptron, 784-128-10, on handwritten digits.

    python models/mlp.py --mode both --seeds 5 --inspect out/mlp

Trains on MNIST where its files are under ``--data`` (torchvision's layout),
else on the digits that come with GraphFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from harness import Session, Task, main

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.optim.lr_scheduler import StepLR
from graphflow.utils.data import DataLoader, TensorDataset
from graphflow.vision import datasets

BATCH = 64
MEAN, STD = 0.1307, 0.3081  # of MNIST's pixels


class MLP(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, hidden)
        self.fc2 = nn.Linear(hidden, 10)

    def forward(self, images: gf.Tensor) -> gf.Tensor:
        """Class scores ``[batch, 10]`` of images ``[batch, 784]``."""
        return self.fc2(F.relu(self.fc1(images)))


def training_step(model: nn.Module, optimizer: Any) -> Any:
    """One update as a function of a batch: this is what becomes the graph."""

    def step(images: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def make() -> tuple[MLP, Any]:
    """The model and its optimiser."""
    model = MLP()
    optimizer = optim.SGD(
        model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-3
    )
    return model, optimizer


def specs(batch: int = BATCH) -> tuple[gf.TensorSpec, gf.TensorSpec]:
    """The types of a batch: images and labels."""
    return gf.TensorSpec((batch, 784)), gf.TensorSpec((batch,), gf.int64)


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    return training_step(*make()), specs()


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/mlp.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return make()[0].eval(), (gf.TensorSpec(("batch", 784)),)


def load(root: Path, train: bool) -> TensorDataset:
    """MNIST if it is there, else the digits: normalised images ``[n, 784]`` and labels."""
    mnist = datasets.MNIST.available(root, train=True) and datasets.MNIST.available(root, False)
    data = datasets.MNIST(root, train) if mnist else datasets.Digits(train)
    pixels = data.data.numpy().reshape(len(data), 784).astype(np.float32)
    return TensorDataset(gf.from_numpy((pixels / 255 - MEAN) / STD), data.targets)


def start(seed: int, root: Path) -> Session:
    """A fresh model and its data, the same for every mode."""
    gf.manual_seed(seed)
    model, optimizer = make()
    test_images, test_labels = load(root, train=False).tensors

    def accuracy() -> float:
        with gf.no_grad():
            return float((model(test_images).argmax(1) == test_labels).to(gf.float32).mean())

    return Session(
        step=training_step(model, optimizer),
        specs=specs(),
        batches=DataLoader(load(root, True), BATCH, shuffle=True, drop_last=True, generator=seed),
        evaluate=accuracy,
        scheduler=StepLR(optimizer, step_size=10, gamma=0.5),
    )


def describe(root: Path) -> str:
    """What is trained on what."""
    train, test = load(root, True), load(root, False)
    source = "MNIST" if len(train) > 10_000 else "the digits (UCI, by way of scikit-learn)"
    return f"784-128-10 on {source}, {len(train)} to train on, {len(test)} to test"


TASK = Task("mlp", start, epochs=25, metric="test accuracy", describe=describe)

if __name__ == "__main__":
    main(TASK)
