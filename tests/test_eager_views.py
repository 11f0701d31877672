"""Cotangents of views that show a part: written in place, and never where somebody looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf

RNG = np.random.default_rng(20261201)
X = RNG.standard_normal((6, 8))


def parts(x: gf.Tensor) -> list[gf.Tensor]:
    """Overlapping, strided and single parts, some of views."""
    a, b = x.chunk(2, 1)
    return [a * 2.0, b.sin(), x[1:5] * x[2:6], x[::2, 1::3].exp(), x[3] * 3.0, x.t()[2:4].cos(),
            x.diagonal().tanh(), x.reshape(-1)[5:40:7] * 0.5, x * 0.25]  # fmt: skip


def gradient(x: np.ndarray[Any, Any], inner: bool) -> np.ndarray[Any, Any]:
    """Of the sum of all parts; of a leaf, or of what was made of one."""
    leaf = gf.from_numpy(x.copy()).requires_grad_()
    whole = leaf * 1.0 if inner else leaf
    gf.stack([part.sum() for part in parts(whole)]).sum().backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


def test_against_finite_differences() -> None:
    """The gradient of everything at once."""
    found = gradient(X, inner=True)
    np.testing.assert_array_equal(found, gradient(X, inner=False))
    step = 1e-6

    def value(x: np.ndarray[Any, Any]) -> float:
        return float(sum(part.sum() for part in parts(gf.from_numpy(x))))

    for _ in range(20):
        way = RNG.standard_normal(X.shape)
        slope = (value(X + step * way) - value(X - step * way)) / (2 * step)
        np.testing.assert_allclose((found * way).sum(), slope, rtol=1e-7)


def test_elements_that_are_shown_twice() -> None:
    """Overlapping windows, of fewer elements than there are, by any view."""
    ways = (lambda y: y.as_strided((3, 2), (1, 1)), lambda y: y.unfold(0, 3, 1)[:2],
            lambda y: y.as_strided((2, 2), (2, 2), 1))  # fmt: skip
    wants = [1, 2, 2, 1, 0, 0], [1, 2, 2, 1, 0, 0], [0, 1, 0, 2, 0, 1]
    for way, want in zip(ways, wants, strict=True):
        leaf = gf.zeros(20, requires_grad=True)
        way(leaf * 1.0).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad[:6].tolist() == want and leaf.grad[6:].sum() == 0


def test_second_derivatives() -> None:
    """With create_graph the rules of the views record their own histories."""
    x = gf.from_numpy(X[:2, :4].copy()).requires_grad_()
    assert gf.autograd.gradgradcheck(lambda x: (x * 1.0)[:, 1:3].exp() * x[:, :2], x)


def test_hooks_see_what_they_are_given() -> None:
    """A hook's gradient, a retained one and one that was captured stay as they were."""
    leaf = gf.from_numpy(X.copy()).requires_grad_()
    whole = leaf * 1.0
    whole.retain_grad()
    part = whole[:, :4]
    part.retain_grad()
    seen: list[gf.Tensor] = []
    whole.register_hook(seen.append)
    part.register_hook(seen.append)
    (part[0] + part[1]).sum().backward()
    want = np.zeros_like(X)
    want[:2, :4] = 1.0
    assert [g.shape for g in seen] == [(6, 4), (6, 8)]
    np.testing.assert_array_equal(seen[0].numpy(), want[:, :4])
    np.testing.assert_array_equal(seen[1].numpy(), want)
    assert part.grad is not None and whole.grad is not None and leaf.grad is not None
    np.testing.assert_array_equal(part.grad.numpy(), want[:, :4])
    leaf.grad.add_(5.0)
    np.testing.assert_array_equal(whole.grad.numpy(), want)


def test_the_users_cotangent_is_not_written_to() -> None:
    """What is added to a part is not added to what came from outside."""
    leaf = gf.from_numpy(X.copy()).requires_grad_()
    whole = leaf * 1.0
    given = gf.ones(6, 8, dtype=gf.float64)
    gf.autograd.backward([whole, whole[2:4]], [given, gf.full((2, 8), 3.0, dtype=gf.float64)])
    np.testing.assert_array_equal(given.numpy(), np.ones((6, 8)))
    assert leaf.grad is not None
    want = np.ones((6, 8))
    want[2:4] += 3.0
    np.testing.assert_array_equal(leaf.grad.numpy(), want)


def test_twice_backward_is_refused() -> None:
    """Saved values are freed as without parts."""
    whole = gf.from_numpy(X.copy()).requires_grad_() * 1.0
    loss = whole[1:].sum()
    loss.backward()
    with pytest.raises(gf.GraphFlowError, match="second time"):
        loss.backward()


def test_a_view_of_what_was_changed_in_place_is_recorded_once() -> None:
    leaf = gf.from_numpy(X.copy()).requires_grad_()
    whole = leaf * 1.0
    whole[0] = 2.0
    view = whole[1:, 2:][0]
    recorded = view._grad_fn
    assert recorded is not None and view.grad_fn is recorded
    whole[1] = leaf[0] * 3.0
    assert view.grad_fn is not recorded
    view.sum().backward()
    want = np.zeros((6, 8))
    want[0, 2:] = 3.0
    assert leaf.grad is not None
    np.testing.assert_array_equal(leaf.grad.numpy(), want)
