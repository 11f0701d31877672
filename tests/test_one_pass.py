"""Sums of squared differences from a mean are sums over the elements, where that is as good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.passes.one_pass import LEAST, OnePass
from graphflow.passes.pipeline import PIPELINE, PORTABLE, run_pipeline

Function = Callable[..., Any]


def around(function: Function, *operands: gf.Tensor) -> tuple[Graph, Graph]:
    """The graph before the pass, and after it."""
    stages = run_pipeline(gf.trace(function, *operands), PORTABLE)
    number = next(n for n, stage in enumerate(stages) if stage.name == "one_pass")
    return stages[number - 1].graph, stages[number].graph


def sums(graph: Graph) -> int:
    return sum(node.op.name == "reduce_sum" for node in graph.nodes)


def variance(x: Any) -> Any:
    centred = x - x.mean(0, keepdim=True)
    return (centred * centred).mean(0)


def columns(kind: str) -> np.ndarray:
    """Columns of which each is far from zero, or not, in its own way."""
    x = np.random.default_rng(7).standard_normal((400, 12))
    offsets = np.array([0, 0.5, 1, 1.9, 2.1, 4, 30, 1e3, -1e3, 1e4, -3, 0.1])
    if kind == "scaled":
        x *= 10.0 ** np.arange(-6, 6)
    elif kind == "an outlier":
        x[3] += 1e4
    elif kind == "constant":
        x *= 0
    elif kind == "steps":
        x = np.repeat(x[:4], 100, 0)
    elif kind == "large":
        x *= 1e18
        offsets *= 1e18
    return np.asarray(x + offsets, np.float32)


@pytest.mark.parametrize("kind", ["usual", "scaled", "an outlier", "constant", "steps", "large"])
def test_variances_stay_as_exact(kind: str) -> None:
    print("seed 7")
    x = columns(kind)
    before, after = around(variance, gf.tensor(x))
    assert sums(after) == sums(before) + 1
    wide = x.astype(np.float64)
    expected = wide.var(0)
    (twice,), (found,) = (interpret(graph, [x]).outputs for graph in (before, after))
    errors, before_it = (np.abs(v - expected) / (expected + 1e-30) for v in (found, twice))
    rounding = 1e-6  # of a sum of 400, one after the other
    assert (errors <= 9 * (before_it + rounding)).all(), (kind, errors, before_it)
    if kind == "constant":
        np.testing.assert_array_equal(found, twice)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e25])
def test_what_is_not_finite_stays(bad: float) -> None:
    x = columns("usual")
    x[5, 2] = bad
    with np.errstate(all="ignore"):
        (twice,), (found,) = (
            interpret(graph, [x]).outputs for graph in around(variance, gf.tensor(x))
        )
    np.testing.assert_array_equal(found[2], twice[2])
    np.testing.assert_allclose(np.delete(found, 2), np.delete(twice, 2), 1e-5)


FORMS: dict[str, Function] = {
    "var": lambda x: x.var(0),
    "biased": lambda x: x.var(0, correction=0),
    "of rows": lambda x: x.var(1),
    "all": lambda x: x.var(),
    "std": lambda x: x.std(0),
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
    "its gradient": lambda x: gf.grad(
        lambda y: (F.batch_norm(y, None, None, training=True) ** 3).sum()
    )(x),
    "of what is computed": lambda x: variance(x * 2 + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    x = np.random.default_rng(3).standard_normal((50, 40)).astype(np.float32) + 1
    before, after = around(FORMS[name], gf.tensor(x))
    assert sums(after) == sums(before) + 1
    (a,), (b,) = interpret(before, [x]).outputs, interpret(after, [x]).outputs
    np.testing.assert_allclose(a, b, 1e-5, 1e-5)


def test_statistics_of_a_batch_norm_are_those_of_its_results() -> None:
    mean, var = gf.zeros(6), gf.ones(6)

    def step(x: Any) -> Any:
        return F.batch_norm(x, mean, var, training=True)

    before, after = around(step, gf.tensor(np.ones((4, 6, 5, 5), np.float32)))
    assert (sums(before), sums(after)) == (2, 3)


OTHERS: dict[str, Function] = {
    "rows that have it already": lambda x: F.layer_norm(x, (40,)),
    "from no mean": lambda x: ((x - x[0]) ** 2).sum(0) + x.sum(0),
    "from the sum": lambda x: ((x - x.sum(0)) * (x - x.sum(0))).sum(0),
    "from another mean": lambda x: ((x - x.mean()) * (x - x.mean())).sum(0) + x.sum(0),
    "from a mean of others": lambda x: ((x - (x * 2).mean(0)) ** 2).sum(0) + x.sum(0),
    "few": lambda x: variance(x[: LEAST - 1]),
    "cubes": lambda x: ((x - x.mean(0)) * (x - x.mean(0)) * x).sum(0),
    "two means": lambda x: ((x - x.mean(0)) * (x - 2 * x.mean(0))).sum(0),
    "integers": lambda x: ((x.long() - x.long().sum(0)) ** 2).sum(0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_alone(name: str) -> None:
    before, after = around(OTHERS[name], gf.ones(50, 40))
    assert after is before


def test_halves_are_left_alone() -> None:
    before, after = around(variance, gf.ones(50, 40, dtype=gf.float16))
    assert after is before


def test_it_is_not_for_processors() -> None:
    """Their kernels would take both passes over all columns."""
    assert not any(isinstance(p, OnePass) for step in PIPELINE for p in step.passes)
