"""Transforms that move pixels, fixed and random."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

from graphflow.vision.transforms import draws, geometry
from graphflow.vision.transforms.images import InterpolationMode, check_image, pair, size_of

_TRIES = 10  # as often a random rectangle is drawn before a fixed one is taken


class Shown:
    """Prints as a call with the options it was made with."""

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v}" for k, v in vars(self).items())
        return f"{type(self).__name__}({given})"


class Resize(Shown):
    """Resize to (height, width), or the shorter edge to one number."""

    def __init__(
        self,
        size: Any,
        interpolation: Any = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool | None = True,
    ) -> None:
        self.size, self.interpolation = size, interpolation
        self.max_size, self.antialias = max_size, antialias

    def __call__(self, img: Any) -> Any:
        """Resize one image."""
        return geometry.resize(img, self.size, self.interpolation, self.max_size, self.antialias)


class CenterCrop(Shown):
    """The middle of the image."""

    def __init__(self, size: Any) -> None:
        self.size = pair("CenterCrop", size)

    def __call__(self, img: Any) -> Any:
        """Crop one image."""
        return geometry.center_crop(img, self.size)


class FiveCrop(Shown):
    """The four corners and the middle, as a tuple."""

    def __init__(self, size: Any) -> None:
        self.size = pair("FiveCrop", size)

    def __call__(self, img: Any) -> tuple[Any, ...]:
        """Crop one image."""
        return geometry.five_crop(img, self.size)


class TenCrop(Shown):
    """:class:`FiveCrop` of the image and of its mirror image."""

    def __init__(self, size: Any, vertical_flip: bool = False) -> None:
        self.size, self.vertical_flip = pair("TenCrop", size), vertical_flip

    def __call__(self, img: Any) -> tuple[Any, ...]:
        """Crop one image."""
        return geometry.ten_crop(img, self.size, self.vertical_flip)


class Pad(Shown):
    """More pixels around the image; see :func:`~graphflow.vision.transforms.functional.pad`."""

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> None:
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def __call__(self, img: Any) -> Any:
        """Pad one image."""
        return geometry.pad(img, self.padding, self.fill, self.padding_mode)


class RandomCrop(Shown):
    """A rectangle of ``size`` at a random place, after padding."""

    def __init__(
        self,
        size: Any,
        padding: Any = None,
        pad_if_needed: bool = False,
        fill: Any = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.size, self.padding = pair("RandomCrop", size), padding
        self.pad_if_needed, self.fill, self.padding_mode = pad_if_needed, fill, padding_mode

    def __call__(self, img: Any) -> Any:
        """Crop one image."""
        check_image("RandomCrop", img)
        if self.padding is not None:
            img = geometry.pad(img, self.padding, self.fill, self.padding_mode)
        height, width = self.size
        rows, columns = size_of(img)
        if self.pad_if_needed and (rows < height or columns < width):
            around = [max(width - columns, 0), max(height - rows, 0)]
            img = geometry.pad(img, around, self.fill, self.padding_mode)
            rows, columns = size_of(img)
        top, left, height, width = self.get_params(img, self.size)
        return geometry.crop(img, top, left, height, width)

    @staticmethod
    def get_params(img: Any, output_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """A random place: top, left, height, width."""
        rows, columns = size_of(img)
        height, width = output_size
        if rows < height or columns < width:
            raise ValueError(f"RandomCrop: {[height, width]} is larger than {[rows, columns]}")
        top = draws.integer(0, rows - height + 1)
        return top, draws.integer(0, columns - width + 1), height, width


class RandomResizedCrop(Shown):
    """A rectangle of random area and shape, resized to ``size``.

    ``scale``: its part of the area; ``ratio``: width over height.
    """

    def __init__(
        self,
        size: Any,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Any = InterpolationMode.BILINEAR,
        antialias: bool | None = True,
    ) -> None:
        self.size = pair("RandomResizedCrop", size)
        self.scale, self.ratio = tuple(scale), tuple(ratio)
        self.interpolation, self.antialias = interpolation, antialias

    def __call__(self, img: Any) -> Any:
        """Crop and resize one image."""
        check_image("RandomResizedCrop", img)
        place = self.get_params(img, self.scale, self.ratio)
        return geometry.resized_crop(img, *place, self.size, self.interpolation, self.antialias)

    @staticmethod
    def get_params(
        img: Any, scale: Sequence[float], ratio: Sequence[float]
    ) -> tuple[int, int, int, int]:
        """A random rectangle: top, left, height, width."""
        rows, columns = size_of(img)
        found = random_rectangle(
            rows, columns, scale, ratio, lambda h, w: h <= rows and w <= columns
        )
        if found is not None:
            return found
        height, width = rows, columns
        if columns / rows < min(ratio):
            height = round(columns / min(ratio))
        elif columns / rows > max(ratio):
            width = round(rows * max(ratio))
        return (rows - height) // 2, (columns - width) // 2, height, width


def random_rectangle(
    rows: int, columns: int, scale: Sequence[float], ratio: Sequence[float], fits: Any
) -> tuple[int, int, int, int] | None:
    """Top, left, height, width of a random area and ratio, or None if none fits in ten tries."""
    for _ in range(_TRIES):
        area = rows * columns * draws.uniform(scale[0], scale[1])
        shape = math.exp(draws.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if width > 0 and height > 0 and fits(height, width):
            top = draws.integer(0, rows - height + 1)
            return top, draws.integer(0, columns - width + 1), height, width
    return None


class RandomHorizontalFlip(Shown):
    """Left and right exchanged with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        """Flip one image, perhaps."""
        return geometry.hflip(img) if draws.chance(self.p) else img


