"""Image datasets, in torchvision's names and folder layout."""

from graphflow.vision.datasets.cifar import CIFAR10, CIFAR100
from graphflow.vision.datasets.digits import Digits
from graphflow.vision.datasets.fake import FakeData
from graphflow.vision.datasets.folder import DatasetFolder, ImageFolder
from graphflow.vision.datasets.mnist import KMNIST, MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "KMNIST",
    "MNIST",
    "DatasetFolder",
    "Digits",
    "FakeData",
    "FashionMNIST",
    "ImageFolder",
]
