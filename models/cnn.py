"""A convolutional network on handwritten digits or CIFAR-10.

    python models/cnn.py --mode both --seeds 5

Trains on CIFAR-10 where its files are under ``--data`` (torchvision's layout),
else on MNIST where its files are, else on the digits that come with GraphFlow.
Every image is turned, moved and scaled a little each time it is seen (this
needs Pillow: ``pip install 'graphflow[vision]'``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import Session, Task, main

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.optim.lr_scheduler import StepLR
from graphflow.utils.data import DataLoader
from graphflow.vision import datasets, transforms

BATCH, EPOCHS = 64, 24
MEAN, STD = 0.1307, 0.3081  # of MNIST's pixels
SHIFT = transforms.RandomAffine(
    10, translate=(0.07, 0.07), scale=(0.9, 1.1), interpolation="bilinear"
)


class CNN(nn.Module):
    """Two convolutions, each halving the size, and two linear layers."""

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(32 * (size // 4) ** 2, 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, images: gf.Tensor) -> gf.Tensor:
        """Class scores ``[batch, classes]`` of images ``[batch, channels, size, size]``."""
        x = self.pool(F.relu(self.conv1(images)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def training_step(model: nn.Module, optimizer: Any) -> Any:
    """One update as a function of a batch."""

    def step(images: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def make(channels: int = 1, size: int = 28) -> tuple[CNN, Any]:
    """The model and its optimiser."""
    model = CNN(channels, size)
    optimizer = optim.SGD(
        model.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    return model, optimizer


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    specs = gf.TensorSpec((BATCH, 1, 28, 28)), gf.TensorSpec((BATCH,), gf.int64)
    return training_step(*make()), specs


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/cnn.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return make()[0].eval(), (gf.TensorSpec(("batch", 1, 28, 28)),)


def load(root: Path, train: bool, transform: Any) -> Any:
    """CIFAR-10 or MNIST if they are there, else the digits."""
    for kind in (datasets.CIFAR10, datasets.MNIST):
        if kind.available(root, True) and kind.available(root, False):
            return kind(root, train, transform)
    return datasets.Digits(train, transform)


def pipeline(*first: Any) -> Any:
    """From an image to a normalised tensor."""
    return transforms.Compose([*first, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def whole(data: Any) -> tuple[gf.Tensor, gf.Tensor]:
    """All images and labels of a data set, as it transforms them."""
    return next(iter(DataLoader(data, batch_size=len(data))))


def accuracy(model: nn.Module, images: gf.Tensor, labels: gf.Tensor) -> float:
    """The part of the images whose class has the highest score."""
    right = 0
    model.eval()
    with gf.no_grad():
        for begin in range(0, len(labels), 500):
            chosen = slice(begin, begin + 500)
            right += int((model(images[chosen]).argmax(1) == labels[chosen]).sum())
    model.train()
    return right / len(labels)


def start(seed: int, root: Path) -> Session:
    """A fresh model and its data, the same for every mode."""
    gf.manual_seed(seed)
    train = load(root, True, pipeline(SHIFT))
    test_images, test_labels = whole(load(root, False, pipeline()))
    _, channels, size, _ = test_images.shape
    model, optimizer = make(channels, size)
    return Session(
        step=training_step(model, optimizer),
        specs=(gf.TensorSpec((BATCH, channels, size, size)), gf.TensorSpec((BATCH,), gf.int64)),
        batches=DataLoader(train, BATCH, shuffle=True, drop_last=True),
        evaluate=lambda: accuracy(model, test_images, test_labels),
        scheduler=StepLR(optimizer, step_size=EPOCHS // 3, gamma=0.3),
    )


def describe(root: Path) -> str:
    """What is trained on what."""
    train, test = load(root, True, None), load(root, False, None)
    return f"on {type(train).__name__}, {len(train)} to train on, {len(test)} to test"


TASK = Task("cnn", start, epochs=EPOCHS, metric="test accuracy", describe=describe)

if __name__ == "__main__":
    main(TASK)
