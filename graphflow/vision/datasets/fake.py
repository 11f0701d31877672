"""Random images, for trying things out."""

from __future__ import annotations

from typing import Any

from graphflow.rng import Generator, randint, randn
from graphflow.utils.data import Dataset
from graphflow.vision.datasets.labelled import Transform
from graphflow.vision.transforms.functional import to_pil_image


class FakeData(Dataset[tuple[Any, Any]]):
    """``size`` images of noise; sample ``i`` depends on ``i`` and ``random_offset`` alone."""

    def __init__(
        self,
        size: int = 1000,
        image_size: tuple[int, ...] = (3, 224, 224),
        num_classes: int = 10,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        random_offset: int = 0,
    ) -> None:
        self.size, self.image_size, self.num_classes = size, tuple(image_size), num_classes
        self.transform, self.target_transform = transform, target_transform
        self.random_offset = random_offset

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} is out of range for {self.size} samples")
        source = Generator().manual_seed(index + self.random_offset)
        image: Any = to_pil_image(randn(self.image_size, generator=source))
        target: Any = int(randint(0, self.num_classes, (1,), generator=source).item())
        if self.transform is not None:
            image = self.transform(image)
        return image, target if self.target_transform is None else self.target_transform(target)

    def __len__(self) -> int:
        return self.size
