"""Blocks that vision models share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow import nn
from graphflow.functions.creation import ones, zeros
from graphflow.tensor import Tensor

__all__ = [
    "MLP", "Conv2dNormActivation", "Conv3dNormActivation", "ConvNormActivation",
    "FrozenBatchNorm2d", "Permute", "SqueezeExcitation",
]  # fmt: skip

Layer = Callable[..., nn.Module]


class FrozenBatchNorm2d(nn.Module):
    """A batch norm whose statistics, scale and shift are buffers and stay as they are loaded."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", ones(num_features))
        self.register_buffer("bias", zeros(num_features))
        self.register_buffer("running_mean", zeros(num_features))
        self.register_buffer("running_var", ones(num_features))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A batch norm's count of batches is of no use here."""
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scaled: Tensor = x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
        return scaled

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.weight.shape[0]}, eps={self.eps})"


class ConvNormActivation(nn.Sequential):
    """A convolution that keeps the size (but for its stride), a norm and an activation.

    Those that are None are left out; the convolution has a bias where there is no norm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1, padding: Any = None, groups: int = 1,
        norm_layer: Layer | None = nn.BatchNorm2d, activation_layer: Layer | None = nn.ReLU,
        dilation: int | Sequence[int] = 1, inplace: bool | None = True, bias: bool | None = None,
        conv_layer: Layer = nn.Conv2d,
    ) -> None:  # fmt: skip
        if padding is None:
            padding = _same(kernel_size, dilation)
        layers = [
            conv_layer(
                in_channels, out_channels, kernel_size, stride, padding, dilation=dilation,
                groups=groups, bias=norm_layer is None if bias is None else bias,
            )
        ]  # fmt: skip
        if norm_layer is not None:
            layers.append(norm_layer(out_channels))
        if activation_layer is not None:
            layers.append(activation_layer(**_in_place(inplace)))
        super().__init__(*layers)
        self.out_channels = out_channels


def _same(kernel: int | Sequence[int], dilation: int | Sequence[int]) -> Any:
    """The padding that keeps the size."""
    if isinstance(kernel, int) and isinstance(dilation, int):
        return (kernel - 1) // 2 * dilation
    dims = len(kernel if not isinstance(kernel, int) else dilation)  # type: ignore[arg-type]
    sizes = (kernel,) * dims if isinstance(kernel, int) else kernel
    steps = (dilation,) * dims if isinstance(dilation, int) else dilation
    return tuple((k - 1) // 2 * d for k, d in zip(sizes, steps, strict=True))


def _in_place(inplace: bool | None) -> dict[str, bool]:
    return {} if inplace is None else {"inplace": inplace}


class Conv2dNormActivation(ConvNormActivation):
    """:class:`ConvNormActivation` of images."""


class Conv3dNormActivation(ConvNormActivation):
    """:class:`ConvNormActivation` of volumes."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1, padding: Any = None, groups: int = 1,
        norm_layer: Layer | None = nn.BatchNorm3d, activation_layer: Layer | None = nn.ReLU,
        dilation: int | Sequence[int] = 1, inplace: bool | None = True, bias: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, groups, norm_layer,
            activation_layer, dilation, inplace, bias, nn.Conv3d,
        )  # fmt: skip


class SqueezeExcitation(nn.Module):
    """Hu et al. (2018): channels scaled by what a small network makes of their means."""

    def __init__(
        self, input_channels: int, squeeze_channels: int, activation: Layer = nn.ReLU,
        scale_activation: Layer = nn.Sigmoid,
    ) -> None:  # fmt: skip
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, input_channels, 1)
        self.activation, self.scale_activation = activation(), scale_activation()

    def forward(self, input: Tensor) -> Tensor:
        """Same shape."""
        hidden = self.activation(self.fc1(self.avgpool(input)))
        scaled: Tensor = self.scale_activation(self.fc2(hidden)) * input
        return scaled


class MLP(nn.Sequential):
    """Linear layers, each but the last with a norm (if given) and an activation; with dropout."""

    def __init__(
        self, in_channels: int, hidden_channels: Sequence[int], norm_layer: Layer | None = None,
        activation_layer: Layer | None = nn.ReLU, inplace: bool | None = None, bias: bool = True,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        layers: list[nn.Module] = []
        for i, width in enumerate(hidden_channels):
            layers.append(nn.Linear(in_channels, width, bias))
            if i < len(hidden_channels) - 1:
                if norm_layer is not None:
                    layers.append(norm_layer(width))
                if activation_layer is not None:
                    layers.append(activation_layer(**_in_place(inplace)))
            layers.append(nn.Dropout(dropout, **_in_place(inplace)))
            in_channels = width
        super().__init__(*layers)


class Permute(nn.Module):
    """Dimensions in another order."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = list(dims)

    def forward(self, x: Tensor) -> Tensor:
        """A view."""
        turned: Tensor = x.permute(self.dims)
        return turned
