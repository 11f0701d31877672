"""Transposed convolutions with int8 weights: convolutions over integers that were set apart."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Self

from graphflow.dispatch import apply
from graphflow.functions.quantizing import quantize_per_tensor
from graphflow.functions.shaping import flip, permute, reshape, unsqueeze
from graphflow.ir.types import int8
from graphflow.nn.modules.conv import _ConvTransposeNd
from graphflow.quantization import arithmetic
from graphflow.quantization.layers import _QuantizedConv
from graphflow.quantization.ranges import input_range
from graphflow.tensor import Tensor

LEADING = 2


def turned(weight: Tensor, groups: int) -> Tensor:
    """A weight [in, out / groups, *K] as a convolution has it: [out, in / groups, *K], flipped."""
    channels, features, *taps = weight.shape
    parts = reshape(weight, (groups, channels // groups, features, *taps))
    parts = permute(parts, (0, 2, 1, *range(3, 3 + len(taps))))
    whole = reshape(parts, (groups * features, channels // groups, *taps))
    made: Tensor = flip(whole, tuple(range(LEADING, LEADING + len(taps))))
    return made


def set_apart(whole: Tensor, steps: Sequence[int], value: int) -> Tensor:
    """``whole[N, C, *S]`` with ``step - 1`` times ``value`` between neighbours."""
    if set(steps) == {1}:
        return whole
    front, extents = tuple(whole.shape[:LEADING]), tuple(whole.shape[LEADING:])
    pairs = [size for extent in extents for size in (extent, 1)]
    gaps = [size for step in steps for size in (0, step - 1)]
    wide = apply(
        "pad", reshape(whole, (*front, *pairs)), low=(0,) * (LEADING + len(pairs)),
        high=(*(0,) * LEADING, *gaps), value=value,
    )  # fmt: skip
    ends = [n * s for n, s in zip(extents, steps, strict=True)]
    return _cut(reshape(wide, (*front, *ends)), (0,) * len(steps), [s - 1 for s in steps])


def _cut(x: Tensor, low: Sequence[int], high: Sequence[int]) -> Tensor:
    """``x[N, C, *S]`` without so many elements at the ends of S."""
    if not any((*low, *high)):
        return x
    extents = x.shape[LEADING:]
    limits = [n - h for n, h in zip(extents, high, strict=True)]
    return apply(
        "slice", x, starts=(*(0,) * LEADING, *low), limits=(*x.shape[:LEADING], *limits),
        steps=(1,) * x.ndim,
    )  # fmt: skip


class _QuantizedTransposed(_QuantizedConv):
    output_padding: tuple[int, ...]

    @classmethod
    def from_float(cls, float_module: Any, input_observer: Any, weight_observer: Any) -> Self:
        """The layer that does what ``float_module`` does, with these scales.

        The weight is kept as that of the convolution, so that it may have a scale a feature.
        """
        made = cls()
        for name in (*cls._KEPT, "output_padding"):
            setattr(made, name, getattr(float_module, name))
        weight = turned(float_module.weight.detach(), float_module.groups)
        made._take(SimpleNamespace(weight=weight, bias=float_module.bias), weight_observer)
        made.scale, made.zero_point = input_range(input_observer)
        return made

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """[N, C, ...] to [N, out_channels, ...], of spatial ``output_size`` if given."""
        own: Any = self
        extra = _ConvTransposeNd._output_padding(own, input, output_size)
        batched = input.ndim == self.dims + LEADING
        whole = quantize_per_tensor(
            input if batched else unsqueeze(input, 0), self.scale, self.zero_point, int8
        )
        whole = set_apart(whole, own.stride, self.zero_point)
        parts = zip(own.dilation, own.kernel_size, own.padding, strict=True)
        low = [d * (k - 1) - p for d, k, p in parts]
        high = [edge + more for edge, more in zip(low, extra, strict=True)]
        whole = _cut(whole, [max(0, -e) for e in low], [max(0, -e) for e in high])
        before, after = ([max(0, e) for e in ends] for ends in (low, high))
        made = arithmetic.convolve_of(
            whole, self._weight(), self.bias, self.scale, self.zero_point,
            before, after, (1,) * self.dims, own.dilation, own.groups,
        )  # fmt: skip
        return made if batched else made.squeeze(0)


class ConvTranspose1d(_QuantizedTransposed):
    """``nn.ConvTranspose1d`` with int8 weights."""

    dims = 1


class ConvTranspose2d(_QuantizedTransposed):
    """``nn.ConvTranspose2d`` with int8 weights."""

    dims = 2


class ConvTranspose3d(_QuantizedTransposed):
    """``nn.ConvTranspose3d`` with int8 weights."""

    dims = 3
