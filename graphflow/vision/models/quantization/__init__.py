"""Networks that are quantised, with torchvision's names: sums of branches are modules."""

from graphflow.vision.models.quantization.resnet import (
    QuantizableBasicBlock,
    QuantizableBottleneck,
    QuantizableResNet,
    resnet18,
    resnet50,
)

__all__ = [
    "QuantizableBasicBlock", "QuantizableBottleneck", "QuantizableResNet", "resnet18", "resnet50",
]  # fmt: skip
