"""Transforms: from an image to the tensor a model wants."""

from graphflow.vision.transforms.basic import Compose, Lambda, Normalize, ToTensor

__all__ = ["Compose", "Lambda", "Normalize", "ToTensor"]
