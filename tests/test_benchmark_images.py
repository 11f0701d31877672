"""The convolution networks of the benchmark suite mean what they say."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from benchmarks.images import Digits, Residual
from benchmarks.systems import prepare
from benchmarks.workloads import WORKLOADS


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Benchmarks choose a thread count; put it back."""
    before = gf.get_num_threads()
    yield
    gf.set_num_threads(before)


SMALL = Digits("small", batch=3, image=9, channels=(2, 3), hidden=5, classes=4)


def convolved(x: Any, weight: Any) -> Any:
    """3×3 convolution with a border of zeros, in float64 by its definition."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.einsum("kbchw,ock->bohw", windows, weight.reshape(*weight.shape[:2], 9))


def pooled(x: Any) -> Any:
    """The largest of each 2×2, a last odd row left out."""
    height, width = (side // 2 for side in x.shape[2:])
    cut = x[:, :, : 2 * height, : 2 * width]
    return cut.reshape(*x.shape[:2], height, 2, width, 2).max((3, 5))


def test_digits() -> None:
    p = {name: value.astype(float) for name, value in SMALL.parameters().items()}
    x, classes = SMALL.data()
    for name in ("conv1", "conv2"):
        x = pooled(np.maximum(convolved(x, p[f"{name}.weight"]), 0))
    hidden = np.maximum(x.reshape(SMALL.batch, -1) @ p["hidden.weight"].T, 0)
    out = hidden @ p["head.weight"].T
    chosen = out[np.arange(SMALL.batch), classes]
    want = (np.log(np.exp(out).sum(1)) - chosen).mean()
    found = {}
    for system in ("eager", "static"):
        prepared = prepare(system, SMALL, 2)
        found[system] = [float(prepared.read(prepared.call())) for _ in range(3)]
    np.testing.assert_allclose(found["eager"][0], want, rtol=1e-5)
    np.testing.assert_allclose(found["static"], found["eager"], rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_residual_network_loads_its_parameters_and_runs(training: bool) -> None:
    small = Residual("small", batch=2, image=8, training=training)
    prepared = prepare("eager", small, 2)
    found = prepared.read(prepared.call())
    assert found.shape == (() if training else (2, 10)) and np.isfinite(found).all()


def test_floors_are_those_of_the_published_networks() -> None:
    # 0.557 G multiplications of ResNet-18 at 32 × 32, as its papers' tables have it (0.56 G).
    assert WORKLOADS["resnet18_infer"].flops / 2 == pytest.approx(0.557e9, rel=0.01)
    assert WORKLOADS["resnet18_train"].flops == pytest.approx(
        3 * 16 * WORKLOADS["resnet18_infer"].flops, rel=0.01
    )
    one, two, side = 9 * 32 * 28**2, 9 * 32 * 64 * 14**2, 64 * 7 * 7 * 128 + 1280
    assert WORKLOADS["cnn"].flops == 2 * 64 * (2 * one + 3 * (two + side))
