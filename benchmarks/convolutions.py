"""ResNet-18's convolutions one by one, forward and their two gradients.

    python -m benchmarks --workloads convolutions --systems static,torch

Images lie channels last, as they do inside a network; filters ``[outputs, inputs, k, k]``.
The floor counts the operations of the direct method, whatever a system does instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from benchmarks.images import STAGES

Array: TypeAlias = np.ndarray[Any, Any]

DIRECTIONS = ("forward", "input_gradient", "weight_gradient")


@dataclass(frozen=True)
class Convolution:
    """One direction of a convolution whose result has ``side`` × ``side`` pixels."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    side: int
    direction: str
    batch: int = 16

    @property
    def name(self) -> str:
        """What tables call it: ``conv3x3_64_128_s2_16.forward``."""
        k, stride = self.kernel, f"_s{self.stride}" if self.stride > 1 else ""
        return f"conv{k}x{k}_{self.inputs}_{self.outputs}{stride}_{self.side}.{self.direction}"

    @property
    def padding(self) -> int:
        """Rows and columns of zeros on each side."""
        return self.kernel // 2

    def arrays(self) -> list[Array]:
        """Images and cotangent ``[batch, row, column, channel]``, filters between them."""
        rng = np.random.default_rng(4)
        before = (self.batch, self.side * self.stride, self.side * self.stride, self.inputs)
        taps = (self.outputs, self.inputs, self.kernel, self.kernel)
        after = (self.batch, self.side, self.side, self.outputs)
        scale = np.float32(1 / math.sqrt(math.prod(taps[1:])))
        x, w, ct = (rng.standard_normal(shape, np.float32) for shape in (before, taps, after))
        return [x, scale * w, ct]

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct method; the same in every direction."""
        taps = self.kernel**2 * self.inputs * self.outputs
        return 2 * self.batch * taps * self.side**2

    @property
    def bytes(self) -> int:
        """Operands and result, each once."""
        pixels = self.batch * self.side**2
        taps = self.kernel**2 * self.inputs * self.outputs
        return 4 * (pixels * self.stride**2 * self.inputs + taps + pixels * self.outputs)


def _convolutions(side: int = 32) -> list[Convolution]:
    """Each shape of ResNet-18 once; the first needs no gradient of its images."""
    shapes = {(3, 64, 3, 1, side): None}
    inputs = 64
    for outputs, stride in STAGES:
        side //= stride
        shapes[inputs, outputs, 3, stride, side] = None
        shapes[outputs, outputs, 3, 1, side] = None
        if stride != 1:
            shapes[inputs, outputs, 1, stride, side] = None
        inputs = outputs
    return [
        Convolution(*shape, direction)
        for shape in shapes
        for direction in DIRECTIONS
        if shape[0] > 3 or direction != "input_gradient"
    ]


CONVOLUTIONS = {c.name: c for c in _convolutions()}
