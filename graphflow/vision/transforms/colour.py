"""Functions that change colours: brightness, contrast, saturation, hue, grey, blur, erase."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.functions.creation import as_tensor
from graphflow.tensor import Tensor
from graphflow.vision.pillow import is_pil, pil
from graphflow.vision.transforms.convert import pil_to_tensor, to_pil_image
from graphflow.vision.transforms.images import Array, channels_of, check_image, on_array

_GREY = (0.2989, 0.587, 0.114)  # the weights of ITU-R 601 for red, green and blue


def _need_factor(name: str, factor: float) -> None:
    if factor < 0:
        raise ValueError(f"{name}: the factor should not be negative, got {factor}")


def _top(array: Array) -> float:
    return 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)


def _blend(array: Array, other: Any, factor: float) -> Array:
    """``factor`` of the image, the rest of ``other``."""
    mixed = factor * array.astype(np.float32) + (1.0 - factor) * other
    return np.asarray(np.clip(mixed, 0, _top(array)), dtype=array.dtype)


def _grey(array: Array) -> Array:
    """One plane ``[…, 1, h, w]`` in the dtype of the image."""
    if array.shape[-3] == 1:
        return array
    if array.shape[-3] != 3:
        raise ValueError(f"an image has 1 or 3 channels here, not {array.shape[-3]}")
    weights = np.asarray(_GREY, np.float32).reshape(3, 1, 1)
    return np.asarray((array * weights).sum(-3, keepdims=True), dtype=array.dtype)


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """0 is black, 1 the image, 2 twice as bright."""
    check_image("adjust_brightness", img)
    _need_factor("adjust_brightness", brightness_factor)
    if is_pil(img):
        return pil("ImageEnhance").Brightness(img).enhance(brightness_factor)
    return on_array(img, lambda a: _blend(a, 0.0, brightness_factor))


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """0 is grey, 1 the image, 2 twice the contrast."""
    check_image("adjust_contrast", img)
    _need_factor("adjust_contrast", contrast_factor)
    if is_pil(img):
        return pil("ImageEnhance").Contrast(img).enhance(contrast_factor)

    def change(a: Array) -> Array:
        grey = _grey(a).astype(np.float32)
        return _blend(a, grey.mean((-3, -2, -1), keepdims=True), contrast_factor)

    return on_array(img, change)


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """0 is black and white, 1 the image, 2 twice the saturation."""
    check_image("adjust_saturation", img)
    _need_factor("adjust_saturation", saturation_factor)
    if is_pil(img):
        return pil("ImageEnhance").Color(img).enhance(saturation_factor)
    return on_array(img, lambda a: _blend(a, _grey(a).astype(np.float32), saturation_factor))


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """The colours moved along the circle: −0.5 … 0.5, 0 is the image."""
    check_image("adjust_hue", img)
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"adjust_hue: hue_factor should be from -0.5 to 0.5, got {hue_factor}")
    if channels_of(img) == 1:
        return img
    if is_pil(img):
        if img.mode in ("LA", "1", "I", "F"):
            return img
        hue, saturation, value = img.convert("HSV").split()
        moved = (np.asarray(hue).astype(np.int64) + int(hue_factor * 255)) & 255
        planes = (pil().fromarray(moved.astype(np.uint8)), saturation, value)
        return pil().merge("HSV", planes).convert(img.mode)

    def change(a: Array) -> Array:
        moved = _moved_hue(a.astype(np.float64) / _top(a), hue_factor) * _top(a)
        return (moved if a.dtype.kind == "f" else np.rint(moved)).astype(a.dtype)

    return on_array(img, change)


def _moved_hue(rgb: Array, shift: float) -> Array:
    """Red, green and blue in 0 … 1 through hue, saturation and value, the hue moved."""
    red, green, blue = np.moveaxis(rgb, -3, 0)
    value, least = rgb.max(-3), rgb.min(-3)
    spread = value - least
    safe = np.where(spread == 0, 1, spread)
    sixth = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (sixth / 6 + shift) % 1.0
    # f(n) = v − v·s·max(0, min(k, 4 − k, 1)) with k = (n + 6 h) mod 6, and v·s the spread.
    planes = []
    for n in (5, 3, 1):
        k = (n + hue * 6) % 6
        planes.append(value - spread * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.stack(planes, -3)


def adjust_gamma(img: Any, gamma: float, gain: float = 1) -> Any:
    """``gain · value ** gamma`` of values in 0 … 1."""
    check_image("adjust_gamma", img)
    _need_factor("adjust_gamma", gamma)
    if is_pil(img):
        mode = img.mode
        levels = [(255 + 1 - 1e-3) * gain * (level / 255.0) ** gamma for level in range(256)]
        return img.convert("RGB").point(levels * 3).convert(mode)

    def change(a: Array) -> Array:
        scaled = np.clip(gain * (a.astype(np.float64) / _top(a)) ** gamma, 0, 1)
        return scaled.astype(a.dtype) if a.dtype.kind == "f" else (scaled * _top(a)).astype(a.dtype)

    return on_array(img, change)


def to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """A Pillow image in grey, of 1 channel or 3 equal ones."""
    if not is_pil(img):
        raise TypeError(f"to_grayscale takes a Pillow image, not {type(img).__name__}")
    if num_output_channels not in (1, 3):
        raise ValueError(f"num_output_channels should be 1 or 3, got {num_output_channels}")
    grey = img.convert("L")
    return grey if num_output_channels == 1 else pil().merge("RGB", (grey, grey, grey))


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """An image or tensor in grey, of 1 channel or 3 equal ones."""
    check_image("rgb_to_grayscale", img)
    if is_pil(img):
        return to_grayscale(img, num_output_channels)
    if num_output_channels not in (1, 3):
        raise ValueError(f"num_output_channels should be 1 or 3, got {num_output_channels}")
    return on_array(img, lambda a: np.repeat(_grey(a), num_output_channels, axis=-3))


def gaussian_blur(img: Any, kernel_size: Any, sigma: Any = None) -> Any:
    """Blurred by a Gauss kernel of odd ``kernel_size`` (x, y) and ``sigma`` pixels (x, y)."""
    check_image("gaussian_blur", img)
    sizes = [kernel_size] * 2 if isinstance(kernel_size, int) else list(kernel_size)
    if any(size % 2 == 0 or size <= 0 for size in sizes):
        raise ValueError(f"gaussian_blur: kernel_size should be odd and positive, got {sizes}")
    if sigma is None:
        sigmas = [size * 0.15 + 0.35 for size in sizes]
    else:
        sigmas = [sigma] * 2 if isinstance(sigma, numbers.Number) else list(sigma)
    if any(s <= 0 for s in sigmas):
        raise ValueError(f"gaussian_blur: sigma should be positive, got {sigmas}")
    if is_pil(img):
        return to_pil_image(gaussian_blur(pil_to_tensor(img), sizes, sigmas), img.mode)

    def blur(a: Array) -> Array:
        made = a.astype(np.float64)
        for axis, size, width in ((-1, sizes[0], sigmas[0]), (-2, sizes[-1], sigmas[-1])):
            made = _along(made, axis, _kernel(size, width))
        return (np.rint(made) if a.dtype.kind in "iu" else made).astype(a.dtype)

    return on_array(img, blur)


def _kernel(size: int, sigma: float) -> Array:
    place = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (place / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def _along(array: Array, axis: int, kernel: Array) -> Array:
    half = len(kernel) // 2
    around = [(0, 0)] * array.ndim
    around[axis] = (half, half)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(array, around, mode="reflect"), len(kernel), axis
    )
    return np.asarray(windows @ kernel)


def erase(img: Tensor, i: int, j: int, h: int, w: int, v: Any, inplace: bool = False) -> Tensor:
    """A tensor with the rectangle from (``i``, ``j``) set to ``v``."""
    if not isinstance(img, Tensor):
        raise TypeError(f"erase takes a tensor, not {type(img).__name__}")
    made = img if inplace else img.clone()
    made[..., i : i + h, j : j + w] = as_tensor(v).to(made.dtype)
    return made


def invert(img: Any) -> Any:
    """Light and dark exchanged."""
    check_image("invert", img)
    if is_pil(img):
        return pil("ImageOps").invert(img)
    return on_array(img, lambda a: np.asarray(_top(a) - a).astype(a.dtype))


def values_of(value: float | Sequence[float] | str, channels: int) -> Array:
    """What erasing fills in: a number, or one a channel."""
    flat = np.atleast_1d(np.asarray(value, np.float32))
    if len(flat) not in (1, channels):
        raise ValueError(f"value has {len(flat)} numbers, the image {channels} channels")
    return flat.reshape(-1, 1, 1)
