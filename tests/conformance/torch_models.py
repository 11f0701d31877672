"""PyTorch's side of the models: residual networks with the parameter names of checkpoints."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Convolutions ``(inputs, outputs, size, stride)``, each normalised, beside a shortcut."""

    def __init__(self, convolutions: list[tuple[int, int, int, int]]) -> None:
        super().__init__()
        self.count = len(convolutions)
        for i, (inputs, outputs, size, stride) in enumerate(convolutions, 1):
            conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        first, last = convolutions[0][0], convolutions[-1][1]
        stride = max(stride for *_, stride in convolutions)
        self.downsample = None
        if stride != 1 or first != last:
            shortcut = nn.Conv2d(first, last, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(last))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's result, as large as ``x`` divided by the stride."""
        out = x
        for i in range(1, self.count + 1):
            out = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(out))
            if i < self.count:
                out = out.relu()
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


def _shallow(inputs: int, width: int, stride: int) -> Block:
    return Block([(inputs, width, 3, stride), (width, width, 3, 1)])


def _deep(inputs: int, width: int, stride: int) -> Block:
    return Block([(inputs, width, 1, 1), (width, width, 3, stride), (width, width * 4, 1, 1)])


class ResNet(nn.Module):
    """A residual network: ``layers`` blocks a stage, of two convolutions, or three if ``deep``."""

    def __init__(self, layers: tuple[int, ...], deep: bool, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = 64
        for stage, count in enumerate(layers):
            width, blocks = 64 << stage, []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append((_deep if deep else _shallow)(inputs, width, stride))
                inputs = width * 4 if deep else width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(layers)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores [n, classes] of images [n, 3, h, w]."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def resnet18(classes: int) -> ResNet:
    """ResNet-18."""
    return ResNet((2, 2, 2, 2), False, classes)


def resnet50(classes: int) -> ResNet:
    """ResNet-50, the stride of a block in its 3x3 convolution."""
    return ResNet((3, 4, 6, 3), True, classes)
