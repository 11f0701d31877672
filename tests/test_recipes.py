"""Gradient rules repeated over other operands make what the rules themselves would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.autograd import history, recipes
from graphflow.capture import capture

LAYERS = [(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)) for _ in range(3)]


def _network(x: Any) -> Any:
    for conv, norm in LAYERS:
        x = x + gf.relu(norm(conv(x)))
    return x.square().mean()


def _one_operand_twice(x: Any) -> Any:
    y = x.exp()
    return (x * y).sum() + (y * y).sum() + (y * y.detach()).sum()


def _views(x: Any) -> Any:
    y = x.transpose(2, 3)
    return (y @ x).sum() + (y.reshape(x.shape) * x[:, :, ::2].sum()).tanh().sum()


def _passed_on(x: Any) -> Any:
    return (x + (x + (x + 1.0))).sum() + x.reshape(x.shape).sum()


def _several_results(x: Any) -> Any:
    values, _ = x.topk(2)
    others, _ = (x * 2).topk(2)
    return (values * others).sum() + x.sort(1)[0][:, 0].sum()


def _changed_between(x: Any) -> Any:
    y = x * 2.0
    z = y * x
    y = y.clone()
    y.mul_(3.0)
    return (y * x).sum() + z.sum()


NETWORKS = [
    _network, _one_operand_twice, _views, _passed_on, _several_results, _changed_between,
]  # fmt: skip


def _graph(function: Callable[[Any], Any]) -> str:
    def step(x: Any) -> Any:
        loss = function(x)
        loss.backward()
        return loss, x.grad

    x = gf.ones(2, 4, 6, 6, requires_grad=True)
    return str(capture(step, (x,), {}).graph)


@pytest.mark.parametrize("function", NETWORKS, ids=lambda f: f.__name__.strip("_"))
def test_repeated_rules_make_the_graph_of_the_rules(
    function: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _graph(function)
    monkeypatch.setattr(history, "repeated", lambda *given: None)
    assert _without_places(made) == _without_places(_graph(function))


def _without_places(text: str) -> list[str]:
    return [line.split("  # ")[0] for line in text.splitlines()]


def test_a_recipe_is_written_once_for_equal_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = recipes._written
    monkeypatch.setattr(recipes, "_known", {})
    monkeypatch.setattr(recipes, "_written", lambda *given: written.append(given) or real(*given))

    def step(x: Any) -> Any:
        y = x
        for _ in range(20):
            y = (y * x).sin()
        y.sum().backward()
        return x.grad

    x = gf.full((3, 5), 0.5, dtype=gf.float64, requires_grad=True)
    capture(step, (x,), {})
    assert [op.name for op, *_ in written] == ["reduce_sum", "sin", "mul"]
    compiled = gf.compile(step)(x)
    fresh = gf.full((3, 5), 0.5, dtype=gf.float64, requires_grad=True)
    np.testing.assert_allclose(compiled.numpy(), step(fresh).numpy(), rtol=1e-13)


def test_rules_that_draw_random_numbers_or_run_loops_are_not_repeated() -> None:
    kinds = {"rrelu": nn.functional.rrelu, "dropout": nn.functional.dropout}
    for name, function in kinds.items():

        def step(x: Any, function: Any = function) -> Any:
            a, b = function(x, training=True), function(x, training=True)
            (a.sum() + b.sum()).backward()
            return a, b, x.grad

        x = gf.full((4, 250), -1.0, requires_grad=True)
        a, b, grad = gf.compile(step)(x)
        assert not np.array_equal(a.numpy(), b.numpy()), name
        np.testing.assert_allclose(grad.numpy(), -(a + b).detach().numpy(), rtol=1e-6)
