"""Normalisation over features, groups and neighbouring channels."""

from __future__ import annotations

from typing import Any

from graphflow.functions.creation import ones, zeros
from graphflow.ir.types import DType
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor

__all__ = ["GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


def register_affine(
    module: Module, shape: tuple[int, ...], weight: bool, bias: bool, device: Any,
    dtype: DType | None,
) -> None:  # fmt: skip
    """Parameters ``weight`` (ones) and ``bias`` (zeros), or None where they are not wanted."""
    one = Parameter(ones(shape, dtype=dtype, device=device)) if weight else None
    module.register_parameter("weight", one)
    zero = Parameter(zeros(shape, dtype=dtype, device=device)) if bias else None
    module.register_parameter("bias", zero)


def reset_affine(module: Module) -> None:
    """Weight and bias at their first values again."""
    if module.weight is not None:
        init.ones_(module.weight)
    if getattr(module, "bias", None) is not None:
        init.zeros_(module.bias)


def _extents(normalized_shape: Any) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


class LayerNorm(Module):
    """Normalises over the last dimensions, then scales and shifts."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = _extents(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        shape, both = self.normalized_shape, elementwise_affine and bias
        register_affine(self, shape, elementwise_affine, both, device, dtype)

    def reset_parameters(self) -> None:
        """Scale 1 and shift 0."""
        reset_affine(self)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as the input."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Divides by the root mean square over the last dimensions, then scales."""

    weight: Parameter | None

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
        device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = _extents(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        made = ones(self.normalized_shape, dtype=dtype, device=device)
        self.register_parameter("weight", Parameter(made) if elementwise_affine else None)

    def reset_parameters(self) -> None:
        """Scale 1."""
        reset_affine(self)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as the input."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """Normalises every group of channels of every sample."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: Any = None, dtype: DType | None = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        register_affine(self, (num_channels,), affine, affine and bias, device, dtype)

    def reset_parameters(self) -> None:
        """Scale 1 and shift 0."""
        reset_affine(self)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as the input."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """Divides by a power of the mean square over neighbouring channels."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as the input."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
