"""Parts of feature maps, each brought to one size: what second stages of detectors look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.autograd.modes import no_grad
from graphflow.checks import need_tensor
from graphflow.dispatch import full
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.functions.creation import arange, from_numpy
from graphflow.functions.elementwise import ceil, floor, where
from graphflow.functions.shaping import cat, stack
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.nn.module import Module
from graphflow.nn.sizes import per_dimension
from graphflow.tensor import Tensor

__all__ = ["RoIAlign", "RoIPool", "roi_align", "roi_pool"]


def _located(name: str, input: Tensor, boxes: Any) -> tuple[Tensor, Tensor]:
    """The image of each box, and its corners; there is no gradient to them."""
    if need_tensor(name, input).ndim != 4:
        raise ShapeError(f"{name}: feature maps are [N, C, H, W], not {list(input.shape)}")
    if isinstance(boxes, Tensor):
        if boxes.ndim != 2 or boxes.shape[1] != 5:
            raise ShapeError(
                f"{name}: boxes in one tensor are [K, 5], the number of the image first, not "
                f"{list(boxes.shape)}; boxes [L, 4] of each image are given as a list"
            )
        images, corners = boxes[:, 0], boxes[:, 1:]
    else:
        for own in boxes:
            if need_tensor(name, own).ndim != 2 or own.shape[1] != 4:
                raise ShapeError(f"{name}: the boxes of an image are [L, 4], not {list(own.shape)}")
        if len(boxes) > input.shape[0]:
            raise ShapeError(f"{name}: boxes of {len(boxes)} images for {input.shape[0]}")
        corners = cat(list(boxes))
        images = cat([full((own.shape[0],), i, T.int64, own.device) for i, own in enumerate(boxes)])
    if corners.dtype is not input.dtype:
        raise DTypeError(f"{name}: input is {input.dtype.name} and boxes {corners.dtype.name}")
    return images.detach().to(T.int64), corners.detach()


def roi_align(
    input: Tensor, boxes: Tensor | Sequence[Tensor], output_size: int | Sequence[int],
    spatial_scale: float = 1.0, sampling_ratio: int = -1, aligned: bool = False,
) -> Tensor:  # fmt: skip
    """He et al. (2017): [K, C, *output_size], means of interpolated samples in parts of boxes.

    ``boxes`` are [K, 5] with the number of the image first, or for each image [L, 4]; they are
    multiplied by ``spatial_scale``.  ``sampling_ratio``: how many samples a part has in each
    direction; as many as it is wide and high if that is not above 0, which no compiled function
    can know.  ``aligned``: the centres of pixels are at halves.
    """
    images, corners = _located("roi_align", input, boxes)
    height, width = per_dimension("roi_align", "output_size", output_size, 2, 1)
    offset = 0.5 if aligned else 0.0
    corners = corners * spatial_scale - offset
    begin, spans = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        spans = spans.clamp(min=1)
    rows, columns = input.shape[2:]
    y, y_weight = _samples(begin[:, 1], spans[:, 1], height, sampling_ratio, rows)
    x, x_weight = _samples(begin[:, 0], spans[:, 0], width, sampling_ratio, columns)
    places = y[:, :, None, :, None] * columns + x[:, None, :, None]
    places = places + (images * (rows * columns))[:, None, None, None, None]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None]
    pixels = input.permute(0, 2, 3, 1).reshape(-1, input.shape[1])
    found = pixels.index_select(0, places.reshape(-1)).reshape(*places.shape, input.shape[1])
    means = (found * weights[..., None]).sum((3, 4))
    return means.permute(0, 3, 1, 2).contiguous()  # type: ignore[no-any-return]


def _samples(
    begin: Tensor, span: Tensor, bins: int, ratio: int, extent: int
) -> tuple[Tensor, Tensor]:
    """Along one axis, the pixels [K, bins, S] beside the samples of each bin, and their weights."""
    step = (span / bins)[:, None, None]
    if ratio > 0:
        number, count = full((1, 1, 1), float(ratio), span.dtype, span.device), ratio
    elif mode.tracer is not None:
        raise TraceError(
            f"roi_align with sampling_ratio={ratio} takes as many samples as boxes are large, "
            "which a compiled function does not know; give a sampling_ratio above 0, such as 2"
        )
    else:
        number = ceil(step)
        count = max(int(number.max().item()), 1) if number.numel() else 1
    each = arange(count, dtype=span.dtype, device=span.device)
    bin = arange(bins, dtype=span.dtype, device=span.device)[:, None]
    place = begin[:, None, None] + step * (bin + (each + 0.5) / number)
    counts = (each < number) & (place >= -1) & (place <= extent)
    share = where(counts, 1.0 / number, 0.0)
    place = place.clamp(0, extent - 1)
    low = floor(place)
    t = place - low
    high = (low + 1).clamp(max=extent - 1)
    pixels, weights = cat([low, high], 2), cat([(1 - t) * share, t * share], 2)
    return pixels.to(T.int64), weights


def roi_pool(
    input: Tensor, boxes: Tensor | Sequence[Tensor], output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:  # fmt: skip
    """Girshick (2015): [K, C, *output_size], the largest pixels in parts of boxes; 0 in empty ones.

    ``boxes`` are [K, 5] with the number of the image first, or for each image [L, 4]; they are
    multiplied by ``spatial_scale``, and rounded to whole pixels.
    """
    images, corners = _located("roi_pool", input, boxes)
    height, width = per_dimension("roi_pool", "output_size", output_size, 2, 1)
    corners = corners * spatial_scale
    corners = floor(corners.abs() + 0.5) * corners.sign()  # a half away from 0
    channels, rows, columns = input.shape[1:]
    y = _bounds(corners[:, 1], corners[:, 3], height, rows)
    x = _bounds(corners[:, 0], corners[:, 2], width, columns)
    with no_grad():
        find = _largest if mode.tracer is None else _largest_traced
        places = find(input.detach(), images, y, x)
    first = images[:, None] * channels + arange(channels, device=input.device)
    at = places.clamp(min=0) + first[:, :, None, None] * (rows * columns)
    found = input.reshape(-1).index_select(0, at.reshape(-1)).reshape(places.shape)
    return where(places >= 0, found, 0.0)


def _bounds(low: Tensor, high: Tensor, bins: int, extent: int) -> Tensor:
    """The pixels [2, K, bins] where each bin of one axis begins, and the one behind its end."""
    step = (high - low + 1).clamp(min=1)[:, None] / bins
    each = arange(bins, dtype=step.dtype, device=step.device)
    ends = stack([floor(each * step), ceil((each + 1) * step)]) + low[:, None]
    return ends.clamp(0, extent).to(T.int64)  # type: ignore[no-any-return]


def _largest(input: Tensor, images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The number of the first largest pixel in each bin of each channel; -1 where there is none."""
    maps, owners, rows, columns = (t.cpu().numpy() for t in (input, images, y, x))
    found = np.full((len(owners), maps.shape[1], rows.shape[2], columns.shape[2]), -1)
    for k, owner in enumerate(owners):
        for i, (top, bottom) in enumerate(rows[:, k].T):
            for j, (left, right) in enumerate(columns[:, k].T):
                if top < bottom and left < right:
                    part = maps[owner, :, top:bottom, left:right]
                    at = part.reshape(len(part), -1).argmax(1)
                    down, along = np.divmod(at, right - left)
                    found[k, :, i, j] = (top + down) * maps.shape[3] + left + along
    return from_numpy(found).to(input.device)  # type: ignore[no-any-return]


