"""What the image datasets share: arrays of images and labels, and transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from graphflow.functions.creation import from_numpy
from graphflow.tensor import Tensor
from graphflow.utils.data import Dataset
from graphflow.vision.pillow import pil

Transform = Callable[[Any], Any]


class LabelledImages(Dataset[tuple[Any, Any]]):
    """Images in memory, each with a class.

    A sample is ``(image, class number)``: the image one of Pillow's, grey or of
    three colours, after ``transform`` and ``target_transform``.
    """

    classes: ClassVar[list[str]]

    data: Any
    """All images, ``uint8 [samples, height, width]`` (or ``[…, 3]``), untransformed."""
    targets: Any
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
        target: Any = int(_plain(self.targets)[index])
        image: Any = pil().fromarray(_plain(self.data)[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class number of every class name."""
        return {name: number for number, name in enumerate(self.classes)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(samples={len(self)}, transform={self.transform})"


def _plain(values: Any) -> Any:
    """A tensor as the array it is, which is quicker to index."""
    return values.numpy() if isinstance(values, Tensor) else values
