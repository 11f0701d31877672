"""Calls of a compiled function on a device that have nothing to decide.

Run by ``tests/test_cuda.py`` in the simulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import GraphFlowError, IndexRangeError
from graphflow.quick import MISS
from tests.cudasim.models import training_step


def test_a_step_is_quick_and_learns_as_on_the_cpu() -> None:
    found = {}
    for device in ("cpu", "cuda"):
        gf.manual_seed(0)
        model = gf.nn.Sequential(gf.nn.Linear(5, 7), gf.nn.Dropout(0.5), gf.nn.Linear(7, 3))
        model.to(device)
        optimizer = gf.optim.AdamW(model.parameters(), lr=0.1)
        step: Any = gf.compile(training_step(model, optimizer))
        rng = np.random.default_rng(1)
        losses = []
        for n in range(6):
            x = gf.tensor(rng.standard_normal((4, 5)).astype(np.float32)).to(device)
            y = gf.tensor(rng.integers(0, 3, 4)).to(device)
            optimizer.param_groups[0]["lr"] = 0.1 / (n + 1)
            losses.append(float(step(x, y)))
        found[device] = losses
        assert step.latest.quick is not None, "the long way is for calls that differ"
        assert step.latest.quick((x, y)) is not MISS
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=1e-5)


@pytest.fixture
def scaled() -> tuple[Any, gf.Tensor, gf.Tensor]:
    """A compiled function that was called, what it reaches by itself, and its argument."""
    weight, x = gf.tensor([1.0, 2.0, 3.0, 4.0]).cuda(), gf.arange(4.0).cuda()
    step = gf.compile(lambda x: x * weight + 1)
    assert step(x).tolist() == step(x).tolist() == [1, 3, 7, 13]
    assert step.latest.quick((x,)) is not MISS
    return step, weight, x


def test_calls_that_differ_go_the_long_way(scaled: tuple[Any, gf.Tensor, gf.Tensor]) -> None:
    step, weight, x = scaled
    quick = step.latest.quick
    long = gf.arange(5.0).cuda()
    others = [
        long[1:], long[:4:2], gf.arange(4).cuda(), gf.arange(4.0), x.clone().requires_grad_(),
        weight, 2.0,
    ]  # fmt: skip
    assert all(quick((other,)) is MISS for other in others)
    assert step(long[1:]).tolist() == [2, 5, 10, 17], "a view that begins elsewhere"
    assert step(weight).tolist() == [2, 5, 10, 17]
    assert step(gf.arange(4).cuda()).tolist() == [1, 3, 7, 13]
    with pytest.raises(GraphFlowError, match="all on one device"):
        step(gf.arange(4.0))
    assert step(x).tolist() == [1, 3, 7, 13]


def test_state_that_moves_or_changes_is_seen(scaled: tuple[Any, gf.Tensor, gf.Tensor]) -> None:
    step, weight, x = scaled
    weight.mul_(2)
    assert step(x).tolist() == [1, 5, 13, 25]
    weight.data = gf.ones(4).cuda()
    assert step(x).tolist() == [1, 2, 3, 4]


def test_results_of_one_call_are_not_those_of_the_next(
    scaled: tuple[Any, gf.Tensor, gf.Tensor],
) -> None:
    step, _, x = scaled
    kept = [step(x + n) for n in range(3)]
    assert [k.tolist() for k in kept] == [[1, 3, 7, 13], [2, 5, 10, 17], [3, 7, 13, 21]]


def test_an_index_out_of_range_is_said_with_its_place() -> None:
    table = gf.arange(6.0).reshape(3, 2).cuda()
    step = gf.compile(lambda i: table[i] + 1)
    good = gf.tensor([0, 2]).cuda()
    assert step(good).tolist() == step(good).tolist() == [[1, 2], [5, 6]]
    with pytest.raises(IndexRangeError, match=r"simulated_quick\.py"):
        step(gf.tensor([0, 3]).cuda())
    assert step(good).tolist() == [[1, 2], [5, 6]]


def test_views_and_plain_values_are_returned() -> None:
    step = gf.compile(lambda x: {"a": (x + 1).T, "b": 3, "c": [x.sum()]})
    x = gf.arange(6.0).reshape(2, 3).cuda()
    for _ in range(3):
        found = step(x)
        assert found["a"].tolist() == (x.cpu() + 1).T.tolist()
        assert found["b"] == 3 and float(found["c"][0]) == 15
    assert step.latest.quick((x,)) is not MISS
