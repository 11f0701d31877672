"""Linear maps and convolutions of 8-bit integers, with numbers before and after.

With ``x = (q - z) s`` and ``w = p t`` (weights are symmetric) a sum of products of numbers is

    ``sum x w = s t (sum q p - z sum p)``

where the first sum is one of integers, 32 bits wide, and the second is known beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.dispatch import apply
from graphflow.functions.elementwise import clamp, round
from graphflow.functions.quantizing import dequantize_per_tensor, quantize_per_tensor
from graphflow.functions.reductions import amax, amin, sum
from graphflow.functions.shaping import reshape, t
from graphflow.ir.types import float32, int8, int32
from graphflow.promotion import cast
from graphflow.quantization.observer import LEAST_SCALE
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

LOW, HIGH = -128, 127


def range_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point (both float32) for the numbers in ``x``, as int8."""
    low, high = clamp(amin(x), max=0.0), clamp(amax(x), min=0.0)
    scale = clamp((high - low) * (1.0 / (HIGH - LOW)), min=LEAST_SCALE)
    return scale, clamp(LOW - round(low / scale), LOW, HIGH)


class Weight(NamedTuple):
    """A weight [out, …] as int8, its scale ([out] or one), and what it adds up to ([out])."""

    whole: Tensor
    scale: Tensor
    total: Tensor


def totals(weight: Tensor) -> Tensor:
    """What the integers of each feature add up to, as float32."""
    return cast(sum(cast(weight, int32), tuple(range(1, weight.ndim))), float32)


def rounded(x: Tensor, scale: Any, zero: Any) -> Tensor:
    """The numbers that ``x`` stands for as int8."""
    return dequantize_per_tensor(quantize_per_tensor(x, scale, zero, int8), scale, zero)


def linear(x: Tensor, weight: Weight, bias: Tensor | None, scale: Any, zero: Any) -> Tensor:
    """``x @ w.T + bias``."""
    return linear_of(quantize_per_tensor(x, scale, zero, int8), weight, bias, scale, zero)


def linear_of(whole: Tensor, weight: Weight, bias: Tensor | None, scale: Any, zero: Any) -> Tensor:
    """:func:`linear` of int8."""
    rows = reshape(whole, (1, -1)) if whole.ndim == 1 else whole
    sums = apply("matmul", rows, t(weight.whole), dtype=int32)
    sums = reshape(sums, (-1,)) if whole.ndim == 1 else sums
    return _numbers(sums, weight.total, scale * weight.scale, zero, bias)


def dynamic_linear(x: Tensor, weight: Weight, bias: Tensor | None) -> Tensor:
    """:func:`linear` with the range of ``x`` itself."""
    return linear(x, weight, bias, *range_of(x))


def convolve(
    x: Tensor, weight: Weight, bias: Tensor | None, scale: float, zero: int,
    low: Sequence[int], high: Sequence[int], steps: Sequence[int], dilations: Sequence[int],
    groups: int,
) -> Tensor:  # fmt: skip
    """A convolution of ``x`` [N, C, …], padded with zeros."""
    whole = quantize_per_tensor(x, scale, zero, int8)
    geometry = (low, high, steps, dilations, groups)
    return convolve_of(whole, weight, bias, scale, zero, *geometry)


def convolve_of(
    whole: Tensor, weight: Weight, bias: Tensor | None, scale: float, zero: int,
    low: Sequence[int], high: Sequence[int], steps: Sequence[int], dilations: Sequence[int],
    groups: int,
) -> Tensor:  # fmt: skip
    """:func:`convolve` of int8."""
    dims = len(steps)
    if any(low) or any(high):
        ends = ((0, 0, *low), (0, 0, *high))
        whole = apply("pad", whole, low=ends[0], high=ends[1], value=int(zero))
    channels, features = int(whole.shape[1]), int(weight.whole.shape[0])
    sums = apply(
        "conv",
        reshape(whole, (whole.shape[0], groups, channels // groups, *whole.shape[2:])),
        reshape(weight.whole, (groups, features // groups, *weight.whole.shape[1:])),
        steps=tuple(steps), low=(0,) * dims, high=(0,) * dims, spread=(1,) * dims,
        dilations=tuple(dilations), dtype=int32,
    )  # fmt: skip
    sums = reshape(sums, (sums.shape[0], features, *sums.shape[3:]))
    shape = (features, *(1,) * dims)
    factor = scale * weight.scale
    factor = reshape(factor, shape) if factor.ndim else factor
    bias = None if bias is None else reshape(bias, shape)
    return _numbers(sums, reshape(weight.total, shape), factor, zero, bias)


def _numbers(
    sums: Tensor, totals: Tensor, factor: Tensor, zero: Any, bias: Tensor | None
) -> Tensor:
    """What integer sums stand for."""
    moved = factor * totals * (-zero)
    made: Tensor = cast(sums, float32) * factor + (moved if bias is None else bias + moved)
    return made
