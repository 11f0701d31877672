"""Attention whose scores and mask are functions of positions, against sums written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import ShapeError
from graphflow.nn.attention import flex_attention as flex

DRAW = np.random.default_rng(20261130)
Q, K, V = (DRAW.standard_normal(s) for s in ((2, 4, 5, 3), (2, 2, 6, 3), (2, 2, 6, 2)))
SLOPES, ROWS, COLUMNS = (DRAW.standard_normal(s) for s in ((4,), (5, 3), (6, 3)))
DOCUMENT = np.array([0, 0, 1, 1, 2, 2])


def score_mod(score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
    """A soft cap, a slope for each head, a product of vectors, a number for each entry."""
    slopes, rows, columns = map(gf.tensor, (SLOPES, ROWS, COLUMNS))
    return (score / 2).tanh() * 2 + slopes[h] * (q - kv) + (rows[q] * columns[kv]).sum() + b * 0.5


def causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return q >= kv


def document(b: Any, h: Any, q: Any, kv: Any) -> Any:
    numbers = gf.tensor(DOCUMENT)
    return numbers[q] == numbers[kv]


def other_head(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (h != 1) | (q != 3)


def formula(scored: bool, masked: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The result and the logarithms of sums, one query after another."""
    out, lse = np.zeros((2, 4, 5, 2)), np.full((2, 4, 5), -np.inf)
    for b, h, q in np.ndindex(2, 4, 5):
        terms = {}
        for kv in range(6):
            if masked and not (q >= kv and DOCUMENT[q] == DOCUMENT[kv] and (h != 1 or q != 3)):
                continue
            score = Q[b, h, q] @ K[b, h // 2, kv] / np.sqrt(3)
            if scored:
                score = np.tanh(score / 2) * 2 + SLOPES[h] * (q - kv)
                score += ROWS[q] @ COLUMNS[kv] + b * 0.5
            terms[kv] = np.exp(score)
        if terms:
            lse[b, h, q] = np.log(sum(terms.values()))
            parts = [t * V[b, h // 2, kv] for kv, t in terms.items()]
            out[b, h, q] = sum(parts) / sum(terms.values())
    return out, lse


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize(("scored", "masked"), [(True, True), (True, False), (False, True)])
def test_every_score_is_its_own(jit: Callable[[Any], Any], scored: bool, masked: bool) -> None:
    mask_mod = flex.and_masks(causal, document, other_head)
    mask = flex.create_block_mask(mask_mod, None, 4, 5, 6) if masked else None
    attend = jit(flex.flex_attention)
    q, k, v = (gf.tensor(x, requires_grad=True) for x in (Q, K, V))
    options: dict[str, Any] = {"block_mask": mask, "enable_gqa": True}
    if scored:
        options["score_mod"] = score_mod
    out, lse = attend(q, k, v, return_lse=True, **options)
    want, logs = formula(scored, masked)
    np.testing.assert_allclose(out.detach().numpy(), want, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(lse.detach().numpy(), logs, rtol=1e-5)
    np.testing.assert_allclose(attend(q, k, v, **options).detach().numpy(), want, 1e-6, 1e-9)
    out.square().sum().backward()
    step = 1e-5
    for tensor, array in ((q, Q), (k, K), (v, V)):
        at = (1, 1, 2, 1)
        ends = []
        before = array[at]
        for move in (step, -step):
            array[at] = before + move
            ends.append((formula(scored, masked)[0] ** 2).sum())
        array[at] = before
        assert tensor.grad is not None and gf.isfinite(tensor.grad).all()
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(tensor.grad[at].item(), slope, rtol=1e-4, atol=1e-7)


def test_masks_are_truths_and_combine() -> None:
    made = flex.create_mask(flex.or_masks(causal, document), 1, None, 3, 4)
    rows, columns = np.mgrid[:3, :4]
    want = (rows >= columns) | (DOCUMENT[rows] == DOCUMENT[columns])
    assert made.dtype is gf.bool and np.array_equal(made.numpy(), want[None, None])
    assert flex.create_mask(flex.noop_mask, None, None, 2, 2).all()
    block = flex.create_block_mask(causal, None, None, 3, 4)
    assert block.shape == (1, 1, 3, 4) and block.seq_lengths == (3, 4)
    asked = flex.AuxRequest(lse=True)
    q = gf.tensor(Q)
    _, aux = flex.flex_attention(q, q, q, return_aux=asked)
    assert aux.max_scores is None and aux.lse.shape == (2, 4, 5)


def test_what_does_not_fit_is_said() -> None:
    q, k, v = map(gf.tensor, (Q, K, V))
    with pytest.raises(ShapeError, match="4 heads of the query and 2 of the key; enable_gqa"):
        flex.flex_attention(q, k, v)
    mask = flex.create_block_mask(causal, None, None, 5, 5)
    with pytest.raises(ShapeError, match=r"a mask for \[1, 1, 5, 5\] does not fit"):
        flex.flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
    with pytest.raises(RuntimeError, match="at least one"):
        flex.and_masks()
