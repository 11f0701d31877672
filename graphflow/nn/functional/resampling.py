"""Unfolding and folding of windows; resizing of images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.autocasting import in_float32
from graphflow.checks import need_floating, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, full, literal
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import add, clamp, floor, mul
from graphflow.functions.shaping import permute, reshape, squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.functional.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
)
from graphflow.nn.sizes import per_dimension
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = [
    "fold", "interpolate", "unfold", "upsample", "upsample_bilinear", "upsample_nearest",
]  # fmt: skip
LEADING = 2
CUBIC, SMOOTH_CUBIC = -0.75, -0.5
"""The free coefficient of Keys' cubic convolution kernel (R. Keys, IEEE ASSP 29, 1981); with
``antialias``."""
_ANY = (1, 2, 3)
_DIMENSIONS: dict[str, tuple[int, ...]] = {
    "nearest": _ANY, "nearest-exact": _ANY, "area": _ANY, "linear": (1,), "bilinear": (2,),
    "bicubic": (2,), "trilinear": (3,),
}  # fmt: skip
_AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}

# ---- windows as columns --------------------------------------------------------------


def _columns(
    name: str, extents: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...], tuple[int, ...]]:
    """Attributes of the windows over the last two of four axes, padding, and their numbers."""
    sizes = per_dimension(name, "kernel_size", kernel_size, 2, 1)
    spacing = per_dimension(name, "dilation", dilation, 2, 1)
    edges = per_dimension(name, "padding", padding, 2, 0)
    steps = per_dimension(name, "stride", stride, 2, 1)
    parts = zip(extents, sizes, spacing, edges, steps)
    counts = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in parts)
    if min(counts) < 1:
        raise ShapeError(f"{name}: windows of {list(sizes)} do not fit {list(extents)} elements")
    attrs = {"axes": (2, 3), "sizes": sizes, "steps": steps, "dilations": spacing}
    return attrs, edges, counts


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Every window of [N, C, H, W] (or [C, H, W]) as a column: [N, C * KH * KW, windows]."""
    if need_tensor("unfold", input).ndim not in (3, 4) or 0 in input.shape[1:]:
        raise ShapeError(f"unfold takes [N, C, H, W] or [C, H, W], not {list(input.shape)}")
    x = input if input.ndim == 4 else unsqueeze(input, 0)
    given = (kernel_size, dilation, padding, stride)
    attrs, edges, counts = _columns("unfold", x.shape[2:], *given)
    if any(edges):
        x = apply("pad", x, low=(0, 0, *edges), high=(0, 0, *edges), value=0)
    windows = permute(apply("window", x, **attrs), (0, 1, 4, 5, 2, 3))
    rows = x.shape[1] * math.prod(attrs["sizes"])
    out = reshape(windows, (x.shape[0], rows, math.prod(counts)))
    return out if input.ndim == 4 else squeeze(out, 0)


@beside_operands
def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Tensor:  # fmt: skip
    """The sum of columns [N, C * KH * KW, windows] at the places :func:`unfold` reads them."""
    if need_tensor("fold", input).ndim not in (2, 3):
        raise ShapeError(f"fold takes [N, C * KH * KW, L], not {list(input.shape)}")
    x = input if input.ndim == 3 else unsqueeze(input, 0)
    extents = per_dimension("fold", "output_size", output_size, 2, 1)
    given = (kernel_size, dilation, padding, stride)
    attrs, edges, counts = _columns("fold", extents, *given)
    taps = math.prod(attrs["sizes"])
    if x.shape[1] % taps or x.shape[2] != math.prod(counts):
        raise ShapeError(
            f"fold: input of shape {list(input.shape)} needs a multiple of {taps} rows and "
            f"{math.prod(counts)} columns for output_size {list(extents)}"
        )
    channels = x.shape[1] // taps
    parts = reshape(x, (x.shape[0], channels, *attrs["sizes"], *counts))
    base = full((x.shape[0], channels, *(n + 2 * p for n, p in zip(extents, edges))), 0, x.dtype)
    out = apply("window_add", base, permute(parts, (0, 1, 4, 5, 2, 3)), **attrs)
    if any(edges):
        limits = (*out.shape[:2], *(p + n for p, n in zip(edges, extents)))
        out = apply("slice", out, starts=(0, 0, *edges), limits=limits, steps=(1, 1, 1, 1))
    return out if input.ndim == 3 else squeeze(out, 0)


