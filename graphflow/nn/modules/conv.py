"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from graphflow.checks import need_int
from graphflow.functions.creation import empty
from graphflow.ir.types import DType
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.sizes import per_dimension
from graphflow.tensor import Tensor

__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
]  # fmt: skip
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """Weight, bias and geometry of a convolution in ``dims`` dimensions."""

    dims: ClassVar[int]
    transposed: ClassVar[bool] = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any,
        dilation: Any, output_padding: Any, groups: int, bias: bool, padding_mode: str,
        device: Any, dtype: DType | None,
    ) -> None:  # fmt: skip
        super().__init__()
        name, dims = type(self).__name__, self.dims
        self.in_channels = need_int("in_channels", in_channels, 0)
        self.out_channels = need_int("out_channels", out_channels, 0)
        self.groups = need_int("groups", groups, 1)
        if self.in_channels % groups or self.out_channels % groups:
            raise ValueError(
                f"{name}: in_channels {in_channels} and out_channels {out_channels} must be "
                f"multiples of groups {groups}"
            )
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, dims, 1)
        self.stride = per_dimension(name, "stride", stride, dims, 1)
        self.dilation = per_dimension(name, "dilation", dilation, dims, 1)
        self.output_padding = per_dimension(name, "output_padding", output_padding, dims, 0)
        self.padding: Any = self._checked_padding(padding)
        self.padding_mode = self._checked_mode(padding_mode)
        ends = (in_channels, out_channels // groups)
        if not self.transposed:
            ends = (out_channels, in_channels // groups)
        self.weight = Parameter(empty(*ends, *self.kernel_size, dtype=dtype))
        self.bias: Parameter | None
        if bias:
            self.bias = Parameter(empty(out_channels, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()
        self.to(device)

    def _checked_padding(self, padding: Any) -> Any:
        if not isinstance(padding, str):
            return per_dimension(type(self).__name__, "padding", padding, self.dims, 0)
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be numbers, 'same' or 'valid', not {padding!r}")
        if padding == "same" and any(step != 1 for step in self.stride):
            raise ValueError(f"padding='same' needs stride 1, not {self.stride}")
        return padding

    def _checked_mode(self, padding_mode: str) -> str:
        allowed = PADDING_MODES[:1] if self.transposed else PADDING_MODES
        if padding_mode not in allowed:
            raise ValueError(f"padding_mode must be one of {allowed}, not {padding_mode!r}")
        return padding_mode

    def reset_parameters(self) -> None:
        """Draw weight and bias anew: uniform in ±1/sqrt(fan in)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight.shape[1] * math.prod(self.kernel_size)
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            init.uniform_(self.bias, -bound, bound)

    def _both_sides(self) -> list[int]:
        """The padding before and after each dimension, as ``F.pad`` takes it: last one first."""
        if self.padding == "valid":
            return [0] * (2 * self.dims)
        found: list[int] = []
        for k in reversed(range(self.dims)):
            if self.padding == "same":
                total = self.dilation[k] * (self.kernel_size[k] - 1)
                found += [total // 2, total - total // 2]
            else:
                found += [self.padding[k]] * 2
        return found

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] to [N, out_channels, ...]; without N too."""
        convolve = getattr(F, f"conv{self.dims}d")
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._both_sides(), mode=self.padding_mode), 0
        given = (self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return convolve(input, *given)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        ]
        zeros, ones = (0,) * self.dims, (1,) * self.dims
        for what, usual in (("padding", zeros), ("dilation", ones), ("output_padding", zeros)):
            value = getattr(self, what)
            if value != usual:
                parts.append(f"{what}={value}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Forward(_ConvNd):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip


class Conv1d(_Forward):
    """Convolution of [N, C, L] with weight [out, in / groups, K]; see ``F.conv1d``."""

    dims = 1


class Conv2d(_Forward):
    """Convolution of [N, C, H, W] with weight [out, in / groups, KH, KW]; see ``F.conv2d``."""

    dims = 2


class Conv3d(_Forward):
    """Convolution of [N, C, D, H, W] with weight [out, in / groups, KD, KH, KW]."""

    dims = 3


class _ConvTransposeNd(_ConvNd):
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding,
            groups, bias, padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """[N, C, ...] to [N, out_channels, ...], of spatial ``output_size`` if given."""
        convolve = getattr(F, f"conv_transpose{self.dims}d")
        extra = self._output_padding(input, output_size)
        return convolve(  # type: ignore[no-any-return]
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups,
            self.dilation,
        )  # fmt: skip

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """What must be added to the least result to reach ``output_size``."""
        if output_size is None:
            return self.output_padding
        wanted = tuple(output_size)[-self.dims :]
        parts = zip(
            input.shape[-self.dims :], self.stride, self.padding, self.dilation, self.kernel_size
        )
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in parts]
        extra = tuple(w - n for w, n in zip(wanted, least))
        if len(wanted) != self.dims or any(not 0 <= e < s for e, s in zip(extra, self.stride)):
            most = [n + s - 1 for n, s in zip(least, self.stride)]
            raise ValueError(f"output_size {list(wanted)} must be from {least} to {most}")
        return extra


class ConvTranspose1d(_ConvTransposeNd):
    """The adjoint of :class:`Conv1d`, weight [in, out / groups, K]."""

    dims = 1


class ConvTranspose2d(_ConvTransposeNd):
    """The adjoint of :class:`Conv2d`, weight [in, out / groups, KH, KW]."""

    dims = 2


class ConvTranspose3d(_ConvTransposeNd):
    """The adjoint of :class:`Conv3d`, weight [in, out / groups, KD, KH, KW]."""

    dims = 3
