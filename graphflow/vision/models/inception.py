"""Inception v3 (C. Szegedy et al., "Rethinking the Inception Architecture", 2015)."""

from __future__ import annotations

from typing import Any

import graphflow.nn.functional as F
from graphflow import nn
from graphflow.functions.shaping import cat
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor
from graphflow.vision.models.weights import built, read_weights, register, wanted

Kernel = int | tuple[int, int]


class InceptionOutputs(NamedTuple):
    """What the network gives in training: class scores, and those of the side branch."""

    logits: Tensor
    aux_logits: Tensor | None


class BasicConv2d(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, out_channels, h, w]``."""
        return F.relu(self.bn(self.conv(x)))


class Step(NamedTuple):
    """A convolution of a branch; it keeps the size unless its stride is 2."""

    name: str
    channels: int
    kernel: Kernel
    stride: int = 1

    def made(self, inputs: int) -> BasicConv2d:
        """The layer for ``inputs`` channels."""
        tall, wide = (self.kernel,) * 2 if isinstance(self.kernel, int) else self.kernel
        padding = (tall // 2, wide // 2) if self.stride == 1 else 0
        return BasicConv2d(
            inputs, self.channels, kernel_size=self.kernel, stride=self.stride, padding=padding
        )


Branch = list["Step | tuple[Step, ...]"]


class Mixed(nn.Module):
    """Branches side by side on one input, joined by channels.

    ``pooled``: the convolutions behind an average over 3×3; None for a maximum
    of stride 2 instead.  Steps in a tuple see the same input and are joined.
    """

    def __init__(self, inputs: int, branches: list[Branch], pooled: Step | None) -> None:
        super().__init__()
        self._plan: list[list[tuple[str, ...]]] = []
        for branch in branches:
            channels, names = inputs, []
            for step in branch:
                parts = step if isinstance(step, tuple) and not isinstance(step, Step) else (step,)
                for part in parts:
                    assert isinstance(part, Step)
                    self.add_module(part.name, part.made(channels))
                names.append(tuple(part.name for part in parts))
                channels = sum(part.channels for part in parts)
            self._plan.append(names)
        self.averaged = pooled is not None
        if pooled is not None:
            self.add_module(pooled.name, pooled.made(inputs))
            self.pool: nn.Module = nn.AvgPool2d(3, stride=1, padding=1)
        else:
            self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """The branches' results, joined."""
        results = []
        for branch in self._plan:
            out = x
            for names in branch:
                parts = [getattr(self, name)(out) for name in names]
                out = parts[0] if len(parts) == 1 else cat(parts, 1)
            results.append(out)
        pooled = self.pool(x)
        results.append(self.branch_pool(pooled) if self.averaged else pooled)
        return cat(results, 1)


def _chain(prefix: str, *steps: tuple[Any, ...]) -> Branch:
    """Steps called ``prefix_1``, ``prefix_2``, …"""
    return [Step(f"{prefix}_{n}", *step) for n, step in enumerate(steps, 1)]


def mixed_a(inputs: int, pool_features: int) -> Mixed:
    """35×35: 1×1, 5×5, twice 3×3."""
    branches: list[Branch] = [
        [Step("branch1x1", 64, 1)],
        _chain("branch5x5", (48, 1), (64, 5)),
        _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3)),
    ]
    return Mixed(inputs, branches, Step("branch_pool", pool_features, 1))


def mixed_b(inputs: int) -> Mixed:
    """35×35 to 17×17."""
    branches: list[Branch] = [
        [Step("branch3x3", 384, 3, 2)],
        _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3, 2)),
    ]
    return Mixed(inputs, branches, None)


def mixed_c(inputs: int, channels: int) -> Mixed:
    """17×17: 7×7 as 1×7 and 7×1, once and twice."""
    row, column = (1, 7), (7, 1)
    c = channels
    branches: list[Branch] = [
        [Step("branch1x1", 192, 1)],
        _chain("branch7x7", (c, 1), (c, row), (192, column)),
        _chain("branch7x7dbl", (c, 1), (c, column), (c, row), (c, column), (192, row)),
    ]
    return Mixed(inputs, branches, Step("branch_pool", 192, 1))


