"""Transforms that change colours, fixed and random."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from graphflow.functions.creation import from_numpy
from graphflow.rng import randn
from graphflow.tensor import Tensor
from graphflow.vision.transforms import colour, draws
from graphflow.vision.transforms.geometric import Shown, random_rectangle
from graphflow.vision.transforms.images import channels_of, pair


class Grayscale(Shown):
    """In grey, of 1 channel or 3 equal ones."""

    def __init__(self, num_output_channels: int = 1) -> None:
        self.num_output_channels = num_output_channels

    def __call__(self, img: Any) -> Any:
        """Convert one image."""
        return colour.rgb_to_grayscale(img, self.num_output_channels)


class RandomGrayscale(Shown):
    """In grey with probability ``p``; the number of channels stays."""

    def __init__(self, p: float = 0.1) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        """Convert one image, perhaps."""
        if not draws.chance(self.p):
            return img
        return colour.rgb_to_grayscale(img, channels_of(img))


class RandomInvert(Shown):
    """Light and dark exchanged with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        """Invert one image, perhaps."""
        return colour.invert(img) if draws.chance(self.p) else img


class ColorJitter(Shown):
    """Brightness, contrast, saturation and hue changed at random, in random order.

    A number ``x`` is a factor from 1 − x (at least 0) to 1 + x, for hue a shift from
    −x to x; a pair is the range itself.
    """

    def __init__(
        self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0
    ) -> None:
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)
        self.saturation = _factors("saturation", saturation)
        self.hue = _shifts(hue)

    def __call__(self, img: Any) -> Any:
        """Change one image."""
        changes = [
            (colour.adjust_brightness, self.brightness),
            (colour.adjust_contrast, self.contrast),
            (colour.adjust_saturation, self.saturation),
            (colour.adjust_hue, self.hue),
        ]
        for position in draws.order(len(changes)):
            change, bounds = changes[position]
            if bounds is not None:
                img = change(img, draws.uniform(*bounds))
        return img


def _factors(name: str, value: Any) -> tuple[float, float] | None:
    if isinstance(value, numbers.Number):
        number = float(value)  # type: ignore[arg-type]
        if number < 0:
            raise ValueError(f"ColorJitter: {name} should not be negative, got {value}")
        bounds = max(0.0, 1 - number), 1 + number
    else:
        bounds = pair("ColorJitter", value, name)
    if not 0 <= bounds[0] <= bounds[1]:
        raise ValueError(f"ColorJitter: {name} {list(bounds)} is no range of factors")
    return None if bounds == (1.0, 1.0) else bounds


def _shifts(value: Any) -> tuple[float, float] | None:
    one: Any = isinstance(value, numbers.Number)
    low, high = (-value, value) if one else pair("ColorJitter", value, "hue")
    if not -0.5 <= low <= high <= 0.5:
        raise ValueError(f"ColorJitter: hue should lie within -0.5 … 0.5, got {value}")
    return None if low == high == 0 else (low, high)


class GaussianBlur(Shown):
    """Blurred by a Gauss kernel of random ``sigma`` (a range, or a number)."""

    def __init__(self, kernel_size: Any, sigma: Any = (0.1, 2.0)) -> None:
        self.kernel_size = pair("GaussianBlur", kernel_size, "kernel_size")
        self.sigma = pair("GaussianBlur", sigma, "sigma")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"GaussianBlur: sigma should be positive and rising, got {sigma}")

    def __call__(self, img: Any) -> Any:
        """Blur one image."""
        return colour.gaussian_blur(img, self.kernel_size, draws.uniform(*self.sigma))


class RandomErasing(Shown):
    """A random rectangle of a tensor set to ``value`` with probability ``p``.

    ``scale``: its part of the area; ``ratio``: width over height; ``value``: a
    number, one a channel, or ``"random"`` for noise.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: Any = 0,
        inplace: bool = False,
    ) -> None:
        if isinstance(value, str) and value != "random":
            raise ValueError(f"RandomErasing: value should be numbers or 'random', got {value!r}")
        if not 0 <= p <= 1 or not 0 <= scale[0] <= scale[1] <= 1:
            raise ValueError(f"RandomErasing: p {p} and scale {scale} should lie in 0 … 1")
        self.p, self.scale, self.ratio = p, tuple(scale), tuple(ratio)
        self.value, self.inplace = value, inplace

    def __call__(self, img: Tensor) -> Tensor:
        """Erase from one image, perhaps."""
        if not isinstance(img, Tensor):
            raise TypeError(f"RandomErasing takes a tensor, not {type(img).__name__}")
        if not draws.chance(self.p):
            return img
        channels, rows, columns = (int(extent) for extent in img.shape[-3:])
        place = random_rectangle(
            rows, columns, self.scale, self.ratio, lambda h, w: h < rows and w < columns
        )
        if place is None:
            return img
        value: Tensor
        if isinstance(self.value, str):
            value = randn(channels, place[2], place[3])
        else:
            value = from_numpy(colour.values_of(self.value, channels))
        return colour.erase(img, *place, value, self.inplace)
