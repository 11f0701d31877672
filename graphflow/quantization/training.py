"""Layers for training with the rounding that integers will bring."""

from __future__ import annotations

from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.nn import functional as F
from graphflow.nn import modules
from graphflow.nn.module import Module
from graphflow.tensor import Tensor


class FakeQuantized(Module):
    """A layer whose input and weight are rounded as they will be, with gradients."""

    input_fake_quant: Any
    weight_fake_quant: Any

    @classmethod
    def from_float(cls, float_module: Any, qconfig: Any) -> Any:
        """The layer over the very parameters of ``float_module``."""
        made: Any = cls.__new__(cls)
        made.__dict__.update(float_module.__dict__)
        made._modules = dict(float_module._modules)
        made.input_fake_quant = qconfig.activation()
        made.weight_fake_quant = qconfig.weight()
        made.qconfig = qconfig
        with no_grad():  # ranges have their shapes before a step is traced
            made.weight_fake_quant(made.weight)
        return made


class Linear(FakeQuantized, modules.Linear):
    """``nn.Linear`` with rounded input and weight."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        weight = self.weight_fake_quant(self.weight)
        return F.linear(self.input_fake_quant(input), weight, self.bias)


class _Convolved(FakeQuantized):
    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] to [N, out_channels, ...]; without N too."""
        own: Any = self
        x, padding = own.input_fake_quant(input), own.padding
        if own.padding_mode != "zeros":
            x, padding = F.pad(x, own._both_sides(), mode=own.padding_mode), 0
        weight = own.weight_fake_quant(own.weight)
        convolve = getattr(F, f"conv{own.dims}d")
        made: Tensor = convolve(x, weight, own.bias, own.stride, padding, own.dilation, own.groups)
        return made


class Conv1d(_Convolved, modules.Conv1d):
    """``nn.Conv1d`` with rounded input and weight."""


class Conv2d(_Convolved, modules.Conv2d):
    """``nn.Conv2d`` with rounded input and weight."""


class Conv3d(_Convolved, modules.Conv3d):
    """``nn.Conv3d`` with rounded input and weight."""
