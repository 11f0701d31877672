"""Borders: constant, reflected, replicated, circular, in one to three dimensions."""

from __future__ import annotations

from typing import Any, ClassVar

from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.tensor import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d",
    "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d",
    "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    """``padding``: one amount for all sides, or two for every dimension, the last one first."""

    dimensions: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        sides = 2 * self.dimensions
        self.padding = (padding,) * sides if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != sides:
            raise ValueError(f"{type(self).__name__} needs {sides} amounts, not {padding!r}")

    def forward(self, input: Tensor) -> Tensor:
        """The input with its border."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return str(self.padding)


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """The input with its border."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """One value around the last dimension."""

    dimensions = 1


class ConstantPad2d(_ConstantPad):
    """One value around the last two dimensions."""

    dimensions = 2


class ConstantPad3d(_ConstantPad):
    """One value around the last three dimensions."""

    dimensions = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return str(self.padding)


class ZeroPad1d(_ZeroPad):
    """Zeros around the last dimension."""

    dimensions = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two dimensions."""

    dimensions = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three dimensions."""

    dimensions = 3


class _ReflectionPad(_Pad):
    mode = "reflect"


class ReflectionPad1d(_ReflectionPad):
    """The last dimension mirrored at its ends."""

    dimensions = 1


class ReflectionPad2d(_ReflectionPad):
    """The last two dimensions mirrored at their ends."""

    dimensions = 2


class ReflectionPad3d(_ReflectionPad):
    """The last three dimensions mirrored at their ends."""

    dimensions = 3


class _ReplicationPad(_Pad):
    mode = "replicate"


class ReplicationPad1d(_ReplicationPad):
    """The last dimension with its ends repeated."""

    dimensions = 1


class ReplicationPad2d(_ReplicationPad):
    """The last two dimensions with their ends repeated."""

    dimensions = 2


class ReplicationPad3d(_ReplicationPad):
    """The last three dimensions with their ends repeated."""

    dimensions = 3


class _CircularPad(_Pad):
    mode = "circular"


class CircularPad1d(_CircularPad):
    """The last dimension continued from its other end."""

    dimensions = 1


class CircularPad2d(_CircularPad):
    """The last two dimensions continued from their other ends."""

    dimensions = 2


class CircularPad3d(_CircularPad):
    """The last three dimensions continued from their other ends."""

    dimensions = 3
