"""Numbers as small integers and back: ``real = (integer - zero_point) * scale``.

There is no tensor type of its own for them: an integer is an ``int8`` or ``uint8`` like any
other, and its scale is at hand where it is needed.  The very tensor that quantising returns
remembers its scale, nothing that is made of it does.  Rounding is to the nearest even number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflow.autograd.function import Function
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.elementwise import clamp, ge, le, logical_and, round, where
from graphflow.ir.types import DType, float32, int8, int16, int32, uint8
from graphflow.promotion import cast
from graphflow.records import NamedTuple

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "dequantize",
    "dequantize_per_channel",
    "dequantize_per_tensor",
    "fake_quantize_per_channel_affine",
    "fake_quantize_per_tensor_affine",
    "int_repr",
    "q_per_channel_axis",
    "q_per_channel_scales",
    "q_per_channel_zero_points",
    "q_scale",
    "q_zero_point",
    "quantize_per_channel",
    "quantize_per_tensor",
]
METHODS = """
dequantize int_repr q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale
q_zero_point
""".split()

RANGES = {int8: (-128, 127), uint8: (0, 255), int16: (-32768, 32767), int32: (-(2**31), 2**31 - 1)}
"""The least and the greatest integer of each dtype that numbers are quantised to."""


def quantize_per_tensor(input: Tensor, scale: Any, zero_point: Any, dtype: DType) -> Tensor:
    """``round(input / scale) + zero_point`` within the range of ``dtype``: int8 or uint8.

    ``scale`` and ``zero_point`` are numbers or tensors of one element.
    """
    made = _quantized("quantize_per_tensor", input, scale, zero_point, dtype)
    return remembering(made, QuantizedRange(scale, zero_point))


def quantize_per_channel(
    input: Tensor, scales: Tensor, zero_points: Tensor, axis: int, dtype: DType
) -> Tensor:
    """:func:`quantize_per_tensor` with a scale and a zero point for each index of ``axis``."""
    name = "quantize_per_channel"
    first, second = (_along(name, each, input, axis) for each in (scales, zero_points))
    made = _quantized(name, input, first, second, dtype)
    return remembering(made, QuantizedRange(scales, zero_points, axis % input.ndim))


class QuantizedRange(NamedTuple):
    """Which numbers integers stand for: one scale and zero point, or one an index of ``axis``."""

    scale: Any
    zero_point: Any
    axis: int | None = None


def remembering(whole: Tensor, own: QuantizedRange) -> Tensor:
    """``whole``, which stands for numbers of this range from now on."""
    whole._range = own
    return whole


def range_of(name: str, input: Tensor) -> QuantizedRange:
    """What ``input`` remembers of being quantised; GraphFlowError if that is nothing."""
    own: QuantizedRange | None = getattr(input, "_range", None)
    if own is None:
        raise GraphFlowError(
            f"{name}: no scale is known for this tensor of {input.dtype}; only the very tensor "
            "that quantize_per_tensor or quantize_per_channel returned remembers one (for others "
            "there are dequantize_per_tensor and dequantize_per_channel)"
        )
    return own


def _one(name: str, input: Tensor, per_channel: bool) -> QuantizedRange:
    own = range_of(name, input)
    if (own.axis is not None) is not per_channel:
        other = "quantize_per_tensor" if own.axis is None else "quantize_per_channel"
        raise GraphFlowError(f"{name}: the tensor was quantised by {other}")
    return own


def dequantize(input: Tensor) -> Tensor:
    """The numbers that ``input`` stands for, as float32; floats are taken as they are."""
    if input.dtype.is_floating_point:
        return cast(input, float32)
    scale, zero, axis = range_of("dequantize", input)
    if axis is None:
        return dequantize_per_tensor(input, scale, zero)
    return dequantize_per_channel(input, scale, zero, axis)


def int_repr(input: Tensor) -> Tensor:
    """The integers, which no longer remember what they stand for."""
    range_of("int_repr", input)
    return input.detach()


def q_scale(input: Tensor) -> float:
    """The scale of what :func:`quantize_per_tensor` returned."""
    return float(_one("q_scale", input, False).scale)


def q_zero_point(input: Tensor) -> int:
    """The zero point of what :func:`quantize_per_tensor` returned."""
    return int(_one("q_zero_point", input, False).zero_point)


def q_per_channel_scales(input: Tensor) -> Tensor:
    """The scales of what :func:`quantize_per_channel` returned."""
    return _one("q_per_channel_scales", input, True).scale  # type: ignore[no-any-return]


def q_per_channel_zero_points(input: Tensor) -> Tensor:
    """The zero points of what :func:`quantize_per_channel` returned."""
    return _one("q_per_channel_zero_points", input, True).zero_point  # type: ignore[no-any-return]


def q_per_channel_axis(input: Tensor) -> int:
    """The axis with a scale for each index of what :func:`quantize_per_channel` returned."""
    return int(_one("q_per_channel_axis", input, True).axis)  # type: ignore[arg-type]


def dequantize_per_tensor(input: Tensor, scale: Any, zero_point: Any = 0) -> Tensor:
    """``(input - zero_point) * scale``, as float32."""
    made: Tensor = (cast(input, float32) - zero_point) * scale
    return made


def dequantize_per_channel(input: Tensor, scales: Tensor, zero_points: Tensor, axis: int) -> Tensor:
    """:func:`dequantize_per_tensor` with a scale and a zero point for each index of ``axis``."""
    given = (_along("dequantize_per_channel", e, input, axis) for e in (scales, zero_points))
    return dequantize_per_tensor(input, *given)


def fake_quantize_per_tensor_affine(
    input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int
) -> Tensor:
    """What is left of ``input`` once quantised to ``quant_min`` … ``quant_max``, and back.

    The gradient is that of the identity where the integer was within the range, else zero
    (the straight-through estimator: Bengio, Léonard and Courville 2013).
    """
    _check_range("fake_quantize_per_tensor_affine", input, quant_min, quant_max)
    made: Tensor = _Fake.apply(input, scale, zero_point, quant_min, quant_max)
    return made


def fake_quantize_per_channel_affine(
    input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """:func:`fake_quantize_per_tensor_affine` with a scale for each index of ``axis``."""
    name = "fake_quantize_per_channel_affine"
    _check_range(name, input, quant_min, quant_max)
    given = [_along(name, each, input, axis) for each in (scale, zero_point)]
    made: Tensor = _Fake.apply(input, *given, quant_min, quant_max)
    return made


class _Fake(Function):
    """To integers and back, with the gradient of the identity inside the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Any, zero: Any, low: int, high: int) -> Tensor:
        """The nearest number that an integer stands for."""
        whole = _rounded(x, scale, zero)
        ctx.save_for_backward(logical_and(ge(whole, low), le(whole, high)))
        made: Tensor = (clamp(whole, low, high) - zero) * scale
        return made

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> tuple[Tensor | None, ...]:
        """The cotangent, where the integer was within the range."""
        (inside,) = ctx.saved_tensors
        return where(inside, ct, 0.0), None, None, None, None


