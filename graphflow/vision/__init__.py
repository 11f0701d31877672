"""Images: datasets and transforms, placed as in torchvision."""

from graphflow.vision import datasets, transforms, utils

__all__ = ["datasets", "transforms", "utils"]
