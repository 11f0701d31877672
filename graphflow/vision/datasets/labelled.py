"""What the image datasets share: arrays of images and labels, and transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from graphflow.functions.creation import from_numpy
from graphflow.tensor import Tensor
from graphflow.utils.data import Dataset

Transform = Callable[[Any], Any]


class LabelledImages(Dataset[tuple[Any, Any]]):
    """Grey images in memory, each with a class.

    A sample is ``(image, class number)``: the image a uint8 NumPy array
    ``[height, width]`` (what Pillow images are to torchvision), after
    ``transform`` and ``target_transform``.
    """

    classes: ClassVar[list[str]]

    data: Tensor
    """All images, ``uint8 [samples, height, width]``, untransformed."""
    targets: Tensor
    """All classes, ``int64 [samples]``."""

    def __init__(
        self,
        images: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        transform: Transform | None,
        target_transform: Transform | None,
    ) -> None:
        self.data = from_numpy(np.asarray(images, dtype=np.uint8))
        self.targets = from_numpy(labels.astype(np.int64))
        self.transform = transform
        self.target_transform = target_transform

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = self.data.numpy()[index]
        target: Any = int(self.targets.numpy()[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def __len__(self) -> int:
        return len(self.targets.numpy())

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class number of every class name."""
        return {name: number for number, name in enumerate(self.classes)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(samples={len(self)}, transform={self.transform})"
