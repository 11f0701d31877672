"""Pooling layers: the largest, the mean or a norm of every window, and unpooling."""

from __future__ import annotations

from typing import Any, ClassVar

from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.nn.sizes import per_dimension
from graphflow.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
    "FractionalMaxPool2d", "FractionalMaxPool3d", "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d",
    "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
]  # fmt: skip


class _Pool(Module):
    """A layer that calls ``F.<function>`` in ``dims`` dimensions."""

    function: ClassVar[str]
    dims: ClassVar[int]

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(F, f"{self.function}{self.dims}d")(*args, **kwargs)


class _MaxPool(_Pool):
    function = "max_pool"

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """The largest element of every window, with its index if ``return_indices``."""
        given = (self.kernel_size, self.stride, self.padding, self.dilation)
        return self._call(input, *given, self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of windows of [N, C, L]; see ``F.max_pool1d``."""

    dims = 1


class MaxPool2d(_MaxPool):
    """The largest element of windows of [N, C, H, W]; see ``F.max_pool2d``."""

    dims = 2


class MaxPool3d(_MaxPool):
    """The largest element of windows of [N, C, D, H, W]; see ``F.max_pool3d``."""

    dims = 3


class _MaxUnpool(_Pool):
    function = "max_unpool"

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        name, dims = type(self).__name__, self.dims
        steps = kernel_size if stride is None else stride
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, dims, 1)
        self.stride = per_dimension(name, "stride", steps, dims, 1)
        self.padding = per_dimension(name, "padding", padding, dims, 0)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Any:
        """Zeros with the values of ``input`` at ``indices``."""
        given = (indices, self.kernel_size, self.stride, self.padding, output_size)
        return self._call(input, *given)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Undoes :class:`MaxPool1d`, given its indices."""

    dims = 1


class MaxUnpool2d(_MaxUnpool):
    """Undoes :class:`MaxPool2d`, given its indices."""

    dims = 2


class MaxUnpool3d(_MaxUnpool):
    """Undoes :class:`MaxPool3d`, given its indices."""

    dims = 3


class AvgPool1d(_Pool):
    """The mean of windows of [N, C, L]; see ``F.avg_pool1d``."""

    function, dims = "avg_pool", 1

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        steps = kernel_size if stride is None else stride
        self.kernel_size = per_dimension("AvgPool1d", "kernel_size", kernel_size, 1, 1)
        self.stride = per_dimension("AvgPool1d", "stride", steps, 1, 1)
        self.padding = per_dimension("AvgPool1d", "padding", padding, 1, 0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Any:
        """The mean of every window."""
        given = (self.kernel_size, self.stride, self.padding)
        return self._call(input, *given, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(_Pool):
    function = "avg_pool"

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Any:
        """The mean of every window."""
        given = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return self._call(input, *given, self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of windows of [N, C, H, W]; see ``F.avg_pool2d``."""

    dims = 2


class AvgPool3d(_AvgPool):
    """The mean of windows of [N, C, D, H, W]; see ``F.avg_pool3d``."""

    dims = 3


class _LPPool(_Pool):
    function = "lp_pool"

    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """The norm of every window."""
        given = (float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)
        return self._call(input, *given)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norm of windows of [N, C, L]; see ``F.lp_pool1d``."""

    dims = 1


class LPPool2d(_LPPool):
    """The p-norm of windows of [N, C, H, W]; see ``F.lp_pool2d``."""

    dims = 2


class LPPool3d(_LPPool):
    """The p-norm of windows of [N, C, D, H, W]; see ``F.lp_pool3d``."""

    dims = 3


class _AdaptiveAvgPool(_Pool):
    function = "adaptive_avg_pool"

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Any:
        """``output_size`` windows that cover the input evenly."""
        return self._call(input, self.output_size)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of a given number of windows over [N, C, L]."""

    dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of a given number of windows over [N, C, H, W]."""

    dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The means of a given number of windows over [N, C, D, H, W]."""

    dims = 3


class _AdaptiveMaxPool(_AdaptiveAvgPool):
    function = "adaptive_max_pool"

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        """``output_size`` windows that cover the input evenly; indices if asked for."""
        return self._call(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest elements of a given number of windows over [N, C, L]."""

    dims = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest elements of a given number of windows over [N, C, H, W]."""

    dims = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest elements of a given number of windows over [N, C, D, H, W]."""

    dims = 3


class _FractionalMaxPool(_Pool):
    function = "fractional_max_pool"

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name, dims = type(self).__name__, self.dims
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{name} needs either output_size or output_ratio")
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, dims, 1)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size: Any = None
        self.output_ratio: Any = None
        if output_size is not None:
            self.output_size = per_dimension(name, "output_size", output_size, dims, 1)
            return
        single = isinstance(output_ratio, float | int)
        self.output_ratio = (output_ratio,) * dims if single else tuple(output_ratio)
        if not all(0 < ratio < 1 for ratio in self.output_ratio):
            raise ValueError(f"{name}: output_ratio must be between 0 and 1, not {output_ratio}")

    def forward(self, input: Tensor) -> Any:
        """The largest element of every window, with its index if ``return_indices``."""
        given = (self.kernel_size, self.output_size, self.output_ratio, self.return_indices)
        return self._call(input, *given, self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPool):
    """Windows of [N, C, H, W] with random steps; see ``F.fractional_max_pool2d``."""

    dims = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """Windows of [N, C, D, H, W] with random steps; see ``F.fractional_max_pool3d``."""

    dims = 3