def mixed_d(inputs: int) -> Mixed:
    """17×17 to 8×8."""
    branches: list[Branch] = [
        _chain("branch3x3", (192, 1), (320, 3, 2)),
        _chain("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)),
    ]
    return Mixed(inputs, branches, None)


def mixed_e(inputs: int) -> Mixed:
    """8×8: 3×3 as 1×3 beside 3×1."""

    def fork(prefix: str) -> tuple[Step, ...]:
        return Step(f"{prefix}a", 384, (1, 3)), Step(f"{prefix}b", 384, (3, 1))

    branches: list[Branch] = [
        [Step("branch1x1", 320, 1)],
        [Step("branch3x3_1", 384, 1), fork("branch3x3_2")],
        [*_chain("branch3x3dbl", (448, 1), (384, 3)), fork("branch3x3dbl_3")],
    ]
    return Mixed(inputs, branches, Step("branch_pool", 192, 1))


class InceptionAux(nn.Module):
    """The side branch, whose loss helps the lower layers in training."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.conv0 = BasicConv2d(in_channels, 128, kernel_size=1)
        self.conv1 = BasicConv2d(128, 768, kernel_size=5)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[n, num_classes]`` of ``[n, channels, 17, 17]``."""
        x = self.avgpool(self.conv1(self.conv0(self.pool(x))))
        scores: Tensor = self.fc(x.flatten(1))
        return scores


class Inception3(nn.Module):
    """Inception v3, for images of 299×299 (75×75 at least).

    ``transform_input`` takes images normalised as for the other networks of this
    package.  With ``aux_logits`` training gives :class:`InceptionOutputs`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.aux_logits, self.transform_input = aux_logits, transform_input
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            mixed_a(inputs, pooled) for inputs, pooled in ((192, 32), (256, 64), (288, 64))
        )
        self.Mixed_6a = mixed_b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (
            mixed_c(768, channels) for channels in (128, 160, 160, 192)
        )
        self.AuxLogits = InceptionAux(768, num_classes) if aux_logits else None
        self.Mixed_7a = mixed_d(768)
        self.Mixed_7b, self.Mixed_7c = mixed_e(1280), mixed_e(2048)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        if init_weights:
            self._reset()

    def _reset(self) -> None:
        narrow = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                std = narrow.get(name, 0.1)
                nn.init.trunc_normal_(module.weight, mean=0.0, std=std, a=-2, b=2)

    def _normalised(self, x: Tensor) -> Tensor:
        """From means (0.485, …) and deviations (0.229, …) to 0.5 and 0.5 for all channels."""
        planes = []
        for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
            planes.append(x[:, channel : channel + 1] * (std / 0.5) + (mean - 0.5) / 0.5)
        return cat(planes, 1)

    def forward(self, x: Tensor) -> Any:
        """Class scores ``[n, num_classes]`` of images ``[n, 3, h, w]``."""
        if self.transform_input:
            x = self._normalised(x)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        aux = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        scores = self.fc(self.dropout(self.avgpool(x)).flatten(1))
        return InceptionOutputs(scores, aux) if self.training and self.aux_logits else scores


@register
def inception_v3(
    pretrained: Any = None, progress: bool = True, *, weights: Any = None, **options: Any
) -> Inception3:
    """Inception v3; ``weights``: a file or an address with a checksum."""
    chosen = wanted(pretrained, weights)
    if chosen is None:
        return Inception3(**options)
    state = read_weights("inception_v3", chosen, progress)
    options = {"transform_input": True, "init_weights": False, **options}
    if not options.get("aux_logits", True):
        state = {name: value for name, value in state.items() if not name.startswith("AuxLogits.")}
    return built(lambda: Inception3(**options), "inception_v3", None, state)
