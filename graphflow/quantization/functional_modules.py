"""Sums, products and concatenations as a module, as PyTorch wants them in quantised models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.functions.elementwise import add, mul, relu
from graphflow.functions.products import matmul
from graphflow.functions.shaping import cat
from graphflow.nn.module import Module
from graphflow.tensor import Tensor


class FloatFunctional(Module):
    """``add``, ``mul``, ``cat`` and so on of what goes between layers.

    In PyTorch it observes the range of the results.  Between layers are numbers here, and what is
    rounded is what comes into a layer, so nothing is observed and nothing to be converted.
    """

    def forward(self, x: Tensor) -> Tensor:
        """It is not called itself."""
        raise RuntimeError(
            "FloatFunctional is no layer: call its add, mul, cat, add_relu or matmul"
        )

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``."""
        return add(x, y)

    def add_scalar(self, x: Tensor, y: Any) -> Tensor:
        """``x + y`` of a number ``y``."""
        return add(x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """``x * y``."""
        return mul(x, y)

    def mul_scalar(self, x: Tensor, y: Any) -> Tensor:
        """``x * y`` of a number ``y``."""
        return mul(x, y)

    def cat(self, x: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The tensors side by side."""
        return cat(x, dim)

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """``relu(x + y)``."""
        return relu(add(x, y))

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """``x @ y``, of numbers."""
        return matmul(x, y)
