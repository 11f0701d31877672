"""Images: datasets, transforms and models, placed as in torchvision."""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.vision import datasets

if TYPE_CHECKING:
    from graphflow.vision import models, ops, transforms, utils
else:
    __getattr__ = importer(
        globals(),
        {
            "models": "graphflow.vision.models",
            "ops": "graphflow.vision.ops",
            "transforms": "graphflow.vision.transforms",
            "utils": "graphflow.vision.utils",
        },
    )

__all__ = ["datasets", "models", "ops", "transforms", "utils"]
