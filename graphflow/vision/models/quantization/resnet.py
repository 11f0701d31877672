"""Residual networks whose sums are modules, so that shortcuts are stored as 8-bit integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow import nn
from graphflow.quantization.functional_modules import FloatFunctional
from graphflow.quantization.fuse import fuse_modules, fuse_modules_qat
from graphflow.quantization.layers import DeQuantStub, QuantStub
from graphflow.tensor import Tensor
from graphflow.vision.models.resnet import BasicBlock, Bottleneck, ResNet
from graphflow.vision.models.weights import built


def _folded(module: nn.Module, names: Sequence[list[str]], is_qat: bool | None) -> None:
    fold = fuse_modules_qat if is_qat else fuse_modules
    fold(module, names, inplace=True)


def _fold_shortcut(block: Any, is_qat: bool | None) -> None:
    if block.downsample is not None:
        _folded(block.downsample, [["0", "1"]], is_qat)


class QuantizableBasicBlock(BasicBlock):
    """:class:`BasicBlock` whose sum is the module ``add_relu``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_relu = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, as large as ``x`` divided by the stride."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.add_relu.add_relu(out, shortcut)

    def fuse_model(self, is_qat: bool | None = None) -> None:
        """Fold the norms into the convolutions before them."""
        _folded(self, [["conv1", "bn1", "relu"], ["conv2", "bn2"]], is_qat)
        _fold_shortcut(self, is_qat)


class QuantizableBottleneck(Bottleneck):
    """:class:`Bottleneck` whose sum is the module ``skip_add_relu``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_add_relu = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, as large as ``x`` divided by the stride."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.skip_add_relu.add_relu(out, shortcut)

    def fuse_model(self, is_qat: bool | None = None) -> None:
        """Fold the norms into the convolutions before them."""
        _folded(self, [["conv1", "bn1"], ["conv2", "bn2"], ["conv3", "bn3"]], is_qat)
        _fold_shortcut(self, is_qat)


class QuantizableResNet(ResNet):
    """:class:`ResNet` with stubs, of blocks that can be quantised."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quant, self.dequant = QuantStub(), DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[n, num_classes]`` of images ``[n, 3, h, w]``."""
        scores: Tensor = self.dequant(super().forward(self.quant(x)))
        return scores

    def fuse_model(self, is_qat: bool | None = None) -> None:
        """Fold every norm into the convolution before it; the model is in evaluation mode."""
        _folded(self, [["conv1", "bn1", "relu"]], is_qat)
        for module in self.modules():
            if isinstance(module, (QuantizableBasicBlock, QuantizableBottleneck)):
                module.fuse_model(is_qat)


def _resnet(
    name: str, block: Any, layers: Sequence[int], weights: Any, progress: bool, quantize: bool,
    options: dict[str, Any],
) -> QuantizableResNet:  # fmt: skip
    if quantize:
        raise ValueError(
            f"{name}: there are no quantised weights to be loaded; calibrate the model with "
            "samples (fuse_model, prepare, convert: see docs/quantization.md)"
        )
    return built(lambda: QuantizableResNet(block, layers, **options), name, None, weights, progress)


def resnet18(
    *, weights: Any = None, progress: bool = True, quantize: bool = False, **options: Any
) -> QuantizableResNet:
    """ResNet-18; ``weights``: a file or an address with a checksum, of numbers."""
    layers = (2, 2, 2, 2)
    return _resnet("resnet18", QuantizableBasicBlock, layers, weights, progress, quantize, options)


def resnet50(
    *, weights: Any = None, progress: bool = True, quantize: bool = False, **options: Any
) -> QuantizableResNet:
    """ResNet-50; ``weights``: a file or an address with a checksum, of numbers."""
    layers = (3, 4, 6, 3)
    return _resnet("resnet50", QuantizableBottleneck, layers, weights, progress, quantize, options)