def _rounded(x: Tensor, scale: Any, zero_point: Any) -> Tensor:
    """The integers, as floats, whatever their range."""
    made: Tensor = round(x * (1.0 / scale)) + zero_point
    return made


def _quantized(name: str, x: Tensor, scale: Any, zero_point: Any, dtype: DType) -> Tensor:
    if dtype not in RANGES:
        raise DTypeError(f"{name}: dtype must be int8, uint8, int16 or int32, not {dtype}")
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{name}: the input must be a float tensor, it is {x.dtype}")
    return cast(clamp(_rounded(x, scale, zero_point), *RANGES[dtype]), dtype)


def _check_range(name: str, x: Tensor, low: int, high: int) -> None:
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{name}: the input must be a float tensor, it is {x.dtype}")
    if low > high:
        raise ValueError(f"{name}: quant_min {low} must not be greater than quant_max {high}")


def _along(name: str, each: Tensor, x: Tensor, axis: int) -> Tensor:
    """A number for each index of ``axis`` of ``x``, to be broadcast."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name}: axis {axis} is outside of a tensor of {x.ndim} dimensions")
    if each.ndim != 1 or each.shape[0] != x.shape[axis]:
        raise ShapeError(
            f"{name}: axis {axis} of {list(x.shape)} wants {x.shape[axis]} scales and zero "
            f"points, not {list(each.shape)}"
        )
    shape = [1] * x.ndim
    shape[axis] = int(x.shape[axis])
    made: Tensor = each.reshape(shape)
    return made