# ---- resizing ------------------------------------------------------------------------


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:  # fmt: skip
    """[N, C, ...] resized to ``size``, or by ``scale_factor``, in 1 to 3 dimensions.

    ``mode``: nearest, nearest-exact, linear, bilinear, bicubic, trilinear or area.  With
    ``align_corners`` the first and last elements of both sides lie on one another; with
    ``antialias`` (bilinear and bicubic) shrinking averages over all elements it covers.
    """
    dims = need_tensor("interpolate", input).ndim - LEADING
    _check_mode(input, dims, mode, align_corners, antialias)
    shape, scales = _target(input, dims, size, scale_factor, recompute_scale_factor)
    if 0 in input.shape[1:] or min(shape) < 1:
        raise ShapeError(
            f"interpolate: input {list(input.shape)} and output {list(shape)} must not be empty"
        )
    if mode == "area":
        return _AREA[dims](input, shape)
    return _resized(input, shape, scales, mode, bool(align_corners), antialias)


@beside_operands
@in_float32
def _resized(
    input: Tensor, shape: Sequence[int], scales: Sequence[float | None], mode: str, align: bool,
    antialias: bool,
) -> Tensor:  # fmt: skip
    half = input.dtype.is_floating_point and input.dtype.itemsize == 2
    out = cast(input, T.float32) if half else input  # weights and sums in single precision
    cubic = mode == "bicubic"
    for axis in _in_turn(input, shape):
        size, extent, scale = out.shape[axis], shape[axis - LEADING], scales[axis - LEADING]
        if mode == "nearest" and input.ndim == LEADING + 2 and extent in (size, 2 * size):
            scale = None  # of images, as many are a copy and twice as many repeat each element
        if mode.startswith("nearest"):
            out = _taken(out, axis, _nearest(size, extent, scale, mode == "nearest-exact"))
        elif antialias and size != extent:
            step = _step(size, extent, scale, align)
            out = _blended(out, axis, *_wide_taps(size, extent, step, cubic))
        elif size != extent or (cubic and not antialias):
            places = _sources(size, extent, scale, align, cubic)
            out = _blended(out, axis, *_taps(places, size, cubic))
    return cast(out, input.dtype) if out is not input else apply("copy", input)


def _in_turn(input: Tensor, shape: Sequence[int]) -> list[int]:
    """The axes, those first along which least is left: of equals the outer ones if they shrink,
    so that elements of the last axis are gathered for few lines.

    Bytes are rounded after each axis, and begin with the last as PyTorch's.
    """
    axes = range(input.ndim - 1, LEADING - 1, -1)
    if not input.dtype.is_floating_point:
        return list(axes)
    left = {axis: shape[axis - LEADING] / input.shape[axis] for axis in axes}
    return sorted(axes, key=lambda axis: (left[axis], axis if left[axis] < 1 else -axis))


def _check_mode(
    input: Tensor, dims: int, mode: str, align_corners: bool | None, antialias: bool
) -> None:
    wanted = _DIMENSIONS.get(mode)
    if wanted is None:
        known = ", ".join(_DIMENSIONS)
        raise ValueError(f"interpolate: mode must be one of {known}, not {mode!r}")
    if dims not in wanted:
        ranks = " or ".join(str(d + LEADING) for d in wanted)
        raise ShapeError(
            f"interpolate: mode {mode!r} takes {ranks} dimensions, not an input of shape "
            f"{list(input.shape)}"
        )
    if align_corners is not None and wanted == _ANY:
        raise ValueError(f"interpolate: align_corners has no meaning in mode {mode!r}")
    if antialias and wanted != (2,):
        raise ValueError(f"interpolate: antialias is for bilinear and bicubic, not {mode!r}")
    if wanted != _ANY and input.dtype.kind != "uint":
        need_floating("interpolate", input)


