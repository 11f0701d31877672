"""Functions of integers that remember their scale: beside the functions of numbers.

Beside PyTorch's they are in ``python -m tests.conformance.quantised``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.nn import functional as F
from graphflow.nn.quantized import functional as Q

SEED = 3


def _numbers(*shape: int) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(SEED).standard_normal(shape).astype(np.float32))


def _weight(channels: bool, *shape: int) -> gf.Tensor:
    if not channels:
        return gf.quantize_per_tensor(_numbers(*shape), 0.02, 0, gf.qint8)
    scales = gf.linspace(0.01, 0.04, shape[0])
    return gf.quantize_per_channel(_numbers(*shape), scales, gf.zeros(shape[0]), 0, gf.qint8)


PRODUCTS: dict[str, Callable[[gf.Tensor, gf.Tensor, gf.Tensor, bool], Any]] = {
    "linear": lambda x, w, b, whole: Q.linear(x, w, b, 0.2, 100) if whole else F.linear(x, w, b),
    "conv1d": lambda x, w, b, whole: (
        Q.conv1d(x, w, b, 2, 1, scale=0.2, zero_point=100, dtype=x.dtype) if whole
        else F.conv1d(x, w, b, 2, 1)
    ),
    "conv2d": lambda x, w, b, whole: (
        Q.conv2d(x, w, b, 1, (1, 2), 2, 2, scale=0.2, zero_point=100, dtype=x.dtype) if whole
        else F.conv2d(x, w, b, 1, (1, 2), 2, 2)
    ),
}  # fmt: skip
SHAPES = {
    "linear": ((3, 12), (5, 12)),
    "conv1d": ((2, 4, 9), (5, 4, 3)),
    "conv2d": ((2, 4, 8, 9), (6, 2, 3, 3)),
}
SAME: dict[str, tuple[tuple[int, ...], Callable[[Any, gf.Tensor], Any]]] = {
    "max_pool1d": ((2, 3, 9), lambda f, x: f.max_pool1d(x, 3, 2, 1)),
    "max_pool2d": ((2, 3, 9, 8), lambda f, x: f.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
    "avg_pool2d": ((2, 3, 9, 8), lambda f, x: f.avg_pool2d(x, 3, 2, 1, True, False)),
    "avg_pool3d": ((2, 3, 4, 6, 4), lambda f, x: f.avg_pool3d(x, 2, padding=1)),
    "adaptive_avg_pool2d": ((2, 3, 8, 6), lambda f, x: f.adaptive_avg_pool2d(x, (2, 3))),
    "uneven": ((2, 3, 8, 7), lambda f, x: f.adaptive_avg_pool2d(x, 3)),
    "adaptive_avg_pool3d": ((3, 4, 6, 4), lambda f, x: f.adaptive_avg_pool3d(x, 1)),
    "clamp": ((4, 5), lambda f, x: (f.clamp if f is Q else gf.clamp)(x, -0.7, 1.1)),
    "hardtanh": ((4, 5), lambda f, x: f.hardtanh(x)),
    "threshold": ((4, 5), lambda f, x: f.threshold(x, 0.3, -0.4)),
    "leaky_relu": ((4, 5), lambda f, x: f.leaky_relu(x, 0.1)),
    "interpolate": ((2, 3, 4, 5), lambda f, x: f.interpolate(x, scale_factor=2)),
}
OTHERS: dict[str, Callable[[Any, gf.Tensor, tuple[Any, ...]], Any]] = {
    "leaky_relu": lambda f, x, own: f.leaky_relu(x, 0.1, False, *own),
    "hardswish": lambda f, x, own: f.hardswish(x, *own),
    "elu": lambda f, x, own: f.elu(x, *own) if f is Q else f.elu(x),
    "celu": lambda f, x, own: f.celu(x, *own) if f is Q else f.celu(x),
}


def _agrees(found: gf.Tensor, exact: gf.Tensor, scale: float, zero: int, dtype: Any) -> None:
    """The integers are those of the numbers, but for what is rounded the other way by a hair."""
    assert (found.q_scale(), found.q_zero_point(), found.dtype) == (scale, zero, dtype)
    wanted = gf.quantize_per_tensor(exact, scale, zero, dtype).numpy().astype(int)
    apart = np.abs(found.numpy().astype(int) - wanted)
    assert len(np.unique(wanted)) > 2
    assert apart.max() <= 1 and (apart > 0).mean() < 0.1


@pytest.mark.parametrize("dtype", ["quint8", "qint8"])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, channels: bool, dtype: str) -> None:
    kind = getattr(gf, dtype)
    x = gf.quantize_per_tensor(_numbers(*SHAPES[name][0]), 0.03, 20, kind)
    w, bias = _weight(channels, *SHAPES[name][1]), _numbers(SHAPES[name][1][0])
    exact = PRODUCTS[name](x.dequantize(), w.dequantize(), bias, False)
    _agrees(PRODUCTS[name](x, w, bias, True), exact, 0.2, 100, kind)


@pytest.mark.parametrize("dtype", ["quint8", "qint8"])
@pytest.mark.parametrize("case", SAME)
def test_functions_that_keep_the_range(case: str, dtype: str) -> None:
    shape, call = SAME[case]
    kind, numbers = getattr(gf, dtype), _numbers(*shape)
    x = gf.quantize_per_tensor(numbers, 0.03, 90, kind)
    found = call(Q, x)
    _agrees(found, call(F, x.dequantize()), 0.03, 90, kind)
    run = gf.compile(lambda v: call(Q, gf.quantize_per_tensor(v, 0.03, 90, kind)).dequantize())
    apart = np.abs(run(numbers).numpy() - found.dequantize().numpy())
    assert apart.max() < 0.031 and (apart > 1e-5).mean() < 0.1


@pytest.mark.parametrize("name", OTHERS)
def test_functions_that_round_to_a_range(name: str) -> None:
    x = gf.quantize_per_tensor(_numbers(6, 7), 0.03, 90, gf.quint8)
    _agrees(OTHERS[name](Q, x, (0.02, 70)), OTHERS[name](F, x.dequantize(), ()), 0.02, 70, gf.uint8)
    _agrees(Q.hardsigmoid(x), F.hardsigmoid(x.dequantize()), 1 / 256, 0, gf.uint8)


def test_what_integers_remember() -> None:
    x = gf.quantize_per_tensor(_numbers(2, 3), 0.5, 7, gf.quint8)
    assert x.is_quantized and not x.int_repr().is_quantized
    np.testing.assert_array_equal(x.int_repr().numpy(), x.numpy())
    np.testing.assert_array_equal(x.dequantize(), gf.dequantize_per_tensor(x, 0.5, 7))
    w = _weight(True, 4, 3)
    assert w.q_per_channel_axis() == 0 and w.q_per_channel_scales().shape == (4,)
    assert w.q_per_channel_zero_points().tolist() == [0] * 4
    assert gf.dequantize(gf.ones(2)).tolist() == [1, 1]
    for call in (w.q_scale, x.q_per_channel_scales):
        with pytest.raises(gf.GraphFlowError, match="was quantised by quantize_per_"):
            call()


def test_what_is_wrong_is_said() -> None:
    x = gf.quantize_per_tensor(_numbers(2, 3), 0.5, 7, gf.quint8)
    with pytest.raises(gf.GraphFlowError, match=r"clamp: no scale is known .*uint8"):
        Q.clamp(x + x, 0, 1)
    with pytest.raises(gf.GraphFlowError, match="zero points 0"):
        Q.linear(x, gf.quantize_per_tensor(_numbers(4, 3), 0.1, 1, gf.qint8))
    with pytest.raises(gf.GraphFlowError, match="weight must be int8"):
        Q.linear(x, gf.quantize_per_tensor(_numbers(4, 3), 0.1, 0, gf.quint8))
    with pytest.raises(gf.GraphFlowError, match="quantised per tensor"):
        Q.hardtanh(_weight(True, 4, 3))
    with pytest.raises(NotImplementedError, match="padding_mode"):
        Q.conv1d(x, x, None, padding_mode="reflect")
    with pytest.raises(NotImplementedError, match="return_indices"):
        Q.max_pool1d(x, 2, return_indices=True)
    with pytest.raises(NotImplementedError, match="mode 'area'"):
        Q.interpolate(x, 2, mode="area")
