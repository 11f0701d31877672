"""Images: datasets and transforms, placed as in torchvision."""

from graphflow.vision import datasets, transforms

__all__ = ["datasets", "transforms"]
