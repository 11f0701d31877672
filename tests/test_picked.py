"""Gradients of max pooling: what is picked, and what is cleared and summed before it is spread.

PyTorch is the oracle, in float64: its gradient goes to the first largest element, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.ir.graph import Graph
from graphflow.ir.types import TensorType
from graphflow.passes.picked import Picked
from graphflow.passes.pipeline import run_pipeline

torch = pytest.importorskip("torch")
Array = np.ndarray[Any, Any]

BEFORE: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda f, x: f.relu(x),
    "relu6": lambda f, x: f.relu6(x),
    "hardtanh": lambda f, x: f.hardtanh(x, -0.5, 1.5),
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.5),
    "nothing": lambda f, x: x,
    "two": lambda f, x: f.relu(f.hardtanh(x, -1.0, 2.0)),
}
AFTER: dict[str, Callable[[Any, Any, Any], Any]] = {
    "pool": lambda f, x, pooled: pooled,
    "read beside": lambda f, x, pooled: pooled * f.avg_pool2d(x, 2).sum(),
    "relu once more": lambda f, x, pooled: f.relu(pooled - 1),
}


def few_values(*shape: int, seed: int) -> Array:
    """Numbers with many ties, zeros and negative ones."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float64)


def layer(f: Any, x: Any, bias: Any, before: str, after: str, size: Any, ceil: bool) -> Any:
    made = BEFORE[before](f, x + bias.reshape(1, -1, 1, 1))
    return AFTER[after](f, made, f.max_pool2d(made, size, ceil_mode=ceil))


@pytest.mark.parametrize(
    ("before", "after", "extents", "size", "ceil"),
    [
        ("relu", "pool", (6, 8), 2, False), ("relu6", "pool", (7, 9), 2, False),
        ("hardtanh", "pool", (7, 9), (3, 2), True), ("leaky_relu", "pool", (6, 8), 2, False),
        ("nothing", "pool", (6, 8), (1, 4), False), ("two", "pool", (5, 6), (2, 3), False),
        ("relu", "read beside", (6, 8), 2, False), ("two", "relu once more", (7, 6), 2, False),
    ],
)  # fmt: skip
def test_gradients_are_those_of_pytorch(
    before: str, after: str, extents: tuple[int, int], size: Any, ceil: bool
) -> None:
    x, bias = few_values(2, 9, *extents, seed=1), few_values(9, seed=2)

    def step(x: Any, bias: Any, weights: Any) -> Any:
        x, bias = x.detach().requires_grad_(), bias.detach().requires_grad_()
        made = layer(F, x, bias, before, after, size, ceil)
        return made, *gf.autograd.grad(made, (x, bias), weights)

    theirs = [torch.tensor(a, requires_grad=True) for a in (x, bias)]
    expected = layer(torch.nn.functional, *theirs, before, after, size, ceil)
    weights = few_values(*expected.shape, seed=3)
    wanted = torch.autograd.grad(expected, theirs, torch.tensor(weights))
    given = [gf.tensor(a) for a in (x, bias, weights)]
    for found, right in zip(gf.compile(step)(*given), (expected.detach(), *wanted), strict=True):
        np.testing.assert_allclose(found.numpy(), right.numpy(), rtol=1e-12, atol=1e-12)


def test_a_nan_is_the_largest_and_has_no_gradient() -> None:
    x = few_values(1, 8, 4, 4, seed=4)
    x[0, 0, 0, 0] = x[0, 1, 1, 1] = np.nan

    @gf.compile
    def step(x: Any) -> Any:
        x = x.detach().requires_grad_()
        made = F.max_pool2d(F.relu(x), 2)
        return made, gf.autograd.grad(made.sum(), x)[0]

    made, gradient = (t.numpy() for t in step(gf.tensor(x)))
    expected = torch.nn.functional.max_pool2d(torch.tensor(x).relu(), 2).numpy()
    np.testing.assert_array_equal(made, expected)
    assert np.isnan(made).sum() == 2
    sums = gradient.reshape(1, 8, 2, 2, 2, 2).sum((3, 5))
    np.testing.assert_array_equal(sums, expected > 0)


def traced(step: Callable[..., Any], *shapes: tuple[int, ...]) -> Graph:
    return gf.trace(step, *(gf.TensorSpec(s, name=f"x{k}") for k, s in enumerate(shapes)))


def pooled_gradient(x: Any, bias: Any) -> Any:
    x, bias = x.detach().requires_grad_(), bias.detach().requires_grad_()
    made = F.max_pool2d(F.relu(x + bias.reshape(1, -1, 1, 1)), 2)
    return gf.autograd.grad((made * made).sum(), (x, bias))


@pytest.mark.parametrize("extents", [(8, 6), (9, 7)])
def test_nothing_as_large_as_the_image_is_cleared_or_summed(extents: tuple[int, int]) -> None:
    graph = traced(pooled_gradient, (2, 8, *extents), (8,))
    size = 2 * 8 * extents[0] * extents[1]
    assert summed(graph) >= size
    after = Picked().run(graph)
    assert summed(after) == 2 * 8 * 4 * 3
    masks = [n for n in after.nodes if n.op.name == "le" and n.tensor_type.numel == size]
    assert not masks
    assert Picked().run(after) is after


def summed(graph: Graph) -> Any:
    """Elements of the largest tensor that is summed up."""
    sizes = [n.inputs[0].tensor_type.numel for n in graph.nodes if n.op.name == "reduce_sum"]
    return max(sizes, default=0)


def test_what_another_value_clears_stays_where_it_is() -> None:
    def step(x: Any, other: Any) -> Any:
        x = x.detach().requires_grad_()
        made = F.max_pool2d(gf.where(other > 0, x, 0.0), 2)
        return gf.autograd.grad((made * made).sum(), x)[0]

    graph = traced(step, (2, 8, 4, 4), (2, 8, 4, 4))
    assert any(n.op.choice for n in graph.nodes)
    assert Picked().run(graph) is graph


def test_channels_stay_last_from_the_pooling_back() -> None:
    """The gradient is spread in the order that convolutions have, and by one kernel."""

    def step(x: Any, weight: Any) -> Any:
        weight = weight.detach().requires_grad_()
        made = F.max_pool2d(F.relu(F.conv2d(x, weight, padding=1)), 2)
        return gf.autograd.grad((made * made).sum(), weight)[0]

    fused = run_pipeline(traced(step, (2, 3, 8, 8), (16, 3, 3, 3)))[-1].graph
    made = [n for n in fused.nodes if isinstance(n.type, TensorType)]
    spread = [n for n in made if n.shape == (2, 4, 2, 4, 2, 16) and "body" in n.attrs]
    assert [n.dtype.short for n in spread] == ["f32"]
    assert all(n.dtype.short != "bool" for n in made)
