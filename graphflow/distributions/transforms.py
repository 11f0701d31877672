"""Functions of random variables, with their inverses and how they stretch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from graphflow.functions.cumulative import cumprod, cumsum
from graphflow.functions.elementwise import expm1, log, sigmoid, tanh
from graphflow.functions.reductions import softmax
from graphflow.functions.shaping import cat
from graphflow.functions.trigonometry import atanh
from graphflow.nn.functional.activation import logsigmoid, softplus
from graphflow.number_formats import finfo
from graphflow.tensor import Tensor

__all__ = [
    "AbsTransform", "AffineTransform", "ComposeTransform", "ExpTransform", "PowerTransform",
    "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StickBreakingTransform",
    "TanhTransform", "Transform", "identity_transform",
]  # fmt: skip


class Transform:
    """``t(x)``, its inverse ``t.inv(y)`` and ``t.log_abs_det_jacobian(x, y)``.

    Sub-classes define ``_call``, ``_inverse`` and the logarithm of the stretch.  With
    ``cache_size=1`` the last result remembers its argument, which need not be computed then.
    """

    bijective: bool = True
    sign: int = 0
    """+1: rising, -1: falling."""
    event_dim: int = 0
    """How many of the last axes belong to one number that is transformed."""

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise ValueError("cache_size must be 0 or 1")
        self._cache_size = cache_size
        self._last: tuple[Tensor | None, Tensor | None] = (None, None)

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` transformed."""
        if self._cache_size and self._last[0] is x and self._last[1] is not None:
            return self._last[1]
        y = self._call(x)
        if self._cache_size:
            self._last = (x, y)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size and self._last[1] is y and self._last[0] is not None:
            return self._last[0]
        x = self._inverse(y)
        if self._cache_size:
            self._last = (x, y)
        return x

    @property
    def inv(self) -> Transform:
        """The inverse."""
        return _Inverse(self)

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define _call()")

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of how much volumes grow at ``x``, of which ``y`` is the image."""
        raise NotImplementedError(f"{type(self).__name__} has no log_abs_det_jacobian")

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the image of a tensor of this shape."""
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of what has an image of this shape."""
        return tuple(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Inverse(Transform):
    def __init__(self, of: Transform) -> None:
        super().__init__()
        self._of, self.event_dim, self.bijective = of, of.event_dim, of.bijective
        self.sign = of.sign

    @property
    def inv(self) -> Transform:
        return self._of

    def __call__(self, x: Tensor) -> Tensor:
        return self._of._inv_call(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        return self._of(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._of.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self._of.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self._of.forward_shape(shape)


def summed(value: Tensor, dims: int) -> Tensor:
    """The sum over the last ``dims`` axes."""
    return value if dims <= 0 else value.sum(tuple(range(-dims, 0)))


class ComposeTransform(Transform):
    """One transform after another, the first of the list first."""

    def __init__(self, parts: Iterable[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = list(parts)
        self.event_dim = max((part.event_dim for part in self.parts), default=0)
        self.bijective = all(part.bijective for part in self.parts)
        self.sign = math.prod(part.sign for part in self.parts)

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part._inv_call(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of the parts' logarithms."""
        if not self.parts:
            return x * 0
        found: Any = 0
        for i, part in enumerate(self.parts):
            after = y if i == len(self.parts) - 1 else part(x)
            stretch = part.log_abs_det_jacobian(x, after)
            found = found + summed(stretch, self.event_dim - part.event_dim)
            x = after
        return found

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Part by part."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Part by part, from the last."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return tuple(shape)


identity_transform = ComposeTransform([])


class ExpTransform(Transform):
    """``exp(x)``."""

    sign = +1

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
        self.loc, self.scale, self.event_dim = loc, scale, event_dim
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

    sign = +1

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

    sign = +1

    def _call(self, x: Tensor) -> Tensor:
        return tanh(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return atanh(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log(1 - tanh(x)^2)``, without the cancellation."""
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class PowerTransform(Transform):
    """``x ** exponent`` of positive numbers."""

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent

    def _call(self, x: Tensor) -> Tensor:
        return x**self.exponent

    def _inverse(self, y: Tensor) -> Tensor:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log |exponent * y / x|``."""
        return (self.exponent * y / x).abs().log()


class SoftplusTransform(Transform):
    """``log(1 + exp(x))``."""

    sign = +1

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(-expm1(-y)) + y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log(sigmoid(x))``."""
        return -softplus(-x)


class AbsTransform(Transform):
    """``|x|``, of which ``y`` stands for both that it is the image of."""

    bijective = False

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class SoftmaxTransform(Transform):
    """``softmax(x)`` over the last axis; the inverse is a logarithm."""

    bijective = False
    event_dim = 1

    def _call(self, x: Tensor) -> Tensor:
        return softmax(x, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()


class StickBreakingTransform(Transform):
    """n numbers to n + 1 positive ones that sum to 1: each takes its share of what is left."""

    event_dim = 1
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
