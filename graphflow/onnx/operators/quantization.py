"""8-bit numbers with a scale and a zero point."""

from __future__ import annotations

from typing import Any

from graphflow.errors import DTypeError
from graphflow.ir import types as T
from graphflow.onnx.operators.linear import matmul_integer
from graphflow.onnx.operators.networks import conv_integer
from graphflow.onnx.operators.table import dtype_of, gf, operator
from graphflow.promotion import cast
from graphflow.tensor import Tensor

_RANGES = {T.uint8: (0, 255), T.int8: (-128, 127), T.int16: (-32768, 32767)}


def _spread(x: Tensor, like: Tensor, axis: int, block: int) -> Any:
    """A scale or zero point in the shape of what it belongs to."""
    if x.ndim == 0 or x.numel() == 1:
        return x.reshape(())
    if block:
        wide = gf.repeat_interleave(x, block, axis)
        return gf.narrow(wide, axis, 0, like.shape[axis])
    if x.ndim == 1:
        at = axis % like.ndim
        return x.reshape([-1 if k == at else 1 for k in range(like.ndim)])
    return x


def quantized(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: T.DType) -> Any:
    """x / scale rounded to even, plus the zero point, within the range of the dtype."""
    bounds = _RANGES.get(dtype)
    if bounds is None:
        raise DTypeError(f"numbers cannot be quantised to {dtype.name}")
    steps = gf.round(gf.div(x, cast(scale, x.dtype)))
    if zero is not None:
        steps = gf.add(steps, cast(zero, x.dtype))
    return cast(gf.clamp(steps, *bounds), dtype)


@operator("QuantizeLinear")
def quantize_linear(
    x: Tensor, y_scale: Tensor, y_zero_point: Tensor | None = None, *, axis: int = 1,
    block_size: int = 0, output_dtype: int = 0, precision: int = 0, saturate: int = 1,
) -> Any:  # fmt: skip
    """Numbers as steps of a scale."""
    dtype = dtype_of(output_dtype) if output_dtype else T.uint8
    if y_zero_point is not None:
        dtype = y_zero_point.dtype
        y_zero_point = _spread(y_zero_point, x, axis, block_size)
    return quantized(x, _spread(y_scale, x, axis, block_size), y_zero_point, dtype)


@operator("DequantizeLinear")
def dequantize_linear(
    x: Tensor, x_scale: Tensor, x_zero_point: Tensor | None = None, *, axis: int = 1,
    block_size: int = 0, output_dtype: int = 0,
) -> Any:  # fmt: skip
    """Steps of a scale as numbers."""
    scale = _spread(x_scale, x, axis, block_size)
    dtype = dtype_of(output_dtype) if output_dtype else x_scale.dtype
    steps = cast(x, T.int32)
    if x_zero_point is not None:
        steps = gf.sub(steps, cast(_spread(x_zero_point, x, axis, block_size), T.int32))
    return cast(gf.mul(cast(steps, scale.dtype), scale), dtype)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Tensor) -> Any:
    """uint8 over the range of the numbers, with its scale and zero point."""
    low, high = gf.clamp(gf.amin(x), max=0.0), gf.clamp(gf.amax(x), min=0.0)
    scale = gf.div(gf.sub(high, low), 255.0)
    zero = cast(gf.round(gf.clamp(gf.div(gf.neg(low), scale), 0.0, 255.0)), T.uint8)
    return quantized(x, scale, zero, T.uint8), scale, zero


def _requantized(sums: Tensor, factor: Tensor, zero: Tensor) -> Any:
    steps = gf.round(gf.mul(cast(sums, T.float32), factor))
    return cast(gf.clamp(gf.add(steps, cast(zero, T.float32)), *_RANGES[zero.dtype]), zero.dtype)


@operator("QLinearMatMul")
def qlinear_matmul(
    a: Tensor, a_scale: Tensor, a_zero_point: Tensor, b: Tensor, b_scale: Tensor,
    b_zero_point: Tensor, y_scale: Tensor, y_zero_point: Tensor,
) -> Any:  # fmt: skip
    """The matrix product of quantised numbers, quantised."""
    sums = matmul_integer(a, b, a_zero_point, b_zero_point)
    scales = (cast(s, T.float32) for s in (a_scale, b_scale, y_scale))
    left, right, out = scales
    return _requantized(sums, gf.div(gf.mul(left, right), out), y_zero_point)


@operator("QLinearConv")
def qlinear_conv(
    x: Tensor, x_scale: Tensor, x_zero_point: Tensor, w: Tensor, w_scale: Tensor,
    w_zero_point: Tensor, y_scale: Tensor, y_zero_point: Tensor, B: Tensor | None = None, *,
    auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1, kernel_shape: Any = None,
    pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    """The convolution of quantised numbers, quantised."""
    sums = conv_integer(
        x, w, x_zero_point, w_zero_point, auto_pad=auto_pad, dilations=dilations, group=group,
        pads=pads, strides=strides,
    )  # fmt: skip
    column = (-1, *[1] * (x.ndim - 2))
    if B is not None:
        sums = gf.add(sums, B.reshape(column))
    weights = w_scale.reshape(column) if w_scale.numel() > 1 else w_scale
    return _requantized(sums, gf.div(gf.mul(x_scale, weights), y_scale), y_zero_point)
