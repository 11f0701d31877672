"""Transforms of images, in torchvision's names: on Pillow images and on tensors.

Random ones draw from GraphFlow's default generator, so ``gf.manual_seed`` decides them.
"""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.vision.transforms import functional
from graphflow.vision.transforms.basic import (
    Compose,
    ConvertImageDtype,
    Lambda,
    Normalize,
    PILToTensor,
    RandomApply,
    RandomChoice,
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
    TenCrop,
)
from graphflow.vision.transforms.images import InterpolationMode

if TYPE_CHECKING:
    from graphflow.vision.transforms import v2
else:
    __getattr__ = importer(globals(), {"v2": "graphflow.vision.transforms.v2"})

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "FiveCrop", "GaussianBlur",
    "Grayscale", "InterpolationMode", "Lambda", "Normalize", "PILToTensor", "Pad",
    "RandomAffine", "RandomApply", "RandomChoice", "RandomCrop", "RandomErasing",
    "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert", "RandomOrder",
    "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize", "TenCrop",
    "ToPILImage", "ToTensor", "functional", "v2",
]  # fmt: skip
