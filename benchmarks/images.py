"""Convolution networks that are measured: sizes, first parameters by name, and data.

The names are those of the PyTorch modules that ``systems/networks.py`` builds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

STAGES = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
"""Output channels and stride of ResNet-18's blocks."""


@dataclass(frozen=True)
class Digits:
    """Two 3×3 convolutions with pooling and two linear layers; a step is one of SGD."""

    name: str
    batch: int = 64
    image: int = 28
    channels: tuple[int, int] = (32, 64)
    hidden: int = 128
    classes: int = 10
    lr: float = 0.01

    @property
    def features(self) -> int:
        """What the linear layers see of an image."""
        return self.channels[1] * (self.image // 2 // 2) ** 2

    def parameters(self) -> dict[str, Array]:
        """First values, by name."""
        rng, (one, two) = np.random.default_rng(1), self.channels
        shapes = {
            "conv1": (one, 1, 3, 3),
            "conv2": (two, one, 3, 3),
            "hidden": (self.hidden, self.features),
            "head": (self.classes, self.hidden),
        }
        return _normal(rng, shapes, bias=True)

    def data(self) -> tuple[Array, Array]:
        """Images ``[batch, 1, image, image]`` and their classes."""
        return _images(self.batch, 1, self.image, self.classes)

    @property
    def flops(self) -> int:
        """Of the products of one step; the images need no gradient."""
        one, two = self.channels
        first = 9 * one * self.image**2
        rest = 9 * one * two * (self.image // 2) ** 2 + self.hidden * self.features
        return 2 * self.batch * (2 * first + 3 * (rest + self.hidden * self.classes))

    @property
    def bytes(self) -> int:
        """Nothing has to leave the cache."""
        return 0


@dataclass(frozen=True)
class Residual:
    """ResNet-18 for images of 32 × 32: a step of SGD, or its scores if not ``training``."""

    name: str
    batch: int = 16
    image: int = 32
    training: bool = True
    classes: int = 10
    lr: float = 0.001

    def convolutions(self) -> list[tuple[str, int, int, int, int]]:
        """Name, input and output channels, kernel size and side of the result, in order."""
        side = self.image
        found = [("stem.conv", 3, 64, 3, side)]
        inputs = 64
        for block, (outputs, stride) in enumerate(STAGES):
            side = -(-side // stride)
            found.append((f"blocks.{block}.conv1", inputs, outputs, 3, side))
            found.append((f"blocks.{block}.conv2", outputs, outputs, 3, side))
            if stride != 1 or inputs != outputs:
                found.append((f"blocks.{block}.short.conv", inputs, outputs, 1, side))
            inputs = outputs
        return found

    def parameters(self) -> dict[str, Array]:
        """First values, by name; statistics of normalisations among them."""
        rng = np.random.default_rng(1)
        layers = self.convolutions()
        shapes = {name: (o, i, k, k) for name, i, o, k, _ in layers}
        found = _normal(rng, shapes, bias=False) | _normal(
            rng, {"head": (self.classes, STAGES[-1][0])}, bias=True
        )
        for name, _, outputs, _, _ in layers:
            norm = name.replace("conv", "norm")
            found |= {
                f"{norm}.weight": np.ones(outputs, np.float32),
                f"{norm}.bias": np.zeros(outputs, np.float32),
                f"{norm}.running_mean": 0.1 * rng.standard_normal(outputs, np.float32),
                f"{norm}.running_var": rng.uniform(0.5, 1.5, outputs).astype(np.float32),
                f"{norm}.num_batches_tracked": np.zeros((), np.int64),
            }
        return found

    def data(self) -> tuple[Array, Array]:
        """Images ``[batch, 3, image, image]`` and their classes."""
        return _images(self.batch, 3, self.image, self.classes)

    @property
    def flops(self) -> int:
        """Of the products, direct; gradients cost twice the forward pass, but for the images."""
        costs = [k * k * i * o * side**2 for _, i, o, k, side in self.convolutions()]
        total = sum(costs) + STAGES[-1][0] * self.classes
        return 2 * self.batch * (3 * total - costs[0] if self.training else total)

    @property
    def bytes(self) -> int:
        """Nothing has to leave the cache."""
        return 0


Images: TypeAlias = Digits | Residual


def _normal(rng: Any, shapes: dict[str, tuple[int, ...]], bias: bool) -> dict[str, Array]:
    """Weights of variance 1 / inputs by name, and zero biases."""
    found: dict[str, Array] = {}
    for name, shape in shapes.items():
        scale = 1 / math.sqrt(math.prod(shape[1:]))
        found[f"{name}.weight"] = np.float32(scale) * rng.standard_normal(shape, np.float32)
        if bias:
            found[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return found


def _images(batch: int, channels: int, side: int, classes: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    images = rng.standard_normal((batch, channels, side, side), np.float32)
    return images, rng.integers(0, classes, batch)
