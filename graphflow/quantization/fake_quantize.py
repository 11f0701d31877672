"""Fake quantisation: numbers as they would be as integers, still floats, with a gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

from graphflow.functions.creation import ones, zeros
from graphflow.functions.quantizing import (
    fake_quantize_per_channel_affine,
    fake_quantize_per_tensor_affine,
)
from graphflow.ir.types import DType, int8, int32, uint8
from graphflow.nn.module import Module
from graphflow.quantization.observer import (
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from graphflow.quantization.schemes import (
    QScheme,
    per_channel_symmetric,
    per_tensor_symmetric,
)
from graphflow.tensor import Tensor

__all__ = [
    "FakeQuantize",
    "FakeQuantizeBase",
    "FusedMovingAvgObsFakeQuantize",
    "default_fake_quant",
    "default_per_channel_weight_fake_quant",
    "default_weight_fake_quant",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
]


class FakeQuantize(Module):
    """An observer, and the rounding that it asks for; either can be switched off.

    ``observer(**observer_kwargs)`` sees what passes; scale and zero point follow it.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self, observer: Any = MovingAverageMinMaxObserver, quant_min: int | None = None,
        quant_max: int | None = None, **observer_kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation_post_process = observer(
            quant_min=quant_min, quant_max=quant_max, **observer_kwargs
        )
        self.fake_quant_enabled = True
        self.observer_enabled = True
        self.register_buffer("scale", ones(()))
        self.register_buffer("zero_point", zeros((), dtype=int32))

    @classmethod
    def with_args(cls, **kwargs: Any) -> Any:
        """A maker of modules with these arguments."""
        return partial(cls, **kwargs)

    @property
    def dtype(self) -> DType:
        """The dtype of the integers."""
        return self.activation_post_process.dtype  # type: ignore[no-any-return]

    @property
    def qscheme(self) -> QScheme:
        """How ranges become integers."""
        return self.activation_post_process.qscheme  # type: ignore[no-any-return]

    @property
    def ch_axis(self) -> int:
        """The axis of channels; -1 if there is one range."""
        return getattr(self.activation_post_process, "ch_axis", -1)

    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Round from now on, or do not."""
        self.fake_quant_enabled = bool(enabled)

    def disable_fake_quant(self) -> None:
        """Let numbers pass."""
        self.enable_fake_quant(False)

    def enable_observer(self, enabled: bool = True) -> None:
        """Watch from now on, or do not."""
        self.observer_enabled = bool(enabled)

    def disable_observer(self) -> None:
        """Keep scale and zero point."""
        self.enable_observer(False)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point for what was seen."""
        return self.activation_post_process.calculate_qparams()  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to what integers can say."""
        seen = self.activation_post_process
        if self.observer_enabled:
            seen(x)
            scale, zero_point = (each.detach() for each in seen.calculate_qparams())
            if scale.shape != self.scale.shape:
                self.scale, self.zero_point = scale, zero_point
            else:
                self.scale.copy_(scale)
                self.zero_point.copy_(zero_point)
        if not self.fake_quant_enabled:
            return x
        range_ = (seen.quant_min, seen.quant_max)
        if self.qscheme.per_channel:
            return fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.ch_axis, *range_
            )
        return fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, *range_)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        given = state_dict.get(prefix + "scale")
        if given is not None and tuple(given.shape) != tuple(self.scale.shape):
            self.scale = ones(given.shape)
            self.zero_point = zeros(given.shape, dtype=int32)
        super()._load_from_state_dict(state_dict, prefix, *rest)


FakeQuantizeBase = FakeQuantize
FusedMovingAvgObsFakeQuantize = FakeQuantize

default_fake_quant = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, dtype=uint8)
default_weight_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, dtype=int8, qscheme=per_tensor_symmetric
)
default_per_channel_weight_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, dtype=int8,
    qscheme=per_channel_symmetric, ch_axis=0,
)  # fmt: skip


def _each(module: Module, action: str) -> None:
    if isinstance(module, FakeQuantize):
        getattr(module, action)()


def enable_fake_quant(module: Module) -> None:
    """Round from now on: ``model.apply(enable_fake_quant)``."""
    _each(module, "enable_fake_quant")


def disable_fake_quant(module: Module) -> None:
    """Let numbers pass: ``model.apply(disable_fake_quant)``."""
    _each(module, "disable_fake_quant")


def enable_observer(module: Module) -> None:
    """Watch from now on: ``model.apply(enable_observer)``."""
    _each(module, "enable_observer")


def disable_observer(module: Module) -> None:
    """Keep scales as they are: ``model.apply(disable_observer)``."""
    _each(module, "disable_observer")
