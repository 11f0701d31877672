"""Dropout as modules; ``p`` may change at any time without another compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.nn.scalars import run_time_scalar
from graphflow.tensor import Tensor

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class Dropout(Module):
    """Zeroes elements at probability ``p`` while training, and scales the rest."""

    function: ClassVar[Callable[..., Tensor]] = staticmethod(F.dropout)
    run_time = ("p",)

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        """Same shape."""
        if not self.training:
            return input
        return type(self).function(input, run_time_scalar(self, "p"), True, self.inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout1d(Dropout):
    """Zeroes whole channels of [N, C, L]."""

    function = staticmethod(F.dropout1d)


class Dropout2d(Dropout):
    """Zeroes whole channels of [N, C, H, W]."""

    function = staticmethod(F.dropout2d)


class Dropout3d(Dropout):
    """Zeroes whole channels of [N, C, D, H, W]."""

    function = staticmethod(F.dropout3d)


class AlphaDropout(Dropout):
    """Dropout that keeps the mean and variance of self-normalising networks."""

    function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(Dropout):
    """:class:`AlphaDropout` of whole channels."""

    function = staticmethod(F.feature_alpha_dropout)


_DropoutNd = Dropout  # the base class that scripts look for layers by
