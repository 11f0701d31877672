"""What is read in interleaving slices only is computed after them, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.passes.simplify import Simplify
from graphflow.passes.sliced import Sliced

SHAPE = (3, 4, 6)


def halves(x: Any) -> tuple[Any, Any]:
    pairs = x.reshape(3, 4, 3, 2)
    return pairs[..., 0], pairs[..., 1]


def largest(x: Any, w: Any) -> Any:
    a, b = halves(gf.relu(x * 2 + w))
    return gf.maximum(a, b)


def three_ways(x: Any, w: Any) -> Any:
    """By a slice of one row each, of the value itself, which is made of another one."""
    y = gf.exp(gf.tanh(x) + w)
    return y[:, 0] * y[:, 2] - y[:, 3]


def by_both(x: Any, w: Any) -> Any:
    """Two values over one another, each read in slices of its own and by the other."""
    y = gf.sin(x + w)
    z = y * y
    (a, b), (c, d) = halves(y), halves(z)
    return a + b * c - d


def overlapping(x: Any, w: Any) -> Any:
    y = gf.tanh(x + w)
    return y[:, 1] + y[:, :, 1, None].sum(1)


def whole_too(x: Any, w: Any) -> Any:
    y = gf.tanh(x + w)
    a, b = halves(y)
    return (a * b).sum() + y.sum()


def big_parts(x: Any, w: Any) -> Any:
    y = gf.tanh(x + w)
    return y[:, :2] * y[:, 2:]


def products(x: Any, w: Any) -> Any:
    """Slices that a product reads have to lie in memory."""
    y = gf.tanh(x + w)
    return y[0].T @ y[1]


MOVED: list[tuple[Callable[..., Any], int]] = [(largest, 3), (three_ways, 3), (by_both, 3)]
LEFT: list[Callable[..., Any]] = [overlapping, whole_too, big_parts, products]


def traced(function: Callable[..., Any]) -> Graph:
    specs = gf.TensorSpec(SHAPE, name="x"), gf.TensorSpec(SHAPE[2:], name="w")
    return Simplify().run(gf.trace(function, *specs))


def elements(graph: Graph) -> int:
    """How many elements all elementwise operations compute."""
    made = (n for n in graph.nodes if n.op.kind.value == "elementwise")
    return sum(int(n.tensor_type.numel) for n in made)


@pytest.mark.parametrize(("function", "count"), MOVED, ids=lambda f: getattr(f, "__name__", ""))
def test_values_are_made_of_slices(function: Callable[..., Any], count: int) -> None:
    graph = traced(function)
    after = Sliced().run(graph)
    full = [n for n in after.nodes if n.op.kind.value == "elementwise" and n.shape == SHAPE]
    assert not full and elements(after) <= elements(graph)
    before = [n for n in graph.nodes if n.op.kind.value == "elementwise" and n.shape == SHAPE]
    assert len(before) == count
    assert Sliced().run(after) is after
    rng = np.random.default_rng(5)
    given = [rng.standard_normal(s).astype(np.float32) for s in (SHAPE, SHAPE[2:])]
    (expected,), (found,) = (interpret(g, given).outputs for g in (graph, after))
    np.testing.assert_array_equal(found, expected)
    compiled = gf.compile(function)(*map(gf.tensor, given))
    np.testing.assert_allclose(compiled.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", LEFT, ids=lambda f: f.__name__)
def test_other_values_stay_as_they_are(function: Callable[..., Any]) -> None:
    graph = traced(function)
    assert Sliced().run(graph) is graph


def test_a_pooling_is_one_kernel_with_what_comes_before_it() -> None:
    def step(x: Any, weight: Any, bias: Any) -> Any:
        weight = weight.detach().requires_grad_()
        made = F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=1)), 2)
        return gf.autograd.grad((made * made).sum(), weight)[0]

    shapes = {"x": (2, 3, 8, 8), "weight": (16, 3, 3, 3), "bias": (16,)}
    program = gf.compile(gf.trace(step, *(gf.TensorSpec(s, name=n) for n, s in shapes.items())))
    fused = next(s.graph for s in program.stages() if s.name == "fuse")
    large = [n for n in fused.nodes if n.op.kind.value != "view" and "kind" in n.attrs]
    bodies = [n for g in large for n in g.attrs["body"].nodes]
    relus = [n.shape for n in bodies if n.op.name == "relu"]
    assert relus == [(2, 4, 4, 16)] * 4
