"""Standardisation: its gradient against differences in float64, and how many passes it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.codegen.build_schedule import build_schedule
from graphflow.errors import GraphError, ShapeError
from graphflow.ir.build import emit, input_node
from graphflow.ir.types import TensorType, float32
from graphflow.passes.pipeline import run_pipeline


def central_differences(function: Any, x: np.ndarray[Any, Any], step: float) -> Any:
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        high, low = x.copy(), x.copy()
        high[place] += step
        low[place] -= step
        found[place] = (function(high) - function(low)) / (2 * step)
    return found


@pytest.mark.parametrize(("shape", "axes"), [((3, 5), (1,)), ((2, 3, 4), (0, 2)), ((4, 1), (1,))])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_is_that_of_the_formula(
    shape: tuple[int, ...], axes: tuple[int, ...], compiled: bool
) -> None:
    seed = 5
    print("seed", seed)
    rng = np.random.default_rng(seed)
    x, weights = rng.standard_normal(shape), rng.standard_normal(shape)

    def loss(x: Any) -> Any:
        centred = x - x.mean(axes, keepdims=True)
        return (weights * centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-3)).sum()

    def gradient(x: Any) -> Any:
        x = x.detach().requires_grad_()
        (standardised(x, axes) * gf.tensor(weights)).sum().backward()
        return x.grad

    found = (gf.compile(gradient) if compiled else gradient)(gf.tensor(x)).numpy()
    np.testing.assert_allclose(found, central_differences(loss, x, 1e-6), rtol=1e-6, atol=1e-8)


def standardised(x: Any, axes: tuple[int, ...]) -> Any:
    from graphflow.dispatch import apply

    return apply("standardise", x, axes=axes, eps=1e-3)


def test_a_batch_norm_takes_two_passes_backward() -> None:
    norm = nn.BatchNorm2d(8)

    def step(x: Any, ct: Any) -> Any:
        x = x.detach().requires_grad_()
        (norm(x) * ct).sum().backward()
        return x.grad, norm.weight.grad, norm.bias.grad

    x = gf.randn(4, 8, 16, 16)
    fused = run_pipeline(gf.trace(step, x, gf.randn(4, 8, 16, 16)))[-1].graph
    calls = [s for s in build_schedule(fused, threads=2).steps if s.bytes > 4 * x.numel()]
    # Forward: mean, then variance.  Backward: all sums at once, then the gradient.
    assert len(calls) == 4, [c.kernel.name for c in calls]


def test_a_half_is_standardised_in_float32() -> None:
    x = gf.randn(3, 64) * 100
    found = F.layer_norm(x.to(gf.float16), (64,))
    np.testing.assert_allclose(
        found.numpy().astype(np.float32), F.layer_norm(x, (64,)).numpy(), atol=4e-3
    )


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"axes": (0, 0), "eps": 1e-5}, "different axes"),
        ({"axes": (2,), "eps": 1e-5}, "axis"),
        ({"axes": (0,), "eps": 1}, "float"),
    ],
)
def test_wrong_attributes_are_refused(attrs: dict[str, Any], message: str) -> None:
    x = input_node("x", TensorType(float32, (2, 3)))
    with pytest.raises((GraphError, ShapeError), match=message):
        emit("standardise", x, **attrs)


# ---- rows, whose mean and variance take one pass -----------------------------------------


def exact(x: np.ndarray[Any, Any], eps: float) -> np.ndarray[Any, Any]:
    centred = x.astype(np.float64)
    centred = centred - centred.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    found: np.ndarray[Any, Any] = centred / np.sqrt(variance + eps)
    return found


def rows_of_all_kinds(rng: np.random.Generator, extent: int) -> Iterator[np.ndarray[Any, Any]]:
    """Rows whose squares' mean says much, little or nothing of their variance."""
    for offset in (0, 0.5, *rng.uniform(0.9, 1.1, 20), 2, 10, 1e3, 1e4):
        yield rng.standard_normal(extent) + offset
    for share in (1, extent // 16, extent // 2, extent - extent // 16, extent - 1):
        for height in (3, 100, 1e6):
            yield rng.standard_normal(extent) + height * (np.arange(extent) < share)
    yield np.maximum(rng.standard_normal(extent), 0)
    yield np.exp(3 * rng.standard_normal(extent))
    yield 1e-3 * rng.standard_normal(extent)
    yield np.where(np.arange(extent) % 2, 1e3, -1e3) + rng.standard_normal(extent)
    yield np.linspace(0, 1, extent)


@pytest.mark.parametrize("extent", [8, 100, 1000, 4097])
def test_rows_are_as_exact_as_pytorchs(extent: int) -> None:
    """Errors of a row, relative to its largest number, are at most twice those of PyTorch and
    four roundings of the numbers that come in (which are as large as their mean)."""
    torch = pytest.importorskip("torch")
    norm = gf.compile(lambda x: F.layer_norm(x, (extent,), eps=1e-12))
    for seed in range(4):
        print("seed", seed)
        rng = np.random.default_rng(seed)
        x = np.stack([*rows_of_all_kinds(rng, extent)]).astype(np.float32)
        peer = torch.nn.functional.layer_norm(torch.from_numpy(x), (extent,), eps=1e-12)
        want = exact(x, 1e-12)
        ours, theirs = (
            np.abs(found - want).max(-1) / np.abs(want).max(-1)
            for found in (norm(gf.tensor(x)).numpy(), peer.numpy())
        )
        wide = x.astype(np.float64)
        bound = 2 * theirs + 2**-22 * (1 + np.abs(wide.mean(-1)) / wide.std(-1))
        assert (ours <= bound).all(), np.stack([ours, theirs])[:, ours > bound]


def test_rows_without_a_variance_and_rows_that_are_not_finite() -> None:
    extent = 300
    x = np.random.default_rng(3).standard_normal((14, extent)).astype(np.float32)
    x[0] = 0
    x[1], x[2], x[3] = 1, 0.1, 1e4
    x[4], x[5] = 2.0**63, 3e-39  # squares whose sum is too large, and too small
    x[6] *= np.float32(1e-42)
    x[7, 3], x[8, 0], x[9, 299] = np.nan, np.inf, -np.inf
    x[10], x[11, :] = np.inf, 1e30
    x[12] = np.where(np.arange(extent) % 2, 1.8e19, 1.7e19)
    found = gf.compile(lambda x: F.layer_norm(x, (extent,)))(gf.tensor(x)).numpy()
    assert np.isnan(found[7:11]).all()
    still = found[[0, 1, 4, 5, 6, 11]]
    assert (np.abs(still) < 1e-3).all(), np.abs(still).max(-1)
    assert (found[[0, 1]] == 0).all()
    # The mean of numbers that are all the same is off by its rounding, as in PyTorch.
    assert np.abs(found[2]).max() < 1e-5 and np.abs(found[3]).max() < 1
    np.testing.assert_allclose(found[12:], exact(x[12:], 1e-5), rtol=1e-5)


@pytest.mark.parametrize("far", [False, True])
def test_means_far_from_zero_take_a_pass_of_their_own(far: bool) -> None:
    """What is skipped shows in the numbers: the mean of squares alone would have no digits."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((6, 256))
    x[::2] += 3e3 if far else 0
    found = gf.compile(lambda x: F.group_norm(x, 2))(gf.tensor(x.astype(np.float32)))
    want = exact(x.astype(np.float32).reshape(6, 2, 128), 1e-5).reshape(6, 256)
    np.testing.assert_allclose(found.numpy(), want, atol=2e-3 if far else 1e-5)
