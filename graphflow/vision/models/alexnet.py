"""AlexNet, in its one-column form (A. Krizhevsky, "One weird trick …", 2014)."""

from __future__ import annotations

from typing import Any

from graphflow import nn
from graphflow.tensor import Tensor
from graphflow.vision.models.weights import built, register


class AlexNet(nn.Module):
    """Five convolutions, an average to 6×6, three linear layers."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[n, num_classes]`` of images ``[n, 3, h, w]``."""
        pooled: Tensor = self.avgpool(self.features(x))
        scores: Tensor = self.classifier(pooled.flatten(1))
        return scores


@register
def alexnet(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> AlexNet:
    """AlexNet; ``weights``: a file or an address with a checksum."""
    return built(lambda: AlexNet(**options), "alexnet", pretrained, weights, progress)
