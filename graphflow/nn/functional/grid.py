"""Sampling of images and volumes at computed places."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from graphflow.autocasting import in_widest
from graphflow.checks import need_tensor
from graphflow.dispatch import apply, literal
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.elementwise import (
    abs,
    add,
    clamp,
    floor,
    mul,
    remainder,
    round,
    sub,
    where,
)
from graphflow.functions.products import matmul
from graphflow.functions.shaping import reshape, transpose
from graphflow.ir import types as T
from graphflow.nn.functional.resampling import cubic_weights
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]
LEADING = 2
_PADDING = ("zeros", "border", "reflection")


def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """Places for :func:`grid_sample`: the affine map ``theta`` [N, d, d + 1] of an even grid.

    ``size`` is the wanted result's, (N, C, H, W) or (N, C, D, H, W); the grid is
    [N, H, W, 2] or [N, D, H, W, 3], in -1 … 1, the last coordinate of the volume first.
    """
    extents = tuple(int(n) for n in size)[LEADING:]
    dims = len(extents)
    if dims not in (2, 3) or need_tensor("affine_grid", theta).shape[1:] != (dims, dims + 1):
        raise ShapeError(
            f"affine_grid: theta of shape {list(theta.shape)} does not map places of {list(size)}; "
            f"it needs shape [N, {dims}, {dims + 1}]"
        )
    axes = [_even(n, bool(align_corners)) for n in extents]
    mesh = np.meshgrid(*axes, indexing="ij")
    points = np.stack([*reversed(mesh), np.ones_like(mesh[0])], -1).reshape(1, -1, dims + 1)
    grid = matmul(literal(points.astype(theta.dtype.numpy)), transpose(theta, 1, 2))
    return reshape(grid, (theta.shape[0], *extents, dims))


def _even(count: int, align: bool) -> np.ndarray[Any, Any]:
    if count <= 1:
        return np.zeros(count)
    ends = np.linspace(-1.0, 1.0, count)
    return ends if align else ends * (count - 1) / count


@in_widest
def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """``input`` [N, C, H, W] (or [N, C, D, H, W]) at the places of ``grid`` [N, ..., 2 (or 3)].

    Places run from -1 to 1, x before y before z.  ``mode``: bilinear, nearest or
    bicubic; ``padding_mode``: zeros, border or reflection for places outside.
    """
    dims = _check("grid_sample", input, grid, mode, padding_mode)
    align = bool(align_corners)
    extents = tuple(input.shape[LEADING:])
    places = [
        _unnormalised(grid[..., dims - 1 - k], extents[k], align) for k in range(dims)
    ]  # z, y, x: in the order of the dimensions

    def inside(coordinate: Tensor, extent: int) -> Tensor:
        return _within(coordinate, extent, padding_mode, align)

    corners: list[list[Corner]]
    if mode == "nearest":
        corners = [[(round(inside(p, n)), None)] for p, n in zip(places, extents)]
    elif mode == "bilinear":
        corners = [_neighbours(inside(p, n)) for p, n in zip(places, extents)]
    else:
        corners = [_cubic(p, partial(inside, extent=n)) for p, n in zip(places, extents)]
    return _weighted(input, corners, tuple(grid.shape[1:-1]))


Corner = tuple[Tensor, Tensor | None]


def _check(name: str, input: Tensor, grid: Tensor, mode: str, padding_mode: str) -> int:
    dims = need_tensor(name, input).ndim - LEADING
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(f"{name}: mode must be bilinear, nearest or bicubic, not {mode!r}")
    if padding_mode not in _PADDING:
        raise ValueError(f"{name}: padding_mode must be one of {_PADDING}, not {padding_mode!r}")
    fits = dims in (2, 3) and need_tensor(name, grid, "grid").ndim == input.ndim
    if not fits or grid.shape[-1] != dims or grid.shape[0] != input.shape[0]:
        raise ShapeError(
            f"{name}: a grid of shape {list(grid.shape)} does not fit an input of shape "
            f"{list(input.shape)}; it needs [N, ..., {dims}] with the input's N"
        )
    if mode == "bicubic" and dims != 2:
        raise ShapeError(f"{name}: mode 'bicubic' takes 4 dimensions, not {input.ndim}")
    if 0 in input.shape[LEADING:]:
        raise ShapeError(f"{name}: input of shape {list(input.shape)} has nothing to sample")
    if input.dtype is not grid.dtype:
        raise DTypeError(f"{name}: input is {input.dtype.name} and grid {grid.dtype.name}")
    return dims


def _unnormalised(coordinate: Tensor, extent: int, align: bool) -> Tensor:
    """A coordinate in -1 … 1 as a place among ``extent`` elements."""
    if align:
        return mul(add(coordinate, 1.0), (extent - 1) / 2)
    return sub(mul(add(coordinate, 1.0), extent / 2), 0.5)


def _within(place: Tensor, extent: int, padding_mode: str, align: bool) -> Tensor:
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        low, span = (0.0, extent - 1.0) if align else (-0.5, float(extent))
        place = _reflected(place, low, span)
    return clamp(place, 0.0, extent - 1.0)


def _reflected(place: Tensor, low: float, span: float) -> Tensor:
    """``place`` folded back between ``low`` and ``low + span``."""
    if span <= 0:
        return mul(place, 0.0)
    beyond = abs(sub(place, low))
    extra = remainder(beyond, span)
    flips = remainder(floor(mul(beyond, 1 / span)).detach(), 2.0)
    return where(flips == 0, add(extra, low), sub(span + low, extra))


def _neighbours(place: Tensor) -> list[Corner]:
    """The two elements beside a place, with their weights."""
    first = floor(place).detach()
    t = sub(place, first)
    return [(first, sub(1.0, t)), (add(first, 1.0), t)]


def _cubic(place: Tensor, inside: Callable[..., Tensor]) -> list[Corner]:
    """The four elements around a place, each brought inside by itself, with their weights."""
    first = floor(place).detach()
    weights = cubic_weights(sub(place, first))
    return [(inside(add(first, float(k - 1))), w) for k, w in enumerate(weights)]


def _weighted(input: Tensor, corners: list[list[Corner]], shape: tuple[int, ...]) -> Tensor:
    """The sum of the elements at all combinations of corners; nothing outside counts."""
    extents = tuple(input.shape[LEADING:])
    batch, channels, points = input.shape[0], input.shape[1], math.prod(shape)
    flat = reshape(input, (batch, channels, -1))
    total: Tensor | None = None
    for chosen in product(*corners):
        index: Any = 0
        valid: Any = None
        weight: Tensor | None = None
        for (place, factor), extent in zip(chosen, extents):
            good = (place >= 0) & (place <= extent - 1)
            at = cast(where(good, place, 0.0), T.int64)
            index = add(mul(index, extent), at)
            valid = good if valid is None else valid & good
            if factor is not None:
                weight = factor if weight is None else mul(weight, factor)
        places = reshape(index.detach(), (batch, 1, points)).expand((batch, channels, points))
        found = apply("gather", flat, places, axis=LEADING)
        factor = cast(valid, input.dtype) if weight is None else where(valid, weight, 0.0)
        term = mul(found, reshape(factor, (batch, 1, points)))
        total = term if total is None else add(total, term)
    assert total is not None
    return reshape(total, (batch, channels, *shape))
