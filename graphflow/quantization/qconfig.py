"""Which observers watch what comes into a layer, and its weight."""

from __future__ import annotations

from typing import Any

from graphflow.backends.quantized import supported_engines
from graphflow.ir.types import int8, uint8
from graphflow.quantization.fake_quantize import (
    default_fake_quant,
    default_per_channel_weight_fake_quant,
    default_weight_fake_quant,
)
from graphflow.quantization.observer import (
    FixedQParamsObserver,
    HistogramObserver,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
)
from graphflow.quantization.schemes import (
    per_channel_affine_float_qparams,
    per_channel_symmetric,
    per_tensor_symmetric,
)
from graphflow.records import NamedTuple


class QConfig(NamedTuple):
    """Makers of observers (classes, or ``with_args`` of them) for inputs and for weights."""

    activation: Any
    weight: Any


default_observer = MinMaxObserver.with_args(dtype=uint8)
default_histogram_observer = HistogramObserver.with_args(dtype=uint8)
default_weight_observer = MinMaxObserver.with_args(dtype=int8, qscheme=per_tensor_symmetric)
default_per_channel_weight_observer = PerChannelMinMaxObserver.with_args(
    dtype=int8, qscheme=per_channel_symmetric
)
default_placeholder_observer = PlaceholderObserver
default_float_qparams_observer = PerChannelMinMaxObserver.with_args(
    dtype=uint8, qscheme=per_channel_affine_float_qparams, ch_axis=0
)
weight_observer_range_neg_127_to_127 = MinMaxObserver.with_args(
    dtype=int8, qscheme=per_tensor_symmetric, quant_min=-127, quant_max=127
)
per_channel_weight_observer_range_neg_127_to_127 = PerChannelMinMaxObserver.with_args(
    dtype=int8, qscheme=per_channel_symmetric, quant_min=-127, quant_max=127
)
default_fixed_qparams_range_0to1_observer = FixedQParamsObserver.with_args(
    scale=1 / 256, zero_point=0
)
default_fixed_qparams_range_neg1to1_observer = FixedQParamsObserver.with_args(
    scale=2 / 256, zero_point=128
)

default_qconfig = QConfig(default_observer, default_weight_observer)
per_channel_qconfig = QConfig(default_histogram_observer, default_per_channel_weight_observer)
default_dynamic_qconfig = QConfig(default_placeholder_observer, default_weight_observer)
per_channel_dynamic_qconfig = QConfig(
    default_placeholder_observer, default_per_channel_weight_observer
)
default_per_channel_qconfig = QConfig(default_observer, default_per_channel_weight_observer)
float_qparams_weight_only_qconfig = QConfig(
    default_placeholder_observer, default_float_qparams_observer
)
default_qat_qconfig = QConfig(default_fake_quant, default_weight_fake_quant)
per_channel_qat_qconfig = QConfig(default_fake_quant, default_per_channel_weight_fake_quant)

BACKENDS = tuple(supported_engines)


def get_default_qconfig(backend: str = "x86", version: int = 0) -> QConfig:
    """Histograms of inputs; weights by channel, or by tensor for ``"qnnpack"``.

    Kernels are the same for every ``backend``: sums do not saturate, so all 8 bits are used.
    """
    _check(backend)
    by_tensor = QConfig(default_histogram_observer, default_weight_observer)
    return by_tensor if backend == "qnnpack" else per_channel_qconfig


def get_default_qat_qconfig(backend: str = "x86", version: int = 1) -> QConfig:
    """Moving averages of ranges, rounded with a gradient."""
    _check(backend)
    return default_qat_qconfig if backend == "qnnpack" else per_channel_qat_qconfig


def _check(backend: str) -> None:
    if backend not in BACKENDS:
        raise AssertionError(f"backend: {backend} not supported; it may be one of {BACKENDS}")
