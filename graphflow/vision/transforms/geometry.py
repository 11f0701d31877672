"""Functions that move pixels: resize, crop, pad, flip, rotate, affine."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.vision.pillow import is_pil, pil
from graphflow.vision.transforms.images import (
    Array,
    InterpolationMode,
    check_image,
    fill_of,
    on_array,
    on_planes,
    pair,
    resampling,
    size_of,
)

_AFFINE = 0  # Pillow's numbers
_LEFT_RIGHT, _TOP_BOTTOM = 0, 1
_PAD_MODES = ("constant", "edge", "reflect", "symmetric")


def resize(
    img: Any,
    size: Any,
    interpolation: Any = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Any:
    """``img`` in ``size`` (height, width); one number is the shorter edge.

    Shrinking averages over all pixels it covers, as Pillow does (``antialias``).
    """
    check_image("resize", img)
    filter_ = resampling(interpolation)
    height, width = _target(size_of(img), size, max_size)
    return on_planes(img, lambda image: image.resize((width, height), filter_))


def _target(old: tuple[int, int], size: Any, max_size: int | None) -> tuple[int, int]:
    if isinstance(size, int) or len(size) == 1:
        edge = size if isinstance(size, int) else size[0]
        short, long = min(old), max(old)
        new_short, new_long = edge, int(edge * long / short)
        if max_size is not None:
            if max_size <= edge:
                raise ValueError(f"resize: max_size {max_size} should be above size {edge}")
            if new_long > max_size:
                new_short, new_long = int(max_size * new_short / new_long), max_size
        new = (new_short, new_long) if old[0] <= old[1] else (new_long, new_short)
    else:
        if max_size is not None:
            raise ValueError("resize: max_size goes with one number for size")
        new = pair("resize", size)
    if min(new) <= 0:
        raise ValueError(f"resize: {list(new)} is no size for an image")
    return new


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """The rectangle from (``top``, ``left``); what lies outside is 0."""
    check_image("crop", img)
    if is_pil(img):
        return img.crop((left, top, left + width, top + height))

    def cut(array: Array) -> Array:
        rows, columns = array.shape[-2:]
        made = np.zeros((*array.shape[:-2], height, width), array.dtype)
        t, b = max(top, 0), min(top + height, rows)
        le, r = max(left, 0), min(left + width, columns)
        if t < b and le < r:
            made[..., t - top : b - top, le - left : r - left] = array[..., t:b, le:r]
        return made

    return on_array(img, cut)


def center_crop(img: Any, output_size: Any) -> Any:
    """The middle of ``img``, with 0 around it where it is too small."""
    check_image("center_crop", img)
    height, width = pair("center_crop", output_size, "output_size")
    rows, columns = size_of(img)
    if width > columns or height > rows:
        across, down = max(width - columns, 0), max(height - rows, 0)
        img = pad(img, [across // 2, down // 2, (across + 1) // 2, (down + 1) // 2])
        rows, columns = size_of(img)
    top, left = round((rows - height) / 2.0), round((columns - width) / 2.0)
    return crop(img, top, left, height, width)


def resized_crop(
    img: Any,
    top: int,
    left: int,
    height: int,
    width: int,
    size: Any,
    interpolation: Any = InterpolationMode.BILINEAR,
    antialias: bool | None = True,
) -> Any:
    """A crop, then a resize."""
    return resize(crop(img, top, left, height, width), size, interpolation, None, antialias)


def pad(img: Any, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Any:
    """More pixels around the image.

    ``padding``: one number, (left and right, top and bottom) or (left, top,
    right, bottom); a negative one cuts away.  ``padding_mode``: ``constant``
    (``fill``), ``edge``, ``reflect`` or ``symmetric``.
    """
    check_image("pad", img)
    if padding_mode not in _PAD_MODES:
        raise ValueError(f"pad: unknown padding_mode {padding_mode!r}; known: {_PAD_MODES}")
    left, top, right, bottom = _sides(padding)
    if min(left, top, right, bottom) < 0:
        rows, columns = size_of(img)
        cut_left, cut_top = max(-left, 0), max(-top, 0)
        width = columns - cut_left - max(-right, 0)
        img = crop(img, cut_top, cut_left, rows - cut_top - max(-bottom, 0), width)
        left, top, right, bottom = (max(side, 0) for side in (left, top, right, bottom))
    if is_pil(img) and padding_mode == "constant":
        colour = fill_of(img, fill)
        return pil("ImageOps").expand(img, border=(left, top, right, bottom), fill=colour)
    options: dict[str, Any] = {"mode": padding_mode}
    if padding_mode == "constant":
        options["constant_values"] = fill if isinstance(fill, numbers.Number) else fill[0]
    around = [(top, bottom), (left, right)]
    if is_pil(img):
        array = np.asarray(img)
        return pil().fromarray(np.pad(array, around + [(0, 0)] * (array.ndim - 2), **options))
    return on_array(img, lambda a: np.pad(a, [(0, 0)] * (a.ndim - 2) + around, **options))


def _sides(padding: Any) -> tuple[int, int, int, int]:
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if isinstance(padding, Sequence) and len(padding) in (1, 2, 4):
        values = tuple(padding)
        if len(values) == 4:
            return values
        return values[0], values[-1], values[0], values[-1]
    raise ValueError(f"padding should be 1, 2 or 4 whole numbers, got {padding!r}")


def hflip(img: Any) -> Any:
    """Left and right exchanged."""
    check_image("hflip", img)
    return img.transpose(_LEFT_RIGHT) if is_pil(img) else on_array(img, lambda a: a[..., ::-1])


def vflip(img: Any) -> Any:
    """Top and bottom exchanged."""
    check_image("vflip", img)
    return img.transpose(_TOP_BOTTOM) if is_pil(img) else on_array(img, lambda a: a[..., ::-1, :])


def rotate(
    img: Any,
    angle: float,
    interpolation: Any = InterpolationMode.NEAREST,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = None,
) -> Any:
    """Turned by ``angle`` degrees against the clock; ``expand`` makes room for the corners."""
    check_image("rotate", img)
    filter_, colour = resampling(interpolation), fill_of(img, fill)
    middle = None if center is None else tuple(center)
    return on_planes(
        img, lambda i: i.rotate(angle, filter_, expand=expand, center=middle, fillcolor=colour)
    )


def affine(
    img: Any,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Any,
    interpolation: Any = InterpolationMode.NEAREST,
    fill: Any = None,
    center: Sequence[float] | None = None,
) -> Any:
    """Turned by ``angle`` degrees with the clock, sheared, scaled and moved, about the middle.

    ``shear``: degrees along x, or along x and y.
    """
    check_image("affine", img)
    if scale <= 0:
        raise ValueError(f"affine: scale should be positive, got {scale}")
    height, width = size_of(img)
    middle = (width * 0.5, height * 0.5) if center is None else (center[0], center[1])
    one = isinstance(shear, numbers.Number)
    both: tuple[Any, Any] = (shear, 0.0) if one else pair("affine", shear, "shear")
    matrix = _inverse(middle, angle, (translate[0], translate[1]), scale, both)
    filter_, colour = resampling(interpolation), fill_of(img, fill)
    return on_planes(
        img, lambda i: i.transform((width, height), _AFFINE, matrix, filter_, fillcolor=colour)
    )


def _inverse(
    center: tuple[float, float],
    angle: float,
    translate: tuple[float, float],
    scale: float,
    shear: tuple[float, float],
) -> list[float]:
    """The 2×3 matrix from places of the result to places of the source.

    Forwards it is: move ``center`` to the origin, scale, shear along y, then x,
    rotate, move back and by ``translate``.
    """
    turn, (across, down) = math.radians(angle), (math.radians(s) for s in shear)
    a = math.cos(turn - down) / math.cos(down)
    b = -a * math.tan(across) - math.sin(turn)
    c = math.sin(turn - down) / math.cos(down)
    d = -c * math.tan(across) + math.cos(turn)
    # The determinant of [a b; c d] is 1, so its inverse is [d -b; -c a].
    rows = [(d / scale, -b / scale), (-c / scale, a / scale)]
    x, y = center[0] + translate[0], center[1] + translate[1]
    made: list[float] = []
    for (p, q), origin in zip(rows, center, strict=True):
        made += [p, q, origin - p * x - q * y]
    return made


def five_crop(img: Any, size: Any) -> tuple[Any, ...]:
    """The four corners and the middle."""
    height, width = pair("five_crop", size)
    rows, columns = size_of(img)
    if height > rows or width > columns:
        raise ValueError(f"five_crop: {[height, width]} is larger than {[rows, columns]}")
    corners = [(0, 0), (0, columns - width), (rows - height, 0), (rows - height, columns - width)]
    cut = [crop(img, top, left, height, width) for top, left in corners]
    return (*cut, center_crop(img, (height, width)))


def ten_crop(img: Any, size: Any, vertical_flip: bool = False) -> tuple[Any, ...]:
    """:func:`five_crop` of the image and of its mirror image."""
    mirrored = vflip(img) if vertical_flip else hflip(img)
    return five_crop(img, size) + five_crop(mirrored, size)
