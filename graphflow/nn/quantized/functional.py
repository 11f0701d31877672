"""PyTorch's functions of quantised tensors: integers that remember which numbers they stand for.

Such tensors are what :func:`graphflow.quantize_per_tensor` returns (weights:
:func:`graphflow.quantize_per_channel` too, by features).  Functions without a scale of their
own return integers of the range that comes in; the others round to ``scale`` and ``zero_point``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from graphflow.errors import GraphFlowError
from graphflow.functions import elementwise
from graphflow.functions.creation import as_tensor
from graphflow.functions.quantizing import (
    QuantizedRange,
    dequantize,
    quantize_per_tensor,
    range_of,
    remembering,
)
from graphflow.ir.types import DType, float32, int8, int16, uint8
from graphflow.nn import functional as F
from graphflow.nn.functional import pooling
from graphflow.nn.sizes import per_dimension
from graphflow.promotion import cast
from graphflow.quantization import arithmetic
from graphflow.quantization.pooling import steps_of
from graphflow.tensor import Tensor

__all__ = [
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool2d", "avg_pool3d", "celu", "clamp",
    "conv1d", "conv2d", "conv3d", "elu", "hardsigmoid", "hardswish", "hardtanh", "interpolate",
    "leaky_relu", "linear", "max_pool1d", "max_pool2d", "threshold", "upsample",
    "upsample_bilinear", "upsample_nearest",
]  # fmt: skip


def _input(name: str, x: Tensor) -> tuple[float, int]:
    """Scale and zero point of a tensor that has one of each."""
    own = range_of(name, x)
    if own.axis is not None or x.dtype not in (int8, uint8):
        raise GraphFlowError(f"{name}: the input must be int8 or uint8, quantised per tensor")
    return own.scale, own.zero_point


def _signed(x: Tensor, zero: int) -> tuple[Tensor, int]:
    """``x`` and its zero point as int8."""
    if x.dtype is int8:
        return x, zero
    return cast(cast(x, int16) - 128, int8), zero - 128


def _weight(name: str, weight: Tensor) -> arithmetic.Weight:
    """A weight with a scale for all or for each feature, and what its integers add up to."""
    own = range_of(name, weight)
    if weight.dtype is not int8 or own.axis not in (None, 0):
        raise GraphFlowError(f"{name}: the weight must be int8, of one scale or one a feature")
    zeros = own.zero_point
    if zeros != 0 if own.axis is None else bool((zeros != 0).any().item()):
        raise GraphFlowError(f"{name}: the weight must be quantised with zero points 0")
    return arithmetic.Weight(weight, as_tensor(own.scale, dtype=float32), arithmetic.totals(weight))


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, scale: float | None = None,
    zero_point: int | None = None,
) -> Tensor:  # fmt: skip
    """``input @ weight.T + bias``, rounded to the range that is given, or that of the input."""
    own, zero = _input("linear", input)
    whole, middle = _signed(input, zero)
    made = arithmetic.linear_of(whole, _weight("linear", weight), bias, own, middle)
    scale, zero = own if scale is None else scale, zero if zero_point is None else zero_point
    return quantize_per_tensor(made, scale, zero, input.dtype)


# ---- convolutions --------------------------------------------------------------------


def _conv(
    name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
    padding: Any, dilation: Any, groups: int, padding_mode: str, scale: float, zero_point: int,
    dtype: DType,
) -> Tensor:  # fmt: skip
    if padding_mode != "zeros":
        raise NotImplementedError(f"{name}: only padding_mode='zeros' is supported")
    own, zero = _input(name, input)
    whole, middle = _signed(input, zero)
    sizes = [
        per_dimension(name, what, given, dims, 0 if what == "padding" else 1)
        for what, given in (("padding", padding), ("stride", stride), ("dilation", dilation))
    ]
    edges, steps, spacing = sizes
    made = arithmetic.convolve_of(
        whole, _weight(name, weight), bias, own, middle, edges, edges, steps, spacing, groups
    )
    return quantize_per_tensor(made, scale, zero_point, dtype)


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros", scale: float = 1.0,
    zero_point: int = 0, dtype: DType = uint8,
) -> Tensor:  # fmt: skip
    """A convolution of [N, C, L], rounded to ``scale`` and ``zero_point``; ``bias``: numbers."""
    given = (stride, padding, dilation, groups, padding_mode, scale, zero_point, dtype)
    return _conv("conv1d", 1, input, weight, bias, *given)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros", scale: float = 1.0,
    zero_point: int = 0, dtype: DType = uint8,
) -> Tensor:  # fmt: skip
    """A convolution of [N, C, H, W], rounded to ``scale`` and ``zero_point``."""
    given = (stride, padding, dilation, groups, padding_mode, scale, zero_point, dtype)
    return _conv("conv2d", 2, input, weight, bias, *given)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros", scale: float = 1.0,
    zero_point: int = 0, dtype: DType = uint8,
) -> Tensor:  # fmt: skip
    """A convolution of [N, C, D, H, W], rounded to ``scale`` and ``zero_point``."""
    given = (stride, padding, dilation, groups, padding_mode, scale, zero_point, dtype)
    return _conv("conv3d", 3, input, weight, bias, *given)


# ---- pooling -------------------------------------------------------------------------


def _kept(name: str, input: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """What ``function`` picks of the integers, of the same range."""
    return remembering(function(input), QuantizedRange(*_input(name, input)))


def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor:  # fmt: skip
    """The largest integer of every window of [N, C, L]."""
    return _largest(
        "max_pool1d", input, return_indices, kernel_size, stride, padding, dilation, ceil_mode
    )


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor:  # fmt: skip
    """The largest integer of every window of [N, C, H, W]."""
    return _largest(
        "max_pool2d", input, return_indices, kernel_size, stride, padding, dilation, ceil_mode
    )


def _largest(name: str, input: Tensor, indices: bool, *given: Any) -> Tensor:
    if indices:
        raise NotImplementedError(f"{name}: return_indices is not supported for integers")
    return _kept(name, input, lambda x: getattr(F, name)(x, *given))


def _averaged(name: str, input: Tensor, pool: Callable[[Tensor, pooling.Total], Tensor]) -> Tensor:
    """Means of windows in steps of the scale, rounded: of the same range."""
    scale, zero = _input(name, input)
    whole, middle = _signed(input, zero)
    steps = pool(whole, lambda x, w: steps_of(x, w, middle))
    made = quantize_per_tensor(steps, 1.0, zero, input.dtype)
    return remembering(made, QuantizedRange(scale, zero))


def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of every window of [N, C, H, W]."""
    given = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    pool = lambda x, total: pooling.average("avg_pool2d", 2, x, *given, total)  # noqa: E731
    return _averaged("avg_pool2d", input, pool)


