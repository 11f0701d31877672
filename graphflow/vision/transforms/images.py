"""What functions on images share: Pillow images and tensors ``[…, channels, height, width]``."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from graphflow.functions.creation import from_numpy
from graphflow.tensor import Tensor
from graphflow.vision.pillow import is_pil, pil

Array: TypeAlias = "np.ndarray[Any, Any]"


class InterpolationMode(Enum):
    """How pixels between pixels are found; Pillow's filters."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


_FILTERS = {
    InterpolationMode.NEAREST: 0, InterpolationMode.NEAREST_EXACT: 0, InterpolationMode.LANCZOS: 1,
    InterpolationMode.BILINEAR: 2, InterpolationMode.BICUBIC: 3, InterpolationMode.BOX: 4,
    InterpolationMode.HAMMING: 5,
}  # fmt: skip


def resampling(interpolation: Any) -> int:
    """Pillow's number of a filter; a mode, its name or that number."""
    if isinstance(interpolation, int) and interpolation in _FILTERS.values():
        return interpolation
    try:
        return _FILTERS[InterpolationMode(interpolation)]
    except ValueError:
        known = ", ".join(mode.value for mode in InterpolationMode)
        raise ValueError(f"unknown interpolation {interpolation!r}; known: {known}") from None


def check_image(name: str, image: Any) -> None:
    """Refuse what is neither a Pillow image nor a tensor with height and width."""
    if is_pil(image):
        return
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} takes a Pillow image or a tensor, not {type(image).__name__}")
    if image.ndim < 2:
        raise ValueError(f"{name} takes [..., height, width], got {list(image.shape)}")


def size_of(image: Any) -> tuple[int, int]:
    """Height and width."""
    if is_pil(image):
        return image.height, image.width
    return int(image.shape[-2]), int(image.shape[-1])


def channels_of(image: Any) -> int:
    """How many channels an image has."""
    if is_pil(image):
        return len(image.getbands())
    return int(image.shape[-3]) if image.ndim > 2 else 1


def get_image_size(img: Any) -> list[int]:
    """Width and height of an image."""
    check_image("get_image_size", img)
    height, width = size_of(img)
    return [width, height]


def get_dimensions(img: Any) -> list[int]:
    """Channels, height and width of an image."""
    check_image("get_dimensions", img)
    return [channels_of(img), *size_of(img)]


def on_array(tensor: Tensor, act: Callable[[Array], Array]) -> Tensor:
    """``act`` on the memory of a tensor; the result is a new tensor of the same dtype."""
    array = tensor.detach().numpy()
    return from_numpy(np.array(act(array), dtype=array.dtype, order="C"))


def on_planes(image: Any, act: Callable[[Any], Any]) -> Any:
    """``act`` on a Pillow image; on a tensor plane by plane, bytes as bytes, the rest as floats."""
    if is_pil(image):
        return act(image)
    array = image.detach().numpy()
    exact = array.dtype == np.uint8
    planes = array.reshape(-1, *array.shape[-2:]).astype(np.uint8 if exact else np.float32)
    done = [np.asarray(act(pil().fromarray(plane))) for plane in planes]
    made = np.stack(done) if done else planes
    if array.dtype.kind in "iu" and not exact:
        made = np.rint(made)
    return from_numpy(made.reshape(*array.shape[:-2], *made.shape[1:]).astype(array.dtype))


def pair(name: str, value: Any, what: str = "size") -> tuple[Any, Any]:
    """One number as two, or two as they are."""
    if isinstance(value, numbers.Number):
        return value, value
    if isinstance(value, Sequence) and len(value) == 1:
        return value[0], value[0]
    if isinstance(value, Sequence) and len(value) == 2:
        return value[0], value[1]
    raise ValueError(f"{name}: {what} should be one number or two, got {value!r}")


def fill_of(image: Any, fill: Any) -> Any:
    """``fill`` as Pillow wants it: a number for one channel, a tuple for several."""
    if fill is None or is_pil(image) is False:
        return 0 if fill is None else (fill if isinstance(fill, numbers.Number) else fill[0])
    count = channels_of(image)
    values = tuple(fill) if isinstance(fill, (tuple, list)) else (fill,) * count
    if len(values) not in (1, count):
        raise ValueError(f"fill has {len(values)} values, the image {count} channels")
    values = values * count if len(values) == 1 else values
    if image.mode != "F":
        values = tuple(int(v) for v in values)
    return values[0] if count == 1 else values
