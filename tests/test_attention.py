"""Attention as functions, against NumPy in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F

Array = np.ndarray[Any, Any]


def attended(q: Array, k: Array, v: Array, bias: Any, scale: float | None = None) -> Array:
    """softmax(q kᵀ scale + bias) v, rows without any position 0."""
    scores = q @ np.swapaxes(k, -1, -2) * (scale or 1 / math.sqrt(q.shape[-1])) + bias
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(-1, keepdims=True))
        weights = np.nan_to_num(e / e.sum(-1, keepdims=True))
    return weights @ v


def operands(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(seed)
    print("seed", seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal"])
@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])
def test_scaled_dot_products(kind: str, wrap: Any) -> None:
    q, k, v = operands(1, (2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6))
    rng = np.random.default_rng(2)
    allowed = rng.random((5, 7)) < 0.6
    allowed[1] = False  # a row that may look nowhere
    number = rng.standard_normal((5, 7))
    mask = {"bool": gf.tensor(allowed), "float": gf.tensor(number)}.get(kind)
    bias = {
        "none": 0.0,
        "bool": np.where(allowed, 0.0, -np.inf),
        "float": number,
        "causal": np.where(np.tri(5, 7, dtype=bool), 0.0, -np.inf),
    }[kind]

    def run(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal", scale=0.3)

    found = wrap(run)(*map(gf.tensor, (q, k, v)))
    np.testing.assert_allclose(found.numpy(), attended(q, k, v, bias, 0.3), rtol=1e-10, atol=1e-12)


def test_a_row_without_positions_has_gradients_of_zero() -> None:
    q, k, v = (gf.tensor(x, requires_grad=True) for x in operands(3, (2, 4), (3, 4), (3, 4)))
    mask = gf.tensor([[True, False, True], [False, False, False]])
    out = F.scaled_dot_product_attention(q, k, v, mask)
    out.sum().backward()
    assert out[1].tolist() == [0.0] * 4 and q.grad[1].tolist() == [0.0] * 4
    assert all(bool(x.grad.isfinite().all()) for x in (q, k, v))


@pytest.mark.parametrize("heads", [None, 1, 4])
@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])
def test_heads_of_the_query_share_keys(heads: int | None, wrap: Any) -> None:
    q, k, v = operands(4, (3, 4, 5, 3), (3, 2, 6, 3), (3, 2, 6, 3))
    mask = np.random.default_rng(5).standard_normal((5, 6) if heads is None else (heads, 5, 6))
    given = tuple(gf.tensor(x, requires_grad=True) for x in (q, k, v))

    def run(*x: Any) -> Any:
        out = F.scaled_dot_product_attention(*x, gf.tensor(mask), enable_gqa=True)
        return out, gf.autograd.grad(out.square().sum(), x)

    found, grads = wrap(run)(*given)
    repeated = [gf.tensor(x.repeat(2, 1), requires_grad=True) for x in (k, v)]
    expected = attended(q, k.repeat(2, 1), v.repeat(2, 1), mask)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10)
    plain = F.scaled_dot_product_attention(given[0], *repeated, gf.tensor(mask))
    dq, *shared = gf.autograd.grad(plain.square().sum(), (given[0], *repeated))
    np.testing.assert_allclose(grads[0].numpy(), dq.numpy(), rtol=1e-9, atol=1e-12)
    for got, want in zip(grads[1:], shared, strict=True):
        whole = want.numpy().reshape(3, 2, 2, 6, 3).sum(2)
        np.testing.assert_allclose(got.numpy(), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("extra", [False, True])
def test_several_heads(masked: bool, extra: bool) -> None:
    length, source, batch, heads, width = 5, 7, 2, 3, 12
    q, k, v, weight, bias, out_weight, out_bias, more_k, more_v = operands(
        5, (length, batch, width), (source, batch, width), (source, batch, width),
        (3 * width, width), (3 * width,), (width, width), (width,), (1, 1, width), (1, 1, width),
    )  # fmt: skip
    closed = np.random.default_rng(6).random((batch, source)) < 0.3
    closed[:, 0] = False
    found, weights = F.multi_head_attention_forward(
        *map(gf.tensor, (q, k, v)), width, heads, gf.tensor(weight), gf.tensor(bias),
        gf.tensor(more_k) if extra else None, gf.tensor(more_v) if extra else None, extra, 0.0,
        gf.tensor(out_weight), gf.tensor(out_bias),
        key_padding_mask=gf.tensor(closed) if masked else None,
    )  # fmt: skip
    made = [x @ w.T + b for x, w, b in zip((q, k, v), np.split(weight, 3), np.split(bias, 3))]
    if extra:  # a learned position, then one of zeros
        for i, learned in ((1, more_k), (2, more_v)):
            last = np.repeat(learned, batch, 1)
            made[i] = np.concatenate([made[i], last, np.zeros_like(last)])
    part = [x.reshape(len(x), batch, heads, -1).transpose(1, 2, 0, 3) for x in made]
    shut = np.where(np.pad(closed, ((0, 0), (0, 2 * extra))), -np.inf, 0.0)[:, None, None]
    mixed = attended(*part, shut if masked else 0.0).transpose(2, 0, 1, 3)
    expected = mixed.reshape(length, batch, width) @ out_weight.T + out_bias
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    assert weights is not None and weights.shape == (batch, length, source + 2 * extra)
    np.testing.assert_allclose(weights.sum(-1).numpy(), 1.0, rtol=1e-12)


def test_mistakes() -> None:
    x = gf.zeros(2, 3)
    with pytest.raises(gf.GraphFlowError, match="not both"):
        F.scaled_dot_product_attention(x, x, x, gf.zeros(2, 2), is_causal=True)
    with pytest.raises(gf.ShapeError, match="two dimensions"):
        F.scaled_dot_product_attention(gf.zeros(3), x, x)
    with pytest.raises(gf.DTypeError, match="one dtype"):
        F.scaled_dot_product_attention(x, x.double(), x)
    with pytest.raises(gf.ShapeError, match="cannot share"):
        y = gf.zeros(2, 2, 3)
        F.scaled_dot_product_attention(gf.zeros(3, 2, 3), y, y, enable_gqa=True)


def test_scripts_may_choose_an_implementation() -> None:
    from graphflow.nn.attention import SDPBackend, sdpa_kernel

    x = gf.randn(3, 4)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
        inside = F.scaled_dot_product_attention(x, x, x)
    assert inside.tolist() == F.scaled_dot_product_attention(x, x, x).tolist()
    with pytest.raises(TypeError, match="SDPBackend"), sdpa_kernel("flash"):
        pass
    gf.backends.cuda.enable_flash_sdp(False)
    assert not gf.backends.cuda.flash_sdp_enabled() and gf.backends.cuda.math_sdp_enabled()
    gf.backends.cuda.enable_flash_sdp(True)
    assert gf.backends.mha.get_fastpath_enabled()
