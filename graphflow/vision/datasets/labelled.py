"""What the image datasets share: arrays of images and labels, and transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import numpy as np

from graphflow.functions.creation import from_numpy
from graphflow.tensor import Tensor
from graphflow.utils.data import Dataset, default_collate
from graphflow.vision.pillow import pil
from graphflow.vision.transforms.basic import of_stack
from graphflow.vision.transforms.stacks import Stack

Transform = Callable[[Any], Any]

SMALL = 1 << 18
"""Elements of batches that are made several at once: larger ones are most of their own cost."""


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

    def __getbatch__(self, indices: Sequence[int]) -> list[Any] | None:
        """The batch of these samples as ``default_collate`` makes it, all images at once.

        None where that would not be the same: a transform that takes (or draws for) one image
        at a time, or a subclass that makes its samples otherwise.
        """
        stack = self._stack(np.asarray(indices, np.int64))
        return None if stack is None else [stack.tensor(), self._labels(stack.rows)]

    def __getbatches__(self, groups: Sequence[Sequence[int]]) -> list[list[Any]] | None:
        """A batch of each of ``groups``, all at once; None where that is not quicker."""
        stack = self._stack(np.concatenate(groups))
        if stack is None or stack.size > SMALL * len(groups) or not stack.often():
            return None
        images, bounds = stack.tensor().numpy(), [0, *accumulate(map(len, groups))]
        places = [slice(*ends) for ends in pairwise(bounds)]
        if self.target_transform is not None:
            labels = [self._labels(stack.rows[place]) for place in places]
        else:
            taken = self._labels(stack.rows).numpy()
            labels = [from_numpy(taken[place]) for place in places]
        return [[from_numpy(images[p]), own] for p, own in zip(places, labels, strict=True)]

    def _stack(self, rows: np.ndarray[Any, Any]) -> Stack | None:
        """These images with the transform taken down, if it takes whole stacks."""
        images = _plain(self.data)
        own = type(self).__getitem__ is LabelledImages.__getitem__
        if not own or self.transform is None or not _are_images(images):
            return None
        stack = of_stack(self.transform, Stack(images, rows))
        return stack if stack is not None and stack.converted else None

    def _labels(self, rows: np.ndarray[Any, Any]) -> Any:
        targets = _plain(self.targets)
        if self.target_transform is not None:
            return default_collate([self.target_transform(int(targets[row])) for row in rows])
        return from_numpy(np.asarray(targets, np.int64).take(rows))

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class number of every class name."""
        return {name: number for number, name in enumerate(self.classes)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(samples={len(self)}, transform={self.transform})"


def _are_images(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.ndim in (3, 4)


def _plain(values: Any) -> Any:
    """A tensor as the array it is, which is quicker to index."""
    return values._host() if isinstance(values, Tensor) else values