def _target(
    input: Tensor, dims: int, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The wanted extents, and the scales to compute places with (None: from the extents)."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    if size is not None:
        if recompute:
            raise ValueError("interpolate: recompute_scale_factor has no meaning with size")
        return per_dimension("interpolate", "size", size, dims, 0), (None,) * dims
    factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else ()
    if factors and len(factors) != dims:
        raise ValueError(f"interpolate: scale_factor must be one number or {dims}")
    factors = tuple(map(float, factors or (scale_factor,) * dims))
    shape = tuple(math.floor(n * f) for n, f in zip(input.shape[LEADING:], factors))
    return shape, (None,) * dims if recompute else factors


def _nearest(extent: int, wanted: int, scale: float | None, exact: bool) -> np.ndarray[Any, Any]:
    """The element each result is a copy of; in single precision, as PyTorch computes it."""
    step = np.float32(1.0 / scale if scale is not None else extent / wanted)
    places = np.arange(wanted, dtype=np.float32) + np.float32(0.5 if exact else 0.0)
    found: np.ndarray[Any, Any] = np.minimum(np.floor(places * step), extent - 1)
    return found.astype(np.int64)


def _step(extent: int, wanted: int, scale: float | None, align: bool) -> float:
    """How far apart in the source neighbours in the result lie."""
    if align:
        return (extent - 1) / (wanted - 1) if wanted > 1 else 0.0
    return 1.0 / scale if scale is not None else extent / wanted


def _sources(
    extent: int, wanted: int, scale: float | None, align: bool, cubic: bool
) -> np.ndarray[Any, Any]:
    """Where every element of the result lies in the source."""
    numbers = np.arange(wanted, dtype=np.float64)
    step = _step(extent, wanted, scale, align)
    if align:
        return numbers * step
    places = (numbers + 0.5) * step - 0.5
    return places if cubic else np.maximum(places, 0.0)


def _taps(
    where: np.ndarray[Any, Any], extent: int, cubic: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """[taps, results]: the elements that make up each result, and their weights."""
    first = np.floor(where)
    t = where - first
    if not cubic:
        index = np.stack([first, first + 1])
        return np.clip(index, 0, extent - 1).astype(np.int64), np.stack([1 - t, t])
    index = np.stack([first + k for k in (-1, 0, 1, 2)])
    return np.clip(index, 0, extent - 1).astype(np.int64), np.stack(cubic_weights(t))


def _wide_taps(
    extent: int, wanted: int, step: float, cubic: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """:func:`_taps` of a kernel as wide as ``step``: all the elements that a result covers."""
    stretch = max(step, 1.0)
    reach = (2 if cubic else 1) * stretch
    centres = (np.arange(wanted, dtype=np.float64) + 0.5) * step
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    past = np.minimum((centres + reach + 0.5).astype(np.int64), extent)
    index = first + np.arange((past - first).max())[:, None]
    away = np.abs(index - centres + 0.5) / stretch
    weights = _keys(away, SMOOTH_CUBIC) if cubic else np.maximum(1.0 - away, 0.0)
    weights = np.where(index < past, weights, 0.0)
    return np.minimum(index, extent - 1), weights / weights.sum(0)


def _keys(x: np.ndarray[Any, Any], free: float) -> np.ndarray[Any, Any]:
    """Keys' kernel at distances ``x``."""
    far = np.where(x < 2, _far(x, free), 0.0)
    weights: np.ndarray[Any, Any] = np.where(x < 1, _near(x, free), far)
    return weights


def _near(x: Any, free: float) -> Any:
    return ((x * (free + 2) - (free + 3)) * x) * x + 1


def _far(x: Any, free: float) -> Any:
    return ((x * free - 5 * free) * x + 8 * free) * x - 4 * free


def cubic_weights(t: Any) -> list[Any]:
    """Weights of the four neighbours of a place ``t`` after the second (Keys' kernel)."""
    return [_far(t + 1, CUBIC), _near(t, CUBIC), _near(1 - t, CUBIC), _far(2 - t, CUBIC)]


def _taken(x: Tensor, axis: int, index: np.ndarray[Any, Any]) -> Tensor:
    return apply("take", x, literal(index), axis=axis)


def _blended(
    x: Tensor, axis: int, index: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]
) -> Tensor:
    """The weighted sum of slices along ``axis``, one a row of ``index``; bytes round."""
    column = (-1, *(1,) * (x.ndim - axis - 1))
    kind = x.dtype.numpy if x.dtype.is_floating_point else np.float32
    total: Tensor | None = None
    for places, factors in zip(index, weights):
        term = mul(_taken(x, axis, places), literal(factors.astype(kind).reshape(column)))
        total = term if total is None else add(total, term)
    assert total is not None
    if x.dtype.is_floating_point:
        return total
    return cast(clamp(floor(add(total, 0.5)), 0, 255), x.dtype)


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """:func:`interpolate` by its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Resized by repeating the nearest element."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Resized bilinearly with corners aligned."""
    return interpolate(input, size, scale_factor, "bilinear", True)
