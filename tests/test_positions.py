"""Sinusoidal and rotary positions, against the formulas of their papers."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn


@pytest.mark.parametrize("width", [6, 5])
@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])
def test_waves_are_added(width: int, wrap) -> None:
    """PE[p, 2k] = sin(p / 10000^(2k/d)), PE[p, 2k+1] = cos(…) (Vaswani et al. 2017, 3.5)."""
    x = np.random.default_rng(1).standard_normal((4, 2, width)).astype(np.float32)
    d = width + width % 2
    expected = np.empty((4, width))
    for p in range(4):
        for k in range(width):
            angle = p / 10000 ** (k // 2 * 2 / d)
            expected[p, k] = np.cos(angle) if k % 2 else np.sin(angle)
    module = nn.PositionalEncoding(width, 0.0)
    found = wrap(module)(gf.tensor(x)).numpy()
    np.testing.assert_allclose(found, x + expected[:, None], rtol=1e-5, atol=1e-6)
    first = nn.PositionalEncoding(width, 0.0, batch_first=True)
    found = wrap(first)(gf.tensor(x.transpose(1, 0, 2).copy())).numpy()
    np.testing.assert_allclose(
        found.transpose(1, 0, 2), x + expected[:, None], rtol=1e-5, atol=1e-6
    )
    assert not module.state_dict()


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])
def test_pairs_are_rotated(interleaved: bool, wrap) -> None:
    """Pair k at position p, as a complex number, times exp(i p base^(-2k/d)) (Su et al. 2021)."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 5, 3, 8)).astype(np.float32)
    where = np.array([[3, 0, 1, 7, 7], [0, 1, 2, 3, 4]])
    module = nn.RotaryPositionalEmbeddings(8, 16, 100.0, interleaved=interleaved)
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :4], x[..., 4:])
    for positions, given in ((np.arange(5)[None], None), (where, gf.tensor(where))):
        angles = positions[..., None, None] * 100.0 ** (-2 * np.arange(4) / 8)
        z = (a + 1j * b) * np.exp(1j * angles)
        out = np.stack([z.real, z.imag], -1).reshape(x.shape)
        expected = out if interleaved else np.concatenate([z.real, z.imag], -1)
        found = wrap(lambda x, given=given: module(x, input_pos=given))(gf.tensor(x))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_products_of_rotated_vectors_depend_on_the_distance() -> None:
    gf.manual_seed(3)
    q, k = gf.randn(1, 1, 1, 4), gf.randn(1, 1, 1, 4)
    module = nn.RotaryPositionalEmbeddings(4)

    def product(i: int, j: int) -> float:
        turned = (module(x, input_pos=gf.tensor([p])) for x, p in ((q, i), (k, j)))
        a, b = turned
        return (a * b).sum().item()

    assert product(7, 3) == pytest.approx(product(104, 100), rel=1e-3, abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 5), rel=1e-3)


def test_gradients_go_through_the_rotation() -> None:
    x = gf.randn(1, 3, 2, 4, requires_grad=True)
    ct = gf.randn(1, 3, 2, 4)
    module = nn.RotaryPositionalEmbeddings(4)
    grad = gf.autograd.grad(module(x), x, ct)[0]
    # A rotation's transpose is its inverse: turning the gradient gives back the cotangent.
    np.testing.assert_allclose(module(grad).numpy(), ct.numpy(), rtol=1e-4, atol=1e-6)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="even"):
        nn.RotaryPositionalEmbeddings(3)
    with pytest.raises(gf.ShapeError, match="heads, 4"):
        nn.RotaryPositionalEmbeddings(4)(gf.zeros(1, 3, 2, 6))
    with pytest.raises(gf.ShapeError, match="up to 2 positions"):
        nn.RotaryPositionalEmbeddings(4, 2)(gf.zeros(1, 3, 2, 4))
    with pytest.raises(gf.ShapeError, match="up to 2 positions"):
        nn.PositionalEncoding(4, max_len=2)(gf.zeros(3, 1, 4))
