"""Image datasets, in torchvision's names and folder layout."""

from graphflow.vision.datasets.digits import Digits
from graphflow.vision.datasets.mnist import MNIST, FashionMNIST

__all__ = ["MNIST", "Digits", "FashionMNIST"]
