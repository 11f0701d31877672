"""Which modules are measured, and samples of those that the database has none of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.conformance.convert import shown

NAMES = """
Identity Linear Bilinear Flatten Unflatten Embedding EmbeddingBag
Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Fold Unfold
MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d MaxUnpool1d MaxUnpool2d
AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d
AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d LPPool1d LPPool2d
ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d
ZeroPad1d ZeroPad2d ZeroPad3d CircularPad1d CircularPad2d CircularPad3d
ConstantPad1d ConstantPad2d ConstantPad3d
Upsample UpsamplingNearest2d UpsamplingBilinear2d PixelShuffle PixelUnshuffle ChannelShuffle
BatchNorm1d BatchNorm2d BatchNorm3d LayerNorm GroupNorm
InstanceNorm1d InstanceNorm2d InstanceNorm3d RMSNorm LocalResponseNorm
Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout
Sigmoid Tanh ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Softplus Softsign
Hardtanh Hardswish Hardsigmoid Hardshrink Softshrink Tanhshrink Threshold GLU LogSigmoid
Softmax Softmax2d LogSoftmax Softmin CosineSimilarity PairwiseDistance
CrossEntropyLoss NLLLoss MSELoss L1Loss SmoothL1Loss HuberLoss BCELoss BCEWithLogitsLoss
KLDivLoss HingeEmbeddingLoss MultiMarginLoss MultiLabelMarginLoss MultiLabelSoftMarginLoss
SoftMarginLoss CosineEmbeddingLoss MarginRankingLoss TripletMarginLoss
RNN LSTM GRU RNNCell LSTMCell GRUCell
TripletMarginWithDistanceLoss PoissonNLLLoss GaussianNLLLoss CTCLoss
AdaptiveLogSoftmaxWithLoss
MultiheadAttention Transformer TransformerEncoder TransformerEncoderLayer TransformerDecoderLayer
""".split()


class Case:
    """One sample: constructor arguments, then a call's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.constructor = args, kwargs
        self.forward: tuple[Any, Any] = ((), {})

    def __str__(self) -> str:
        return f"({shown(self.constructor)})({shown(self.forward)})"

    def on(self, *args: Any) -> Case:
        """What the module is called with; a tuple of extents is drawn from a normal."""
        drawn = [
            torch.randn(a).requires_grad_() if isinstance(a, tuple) else a for a in args
        ]  # fmt: skip
        self.forward = tuple(drawn), {}
        return self


def _ints(*values: Any) -> torch.Tensor:
    return torch.tensor(values)


def own_cases() -> dict[str, list[Case]]:
    """Samples of the modules that PyTorch's database leaves out; dropout only where it is sure."""
    return {**_layers(), **_resampling(), **_losses(), **_dropouts()}


def _layers() -> dict[str, list[Case]]:
    pooled, places = nn.MaxPool2d(2, return_indices=True)(torch.randn(2, 3, 6, 8))
    pooled1, places1 = nn.MaxPool1d(2, return_indices=True)(torch.randn(2, 3, 8))
    return {
        "Identity": [Case().on((2, 3)), Case(54, unused=True).on((4,))],
        "Flatten": [Case().on((2, 3, 4)), Case(0, 1).on((2, 3, 4)), Case(2).on((2, 3, 4, 5))],
        "Unflatten": [Case(1, (2, 3)).on((4, 6)), Case(-1, torch.Size([3, 1, 2])).on((2, 6))],
        "EmbeddingBag": [
            Case(10, 3, mode=mode).on(_ints([1, 2, 4], [4, 3, 2])) for mode in ("sum", "mean")
        ] + [
            Case(10, 3, mode="max").on(_ints(1, 2, 4, 5, 4, 3, 2, 9), _ints(0, 4)),
            Case(10, 3, mode="sum", padding_idx=2, include_last_offset=True).on(
                _ints(1, 2, 4, 5, 4, 3, 2, 9), _ints(0, 4, 4, 8)
            ),
            Case(10, 3, max_norm=0.5).on(_ints([1, 2], [4, 3])),
        ],
        "Fold": [Case((4, 5), (2, 2)).on((2, 12, 12)),
                 Case((6, 6), 3, padding=1, stride=2).on((1, 18, 9))],
        "Unfold": [Case((2, 3)).on((2, 4, 4, 5)),
                   Case(2, dilation=2, padding=1, stride=2).on((1, 2, 5, 6))],
        "AdaptiveLogSoftmaxWithLoss": [
            Case(16, 20, [5, 10, 15]).on((6, 16), _ints(0, 5, 9, 19, 12, 3)),
            Case(16, 20, [7], div_value=2.0, head_bias=True).on((16,), torch.tensor(8)),
        ],
        "MaxUnpool1d": [Case(2).on(pooled1.detach(), places1),
                        Case(2).on(pooled1.detach(), places1, [2, 3, 9])],
        "MaxUnpool2d": [Case(2).on(pooled.detach(), places)],
    }  # fmt: skip


