"""Sheets of images: ``make_grid`` and ``save_image``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.functions.creation import from_numpy
from graphflow.tensor import Tensor


def make_grid(
    tensor: Tensor | Sequence[Tensor],
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    value_range: tuple[float, float] | None = None,
    scale_each: bool = False,
    pad_value: float = 0.0,
) -> Tensor:
    """Images in rows of ``nrow``, ``padding`` pixels of ``pad_value`` around each.

    ``tensor`` is one image ``[H, W]`` or ``[C, H, W]``, a batch ``[B, C, H, W]``
    or a list of ``[C, H, W]`` of one size; a single channel becomes three.  The result
    is ``[C, H', W']``, without history.  ``normalize`` brings ``value_range``
    (smallest and largest value by default, of each image with ``scale_each``)
    to 0 … 1.  Raises ShapeError for other ranks.
    """
    images = _batch(tensor)
    if normalize:
        parts = images if scale_each else [images]
        images = np.stack([_scaled(p, value_range) for p in parts])
        images = images if scale_each else images[0]
    count, channels, height, width = images.shape
    if count == 1:
        return from_numpy(np.array(images[0]))
    columns = max(1, min(nrow, count))
    rows = math.ceil(count / columns)
    tall, wide = height + padding, width + padding
    extents = (channels, rows * tall + padding, columns * wide + padding)
    grid = np.full(extents, pad_value, images.dtype)
    for i, image in enumerate(images):
        y, x = i // columns * tall + padding, i % columns * wide + padding
        grid[:, y : y + height, x : x + width] = image
    return from_numpy(grid)


def save_image(
    tensor: Tensor | Sequence[Tensor],
    fp: str | Path | IO[bytes],
    format: str | None = None,
    **options: Any,
) -> None:
    """Write the images as one file: 0 … 1 becomes 0 … 255; ``options`` are :func:`make_grid`'s.

    ``format`` is one of Pillow's, by default what the name ends in.
    """
    from graphflow.vision.pillow import pil

    grid = make_grid(tensor, **options).numpy()
    pixels = np.clip(grid * 255 + 0.5, 0, 255).astype(np.uint8)
    pil().fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(fp, format=format)


def _batch(tensor: Tensor | Sequence[Tensor]) -> np.ndarray[Any, Any]:
    """The images as ``[B, C, H, W]`` with at least three channels."""
    if isinstance(tensor, Tensor):
        images = tensor.detach().numpy()
    else:
        images = np.stack([image.detach().numpy() for image in tensor])
    if images.ndim not in (2, 3, 4):
        raise ShapeError(f"images are tensors of 2, 3 or 4 dimensions, not {images.ndim}")
    images = images.reshape((1,) * (4 - images.ndim) + images.shape)
    return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images


def _scaled(
    images: np.ndarray[Any, Any], value_range: tuple[float, float] | None
) -> np.ndarray[Any, Any]:
    low, high = value_range or (float(images.min()), float(images.max()))
    scaled: np.ndarray[Any, Any] = (np.clip(images, low, high) - low) / max(high - low, 1e-5)
    return scaled.astype(images.dtype)


__all__ = ["make_grid", "save_image"]
