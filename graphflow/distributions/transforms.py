"""Functions of random variables, with their inverses and how they stretch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow.distributions import constraints
from graphflow.distributions.distribution import Distribution
from graphflow.distributions.matrix_transforms import (
    CorrCholeskyTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
)
from graphflow.distributions.part_transforms import CatTransform, StackTransform
from graphflow.distributions.transform import (
    ComposeTransform,
    IndependentTransform,
    ReshapeTransform,
    Transform,
    identity_transform,
    over,
    summed,
)
from graphflow.functions.cumulative import cumprod, cumsum
from graphflow.functions.elementwise import expm1, log, sigmoid, tanh
from graphflow.functions.reductions import softmax
from graphflow.functions.shaping import cat
from graphflow.functions.trigonometry import atanh
from graphflow.nn.functional.activation import logsigmoid, softplus
from graphflow.number_formats import finfo
from graphflow.tensor import Tensor

__all__ = [
    "AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform", "CorrCholeskyTransform",
    "CumulativeDistributionTransform", "ExpTransform", "IndependentTransform",
    "LowerCholeskyTransform", "PositiveDefiniteTransform", "PowerTransform", "ReshapeTransform",
    "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StackTransform",
    "StickBreakingTransform", "TanhTransform", "Transform", "identity_transform",
]  # fmt: skip


class ExpTransform(Transform):
    """``exp(x)``."""

    codomain, sign = constraints.positive, +1

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``x``."""
        return x


class AffineTransform(Transform):
    """``loc + scale * x``."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale = loc, scale
        self.domain = self.codomain = over(constraints.real, event_dim)
        if not isinstance(scale, Tensor):
            self.sign = (scale > 0) - (scale < 0)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log |scale|``, for every element."""
        size = self.scale.abs().log() if isinstance(self.scale, Tensor) else _log(self.scale)
        return summed(x * 0 + size, self.event_dim)


def _log(scale: float) -> float:
    return math.log(abs(scale)) if scale else -math.inf


class SigmoidTransform(Transform):
    """``1 / (1 + exp(-x))``, at neither 0 nor 1."""

    codomain, sign = constraints.unit_interval, +1

    def _call(self, x: Tensor) -> Tensor:
        info = finfo(x.dtype)
        return sigmoid(x).clamp(info.tiny, 1 - info.eps)

    def _inverse(self, y: Tensor) -> Tensor:
        info = finfo(y.dtype)
        y = y.clamp(info.tiny, 1 - info.eps)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log(y (1 - y))``."""
        return -softplus(-x) - softplus(x)


class TanhTransform(Transform):
    """``tanh(x)``; with ``cache_size=1`` the inverse is exact also near -1 and 1."""

    codomain, sign = constraints.interval(-1.0, 1.0), +1

    def _call(self, x: Tensor) -> Tensor:
        return tanh(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return atanh(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log(1 - tanh(x)^2)``, without the cancellation."""
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class PowerTransform(Transform):
    """``x ** exponent`` of positive numbers."""

    domain = codomain = constraints.positive

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent
        if not isinstance(exponent, Tensor):
            self.sign = (exponent > 0) - (exponent < 0)

    def _call(self, x: Tensor) -> Tensor:
        return x**self.exponent

    def _inverse(self, y: Tensor) -> Tensor:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log |exponent * y / x|``."""
        return (self.exponent * y / x).abs().log()


class SoftplusTransform(Transform):
    """``log(1 + exp(x))``."""

    codomain, sign = constraints.positive, +1

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(-expm1(-y)) + y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log(sigmoid(x))``."""
        return -softplus(-x)


class AbsTransform(Transform):
    """``|x|``, of which ``y`` stands for both that it is the image of."""

    codomain, bijective = constraints.positive, False

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class SoftmaxTransform(Transform):
    """``softmax(x)`` over the last axis; the inverse is a logarithm."""

    domain, codomain = constraints.real_vector, constraints.simplex
    bijective = False

    def _call(self, x: Tensor) -> Tensor:
        return softmax(x, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()


class StickBreakingTransform(Transform):
    """n numbers to n + 1 positive ones that sum to 1: each takes its share of what is left."""

    domain, codomain = constraints.real_vector, constraints.simplex
    sign = +1

    def _shift(self, x: Tensor, size: int) -> Tensor:
        """Logarithms of size, size - 1, … 1, in the shape of ``x``."""
        return (size + 1 - cumsum(x.detach() * 0 + 1, -1)).log()

    def _call(self, x: Tensor) -> Tensor:
        share = sigmoid(x - self._shift(x, x.shape[-1]))
        one = share[..., :1] * 0 + 1
        left = cat([one, cumprod(1 - share, -1)], -1)
        return cat([share, one], -1) * left

    def _inverse(self, y: Tensor) -> Tensor:
        first = y[..., :-1]
        left = (1 - cumsum(first, -1)).clamp(min=finfo(y.dtype).tiny)
        return first.log() - left.log() + self._shift(first, first.shape[-1])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of the logarithms of each share's slope."""
        away = x - self._shift(x, x.shape[-1])
        return summed(-away + logsigmoid(away) + y[..., :-1].log(), 1)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One more."""
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One less."""
        return (*shape[:-1], shape[-1] - 1)


class CumulativeDistributionTransform(Transform):
    """The distribution function of single numbers of ``distribution``: to (0, 1)."""

    codomain, sign = constraints.unit_interval, +1

    def __init__(self, distribution: Distribution, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution
        self.domain = distribution.support

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of the density."""
        return self.distribution.log_prob(x)