def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of every window of [N, C, D, H, W]."""
    given = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    pool = lambda x, total: pooling.average("avg_pool3d", 3, x, *given, total)  # noqa: E731
    return _averaged("avg_pool3d", input, pool)


def _adaptive(name: str, dims: int, input: Tensor, output_size: Any) -> Tensor:
    counts = pooling.wanted_counts(name, dims, input, output_size)
    if pooling.even_windows(input.shape[input.ndim - dims :], counts) is not None:
        average = pooling.adaptive_average
        return _averaged(name, input, lambda x, total: average(name, dims, x, output_size, total))
    scale, zero = _input(name, input)
    return _rounded(input, partial(getattr(F, name), output_size=output_size), scale, zero)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of [H, W] windows that cover [N, C, ., .] evenly."""
    return _adaptive("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The means of [D, H, W] windows that cover [N, C, ., ., .] evenly."""
    return _adaptive("adaptive_avg_pool3d", 3, input, output_size)


# ---- element by element --------------------------------------------------------------


def _rounded(x: Tensor, function: Callable[[Tensor], Tensor], scale: Any, zero: Any) -> Tensor:
    return quantize_per_tensor(function(dequantize(x)), scale, zero, x.dtype)


def _alike(name: str, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return _rounded(x, function, *_input(name, x))


def clamp(input: Tensor, min_: float, max_: float) -> Tensor:
    """Numbers from ``min_`` to ``max_``, of the same range."""
    return _alike("clamp", input, lambda x: elementwise.clamp(x, min_, max_))


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """Numbers from ``min_val`` to ``max_val``, of the same range."""
    return _alike("hardtanh", input, lambda x: F.hardtanh(x, min_val, max_val))


def threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """``value`` where a number is not above ``threshold``."""
    return _alike("threshold", input, lambda x: F.threshold(x, threshold, value))


def leaky_relu(
    input: Tensor, negative_slope: float = 0.01, inplace: bool = False,
    scale: float | None = None, zero_point: int | None = None,
) -> Tensor:  # fmt: skip
    """``x`` or ``negative_slope * x``, rounded to the range that is given, or the same."""
    own, zero = _input("leaky_relu", input)
    scale, zero = own if scale is None else scale, zero if zero_point is None else zero_point
    return _rounded(input, lambda x: F.leaky_relu(x, negative_slope), scale, zero)


def hardswish(input: Tensor, scale: float, zero_point: int) -> Tensor:
    """``x relu6(x + 3) / 6``."""
    return _rounded(input, F.hardswish, scale, zero_point)


def elu(input: Tensor, scale: float, zero_point: int, alpha: float = 1.0) -> Tensor:
    """``x``, or ``alpha (exp(x) - 1)`` below 0."""
    return _rounded(input, lambda x: F.elu(x, alpha), scale, zero_point)


def celu(input: Tensor, scale: float, zero_point: int, alpha: float = 1.0) -> Tensor:
    """``x``, or ``alpha (exp(x / alpha) - 1)`` below 0."""
    return _rounded(input, lambda x: F.celu(x, alpha), scale, zero_point)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``relu6(x + 3) / 6`` in steps of 1/256."""
    least = -128 if input.dtype is int8 else 0
    return _rounded(input, F.hardsigmoid, 1 / 256, least)


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """Another size, of the same range; ``mode``: ``"nearest"`` or ``"bilinear"``."""
    if mode not in ("nearest", "bilinear"):
        raise NotImplementedError(f"interpolate: mode {mode!r} is not supported for integers")
    resized = partial(F.interpolate, size=size, scale_factor=scale_factor, mode=mode)
    resized = resized if align_corners is None else partial(resized, align_corners=align_corners)
    return _alike("interpolate", input, resized)


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """The same as :func:`interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """:func:`interpolate` by neighbours in both dimensions, corners kept."""
    return interpolate(input, size, scale_factor, "bilinear", True)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """:func:`interpolate` by the nearest element."""
    return interpolate(input, size, scale_factor)
