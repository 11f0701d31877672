"""Recurrent layers and cells with int8 weights, each product quantising its rows by their range."""

from __future__ import annotations

from typing import Any

from graphflow.ir.types import DType, float32
from graphflow.nn import modules
from graphflow.nn.functional.recurrent import Weights
from graphflow.nn.module import Module
from graphflow.nn.modules.recurrent import RNNBase
from graphflow.nn.modules.recurrent_cells import RNNCellBase
from graphflow.quantization import arithmetic
from graphflow.quantization.layers import quantized_weight
from graphflow.tensor import Tensor


class _Times:
    """Multiplies rows by an int8 weight, each time by the range of the rows."""

    def __init__(self, *weight: Tensor) -> None:
        self.weight = arithmetic.Weight(*weight)

    def __call__(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        return arithmetic.dynamic_linear(rows, self.weight, bias)


def _take(made: Module, float_module: Module, weight_observer: Any) -> None:
    """Buffers for the parameters of ``float_module``: weights as int8, biases as they are."""
    for name, value in float_module.named_parameters(recurse=False):
        if name.startswith("weight"):
            whole, scale = quantized_weight(value, weight_observer())
            made.register_buffer(name, whole)
            made.register_buffer(f"{name}_scale", scale)
            made.register_buffer(f"{name}_total", arithmetic.totals(whole))
        else:
            made.register_buffer(name, value.detach().clone())


def _products(module: Module, suffix: str = "") -> Weights:
    """The weights of ``module`` whose names end so, as functions that multiply by them."""

    def found(name: str) -> Any:
        own = getattr(module, name + suffix, None)
        if own is None or not name.startswith("weight"):
            return own
        more = (getattr(module, f"{name}{suffix}_{what}") for what in ("scale", "total"))
        return _Times(own, *more)

    return Weights(*map(found, Weights._fields))


class _DynamicRecurrent(RNNBase):
    """A recurrent layer with int8 weights ``weight_ih_l0`` …, their scales, and float biases."""

    @classmethod
    def from_float(cls, float_module: Any, weight_observer: Any) -> Any:
        """The layer that does what ``float_module`` does."""
        made: Any = cls.__new__(cls)
        Module.__init__(made)
        for name in ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first",
                     "dropout", "bidirectional", "proj_size", "training"):  # fmt: skip
            setattr(made, name, getattr(float_module, name))
        _take(made, float_module, weight_observer)
        return made

    def _weights(self, suffix: str) -> Weights:
        return _products(self, suffix)

    def _computes_in(self) -> DType:
        return float32


class LSTM(_DynamicRecurrent, modules.LSTM):
    """``nn.LSTM`` with int8 weights, quantising each product's rows by their own range."""


class GRU(_DynamicRecurrent, modules.GRU):
    """``nn.GRU`` with int8 weights, quantising each product's rows by their own range."""


class _DynamicCell(RNNCellBase):
    """A cell with int8 weights ``weight_ih`` and ``weight_hh``, their scales, and float biases."""

    @classmethod
    def from_float(cls, float_module: Any, weight_observer: Any) -> Any:
        """The cell that does what ``float_module`` does."""
        made: Any = cls.__new__(cls)
        Module.__init__(made)
        for name in ("input_size", "hidden_size", "bias", "nonlinearity", "training"):
            if hasattr(float_module, name):
                setattr(made, name, getattr(float_module, name))
        _take(made, float_module, weight_observer)
        return made

    def _weights(self) -> Weights:
        return _products(self)


class LSTMCell(_DynamicCell, modules.LSTMCell):
    """``nn.LSTMCell`` with int8 weights, quantising rows by their own range."""


class GRUCell(_DynamicCell, modules.GRUCell):
    """``nn.GRUCell`` with int8 weights, quantising rows by their own range."""


class RNNCell(_DynamicCell, modules.RNNCell):
    """``nn.RNNCell`` with int8 weights, quantising rows by their own range."""
