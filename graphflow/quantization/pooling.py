"""Averages of 8-bit integers: what comes in is rounded, sums are of integers, numbers go out."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, Self

from graphflow.functions.quantizing import quantize_per_tensor
from graphflow.functions.reductions import sum
from graphflow.ir.types import float32, int8, int32
from graphflow.nn.functional import pooling
from graphflow.nn.functional.pool_windows import LEADING, Windows
from graphflow.promotion import cast
from graphflow.quantization import arithmetic
from graphflow.quantization.ranges import Ranged, input_range
from graphflow.tensor import Tensor


def steps_of(whole: Tensor, w: Windows, zero: int) -> Tensor:
    """What int8 less its zero point adds up to, over every window of ``whole[N, C, ...]``.

    It is exact (24 bits, as float32) for windows of at most 2^16 elements.
    """
    if w.sizes == w.extents and not any(w.edges):
        sums = sum(whole, tuple(range(LEADING, whole.ndim)), keepdim=True, dtype=int32)
    else:
        sums = pooling.sums(whole, w, zero, int32)
    made: Tensor = cast(sums, float32) - float(zero * prod(w.sizes))
    return made


class _Average(Ranged):
    """An average for inputs of a known range, with the options of the layer of numbers."""

    dims: ClassVar[int]
    options: ClassVar[tuple[str, ...]]
    scale: float
    zero_point: int

    @classmethod
    def from_float(cls, float_module: Any, input_observer: Any) -> Self:
        """The layer that does what ``float_module`` does, with this range."""
        made = cls()
        for name in cls.options:
            setattr(made, name, getattr(float_module, name))
        made.scale, made.zero_point = input_range(input_observer)
        return made

    def _total(self, x: Tensor, w: Windows) -> Tensor:
        """What the elements of every window of ``x[N, C, ...]`` add up to, as numbers."""
        whole = quantize_per_tensor(x, self.scale, self.zero_point, int8)
        made: Tensor = steps_of(whole, w, self.zero_point) * self.scale
        return made

    def extra_repr(self) -> str:
        """Options and the range of inputs."""
        own = [f"{name}={getattr(self, name)}" for name in self.options]
        return ", ".join([*own, f"scale={self.scale:g}", f"zero_point={self.zero_point}"])


class _AvgPool(_Average):
    options: ClassVar[tuple[str, ...]] = (
        "kernel_size",
        "stride",
        "padding",
        "ceil_mode",
        "count_include_pad",
    )

    def forward(self, input: Tensor) -> Tensor:
        """The mean of every window of [N, C, ...]; without N too."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.options}
        name = f"avg_pool{self.dims}d"
        return pooling.average(name, self.dims, input, total=self._total, **given)


class AvgPool1d(_AvgPool):
    """``nn.AvgPool1d`` of integers."""

    dims = 1


class AvgPool2d(_AvgPool):
    """``nn.AvgPool2d`` of integers."""

    dims = 2
    options = (*_AvgPool.options, "divisor_override")


class AvgPool3d(_AvgPool):
    """``nn.AvgPool3d`` of integers."""

    dims = 3
    options = (*_AvgPool.options, "divisor_override")


class _AdaptiveAvgPool(_Average):
    options: ClassVar[tuple[str, ...]] = ("output_size",)
    output_size: Any

    def forward(self, input: Tensor) -> Tensor:
        """The means of windows that cover [N, C, ...]; without N too."""
        name, size = f"adaptive_avg_pool{self.dims}d", self.output_size
        counts = pooling.wanted_counts(name, self.dims, input, size)
        if pooling.even_windows(input.shape[input.ndim - self.dims :], counts) is None:
            numbers = arithmetic.rounded(input, self.scale, self.zero_point)
            return pooling.adaptive_average(name, self.dims, numbers, size)
        return pooling.adaptive_average(name, self.dims, input, size, self._total)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """``nn.AdaptiveAvgPool1d`` of integers."""

    dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """``nn.AdaptiveAvgPool2d`` of integers."""

    dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """``nn.AdaptiveAvgPool3d`` of integers."""

    dims = 3
