"""Standardisation: its gradient against differences in float64, and how many passes it takes."""

from __future__ import annotations

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
