"""Window functions: weights that fade a stretch of a signal out towards its ends.

Formulas as in Harris, "On the use of windows for harmonic analysis with the discrete Fourier
transform" (1978).
"""

from __future__ import annotations

import math
from typing import Any

from graphflow.checks import need_int
from graphflow.functions.creation import arange, ones
from graphflow.functions.elementwise import abs, cos, sub
from graphflow.functions.special import i0
from graphflow.ir.types import DType
from graphflow.promotion import cast, get_default_dtype
from graphflow.tensor import Tensor

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"]


def hann_window(
    window_length: int, periodic: bool = True, *, dtype: DType | None = None, **placement: Any
) -> Tensor:
    """``sin²(pi n / N)`` [window_length]; ``periodic``: N is the length, else one less."""
    return cosine_sum("hann_window", window_length, periodic, (0.5, 0.5), dtype, placement)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *,
    dtype: DType | None = None, **placement: Any,
) -> Tensor:  # fmt: skip
    """``alpha - beta cos(2 pi n / N)`` [window_length]."""
    return cosine_sum("hamming_window", window_length, periodic, (alpha, beta), dtype, placement)


def blackman_window(
    window_length: int, periodic: bool = True, *, dtype: DType | None = None, **placement: Any
) -> Tensor:
    """``0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N)`` [window_length]."""
    weights = (0.42, 0.5, 0.08)
    return cosine_sum("blackman_window", window_length, periodic, weights, dtype, placement)


def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: DType | None = None, **placement: Any
) -> Tensor:
    """``1 - |2 n / N - 1|`` [window_length]."""
    at = _positions("bartlett_window", window_length, periodic, dtype, placement)
    return at if window_length <= 1 else sub(1, abs(2 * at - 1))


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *,
    dtype: DType | None = None, **placement: Any,
) -> Tensor:  # fmt: skip
    """``i0(beta sqrt(1 - (2 n / N - 1)²)) / i0(beta)`` [window_length]."""
    at = _positions("kaiser_window", window_length, periodic, dtype, placement)
    if window_length <= 1:
        return at
    inside: Tensor = (1 - (2 * at - 1).square()).clamp(min=0).sqrt()
    peak: Tensor = at.new_full((), beta)
    made: Tensor = i0(beta * inside) / i0(peak)
    return made


def _positions(
    name: str, length: int, periodic: bool, dtype: DType | None, placement: dict[str, Any]
) -> Tensor:
    """n / N for n below ``length``; ones where there is at most one."""
    count = need_int(f"{name}: window_length", length, 0)
    kind = get_default_dtype() if dtype is None else dtype
    if count <= 1:
        return ones(count, dtype=kind, **placement)
    made: Tensor = arange(count, dtype=kind, **placement) / (count if periodic else count - 1)
    return made


def cosine_sum(
    name: str, length: int, periodic: bool, weights: tuple[float, ...], dtype: DType | None,
    placement: dict[str, Any],
) -> Tensor:  # fmt: skip
    """The sum of ``(-1)**k weights[k] cos(2 pi k n / N)``."""
    at = _positions(name, length, periodic, dtype, placement)
    if length <= 1:
        return at
    made: Any = weights[0]
    for k, weight in enumerate(weights[1:], 1):
        made = made + (-1) ** k * weight * cos(2 * math.pi * k * at)
    return cast(made, at.dtype)