class RandomVerticalFlip(Shown):
    """Top and bottom exchanged with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        """Flip one image, perhaps."""
        return geometry.vflip(img) if draws.chance(self.p) else img


def span(name: str, value: Any) -> tuple[float, float]:
    """A range: of a number, from minus to plus it."""
    if isinstance(value, numbers.Number):
        high = float(value)  # type: ignore[arg-type]
        if high < 0:
            raise ValueError(f"{name}: one number should not be negative, got {value}")
        return -high, high
    low, high = pair(name, value, "range")
    return low, high


class RandomRotation(Shown):
    """Turned by a random angle of ``degrees`` (a range, or from minus to plus a number)."""

    def __init__(
        self,
        degrees: Any,
        interpolation: Any = InterpolationMode.NEAREST,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: Any = 0,
    ) -> None:
        self.degrees, self.interpolation = span("RandomRotation", degrees), interpolation
        self.expand, self.center, self.fill = expand, center, fill

    def __call__(self, img: Any) -> Any:
        """Rotate one image."""
        angle = draws.uniform(*self.degrees)
        return geometry.rotate(img, angle, self.interpolation, self.expand, self.center, self.fill)


class RandomAffine(Shown):
    """Turned, moved, scaled and sheared at random.

    ``degrees``: a range or a number; ``translate``: the largest part of width and
    height; ``scale``: a range; ``shear``: degrees along x (a number or a range),
    or ranges along x and y (four numbers).
    """

    def __init__(
        self,
        degrees: Any,
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: Any = None,
        interpolation: Any = InterpolationMode.NEAREST,
        fill: Any = 0,
        center: Sequence[float] | None = None,
    ) -> None:
        self.degrees = span("RandomAffine", degrees)
        self.translate, self.scale = translate, scale
        if isinstance(shear, Sequence) and len(shear) == 4:
            self.shear: tuple[float, ...] | None = tuple(shear)
        else:
            self.shear = None if shear is None else (*span("RandomAffine", shear), 0.0, 0.0)
        if translate is not None and not all(0 <= part <= 1 for part in translate):
            raise ValueError(f"RandomAffine: translate should be parts 0 … 1, got {translate}")
        if scale is not None and not all(value > 0 for value in scale):
            raise ValueError(f"RandomAffine: scale should be positive, got {scale}")
        self.interpolation, self.fill, self.center = interpolation, fill, center

    def __call__(self, img: Any) -> Any:
        """Transform one image."""
        check_image("RandomAffine", img)
        height, width = size_of(img)
        angle = draws.uniform(*self.degrees)
        moved = [0, 0]
        if self.translate is not None:
            across, down = self.translate[0] * width, self.translate[1] * height
            moved = [round(draws.uniform(-across, across)), round(draws.uniform(-down, down))]
        scale = 1.0 if self.scale is None else draws.uniform(self.scale[0], self.scale[1])
        shear = [0.0, 0.0]
        if self.shear is not None:
            shear[0] = draws.uniform(self.shear[0], self.shear[1])
            if self.shear[2] != self.shear[3]:
                shear[1] = draws.uniform(self.shear[2], self.shear[3])
        return geometry.affine(
            img, angle, moved, scale, shear, self.interpolation, self.fill, self.center
        )
