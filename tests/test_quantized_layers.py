"""Transposed convolutions and attention of 8-bit integers: beside those of rounded numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, quantization
from graphflow.quantization import arithmetic, transposed

SEED = 5


def _numbers(*shape: int, seed: int = SEED) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def _prepared(layer: nn.Module, backend: str) -> nn.Module:
    holder = nn.Sequential(layer).eval()
    holder.qconfig = quantization.get_default_qconfig(backend)
    return quantization.prepare(holder)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (2, 4, 9)),
    "2d": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), bias=False), (2, 4, 5, 6)
    ),
    "groups": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2), (2, 4, 5, 6)),
    "cut": (lambda: nn.ConvTranspose2d(3, 2, 2, 2, padding=2), (1, 3, 6, 5)),
    "3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2), (1, 2, 3, 4, 3)),
    "unbatched": (lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1), (3, 5, 6)),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["x86", "qnnpack"])
@pytest.mark.parametrize("case", CASES)
def test_transposed_convolutions(case: str, backend: str) -> None:
    """Equal to the layer of numbers whose weight and input are rounded in the same way."""
    make, shape = CASES[case]
    gf.manual_seed(SEED)
    layer, x = make(), _numbers(*shape)
    prepared = _prepared(layer, backend)
    prepared(x)
    made: Any = quantization.convert(prepared)[0]
    assert type(made) is getattr(nn.quantized, type(layer).__name__)
    assert made.weight_scale.ndim == (backend == "x86")
    exact = layer(x).detach().numpy()
    found = made(x).numpy()
    assert found.shape == exact.shape
    assert 0 < np.abs(found - exact).max() < 0.03 * np.abs(exact).max()
    if layer.groups == 1:  # turned twice is as it was
        layer.weight.data.copy_(transposed.turned(made.dequantized_weight(), 1))
        whole = arithmetic.rounded(x, made.scale, made.zero_point)
        np.testing.assert_allclose(found, layer(whole).detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(gf.compile(made)(x).numpy(), found, atol=1e-5)


def test_sizes_that_are_asked_for() -> None:
    layer, x = nn.ConvTranspose2d(3, 4, 3, 2, 1), _numbers(1, 3, 5, 6)
    prepared = _prepared(layer, "x86")
    prepared(x)
    made = quantization.convert(prepared)[0]
    assert made(x, output_size=(10, 12)).shape == (1, 4, 10, 12)
    with pytest.raises(ValueError, match="must be from"):
        made(x, output_size=(12, 12))


ATTENTIONS: dict[str, dict[str, Any]] = {
    "packed": {},
    "features of their own": {"kdim": 10, "vdim": 14, "batch_first": True},
    "more positions": {"add_bias_kv": True, "add_zero_attn": True, "bias": False},
}


@pytest.mark.parametrize("case", ATTENTIONS)
def test_attention(case: str) -> None:
    """Projections become layers, then integers; weights and masks are as before."""
    options = ATTENTIONS[case]
    gf.manual_seed(SEED)
    layer = nn.MultiheadAttention(16, 4, **options)
    if layer.in_proj_bias is not None:
        nn.init.normal_(layer.in_proj_bias)
    q = _numbers(5, 3, 16)
    k = _numbers(5, 3, layer.kdim, seed=1)
    v = _numbers(5, 3, layer.vdim, seed=2)
    length = 3 if layer.batch_first else 5
    mask = gf.triu(gf.ones(length, length), 1).bool()
    prepared: Any = _prepared(layer, "x86")
    exact, shown = (t.detach().numpy() for t in layer.eval()(q, k, v, attn_mask=mask))
    again, _ = prepared[0](q, k, v, attn_mask=mask)
    np.testing.assert_allclose(again.numpy(force=True), exact, atol=1e-5)
    made: Any = quantization.convert(prepared)[0]
    assert isinstance(made, nn.quantized.MultiheadAttention)
    for name in ("linear_Q", "linear_K", "linear_V", "out_proj"):
        assert isinstance(getattr(made, name), nn.quantized.Linear)
    found, weights = (t.detach().numpy() for t in made(q, k, v, attn_mask=mask))
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()
    np.testing.assert_allclose(weights, shown, atol=0.02)
    run = gf.compile(lambda q, k, v: made(q, k, v, need_weights=False, attn_mask=mask)[0])
    np.testing.assert_allclose(run(q, k, v).detach().numpy(), found, atol=0.02)


def test_what_is_not_configured_stays() -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.ConvTranspose1d(2, 2, 2)).eval()
    model.qconfig = None
    made = quantization.convert(quantization.prepare(model))
    assert [type(m) for m in made] == [nn.MultiheadAttention, nn.ConvTranspose1d]