def _largest_traced(input: Tensor, images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """:func:`_largest` by operations: all pixels are looked at for each bin."""
    rows, columns = input.shape[2:]
    down, along = arange(rows, device=input.device), arange(columns, device=input.device)
    in_row = ((down >= y[0, ..., None]) & (down < y[1, ..., None]))[:, None, :, :, None]
    in_column = ((along >= x[0, ..., None]) & (along < x[1, ..., None]))[:, None, None]
    maps = input.index_select(0, images)[:, :, None]
    value, row = where(in_row, maps, -math.inf).max(3)  # of each column: [K, C, bins, W]
    value, number = value[..., None, :], (row * columns + along)[..., None, :]
    top = where(in_column, value, -math.inf).amax(4, keepdim=True)
    first = where(in_column & (value == top), number, rows * columns).amin(4)
    return where(in_row.any(3) & in_column.any(4), first, -1)


class RoIAlign(Module):
    """:func:`roi_align` with fixed options."""

    def __init__(
        self, output_size: int | Sequence[int], spatial_scale: float, sampling_ratio: int,
        aligned: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """[K, C, *output_size]."""
        return roi_align(
            input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )

    def __repr__(self) -> str:
        return (
            f"RoIAlign(output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned})"
        )


class RoIPool(Module):
    """:func:`roi_pool` with fixed options."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """[K, C, *output_size]."""
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def __repr__(self) -> str:
        size, scale = self.output_size, self.spatial_scale
        return f"RoIPool(output_size={size}, spatial_scale={scale})"
