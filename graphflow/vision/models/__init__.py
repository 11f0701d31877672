"""Networks for images, with torchvision's names, parameters and shapes."""

from graphflow.vision.models.alexnet import AlexNet, alexnet
from graphflow.vision.models.inception import Inception3, InceptionOutputs, inception_v3
from graphflow.vision.models.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from graphflow.vision.models.vgg import (
    VGG,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
)
from graphflow.vision.models.weights import (
    WeightNames,
    get_model,
    list_models,
    weight_names,
)


def __getattr__(name: str) -> WeightNames:
    return weight_names(__name__, name)


__all__ = [
    "VGG", "AlexNet", "Inception3", "InceptionOutputs", "ResNet", "alexnet", "get_model",
    "inception_v3", "list_models", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16",
    "vgg16_bn", "vgg19", "vgg19_bn", "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip
