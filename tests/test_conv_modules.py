"""Layers of convolution, pooling and resizing: geometry, first values, spelling."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn

SPELLINGS = {
    nn.Conv1d(3, 4, 3): "Conv1d(3, 4, kernel_size=(3,), stride=(1,))",
    nn.Conv2d(4, 8, (3, 2), 2, (1, 0), 2, 2, False, "circular"): (
        "Conv2d(4, 8, kernel_size=(3, 2), stride=(2, 2), padding=(1, 0), dilation=(2, 2), "
        "groups=2, bias=False, padding_mode=circular)"
    ),
    nn.Conv2d(3, 4, 3, padding="same"): (
        "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=same)"
    ),
    nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1): (
        "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1))"
    ),
    nn.MaxPool2d((2, 3), ceil_mode=True): (
        "MaxPool2d(kernel_size=(2, 3), stride=(2, 3), padding=0, dilation=1, ceil_mode=True)"
    ),
    nn.MaxUnpool2d(2, 1, 1): "MaxUnpool2d(kernel_size=(2, 2), stride=(1, 1), padding=(1, 1))",
    nn.AvgPool2d(2, 1): "AvgPool2d(kernel_size=2, stride=1, padding=0)",
    nn.LPPool1d(2, 3): "LPPool1d(norm_type=2, kernel_size=3, stride=None, ceil_mode=False)",
    nn.AdaptiveAvgPool2d((None, 3)): "AdaptiveAvgPool2d(output_size=(None, 3))",
    nn.Upsample(scale_factor=2): "Upsample(scale_factor=2.0, mode='nearest')",
    nn.UpsamplingBilinear2d(size=4): "UpsamplingBilinear2d(size=4, mode='bilinear')",
    nn.Unfold(2): "Unfold(kernel_size=2, dilation=1, padding=0, stride=1)",
}


@pytest.mark.parametrize("layer", SPELLINGS, ids=lambda layer: type(layer).__name__)
def test_spelling(layer: nn.Module) -> None:
    assert repr(layer) == SPELLINGS[layer]


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")],
)
def test_padding_modes(mode: str, numpy_mode: str) -> None:
    layer = nn.Conv2d(2, 3, (3, 2), padding=(1, 2), padding_mode=mode)
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 5)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (2, 2)], numpy_mode)  # type: ignore[call-overload]
    expected = F.conv2d(gf.tensor(padded), layer.weight, layer.bias)
    found = layer(gf.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)


def test_first_values_are_uniform_in_the_fan_in() -> None:
    gf.manual_seed(0)
    layer = nn.Conv2d(8, 64, 5, groups=2)
    assert layer.weight.shape == (64, 4, 5, 5)
    bound = 1 / np.sqrt(4 * 25)
    for parameter in (layer.weight, layer.bias):
        values = parameter.detach().numpy()
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.8 * bound
    assert layer.weight.detach().numpy().std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_the_size_of_a_transposed_result() -> None:
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2)
    x = gf.zeros(1, 2, 4, 5)
    assert layer(x).shape == (1, 3, 9, 11)
    assert layer(x, output_size=(10, 12)).shape == (1, 3, 10, 12)
    with pytest.raises(ValueError, match="output_size"):
        layer(x, output_size=(11, 12))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), "padding_mode"),
        (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), "same"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), "padding_mode"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size"),
    ],
)
def test_what_cannot_be_made(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]


def test_pooling_there_and_back() -> None:
    pool, back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    x = gf.tensor(np.arange(16.0).reshape(1, 1, 4, 4))
    restored = back(*pool(x)).numpy()[0, 0]
    assert restored[1::2, 1::2].tolist() == [[5.0, 7.0], [13.0, 15.0]]
    assert restored.sum() == 40.0
    assert nn.Fold((4, 4), 2, stride=2)(nn.Unfold(2, stride=2)(x)).numpy().tolist() == (
        x.numpy().tolist()
    )
