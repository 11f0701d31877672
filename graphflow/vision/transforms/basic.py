"""The transforms every pipeline starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphflow.functions.creation import from_numpy, tensor
from graphflow.tensor import Tensor


class Compose:
    """Apply transforms one after another."""

    def __init__(self, transforms: Iterable[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        """Transform one image."""
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform}" for transform in self.transforms)
        return f"Compose({lines}\n)"


class ToTensor:
    """An image as a float32 tensor ``[channels, height, width]``.

    Takes a NumPy array ``[height, width]`` or ``[height, width, channels]``, or
    anything NumPy can read as one (a Pillow image).  8-bit values 0 … 255
    become 0 … 1; other dtypes keep their values and their dtype.
    """

    def __call__(self, image: Any) -> Tensor:
        """Convert one image."""
        if isinstance(image, Tensor):
            raise TypeError("ToTensor got a tensor already; it takes an image or a NumPy array")
        array = np.asarray(image)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"ToTensor takes an image or a NumPy array, not {type(image).__name__}")
        if array.ndim not in (2, 3):
            raise ValueError(
                "ToTensor takes [height, width] or [height, width, channels]; "
                f"the shape is {list(array.shape)}"
            )
        planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if planes.dtype == np.uint8:
            return from_numpy(np.ascontiguousarray(planes, dtype=np.float32) / np.float32(255))
        return from_numpy(np.array(planes, order="C"))

    def __repr__(self) -> str:
        return "ToTensor()"


class Normalize:
    """``(tensor - mean) / std``, channel by channel, of a ``[…, channels, h, w]`` tensor."""

    def __init__(
        self, mean: float | Sequence[float], std: float | Sequence[float], inplace: bool = False
    ) -> None:
        self.mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        self.std = np.atleast_1d(np.asarray(std, dtype=np.float64))
        self.inplace = inplace
        if self.mean.ndim != 1 or self.std.ndim != 1:
            raise ValueError("Normalize: mean and std are one number a channel")
        if not np.all(self.std > 0) or not np.all(np.isfinite(self.mean)):
            raise ValueError(f"Normalize: std {self.std.tolist()} should be positive, mean finite")

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise one image or a batch."""
        if not isinstance(images, Tensor):
            kind = type(images).__name__
            raise TypeError(f"Normalize takes a tensor, not {kind}; put ToTensor() before it")
        if not images.dtype.is_floating_point:
            raise TypeError(f"Normalize takes a floating-point tensor, not {images.dtype}")
        if images.ndim < 3:
            raise ValueError(f"Normalize takes [..., channels, h, w], got {list(images.shape)}")
        mean, std = self._planes(images, self.mean), self._planes(images, self.std)
        if self.inplace:
            images.sub_(mean)
            images.div_(std)
            return images
        made: Tensor = (images - mean) / std
        return made

    def _planes(self, images: Tensor, values: np.ndarray[Any, Any]) -> Tensor:
        channels = images.shape[-3]
        if len(values) not in (1, channels):
            raise ValueError(f"Normalize has {len(values)} channels, the image {channels}")
        return tensor(values.reshape(-1, 1, 1).tolist(), dtype=images.dtype)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


class Lambda:
    """Any function as a transform."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Lambda takes a function, not {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, image: Any) -> Any:
        """Call the function."""
        return self.lambd(image)

    def __repr__(self) -> str:
        return f"Lambda({getattr(self.lambd, '__name__', self.lambd)})"
