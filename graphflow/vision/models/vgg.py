"""VGG networks (K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks", 2014)."""

from __future__ import annotations

from typing import Any

from graphflow import nn
from graphflow.tensor import Tensor
from graphflow.vision.models.weights import built, register, wanted

# Convolutions (their channels) and halvings (0), by the number of layers with weights.
_PLANS = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    13: (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, *(256,) * 3, 0, *(512,) * 3, 0, *(512,) * 3, 0),
    19: (64, 64, 0, 128, 128, 0, *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4, 0),
}


class VGG(nn.Module):
    """Convolutions (``features``), an average to 7×7, three linear layers."""

    def __init__(
        self,
        features: nn.Module,
        num_classes: int = 1000,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        if init_weights:
            self._reset()

    def _reset(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[n, num_classes]`` of images ``[n, 3, h, w]``."""
        pooled: Tensor = self.avgpool(self.features(x))
        scores: Tensor = self.classifier(pooled.flatten(1))
        return scores


def _features(plan: tuple[int, ...], batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in plan:
        if not width:
            layers.append(nn.MaxPool2d(2, stride=2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers)


def _vgg(
    depth: int, batch_norm: bool, pretrained: Any, progress: bool, weights: Any,
    options: dict[str, Any],
) -> VGG:  # fmt: skip
    if wanted(pretrained, weights) is not None:
        options["init_weights"] = False
    return built(
        lambda: VGG(_features(_PLANS[depth], batch_norm), **options),
        f"vgg{depth}{'_bn' if batch_norm else ''}",
        pretrained,
        weights,
        progress,
    )


@register
def vgg11(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-11; ``weights``: a file or an address with a checksum."""
    return _vgg(11, False, pretrained, progress, weights, options)


@register
def vgg11_bn(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-11 with batch normalisation; ``weights``: a file or an address with a checksum."""
    return _vgg(11, True, pretrained, progress, weights, options)


@register
def vgg13(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-13; ``weights``: a file or an address with a checksum."""
    return _vgg(13, False, pretrained, progress, weights, options)


@register
def vgg13_bn(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-13 with batch normalisation; ``weights``: a file or an address with a checksum."""
    return _vgg(13, True, pretrained, progress, weights, options)


@register
def vgg16(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-16; ``weights``: a file or an address with a checksum."""
    return _vgg(16, False, pretrained, progress, weights, options)


@register
def vgg16_bn(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-16 with batch normalisation; ``weights``: a file or an address with a checksum."""
    return _vgg(16, True, pretrained, progress, weights, options)


@register
def vgg19(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-19; ``weights``: a file or an address with a checksum."""
    return _vgg(19, False, pretrained, progress, weights, options)


@register
def vgg19_bn(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> VGG:
    """VGG-19 with batch normalisation; ``weights``: a file or an address with a checksum."""
    return _vgg(19, True, pretrained, progress, weights, options)
