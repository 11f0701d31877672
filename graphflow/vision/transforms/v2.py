"""Transforms by the names of torchvision's second version; each takes one image.

They are those of the first version, with what is new there.  ``MixUp`` and ``CutMix`` take a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.distributions import Beta
from graphflow.functions.creation import from_numpy
from graphflow.functions.repeating import roll
from graphflow.ir.types import DType
from graphflow.nn.functional import one_hot
from graphflow.promotion import cast
from graphflow.tensor import Tensor
from graphflow.vision.pillow import is_pil
from graphflow.vision.transforms import basic, convert, draws
from graphflow.vision.transforms.basic import (
    ConvertImageDtype,
    Lambda,
    Normalize,
    PILToTensor,
    RandomApply,
    RandomOrder,
    ToPILImage,
    ToTensor,
)
from graphflow.vision.transforms.colouring import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
)
from graphflow.vision.transforms.geometric import (
    CenterCrop,
    FiveCrop,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
    Shown,
    TenCrop,
)
from graphflow.vision.transforms.images import InterpolationMode

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "CutMix", "FiveCrop",
    "GaussianBlur", "Grayscale", "Identity", "InterpolationMode", "Lambda", "MixUp", "Normalize",
    "PILToTensor", "Pad", "RandomAffine", "RandomApply", "RandomChoice", "RandomCrop",
    "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert", "RandomOrder",
    "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize", "TenCrop", "ToDtype",
    "ToImage", "ToPILImage", "ToPureTensor", "ToTensor",
]  # fmt: skip


class Compose(basic.Compose):
    """Apply transforms one after another, to one image or to what a batch is made of."""

    def __call__(self, *inputs: Any) -> Any:
        """Several inputs, such as images and labels, are handed on together."""
        for transform in self.transforms:
            given = transform(*inputs)
            inputs = given if len(inputs) > 1 else (given,)
        return inputs if len(inputs) > 1 else inputs[0]


class RandomChoice(basic.RandomChoice):
    """One of ``transforms``, drawn with probabilities ``p``, of an image or of a batch."""

    def __call__(self, *inputs: Any) -> Any:
        """Several inputs, such as images and labels, are handed on together."""
        return self.transforms[draws.weighted(self.p)](*inputs)


class Identity(Shown):
    """What it is given."""

    def __call__(self, image: Any) -> Any:
        """The same image."""
        return image


ToPureTensor = Identity  # images are plain tensors here


class ToImage(Shown):
    """A Pillow image or an array ``[height, width, channels]`` as a tensor of the same values."""

    def __call__(self, image: Any) -> Tensor:
        """Convert one image; tensors stay as they are."""
        if isinstance(image, Tensor):
            return image
        if is_pil(image):
            return convert.pil_to_tensor(image)
        if not isinstance(image, np.ndarray):
            raise TypeError(f"ToImage takes an image or an array, not {type(image).__name__}")
        planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, -3)
        return from_numpy(np.array(planes, order="C"))


class ToDtype(Shown):
    """Another dtype; with ``scale`` integers span their range and floats 0 … 1."""

    def __init__(self, dtype: DType, scale: bool = False) -> None:
        if not isinstance(dtype, DType):
            raise TypeError(f"ToDtype takes one dtype for all tensors, not {dtype!r}")
        self.dtype, self.scale = dtype, scale

    def __call__(self, image: Any) -> Any:
        """Convert one image or a batch; what is no tensor stays as it is."""
        if not isinstance(image, Tensor):
            return image
        if self.scale:
            return convert.convert_image_dtype(image, self.dtype)
        return cast(image, self.dtype)


class _Mix(Shown):
    """Mixes a batch with itself, moved on by one, by a share that is drawn."""

    def __init__(self, *, alpha: float = 1.0, num_classes: int | None = None) -> None:
        if alpha <= 0:
            raise ValueError(f"{type(self).__name__}: alpha should be above 0, not {alpha}")
        self.alpha, self.num_classes = float(alpha), num_classes

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Images ``[N, C, H, W]`` and labels: numbers of classes, or ``[N, classes]``."""
        images, labels = inputs[0] if len(inputs) == 1 else inputs
        name = type(self).__name__
        if images.ndim != 4 or labels.ndim not in (1, 2) or len(labels) != len(images):
            raise ValueError(
                f"{name} takes a batch of images and as many labels, not {list(images.shape)} and "
                f"{list(labels.shape)}; call it on batches, in a collate_fn or after the loader"
            )
        if labels.ndim == 1:
            if self.num_classes is None:
                raise ValueError(f"{name}: labels that are numbers of classes need num_classes")
            labels = one_hot(labels, self.num_classes).float()
        share = float(Beta(self.alpha, self.alpha).sample())
        images, share = self.mixed(images, share)
        return images, labels * share + roll(labels, 1, 0) * (1 - share)

    def mixed(self, images: Tensor, share: float) -> tuple[Tensor, float]:
        """The images, and what of each is its own."""
        raise NotImplementedError


class MixUp(_Mix):
    """Zhang et al. (2018): weighted means of two images and of their labels."""

    def mixed(self, images: Tensor, share: float) -> tuple[Tensor, float]:
        """All pixels are means."""
        return images * share + roll(images, 1, 0) * (1 - share), share


class CutMix(_Mix):
    """Yun et al. (2019): a rectangle of one image in another, labels by their areas."""

    def mixed(self, images: Tensor, share: float) -> tuple[Tensor, float]:
        """A rectangle around a place drawn, cut at the edges."""
        height, width = images.shape[-2:]
        x, y = draws.integer(0, width), draws.integer(0, height)
        half = 0.5 * (1 - share) ** 0.5
        wide, high = int(half * width), int(half * height)
        left, right = max(x - wide, 0), min(x + wide, width)
        top, bottom = max(y - high, 0), min(y + high, height)
        made = images.clone()
        made[..., top:bottom, left:right] = roll(images, 1, 0)[..., top:bottom, left:right]
        return made, 1 - (right - left) * (bottom - top) / (width * height)
