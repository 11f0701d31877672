"""Discrete Fourier transforms by PyTorch's names.

``n`` or ``s`` trims or zero-pads before the transform; ``norm`` is "backward" (inverse ones
are divided by the number of points), "forward" (the others are) or "ortho" (both, by its
root).  NumPy computes them, and in compiled programs kernels where they are quicker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphflow.checks import need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.functions.creation import iota
from graphflow.functions.shaping import cat, narrow
from graphflow.ir import types as T
from graphflow.promotion import cast, get_default_dtype
from graphflow.tensor import Tensor

Axes = tuple[int, ...]
Norm = str | None

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2",
    "ifftn", "ifftshift", "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft",
    "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip


# ---- arguments -----------------------------------------------------------------------


def _exact(name: str, input: Tensor) -> Tensor:
    """The input in a dtype that is transformed; whole numbers become the default one."""
    need_tensor(name, input)
    if input.dtype.is_complex or input.dtype in (T.float32, T.float64):
        return input
    if input.dtype.is_floating_point:
        raise DTypeError(f"{name}: Unsupported dtype {input.dtype.name}; convert to float32")
    return cast(input, get_default_dtype())


def _complex(name: str, input: Tensor) -> Tensor:
    x = _exact(name, input)
    dtype = x.dtype.complex
    assert dtype is not None
    return cast(x, dtype)


def _scale(name: str, norm: str | None, count: int, inverse: bool) -> float:
    if norm == "ortho":
        return 1.0 / math.sqrt(count)
    if norm not in (None, "backward", "forward"):
        raise GraphFlowError(f"{name}: Invalid normalization mode: {norm!r}")
    return 1.0 / count if inverse is (norm != "forward") else 1.0


def _one(name: str, input: Tensor, n: int | None, dim: int) -> tuple[tuple[int, ...], Any]:
    need_tensor(name, input)
    if not -max(input.ndim, 1) <= dim < max(input.ndim, 1):
        raise IndexError(
            f"{name}: Dimension out of range (expected to be in range of "
            f"[{-input.ndim}, {input.ndim - 1}], but got {dim})"
        )
    if not input.ndim:
        raise GraphFlowError(f"{name}: takes tensors of at least 1 dimension")
    return (dim % input.ndim,), None if n is None else (n,)


def _several(name: str, input: Tensor, s: Any, dim: Any) -> tuple[tuple[int, ...], Any]:
    """The axes, and the extents they are brought to (or None)."""
    rank = need_tensor(name, input).ndim
    sizes = None if s is None else ((s,) if isinstance(s, int) else tuple(s))
    if dim is None:
        axes = tuple(range(rank)) if sizes is None else tuple(range(rank - len(sizes), rank))
        if sizes is not None and len(sizes) > rank:
            raise GraphFlowError(f"{name}: Got shape with {len(sizes)} values but input tensor "
                                 f"only has {rank} dimensions.")  # fmt: skip
    else:
        given = (dim,) if isinstance(dim, int) else tuple(dim)
        for d in given:
            if not -rank <= d < rank:
                raise IndexError(
                    f"{name}: Dimension out of range (expected to be in range of "
                    f"[{-rank}, {rank - 1}], but got {d})"
                )
        axes = tuple(d % rank for d in given)
    if len(set(axes)) != len(axes):
        raise GraphFlowError(f"{name}: FFT dims must be unique")
    if sizes is not None and len(sizes) != len(axes):
        raise GraphFlowError(
            f"{name}: When given, dim and shape arguments must have the same length"
        )
    return axes, sizes


def _resized(name: str, x: Tensor, axes: Sequence[int], sizes: Any) -> Tensor:
    """Trimmed or padded with zeros at the end."""
    for axis, size in zip(axes, sizes if sizes is not None else [x.shape[a] for a in axes]):
        extent = x.shape[axis] if size == -1 else size
        if extent < 1:
            raise GraphFlowError(f"{name}: Invalid number of data points ({extent}) specified")
        if extent < x.shape[axis]:
            x = narrow(x, axis, 0, extent)
        elif extent > x.shape[axis]:
            high = tuple(extent - x.shape[axis] if k == axis else 0 for k in range(x.ndim))
            x = apply("pad", x, low=(0,) * x.ndim, high=high, value=0)
    return x


# ---- the three kinds -----------------------------------------------------------------


def _c2c(name: str, input: Tensor, axes: Axes, sizes: Any, norm: Norm, inverse: bool) -> Tensor:
    x = _resized(name, _complex(name, input), axes, sizes)
    if not axes:
        return x
    scale = _scale(name, norm, math.prod(x.shape[a] for a in axes), inverse)
    return apply("fft_c2c", x, axes=tuple(axes), inverse=inverse, scale=scale)


def _r2c(name: str, input: Tensor, axes: Axes, sizes: Any, norm: Norm, inverse: bool) -> Tensor:
    x = _exact(name, input)
    if x.dtype.is_complex:
        raise GraphFlowError(f"{name} expects a real input tensor, but got {x.dtype.name}")
    if not axes:
        raise GraphFlowError(f"{name} must transform at least one axis")
    x = _resized(name, x, axes, sizes)
    scale = _scale(name, norm, math.prod(x.shape[a] for a in axes), inverse)
    return apply("fft_r2c", x, axes=tuple(axes), inverse=inverse, scale=scale)


def _c2r(name: str, input: Tensor, axes: Axes, sizes: Any, norm: Norm, inverse: bool) -> Tensor:
    x = _complex(name, input)
    if not axes:
        raise GraphFlowError(f"{name} must transform at least one axis")
    last = axes[-1]
    extent = 2 * (x.shape[last] - 1) if sizes is None or sizes[-1] == -1 else sizes[-1]
    if extent < 1:
        raise GraphFlowError(f"{name}: Invalid number of data points ({extent}) specified")
    before = [x.shape[a] for a in axes[:-1]] if sizes is None else list(sizes[:-1])
    x = _resized(name, x, axes, [*before, extent // 2 + 1])
    scale = _scale(name, norm, math.prod(x.shape[a] for a in axes[:-1]) * extent, inverse)
    return apply("fft_c2r", x, axes=tuple(axes), extent=extent, inverse=inverse, scale=scale)


def _family(
    kind: Callable[..., Tensor], name: str, inverse: bool, summary: str
) -> tuple[Any, Any, Any]:
    """The transform over one dimension, two, and any number."""

    def one(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        return kind(f"fft.{name}", input, *_one(name, input, n, dim), norm, inverse)

    def two(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
        return kind(f"fft.{name}2", input, *_several(f"{name}2", input, s, dim), norm, inverse)

    def many(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
        return kind(f"fft.{name}n", input, *_several(f"{name}n", input, s, dim), norm, inverse)

    for function, suffix, where in (
        (one, "", "one dimension"), (two, "2", "two dimensions"), (many, "n", "dimensions ``dim``"),
    ):  # fmt: skip
        function.__name__ = function.__qualname__ = name + suffix
        function.__doc__ = f"{summary} over {where}."
    return one, two, many


fft, fft2, fftn = _family(_c2c, "fft", False, "The Fourier transform")
ifft, ifft2, ifftn = _family(_c2c, "ifft", True, "The inverse Fourier transform")
rfft, rfft2, rfftn = _family(_r2c, "rfft", False, "The first half of the transform of real values")
irfft, irfft2, irfftn = _family(_c2r, "irfft", True, "The inverse of ``rfft``, real,")
hfft, hfft2, hfftn = _family(_c2r, "hfft", False, "The real transform of Hermitian values")
ihfft, ihfft2, ihfftn = _family(_r2c, "ihfft", True, "The inverse of ``hfft``")


# ---- order and frequencies -----------------------------------------------------------


def _rolled(input: Tensor, dim: Any, half: Callable[[int], int]) -> Tensor:
    rank = need_tensor("fftshift", input).ndim
    dims = range(rank) if dim is None else (dim,) if isinstance(dim, int) else dim
    for d in dims:
        extent = input.shape[d]
        cut = half(extent)
        if extent:
            head, tail = narrow(input, d, 0, cut), narrow(input, d, cut, extent - cut)
            input = cat([tail, head], d)
    return input


def fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Frequency 0 moved to the middle of the dimensions."""
    return _rolled(input, dim, lambda n: (n + 1) // 2)


def ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The inverse of :func:`fftshift`."""
    return _rolled(input, dim, lambda n: n // 2)


def fftfreq(
    n: int, d: float = 1.0, *, dtype: T.DType | None = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of :func:`fft` over ``n`` samples ``d`` apart."""
    made = dtype or get_default_dtype()
    place = iota((n,), 0, T.int64)
    signed = place - n * (place >= (n + 1) // 2)
    out = cast(cast(signed, T.float64) * (1.0 / (n * d)), made)
    return out.requires_grad_() if requires_grad else out


def rfftfreq(
    n: int, d: float = 1.0, *, dtype: T.DType | None = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of :func:`rfft` over ``n`` samples ``d`` apart."""
    made = dtype or get_default_dtype()
    out = cast(cast(iota((n // 2 + 1,), 0, T.int64), T.float64) * (1.0 / (n * d)), made)
    return out.requires_grad_() if requires_grad else out