def _resampling() -> dict[str, list[Case]]:
    return {
        "Upsample": [
            Case(scale_factor=2).on((1, 2, 3)),
            Case(size=(5, 7)).on((2, 2, 3, 4)),
            Case(scale_factor=2, mode="bilinear").on((1, 2, 3, 4)),
            Case(scale_factor=(2.5, 1.5), mode="bilinear", align_corners=True).on((1, 2, 3, 4)),
            Case(scale_factor=2, mode="bicubic").on((1, 2, 4, 4)),
            Case(size=6, mode="linear").on((1, 2, 4)),
            Case(scale_factor=2, mode="trilinear").on((1, 1, 2, 3, 4)),
            Case(scale_factor=2).on((1, 1, 2, 3, 4)),
        ],
        "UpsamplingNearest2d": [Case(scale_factor=2).on((1, 2, 3, 4)),
                                Case((5, 5)).on((1, 2, 3, 4))],
        "UpsamplingBilinear2d": [Case(scale_factor=2).on((1, 2, 3, 4)),
                                 Case((5, 5)).on((1, 2, 3, 4))],
        "PixelShuffle": [Case(2).on((1, 8, 3, 4)), Case(3).on((9, 2, 2))],
        "PixelUnshuffle": [Case(2).on((1, 2, 4, 6)), Case(3).on((1, 6, 6))],
        "ChannelShuffle": [Case(2).on((1, 4, 2, 3)), Case(3).on((2, 6, 2, 2))],
        "Hardsigmoid": [Case().on((4, 5)), Case().on((3, 0))],
        "RReLU": [Case(0.2, 0.2).on((4, 5))],
    }  # fmt: skip


def _losses() -> dict[str, list[Case]]:
    return {
        "CosineSimilarity": [Case().on((3, 4), (3, 4)), Case(dim=0, eps=0.1).on((3, 4), (3, 4))],
        "PairwiseDistance": [Case().on((3, 4), (3, 4)), Case(1.0, keepdim=True).on((3, 4), (3, 4)),
                             Case(3.0, eps=0.01).on((4,), (4,))],
        "TripletMarginLoss": [
            Case().on((5, 4), (5, 4), (5, 4)),
            Case(margin=0.5, p=1.0, swap=True, reduction="none").on((5, 4), (5, 4), (5, 4)),
            Case(reduction="sum").on((4,), (4,), (4,)),
        ],
        "TripletMarginWithDistanceLoss": [
            Case().on((5, 4), (5, 4), (5, 4)),
            Case(distance_function=lambda a, b: (a - b).abs().sum(-1), swap=True).on(
                (5, 4), (5, 4), (5, 4)
            ),
        ],
    }  # fmt: skip


def _dropouts() -> dict[str, list[Case]]:
    cases = {}
    shapes = {"1d": (2, 3, 4), "2d": (2, 3, 4, 5), "3d": (2, 3, 2, 3, 4)}
    for name in NAMES:
        if "Dropout" in name:
            shape = shapes.get(name[-2:], (2, 3, 4))
            chances = (0.0,) if "Alpha" in name else (0.0, 1.0)
            cases[name] = [Case(p).on(shape) for p in chances]
    return cases
