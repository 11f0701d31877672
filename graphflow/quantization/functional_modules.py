"""Sums, products and concatenations as a module, as PyTorch wants them in quantised models."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Self

from graphflow.functions.elementwise import add, mul, relu
from graphflow.functions.products import matmul
from graphflow.functions.shaping import cat
from graphflow.nn.module import Module
from graphflow.quantization import arithmetic
from graphflow.quantization.ranges import Ranged, input_range
from graphflow.tensor import Tensor

OPERANDS = ("x", "y")


class FloatFunctional(Module):
    """``add``, ``mul``, ``cat`` and so on of what goes between layers.

    Prepared, it observes the operands of ``add``, ``add_relu`` and ``mul``; converted, it is a
    :class:`QFunctional`.  PyTorch observes results: here it is what comes in that is rounded.
    Use one for each place, for it has one range an operand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fresh: set[str] = set()
        """Which operand it was, each time, that the layer before had returned."""

    def forward(self, x: Tensor) -> Tensor:
        """It is not called itself."""
        raise RuntimeError(
            "FloatFunctional is no layer: call its add, mul, cat, add_relu or matmul"
        )

    def _taken(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The operands as they are computed with."""
        if "x_observer" in self._modules:
            _latest.look(self, x, y)
            own: Any = self
            return own.x_observer(x), own.y_observer(y)
        return x, y

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``."""
        return add(*self._taken(x, y))

    def add_scalar(self, x: Tensor, y: Any) -> Tensor:
        """``x + y`` of a number ``y``."""
        return add(x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """``x * y``."""
        return mul(*self._taken(x, y))

    def mul_scalar(self, x: Tensor, y: Any) -> Tensor:
        """``x * y`` of a number ``y``."""
        return mul(x, y)

    def cat(self, x: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The tensors side by side."""
        return cat(x, dim)

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """``relu(x + y)``."""
        return relu(self.add(x, y))

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """``x @ y``, of numbers."""
        return matmul(x, y)


class QFunctional(Ranged, FloatFunctional):
    """:class:`FloatFunctional` that rounds operands to what 8-bit integers stand for.

    In a compiled program these integers are what is stored.  An operand that a layer had
    returned last when ranges were observed is not rounded (``None``): the sum is made where
    that layer's product is, before anything is stored.
    """

    scales = ("x_scale", "y_scale")
    zero_points = ("x_zero_point", "y_zero_point")

    x_scale: float | None
    y_scale: float | None
    x_zero_point: int | None
    y_zero_point: int | None

    @classmethod
    def from_float(cls, float_module: FloatFunctional, *observers: Any) -> Self:
        """The module that rounds operands to the ranges of the observers."""
        made = cls()
        for name, observer in zip(OPERANDS, observers, strict=True):
            kept = float_module.fresh in (set(), {name})  # by no call, or made there
            found = (None, None) if kept else input_range(observer)
            for what, value in zip(("scale", "zero_point"), found, strict=True):
                setattr(made, f"{name}_{what}", value)
        return made

    def _taken(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        first = _rounded(x, self.x_scale, self.x_zero_point)
        return first, _rounded(y, self.y_scale, self.y_zero_point)


def _rounded(x: Tensor, scale: float | None, zero: int | None) -> Tensor:
    return x if scale is None else arithmetic.rounded(x, scale, zero)


class _Latest:
    """What the layer that ran last returned, while ranges are observed."""

    def __init__(self) -> None:
        self._returned: weakref.ref[Any] | None = None

    def remember(self, module: Module, inputs: Any, output: Any) -> None:
        """A hook that runs after a layer."""
        self._returned = weakref.ref(output) if isinstance(output, Tensor) else None

    def look(self, module: FloatFunctional, x: Tensor, y: Tensor) -> None:
        """Note which of the operands it is; another one each time is none."""
        latest = None if self._returned is None else self._returned()
        same = [name for name, v in zip(OPERANDS, (x, y), strict=True) if v is latest]
        module.fresh.add(same[0] if len(same) == 1 else "")


_latest = _Latest()
after_a_layer = _latest.remember


def observe(module: FloatFunctional, activation: Any) -> None:
    """Have observers that ``activation`` makes watch the operands of ``module``."""
    for name in OPERANDS:
        module.add_module(f"{name}_observer", activation())
