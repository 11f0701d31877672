"""Layers that multiply 8-bit integers: numbers come in, and numbers go out.

Weights are int8 buffers with a scale (one, or one a feature); what comes in is quantised by a
scale that calibration chose, or by its own range (dynamic).  Between layers are numbers, so
whatever a model does there is unchanged; in a compiled program rounding for the next layer
runs on the sums of this one while they are in the cache, and only integers are stored.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from graphflow.autograd.modes import no_grad
from graphflow.errors import GraphFlowError
from graphflow.functions.elementwise import eq
from graphflow.functions.quantizing import (
    dequantize_per_channel,
    dequantize_per_tensor,
    quantize_per_channel,
    quantize_per_tensor,
)
from graphflow.functions.shaping import unsqueeze
from graphflow.ir.types import int8
from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.nn.modules.conv import _ConvNd
from graphflow.quantization import arithmetic
from graphflow.quantization.ranges import Ranged, input_range
from graphflow.tensor import Tensor


def quantized_weight(weight: Tensor, observer: Any) -> tuple[Tensor, Tensor]:
    """``weight`` as int8, and its scale or scales, as ``observer`` chooses them."""
    with no_grad():
        observer(weight.detach())
        scale, zero_point = observer.calculate_qparams()
        if observer.dtype is not int8 or not eq(zero_point, 0).all().item():
            raise ValueError("weights are quantised to int8, symmetrically: see QConfig")
        if observer.qscheme.per_channel:
            whole = quantize_per_channel(weight.detach(), scale, zero_point, observer.ch_axis, int8)
        else:
            whole = quantize_per_tensor(weight.detach(), scale, zero_point, int8)
    return whole, scale


class Quantized(Module):
    """What the layers share: an int8 ``weight``, its scale, and a bias."""

    weight: Tensor
    weight_scale: Tensor
    weight_total: Tensor
    bias: Tensor | None

    def _take(self, float_module: Any, observer: Any) -> None:
        """Weight and bias of ``float_module``."""
        weight, scale = quantized_weight(float_module.weight, observer)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_total", arithmetic.totals(weight))
        bias = float_module.bias
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def _weight(self) -> arithmetic.Weight:
        return arithmetic.Weight(self.weight, self.weight_scale, self.weight_total)

    def dequantized_weight(self) -> Tensor:
        """The weight as numbers."""
        if not self.weight_scale.ndim:
            return dequantize_per_tensor(self.weight, self.weight_scale)
        zeros = self.weight_scale * 0
        return dequantize_per_channel(self.weight, self.weight_scale, zeros, 0)


class _Static(Ranged, Quantized):
    """With a scale and a zero point for what comes in, chosen by calibration."""

    scale: float
    zero_point: int

    def _input(self) -> str:
        return f"scale={self.scale:g}, zero_point={self.zero_point}"


class Linear(_Static):
    """``nn.Linear`` with int8 weights, for inputs of a known range."""

    @classmethod
    def from_float(cls, float_module: Any, input_observer: Any, weight_observer: Any) -> Self:
        """The layer that does what ``float_module`` does, with these scales."""
        made = cls()
        made._take(float_module, weight_observer)
        made.scale, made.zero_point = input_range(input_observer)
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return arithmetic.linear(input, self._weight(), self.bias, self.scale, self.zero_point)

    def extra_repr(self) -> str:
        """Sizes and the range of inputs."""
        out, into = self.weight.shape
        return f"in_features={into}, out_features={out}, {self._input()}"


class DynamicLinear(Quantized):
    """``nn.Linear`` with int8 weights, quantising each input by its own range."""

    @classmethod
    def from_float(cls, float_module: Any, weight_observer: Any) -> Self:
        """The layer that does what ``float_module`` does."""
        made = cls()
        made._take(float_module, weight_observer())
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return arithmetic.dynamic_linear(input, self._weight(), self.bias)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}"


class _QuantizedConv(_Static):
    """A convolution with int8 weights, for inputs of a known range."""

    dims: ClassVar[int]
    _KEPT = (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation",
        "groups", "padding_mode",
    )  # fmt: skip

    @classmethod
    def from_float(cls, float_module: Any, input_observer: Any, weight_observer: Any) -> Self:
        """The layer that does what ``float_module`` does, with these scales."""
        made = cls()
        for name in cls._KEPT:
            setattr(made, name, getattr(float_module, name))
        made.sides = tuple(_ConvNd._both_sides(float_module))
        made._take(float_module, weight_observer)
        made.scale, made.zero_point = input_range(input_observer)
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] to [N, out_channels, ...]; without N too."""
        batched = input.ndim == self.dims + 2
        x = input if batched else unsqueeze(input, 0)
        low, high = self.sides[::2][::-1], self.sides[1::2][::-1]
        if self.padding_mode != "zeros":
            x = F.pad(x, list(self.sides), mode=self.padding_mode)
            low = high = (0,) * self.dims
        made = arithmetic.convolve(
            x, self._weight(), self.bias, self.scale, self.zero_point,
            low, high, self.stride, self.dilation, self.groups,
        )  # fmt: skip
        return made if batched else made[0]

    def extra_repr(self) -> str:
        """Geometry and the range of inputs."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, {self._input()}"
        )


class Conv1d(_QuantizedConv):
    """``nn.Conv1d`` with int8 weights."""

    dims = 1


class Conv2d(_QuantizedConv):
    """``nn.Conv2d`` with int8 weights."""

    dims = 2


class Conv3d(_QuantizedConv):
    """``nn.Conv3d`` with int8 weights."""

    dims = 3


class QuantStub(Module):
    """Marks where numbers become integers, as PyTorch wants it; layers quantise by themselves."""

    def __init__(self, qconfig: Any = None) -> None:
        super().__init__()
        if qconfig is not None:
            self.qconfig = qconfig

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        return x


class DeQuantStub(QuantStub):
    """Marks where integers become numbers again."""


class QuantWrapper(Module):
    """A module between two stubs."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.quant, self.module, self.dequant = QuantStub(), module, DeQuantStub()
        self.train(module.training)

    def forward(self, X: Tensor) -> Any:
        """What the module makes of ``X``."""
        return self.dequant(self.module(self.quant(X)))


def unsupported(module: Module) -> GraphFlowError:
    """The error for a layer that has no form with integers."""
    return GraphFlowError(f"{type(module).__name__} has no quantised form")
