"""What is measured: data only, so that every system runs the very same thing.

A training workload is a multilayer perceptron with ReLU between the layers,
one step being forward, backward and an SGD update.  An expression workload is
one function of float32 arrays.  Sequence models are in ``networks.py``, convolution
networks in ``images.py``.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from benchmarks.convolutions import CONVOLUTIONS, Convolution
from benchmarks.images import Digits, Images, Residual
from benchmarks.networks import Language, Network, Recurrent

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Training:
    """An MLP of these layer sizes; ``loss`` is ``mse`` or ``cross_entropy``."""

    name: str
    sizes: tuple[int, ...]
    batch: int
    loss: str
    lr: float
    momentum: float = 0.0

    def parameters(self) -> list[tuple[Array, Array]]:
        """Initial weights ``[in, out]`` and biases of every layer."""
        rng = np.random.default_rng(1)
        pairs = []
        for fan_in, fan_out in zip(self.sizes, self.sizes[1:], strict=False):
            weight = rng.standard_normal((fan_in, fan_out)) / math.sqrt(fan_in)
            pairs.append((weight.astype(np.float32), np.zeros(fan_out, np.float32)))
        return pairs

    def data(self) -> tuple[Array, Array]:
        """Inputs and what they should become."""
        rng = np.random.default_rng(2)
        inputs = rng.standard_normal((self.batch, self.sizes[0])).astype(np.float32)
        if self.loss == "cross_entropy":
            return inputs, rng.integers(0, self.sizes[-1], self.batch)
        return inputs, inputs if len(self.sizes) > 2 else 2 * inputs + 1

    @property
    def flops(self) -> int:
        """Multiplications and additions of the matrix products of one step."""
        layers = list(zip(self.sizes, self.sizes[1:], strict=False))
        products = 2 * sum(i * o for i, o in layers) + sum(i * o for i, o in layers[1:])
        return 2 * self.batch * products

    @property
    def bytes(self) -> int:
        """Nothing has to leave the cache."""
        return 0


@dataclass(frozen=True)
class Expression:
    """A function by ``kind`` (see each system's ``EXPRESSIONS``) of arrays of ``shape``."""

    name: str
    kind: str
    shape: tuple[int, ...]

    def inputs(self) -> list[Array]:
        """The arrays the function takes."""
        rng = np.random.default_rng(3)
        shapes, scale = [self.shape], 1.0
        if self.kind == "layernorm":
            shapes += [self.shape[-1:]] * 2
        elif self.kind == "matmul":
            shapes = [self.shape[:2], self.shape[1:]]
            scale = 1 / math.sqrt(self.shape[1])
        return [(scale * rng.standard_normal(s)).astype(np.float32) for s in shapes]

    @property
    def flops(self) -> int:
        """Of matrix products alone; the rest is bound by memory."""
        return 2 * math.prod(self.shape) if self.kind == "matmul" else 0

    @property
    def bytes(self) -> int:
        """What must be read and written at least once."""
        return 0 if self.kind == "matmul" else 8 * math.prod(self.shape)


Workload: TypeAlias = Training | Expression | Network | Images | Convolution

MODELS: dict[str, Workload] = {
    w.name: w
    for w in (
        Training("linreg", (1, 1), 100, "mse", 0.01),
        Training("tiny", (1, 10, 1), 10, "mse", 0.1),
        Training("mlp", (784, 128, 10), 128, "cross_entropy", 0.01, 0.9),
        Training("mlp_batch96", (784, 128, 10), 96, "cross_entropy", 0.01, 0.9),
        Training("mlp_hidden200", (784, 200, 10), 128, "cross_entropy", 0.01, 0.9),
        Digits("cnn"),
        Digits("cnn_image30", image=30),
        Recurrent("lstm"),
        Recurrent("lstm_batch1", batch=1),
        Language("gpt"),
        Language("gpt_batch5_length48", batch=5, length=48),
        Language("gpt_width160", width=160),
        Residual("resnet18_train"),
        Residual("resnet18_infer", batch=1, training=False),
        Expression("mish16m", "mish", (1 << 24,)),
        Expression("softmax", "softmax", (4096, 1024)),
        Expression("softmax_3000x700", "softmax", (3000, 700)),
        Expression("layernorm", "layernorm", (4096, 1024)),
        Expression("layernorm_3000x700", "layernorm", (3000, 700)),
        Expression("gemm1024", "matmul", (1024, 1024, 1024)),
        Expression("gemm_1000x900x700", "matmul", (1000, 900, 700)),
    )
}

WORKLOADS: dict[str, Workload] = MODELS | CONVOLUTIONS

TWELVE = (
    "linreg", "tiny", "mlp", "cnn", "lstm", "gpt", "resnet18_train", "resnet18_infer",
    "mish16m", "softmax", "layernorm", "gemm1024",
)  # fmt: skip

GROUPS = {
    "twelve": list(TWELVE),
    "perturbed": [name for name in MODELS if name not in TWELVE],
    "convolutions": list(CONVOLUTIONS),
}
"""Workloads by what they are measured for; ``perturbed`` are the twelve at other sizes."""


def relatives(name: str) -> list[str]:
    """The other models of the same kind: of other sizes, or used in another way."""

    def kind(workload: Workload) -> tuple[type, str]:
        return type(workload), getattr(workload, "kind", "")

    return [n for n, w in MODELS.items() if n != name and kind(w) == kind(WORKLOADS[name])]


def with_arrays(workload: Workload) -> Workload:
    """The workload with its arrays made: its methods hand them out."""
    ready = copy.copy(workload)
    for name in ("parameters", "data", "inputs", "arrays"):
        if callable(maker := getattr(workload, name, None)):
            made = maker()
            object.__setattr__(ready, name, lambda made=made: made)  # it is frozen
    return ready
