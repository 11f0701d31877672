"""From images to tensors and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.functions.creation import from_numpy
from graphflow.ir.types import DType, float32
from graphflow.promotion import cast
from graphflow.tensor import Tensor
from graphflow.vision.pillow import is_pil, pil
from graphflow.vision.transforms.images import Array


def to_tensor(pic: Any) -> Tensor:
    """An image as a tensor ``[channels, height, width]``.

    Takes a Pillow image or a NumPy array ``[height, width]`` or ``[height,
    width, channels]``.  8-bit values 0 … 255 become float32 0 … 1; other
    dtypes keep their values and their dtype.
    """
    if isinstance(pic, Tensor):
        raise TypeError("ToTensor got a tensor already; it takes an image or a NumPy array")
    array = np.asarray(pic)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"ToTensor takes an image or a NumPy array, not {type(pic).__name__}")
    planes = _planes("ToTensor", array)
    if array.dtype == np.bool_ and is_pil(pic):  # black and white
        return from_numpy(np.ascontiguousarray(planes, dtype=np.float32))
    if planes.dtype == np.uint8:
        return from_numpy(np.ascontiguousarray(planes, dtype=np.float32) / np.float32(255))
    return from_numpy(_signed(np.array(planes, order="C")))


def _planes(name: str, array: Array) -> Array:
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{name} takes [height, width] or [height, width, channels]; "
            f"the shape is {list(array.shape)}"
        )
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _signed(array: Array) -> Array:
    """16-bit images are unsigned; tensors have no such dtype, so they become int32."""
    return array.astype(np.int32) if array.dtype == np.uint16 else array


def pil_to_tensor(pic: Any) -> Tensor:
    """A Pillow image as a tensor ``[channels, height, width]`` with unchanged values."""
    if not is_pil(pic):
        raise TypeError(f"PILToTensor takes a Pillow image, not {type(pic).__name__}")
    array = np.array(pic)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    return from_numpy(_signed(np.ascontiguousarray(_planes("PILToTensor", array))))


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """A tensor ``[channels, height, width]`` or an array ``[height, width, channels]`` as an image.

    Floating-point tensors 0 … 1 become bytes, unless ``mode`` is ``"F"``.
    """
    if isinstance(pic, Tensor):
        array = pic.detach().numpy()
        if array.ndim not in (2, 3):
            raise ValueError(f"ToPILImage takes 2 or 3 dimensions, got {list(array.shape)}")
        array = array[None] if array.ndim == 2 else array
        if array.dtype.kind == "f" and mode != "F":
            array = ((array * 255).astype(np.int64) & 255).astype(np.uint8)
        array = array.transpose(1, 2, 0)
    elif isinstance(pic, np.ndarray):
        array = pic[:, :, None] if pic.ndim == 2 else pic
        if array.ndim != 3:
            raise ValueError(f"ToPILImage takes 2 or 3 dimensions, got {list(pic.shape)}")
    else:
        raise TypeError(f"ToPILImage takes a tensor or an array, not {type(pic).__name__}")
    return _image(array, mode)


_MODES = {1: ("L",), 2: ("LA",), 3: ("RGB", "YCbCr", "HSV"), 4: ("RGBA", "CMYK", "RGBX")}
_SINGLE = {"uint8": "L", "int16": "I;16", "int32": "I", "float32": "F", "bool": "L"}


def _image(array: Array, mode: str | None) -> Any:
    count = array.shape[2]
    if count not in _MODES:
        raise ValueError(f"an image has 1 to 4 channels, not {count}")
    if count == 1:
        expected = _SINGLE.get(array.dtype.name)
        if expected is None:
            raise TypeError(f"ToPILImage cannot show {array.dtype} values")
        if mode is not None and mode != expected:
            raise ValueError(f"mode {mode!r} does not fit {array.dtype} values: {expected!r}")
        plane = array[:, :, 0]
        if array.dtype == np.bool_:
            plane = plane.astype(np.uint8) * np.uint8(255)
        elif array.dtype == np.int16:
            plane = plane.astype(np.uint16)
        return pil().fromarray(np.ascontiguousarray(plane))
    if array.dtype != np.uint8:
        raise TypeError(f"ToPILImage takes bytes for {count} channels, not {array.dtype}")
    if mode is not None and mode not in _MODES[count]:
        raise ValueError(f"mode {mode!r} does not have {count} channels: {_MODES[count]}")
    data = np.ascontiguousarray(array)
    size = (array.shape[1], array.shape[0])
    return pil().frombytes(mode or _MODES[count][0], size, data.tobytes())


def convert_image_dtype(image: Tensor, dtype: DType = float32) -> Tensor:
    """Another dtype, with the values scaled: integers span their range, floats 0 … 1."""
    if not isinstance(image, Tensor):
        raise TypeError(f"ConvertImageDtype takes a tensor, not {type(image).__name__}")
    source = image.dtype
    if source is dtype:
        return image
    if source.is_floating_point:
        if dtype.is_floating_point:
            return cast(image, dtype)
        if dtype.kind == "int" and dtype.itemsize >= (4 if source.itemsize <= 4 else 8):
            raise TypeError(f"{source.name} cannot hold all values of {dtype.name}")
        scaled = image.detach().numpy() * (_top(dtype) + 1.0 - 1e-3)
        return from_numpy(scaled.astype(dtype.numpy))
    if dtype.is_floating_point:
        scaled_down: Tensor = cast(image, dtype) / _top(source)
        return scaled_down
    high, low = _top(source), _top(dtype)
    array = image.detach().numpy()
    if high > low:
        return from_numpy((array // ((high + 1) // (low + 1))).astype(dtype.numpy))
    return from_numpy(array.astype(dtype.numpy) * dtype.numpy.type((low + 1) // (high + 1)))


def _top(dtype: DType) -> int:
    """The largest value of an integer dtype."""
    return 1 if dtype.kind == "bool" else int(np.iinfo(dtype.numpy).max)


def normalize(tensor: Tensor, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    """``(tensor - mean) / std``, channel by channel, of a ``[…, channels, h, w]`` tensor."""
    if not isinstance(tensor, Tensor):
        kind = type(tensor).__name__
        raise TypeError(f"Normalize takes a tensor, not {kind}; put ToTensor() before it")
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"Normalize takes a floating-point tensor, not {tensor.dtype}")
    if tensor.ndim < 3:
        raise ValueError(f"Normalize takes [..., channels, h, w], got {list(tensor.shape)}")
    centre, width = _per_channel(tensor, mean), _per_channel(tensor, std)
    if inplace:
        tensor.sub_(centre)
        tensor.div_(width)
        return tensor
    made: Tensor = (tensor - centre) / width
    return made


def _per_channel(images: Tensor, values: Any) -> Tensor:
    return from_numpy(channel_values(values, int(images.shape[-3]), images.dtype.numpy))


def channel_values(values: Any, channels: int, dtype: Any) -> Array:
    """One number a channel, for images ``[…, channels, h, w]``."""
    flat = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if flat.ndim != 1 or len(flat) not in (1, channels):
        raise ValueError(f"Normalize has {len(flat)} channels, the image {channels}")
    return flat.reshape(-1, 1, 1).astype(dtype)
