"""The transforms every pipeline starts from, and those that hold others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphflow.ir.types import DType, float32
from graphflow.tensor import Tensor
from graphflow.vision.transforms import convert, draws
from graphflow.vision.transforms.stacks import Stack

Step = Callable[[Any], Any]


def of_stack(step: Step, images: Stack) -> Stack | None:
    """What ``step`` makes of every image of a stack; None if it takes them one by one.

    A step that can take a stack has a method ``of_stack``.  One that a subclass gave another
    ``__call__`` no longer speaks for it.
    """
    kind = type(step)
    if _owner(kind, "of_stack") is not _owner(kind, "__call__"):
        return None
    made: Stack | None = step.of_stack(images)  # type: ignore[attr-defined]
    return made


def _owner(kind: type, name: str) -> type | None:
    return next((base for base in kind.__mro__ if name in vars(base)), None)


class Compose:
    """Apply transforms one after another."""

    def __init__(self, transforms: Iterable[Step]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        """Transform one image."""
        for transform in self.transforms:
            image = transform(image)
        return image

    def of_stack(self, images: Stack) -> Stack | None:
        """Transform a stack of images, if every step can."""
        made: Stack | None = images
        for transform in self.transforms:
            if made is not None:
                made = of_stack(transform, made)
        return made

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform}" for transform in self.transforms)
        return f"{type(self).__name__}({lines}\n)"


class ToTensor:
    """An image as a float32 tensor ``[channels, height, width]``.

    Takes a Pillow image or a NumPy array ``[height, width]`` or ``[height,
    width, channels]``.  8-bit values 0 … 255 become 0 … 1; other dtypes keep
    their values and their dtype.
    """

    def __call__(self, image: Any) -> Tensor:
        """Convert one image."""
        return convert.to_tensor(image)

    def of_stack(self, images: Stack) -> Stack | None:
        """Convert a stack of images."""
        return None if images.converted else images.to_tensors()

    def __repr__(self) -> str:
        return "ToTensor()"


class PILToTensor:
    """A Pillow image as a tensor ``[channels, height, width]`` with unchanged values."""

    def __call__(self, image: Any) -> Tensor:
        """Convert one image."""
        return convert.pil_to_tensor(image)

    def __repr__(self) -> str:
        return "PILToTensor()"


class ConvertImageDtype:
    """Another dtype, with the values scaled: integers span their range, floats 0 … 1."""

    def __init__(self, dtype: DType = float32) -> None:
        self.dtype = dtype

    def __call__(self, image: Tensor) -> Tensor:
        """Convert one image or a batch."""
        return convert.convert_image_dtype(image, self.dtype)

    def __repr__(self) -> str:
        return f"ConvertImageDtype({self.dtype})"


class ToPILImage:
    """A tensor ``[channels, height, width]`` or an array ``[h, w, channels]`` as an image."""

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def __call__(self, image: Any) -> Any:
        """Convert one image."""
        return convert.to_pil_image(image, self.mode)

    def __repr__(self) -> str:
        return f"ToPILImage({self.mode or ''})"


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
        return convert.normalize(images, self.mean, self.std, self.inplace)

    def of_stack(self, images: Stack) -> Stack | None:
        """Normalise a stack of images."""
        if not images.converted:
            return None
        mean, std = (np.asarray(v, np.float64).tobytes() for v in (self.mean, self.std))
        return images.normalized(mean, std)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


class Lambda:
    """Any function as a transform."""

    def __init__(self, lambd: Step) -> None:
        if not callable(lambd):
            raise TypeError(f"Lambda takes a function, not {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, image: Any) -> Any:
        """Call the function."""
        return self.lambd(image)

    def __repr__(self) -> str:
        return f"Lambda({getattr(self.lambd, '__name__', self.lambd)})"


class RandomApply(Compose):
    """All of ``transforms`` with probability ``p``, else none."""

    def __init__(self, transforms: Iterable[Step], p: float = 0.5) -> None:
        super().__init__(transforms)
        self.p = p

    def __call__(self, image: Any) -> Any:
        """Transform one image, perhaps."""
        return super().__call__(image) if draws.chance(self.p) else image


class RandomChoice(Compose):
    """One of ``transforms``, drawn with probabilities ``p`` (equal ones by default)."""

    def __init__(self, transforms: Iterable[Step], p: Sequence[float] | None = None) -> None:
        super().__init__(transforms)
        if not self.transforms:
            raise ValueError("RandomChoice needs at least one transform")
        self.p = [1.0] * len(self.transforms) if p is None else list(p)
        if len(self.p) != len(self.transforms):
            raise ValueError(f"{len(self.p)} probabilities for {len(self.transforms)} transforms")

    def __call__(self, image: Any) -> Any:
        """Transform one image."""
        return self.transforms[draws.weighted(self.p)](image)


class RandomOrder(Compose):
    """All of ``transforms`` in random order."""

    def __call__(self, image: Any) -> Any:
        """Transform one image."""
        for position in draws.order(len(self.transforms)):
            image = self.transforms[position](image)
        return image
