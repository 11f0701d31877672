"""Sequence models that are measured: sizes, first parameters by name, and data.

The names are those of the PyTorch modules that ``systems/networks.py`` builds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Language:
    """A decoder of tokens as in GPT-2; a step is one of AdamW on the mean cross entropy."""

    name: str
    layers: int = 4
    batch: int = 8
    length: int = 64
    width: int = 128
    heads: int = 4
    vocabulary: int = 65
    lr: float = 1e-3
    weight_decay: float = 0.01

    def parameters(self) -> dict[str, Array]:
        """First values, by name."""
        rng, d = np.random.default_rng(1), self.width
        tables = {"tokens": self.vocabulary, "places": self.length, "head": self.vocabulary}
        found = {f"{name}.weight": 0.02 * rng.standard_normal((n, d)) for name, n in tables.items()}
        norms = ["norm"]
        for layer in range(self.layers):
            at = f"blocks.{layer}"
            norms += [f"{at}.norm1", f"{at}.norm2"]
            for name, i, o in (("qkv", 1, 3), ("out", 1, 1), ("up", 1, 4), ("down", 4, 1)):
                weight = rng.standard_normal((o * d, i * d)) / math.sqrt(i * d)
                found |= {f"{at}.{name}.weight": weight, f"{at}.{name}.bias": np.zeros(o * d)}
        for name in norms:
            found |= {f"{name}.weight": np.ones(d), f"{name}.bias": np.zeros(d)}
        return {name: value.astype(np.float32) for name, value in found.items()}

    def data(self) -> tuple[Array, Array]:
        """Tokens ``[batch, length]`` and what follows each, in a row."""
        rng = np.random.default_rng(2)
        tokens = rng.integers(0, self.vocabulary, (self.batch, self.length))
        return tokens, rng.integers(0, self.vocabulary, self.batch * self.length)

    @property
    def flops(self) -> int:
        """Of the matrix products of one step; gradients cost twice the forward pass."""
        d, tokens = self.width, self.batch * self.length
        block = 12 * d * d + 2 * self.length * d
        return 6 * tokens * (self.layers * block + d * self.vocabulary)

    @property
    def bytes(self) -> int:
        """Nothing has to leave the cache."""
        return 0


@dataclass(frozen=True)
class Recurrent:
    """LSTM layers and a linear layer on the last step; one step is one of Adam."""

    name: str
    batch: int = 32
    length: int = 20
    inputs: int = 10
    hidden: int = 50
    layers: int = 2
    classes: int = 2
    lr: float = 0.01

    def parameters(self) -> dict[str, Array]:
        """First values, by name."""
        rng, h = np.random.default_rng(1), self.hidden
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            shapes |= {
                f"lstm.weight_ih_l{layer}": (4 * h, h if layer else self.inputs),
                f"lstm.weight_hh_l{layer}": (4 * h, h),
                f"lstm.bias_ih_l{layer}": (4 * h,),
                f"lstm.bias_hh_l{layer}": (4 * h,),
            }
        shapes |= {"head.weight": (self.classes, h), "head.bias": (self.classes,)}
        bound = 1 / math.sqrt(h)
        return {n: rng.uniform(-bound, bound, s).astype(np.float32) for n, s in shapes.items()}

    def data(self) -> tuple[Array, Array]:
        """Sequences ``[batch, length, inputs]`` and their classes."""
        rng = np.random.default_rng(2)
        inputs = rng.standard_normal((self.batch, self.length, self.inputs)).astype(np.float32)
        return inputs, rng.integers(0, self.classes, self.batch)

    @property
    def flops(self) -> int:
        """Of the matrix products of one step; gradients cost twice the forward pass."""
        h = self.hidden
        cells = sum(4 * h * (h + (h if layer else self.inputs)) for layer in range(self.layers))
        return 6 * self.batch * (self.length * cells + h * self.classes)

    @property
    def bytes(self) -> int:
        """Nothing has to leave the cache."""
        return 0


Network: TypeAlias = Language | Recurrent
