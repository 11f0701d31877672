"""Residual networks, with the wide and the grouped ones.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
2015 (the stride of a bottleneck is in its 3×3 convolution); S. Zagoruyko, N.
Komodakis, "Wide Residual Networks", 2016; S. Xie et al., "Aggregated Residual
Transformations for Deep Neural Networks", 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from graphflow import nn
from graphflow.tensor import Tensor
from graphflow.vision.models.weights import built, register

Norm = Callable[[int], nn.Module]


def conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> Any:
    """A 3×3 convolution that keeps the size (but for its stride)."""
    return nn.Conv2d(
        inputs, outputs, 3, stride, padding=dilation, groups=groups, dilation=dilation, bias=False
    )


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> Any:
    """A 1×1 convolution."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        if groups != 1 or base_width != 64 or dilation != 1:
            raise ValueError("BasicBlock has no groups, other widths or dilation; use Bottleneck")
        norm = norm_layer or nn.BatchNorm2d
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = norm(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, as large as ``x`` divided by the stride."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        made: Tensor = self.relu(out + shortcut)
        return made


class Bottleneck(nn.Module):
    """Narrow by 1×1, 3×3, widen by 1×1, beside a shortcut."""

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = conv1x1(inplanes, width)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, stride, groups, dilation)
        self.bn2 = norm(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, as large as ``x`` divided by the stride."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        made: Tensor = self.relu(out + shortcut)
        return made


class ResNet(nn.Module):
    """A stem, four stages of ``block``, an average, a linear layer.

    ``layers``: blocks a stage.  ``zero_init_residual`` starts every block as the
    identity.  ``replace_stride_with_dilation``: for stages 2 to 4, keep the size
    and spread the convolutions instead.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        dilated = list(replace_stride_with_dilation or (False, False, False))
        if len(dilated) != 3:
            raise ValueError(f"replace_stride_with_dilation needs 3 entries, got {dilated}")
        self.inplanes, self.dilation = 64, 1
        self.groups, self.base_width = groups, width_per_group
        self._norm = norm_layer or nn.BatchNorm2d
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(block, 64, layers[0])
        self.layer2 = self._stage(block, 128, layers[1], 2, dilated[0])
        self.layer3 = self._stage(block, 256, layers[2], 2, dilated[1])
        self.layer4 = self._stage(block, 512, layers[3], 2, dilated[2])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        self._reset(zero_init_residual)

    def _reset(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in self.modules():
                last = getattr(module, "bn3", None) or getattr(module, "bn2", None)
                if isinstance(module, (BasicBlock, Bottleneck)) and last is not None:
                    nn.init.zeros_(last.weight)

    def _stage(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        planes: int,
        count: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        first_dilation = self.dilation
        if dilate:
            self.dilation, stride = self.dilation * stride, 1
        outputs = planes * block.expansion
        shortcut = None
        if stride != 1 or self.inplanes != outputs:
            shortcut = nn.Sequential(conv1x1(self.inplanes, outputs, stride), self._norm(outputs))
        groups, width, norm = self.groups, self.base_width, self._norm
        blocks: list[nn.Module] = [
            block(self.inplanes, planes, stride, shortcut, groups, width, first_dilation, norm)
        ]
        self.inplanes = outputs
        for _ in range(1, count):
            blocks.append(block(outputs, planes, 1, None, groups, width, self.dilation, norm))
        return nn.Sequential(*blocks)

    def features(self, x: Tensor) -> Tensor:
        """What the linear layer sees of images ``[n, 3, h, w]``: ``[n, features]``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled: Tensor = self.avgpool(x).flatten(1)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[n, num_classes]`` of images ``[n, 3, h, w]``."""
        scores: Tensor = self.fc(self.features(x))
        return scores


def _resnet(
    name: str, block: Any, layers: Sequence[int], pretrained: Any, progress: bool, weights: Any,
    options: dict[str, Any],
) -> ResNet:  # fmt: skip
    return built(lambda: ResNet(block, layers, **options), name, pretrained, weights, progress)


@register
def resnet18(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> ResNet:
    """ResNet-18; ``weights``: a file or an address with a checksum."""
    return _resnet("resnet18", BasicBlock, (2, 2, 2, 2), pretrained, progress, weights, options)


@register
def resnet34(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> ResNet:
    """ResNet-34; ``weights``: a file or an address with a checksum."""
    return _resnet("resnet34", BasicBlock, (3, 4, 6, 3), pretrained, progress, weights, options)


@register
def resnet50(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> ResNet:
    """ResNet-50; ``weights``: a file or an address with a checksum."""
    return _resnet("resnet50", Bottleneck, (3, 4, 6, 3), pretrained, progress, weights, options)


@register
def resnet101(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> ResNet:
    """ResNet-101; ``weights``: a file or an address with a checksum."""
    return _resnet("resnet101", Bottleneck, (3, 4, 23, 3), pretrained, progress, weights, options)


@register
def resnet152(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> ResNet:
    """ResNet-152; ``weights``: a file or an address with a checksum."""
    return _resnet("resnet152", Bottleneck, (3, 8, 36, 3), pretrained, progress, weights, options)


@register
def wide_resnet50_2(**options: Any) -> ResNet:
    """ResNet-50 with bottlenecks twice as wide."""
    return resnet50(**{"width_per_group": 128, **options})


@register
def wide_resnet101_2(**options: Any) -> ResNet:
    """ResNet-101 with bottlenecks twice as wide."""
    return resnet101(**{"width_per_group": 128, **options})


@register
def resnext50_32x4d(**options: Any) -> ResNet:
    """ResNet-50 with 32 groups of 4 channels."""
    return resnet50(**{"groups": 32, "width_per_group": 4, **options})


@register
def resnext101_32x8d(**options: Any) -> ResNet:
    """ResNet-101 with 32 groups of 8 channels."""
    return resnet101(**{"groups": 32, "width_per_group": 8, **options})
