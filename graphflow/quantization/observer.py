"""Observers: modules that watch the numbers that pass, and say how to quantise them.

A scale and a zero point are chosen so that the range seen, with zero in it, fits the integers
(affine), or the range up to the greatest magnitude does (symmetric).
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np

from graphflow.autograd.modes import no_grad
from graphflow.functions.creation import full, tensor, zeros
from graphflow.functions.elementwise import clamp, isinf, maximum, minimum, neg, round, where
from graphflow.functions.quantizing import RANGES
from graphflow.functions.reductions import amax, amin
from graphflow.ir.types import DType, float32, int8, int32, uint8
from graphflow.nn.module import Module
from graphflow.promotion import cast
from graphflow.quantization.schemes import QScheme, per_tensor_affine
from graphflow.tensor import Tensor

LEAST_SCALE = float(np.finfo(np.float32).eps)
"""Scales are not smaller: numbers of a constant are all zero otherwise."""


def choose_qparams(
    low: Tensor, high: Tensor, quant_min: int, quant_max: int, symmetric: bool, dtype: DType
) -> tuple[Tensor, Tensor]:
    """Scale and zero point for numbers from ``low`` to ``high`` (of each channel)."""
    low, high = clamp(low, max=0.0), clamp(high, min=0.0)
    if symmetric:
        bound = maximum(neg(low), high)
        scale = clamp(bound * (2.0 / (quant_max - quant_min)), min=LEAST_SCALE)
        middle = (quant_min + quant_max + 1) // 2 if dtype is uint8 else 0
        return scale, full(scale.shape, middle, dtype=int32)
    scale = clamp((high - low) * (1.0 / (quant_max - quant_min)), min=LEAST_SCALE)
    zero = clamp(quant_min - round(low / scale), quant_min, quant_max)
    return scale, cast(zero, int32)


class ObserverBase(Module):
    """What observers share: the integers that are wanted, and how ranges become them."""

    channels: ClassVar[bool] = False

    def __init__(
        self, dtype: DType = uint8, qscheme: QScheme = per_tensor_affine,
        reduce_range: bool = False, quant_min: int | None = None, quant_max: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if dtype not in (int8, uint8):
            raise ValueError(f"{type(self).__name__}: dtype must be int8 or uint8, not {dtype}")
        if qscheme.per_channel != self.channels:
            raise NotImplementedError(f"{type(self).__name__} has no {qscheme}")
        low, high = RANGES[dtype]
        if reduce_range:  # a bit less, for processors whose sums of products saturate
            low, high = low // 2, high // 2
        self.dtype, self.qscheme, self.reduce_range = dtype, qscheme, reduce_range
        self.quant_min = low if quant_min is None else quant_min
        self.quant_max = high if quant_max is None else quant_max

    @classmethod
    def with_args(cls, **kwargs: Any) -> Any:
        """A maker of observers with these arguments."""
        return partial(cls, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Look at ``x``, and return it."""
        with no_grad():
            self.observe(x.detach())
        return x

    def observe(self, x: Tensor) -> None:
        """Take ``x`` into account."""
        raise NotImplementedError

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point for what was seen."""
        raise NotImplementedError

    def _chosen(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        symmetric = self.qscheme.symmetric
        if self.qscheme.float_zero:
            width = (high - low) * (1.0 / (self.quant_max - self.quant_min))
            scale = clamp(width, min=LEAST_SCALE)
            return scale, neg(low) / scale
        return choose_qparams(low, high, self.quant_min, self.quant_max, symmetric, self.dtype)


class MinMaxObserver(ObserverBase):
    """The least and the greatest number of all."""

    min_val: Tensor
    max_val: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("min_val", tensor(float("inf")))
        self.register_buffer("max_val", tensor(float("-inf")))

    def observe(self, x: Tensor) -> None:
        """Widen the range."""
        low, high = self._range(x)
        self.min_val.copy_(minimum(self.min_val, low))
        self.max_val.copy_(maximum(self.max_val, high))

    def _range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = cast(x, float32)
        return amin(x), amax(x)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point; those of the range 0 … 0 if nothing was seen."""
        seen = (where(isinf(v), 0.0, v) for v in (self.min_val, self.max_val))
        return self._chosen(*seen)

    def reset_min_max_vals(self) -> None:
        """Forget what was seen."""
        self.min_val.fill_(float("inf"))
        self.max_val.fill_(float("-inf"))

    def extra_repr(self) -> str:
        """The range seen."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


def _moved(old: Tensor, new: Tensor, share: float) -> Tensor:
    """A moving average that begins with the first value."""
    return where(isinf(old), new, old + (new - where(isinf(old), new, old)) * share)


class MovingAverageMinMaxObserver(MinMaxObserver):
    """Moving averages of the least and greatest number of each batch."""

    def __init__(self, averaging_constant: float = 0.01, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.averaging_constant = averaging_constant

    def observe(self, x: Tensor) -> None:
        """Move the range towards that of ``x``."""
        low, high = self._range(x)
        self.min_val.copy_(_moved(self.min_val, low, self.averaging_constant))
        self.max_val.copy_(_moved(self.max_val, high, self.averaging_constant))


class PerChannelMinMaxObserver(MinMaxObserver):
    """The least and the greatest number for each index of axis ``ch_axis``."""

    channels = True

    def __init__(self, ch_axis: int = 0, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ch_axis = ch_axis

    def _range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = [k for k in range(x.ndim) if k != self.ch_axis % x.ndim]
        x = cast(x, float32)
        found = (amin(x, axes), amax(x, axes)) if axes else (x, x)
        if self.min_val.ndim == 0:
            count = int(x.shape[self.ch_axis])
            self.min_val = full((count,), float("inf"))
            self.max_val = full((count,), float("-inf"))
        return found

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        given = state_dict.get(prefix + "min_val")
        if given is not None and tuple(given.shape) != tuple(self.min_val.shape):
            self.min_val, self.max_val = zeros(given.shape), zeros(given.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class MovingAveragePerChannelMinMaxObserver(PerChannelMinMaxObserver):
    """Moving averages of the ranges of channels."""

    def __init__(self, averaging_constant: float = 0.01, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.averaging_constant = averaging_constant

    observe = MovingAverageMinMaxObserver.observe


class HistogramObserver(ObserverBase):
    """A histogram of all numbers; the range is the one with the least squared error.

    What lies outside of a range is clipped, what lies inside is off by up to half a step:
    narrower ranges have smaller steps and clip more.  Ranges are those of a grid of fractions
    of what was seen on either side.  It looks at numbers outside of compiled programs.
    """

    BINS = 2048
    STEPS = 64

    def __init__(self, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        self.register_buffer("histogram", zeros(bins))
        self.register_buffer("min_val", tensor(float("inf")))
        self.register_buffer("max_val", tensor(float("-inf")))

    def observe(self, x: Tensor) -> None:
        """Count the numbers of ``x``; earlier counts move to the bins of the wider range."""
        values = np.asarray(x.numpy(), np.float64).ravel()
        if not values.size:
            return
        counts, old = np.asarray(self.histogram.numpy(), np.float64), self._seen()
        low, high = min(old[0], values.min()), max(old[1], values.max())
        span = (low, high) if high > low else (low - 0.5, high + 0.5)
        found = np.histogram(values, self.bins, span)[0].astype(np.float64)
        if counts.any():
            middles = self._middles(*old)
            found += np.histogram(middles, self.bins, span, weights=counts)[0]
        self.histogram.copy_(tensor(found.astype(np.float32)))
        self.min_val.copy_(tensor(np.float32(low)))
        self.max_val.copy_(tensor(np.float32(high)))

    def _seen(self) -> tuple[float, float]:
        return float(self.min_val.item()), float(self.max_val.item())

    def _middles(self, low: float, high: float) -> Any:
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
        return low + (np.arange(self.bins) + 0.5) * ((high - low) / self.bins)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the best range."""
        low, high = self._seen()
        if low > high:
            return self._chosen(tensor(0.0), tensor(0.0))
        counts, middles = np.asarray(self.histogram.numpy(), np.float64), self._middles(low, high)
        low, high = min(low, 0.0), max(high, 0.0)
        fractions = np.linspace(1 / self.STEPS, 1, self.STEPS)
        lows = low * fractions if low < 0 else np.zeros(1)
        highs = high * fractions if high > 0 else np.zeros(1)
        clipped_low = np.array([(counts * np.maximum(e - middles, 0) ** 2).sum() for e in lows])
        clipped_high = np.array([(counts * np.maximum(middles - e, 0) ** 2).sum() for e in highs])
        steps = (highs[None, :] - lows[:, None]) / (self.quant_max - self.quant_min)
        errors = clipped_low[:, None] + clipped_high[None, :] + counts.sum() * steps**2 / 12
        i, j = np.unravel_index(int(errors.argmin()), errors.shape)
        return self._chosen(tensor(np.float32(lows[i])), tensor(np.float32(highs[j])))


class FixedQParamsObserver(ObserverBase):
    """Sees nothing: the scale and the zero point are given, for numbers of a known range."""

    def __init__(
        self, scale: float, zero_point: int, dtype: DType = uint8,
        qscheme: QScheme = per_tensor_affine, quant_min: int = 0, quant_max: int = 255, **_: Any,
    ) -> None:  # fmt: skip
        super().__init__(dtype, qscheme, quant_min=quant_min, quant_max=quant_max)
        self.register_buffer("scale", tensor(float(scale)))
        self.register_buffer("zero_point", tensor(zero_point, dtype=int32))

    def observe(self, x: Tensor) -> None:
        """Nothing."""

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Those that were given."""
        return self.scale, self.zero_point


class PlaceholderObserver(ObserverBase):
    """Sees nothing: stands for ranges that are found anew at every call (dynamic)."""

    def __init__(self, dtype: DType = int8, **kwargs: Any) -> None:
        super().__init__(dtype=dtype)

    def observe(self, x: Tensor) -> None:
        """Nothing."""

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """There are none."""
        raise RuntimeError("calculate_qparams: a placeholder has not seen anything")


NoopObserver = PlaceholderObserver
