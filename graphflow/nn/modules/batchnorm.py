"""Batch and instance normalisation, with their running statistics."""

from __future__ import annotations

from typing import Any, ClassVar

from graphflow.functions.creation import ones, tensor, zeros
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.nn.modules.normalization import register_affine, reset_affine
from graphflow.nn.parameter import Parameter
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d",
]  # fmt: skip


class _Norm(Module):
    """Options, parameters and statistics; ``momentum=None`` averages over all batches."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    ranks: ClassVar[tuple[int, ...]]
    _version = 2

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: DType | None = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        register_affine(self, (num_features,), affine, affine and bias, device, dtype)
        on = track_running_stats
        mean, var = zeros(num_features, dtype=dtype), ones(num_features, dtype=dtype)
        self.register_buffer("running_mean", mean if on else None)
        self.register_buffer("running_var", var if on else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=T.int64) if on else None)

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batches."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Statistics, scale and shift at their first values again."""
        self.reset_running_stats()
        reset_affine(self)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.ranks:
            allowed = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(f"expected {allowed} input (got {input.ndim}D input)")

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        """Older states have no count of batches; the one held stays."""
        key = prefix + "num_batches_tracked"
        older = local_metadata.get("version") is None or local_metadata["version"] < 2
        if older and self.num_batches_tracked is not None and key not in state_dict:
            state_dict[key] = self.num_batches_tracked.detach()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


_NormBase = _Norm
"""PyTorch's name, which scripts ask ``isinstance`` for."""


class _BatchNorm(_Norm):
    """Normalises by the batch's statistics while training, else by the running ones."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape; while training the running statistics move."""
        self._check_input_dim(input)
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        counted = self.num_batches_tracked
        if self.training and self.track_running_stats and counted is not None:
            counted.add_(1)
            if self.momentum is None:
                momentum = 1.0 / cast(counted, T.float64)
        batch = self.training or (self.running_mean is None and self.running_var is None)
        kept = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if kept else (None, None)
        return self._normalised(input, mean, var, batch, momentum)

    def _normalised(
        self, input: Tensor, mean: Tensor | None, var: Tensor | None, batch: bool, momentum: Any
    ) -> Tensor:
        return F.batch_norm(input, mean, var, self.weight, self.bias, batch, momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    """Normalises [N, C] or [N, C, L] over all but the channels."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalises [N, C, H, W] over all but the channels."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Normalises [N, C, D, H, W] over all but the channels."""

    ranks = (5,)


BATCH_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


class _InstanceNorm(_Norm):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: DType | None = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """Same shape; a sample without its batch dimension is taken too."""
        self._check_input_dim(input)
        single = input.ndim == self.ranks[0]
        channels = input.shape[0 if single else 1]
        if channels != self.num_features and self.affine:
            raise ValueError(f"expected {self.num_features} channels, not {channels}")
        own = self.training or not self.track_running_stats
        out = F.instance_norm(
            input.unsqueeze(0) if single else input, self.running_mean, self.running_var,
            self.weight, self.bias, own, 0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip
        return out.squeeze(0) if single else out


class InstanceNorm1d(_InstanceNorm):
    """Normalises every channel of every sample of [N, C, L] or [C, L]."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Normalises every channel of every sample of [N, C, H, W] or [C, H, W]."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Normalises every channel of every sample of [N, C, D, H, W] or [C, D, H, W]."""

    ranks = (4, 5)
