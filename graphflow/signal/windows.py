"""Window functions by the names of ``torch.signal.windows``: M weights that fade towards the ends.

``sym=True`` makes a window that is its own mirror image, for filters; ``sym=False`` one period
of a periodic one, for spectra.  Formulas as in Harris, "On the use of windows for harmonic
analysis with the discrete Fourier transform" (1978), and Nuttall, "Some windows with very good
sidelobe behavior" (1981).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from graphflow.checks import need_int
from graphflow.functions.creation import arange
from graphflow.functions.windows import bartlett_window, cosine_sum, kaiser_window
from graphflow.ir.types import DType, float32, float64
from graphflow.promotion import get_default_dtype
from graphflow.tensor import Tensor

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
    "general_hamming", "hamming", "hann", "kaiser", "nuttall",
]  # fmt: skip


def _kind(name: str, dtype: DType | None) -> DType:
    """The dtype of a window."""
    kind = dtype or get_default_dtype()
    if kind not in (float32, float64):
        raise ValueError(f"signal.windows.{name}: dtype is float32 or float64, not {kind.name}")
    return kind


def _finished(window: Tensor, requires_grad: bool) -> Tensor:
    return window.requires_grad_() if requires_grad else window


def _steps(name: str, M: int, dtype: DType | None, placement: dict[str, Any]) -> Tensor:
    """0, 1, … M - 1."""
    count, kind = need_int(f"signal.windows.{name}: M", M, 0), _kind(name, dtype)
    made: Tensor = arange(count, dtype=kind, **placement)
    return made


def _last(M: int, sym: bool) -> int:
    """N: where the window would end as it begins."""
    return M - 1 if sym or M == 1 else M


def bartlett(
    M: int, *, sym: bool = True, dtype: DType | None = None, requires_grad: bool = False,
    **placement: Any,
) -> Tensor:  # fmt: skip
    """``1 - |2 n / N - 1|`` [M]; N is M - 1, or M if not ``sym``."""
    kind = _kind("bartlett", dtype)
    return _finished(bartlett_window(M, not sym, dtype=kind, **placement), requires_grad)


def kaiser(
    M: int, *, beta: float = 12.0, sym: bool = True, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """``i0(beta sqrt(1 - (2 n / N - 1)²)) / i0(beta)`` [M]."""
    if beta < 0:
        raise ValueError(f"signal.windows.kaiser: beta must be 0 or more, not {beta}")
    kind = _kind("kaiser", dtype)
    return _finished(kaiser_window(M, not sym, beta, dtype=kind, **placement), requires_grad)


def general_cosine(
    M: int, *, a: Iterable[float], sym: bool = True, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """The sum of ``(-1)^k a[k] cos(2 pi k n / N)`` [M]."""
    weights = tuple(a)
    if not weights:
        raise ValueError("signal.windows.general_cosine: a has no coefficients")
    name, kind = "signal.windows.general_cosine", _kind("general_cosine", dtype)
    made = cosine_sum(name, M, not sym, weights, kind, placement)
    return _finished(made, requires_grad)


def general_hamming(M: int, *, alpha: float = 0.54, **options: Any) -> Tensor:
    """``alpha - (1 - alpha) cos(2 pi n / N)`` [M]; options as of :func:`general_cosine`."""
    return general_cosine(M, a=(alpha, 1.0 - alpha), **options)


def hamming(M: int, **options: Any) -> Tensor:
    """``0.54 - 0.46 cos(2 pi n / N)`` [M]; options as of :func:`general_cosine`."""
    return general_hamming(M, **options)


def hann(M: int, **options: Any) -> Tensor:
    """``sin²(pi n / N)`` [M]; options as of :func:`general_cosine`."""
    return general_hamming(M, alpha=0.5, **options)


def blackman(M: int, **options: Any) -> Tensor:
    """Three cosines [M]; options as of :func:`general_cosine`."""
    return general_cosine(M, a=(0.42, 0.5, 0.08), **options)


def nuttall(M: int, **options: Any) -> Tensor:
    """Four cosines of the lowest side lobes [M]; options as of :func:`general_cosine`."""
    return general_cosine(M, a=(0.3635819, 0.4891775, 0.1365995, 0.0106411), **options)


def cosine(
    M: int, *, sym: bool = True, dtype: DType | None = None, requires_grad: bool = False,
    **placement: Any,
) -> Tensor:  # fmt: skip
    """``sin(pi (n + 1/2) / M)`` [M], over M + 1 if not ``sym``."""
    at = _steps("cosine", M, dtype, placement)
    made: Tensor = ((at + 0.5) * (math.pi / max(_last(M, sym) + 1, 1))).sin()
    return _finished(made, requires_grad)


def exponential(
    M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True,
    dtype: DType | None = None, requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """``exp(-|n - center| / tau)`` [M]; ``center``, the middle, is said only if not ``sym``."""
    if tau <= 0:
        raise ValueError(f"signal.windows.exponential: tau must be positive, not {tau}")
    if sym and center is not None:
        raise ValueError("signal.windows.exponential: a symmetric window has its own center")
    at = _steps("exponential", M, dtype, placement)
    middle = _last(M, sym) / 2 if center is None else center
    made: Tensor = ((at - middle).abs() * (-1 / tau)).exp()
    return _finished(made, requires_grad)


def gaussian(
    M: int, *, std: float = 1.0, sym: bool = True, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """``exp(-(n - N / 2)² / (2 std²))`` [M]."""
    if std <= 0:
        raise ValueError(f"signal.windows.gaussian: std must be positive, not {std}")
    at = _steps("gaussian", M, dtype, placement)
    made: Tensor = (((at - _last(M, sym) / 2) / std).square() * -0.5).exp()
    return _finished(made, requires_grad)
