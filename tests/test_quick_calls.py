"""The flat call of a program: what it must notice, and callers from several threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from tests.threads import in_threads

SCALE = gf.tensor(2.0)


def called_quickly(step: Any, *args: Any) -> Any:
    """The result of a call that has nothing to decide."""
    before = len(step.programs)
    assert step._quick is not None
    result = step(*args)
    assert len(step.programs) == before
    return result


def test_numbers_constants_and_names_of_all_kinds() -> None:
    offset = gf.tensor(1.0)

    def function(x: Any, rate: float, flag: bool) -> Any:
        return (x * SCALE + offset) * rate if flag else x

    step = gf.compile(function)
    x = gf.ones(3)
    assert step(x, 0.5, True).tolist() == [1.5] * 3
    assert called_quickly(step, x, 2.0, True).tolist() == [6.0] * 3
    assert step(x, 2.0, False).tolist() == [1.0] * 3
    offset = gf.tensor(3.0)
    assert step(x, 1.0, True).tolist() == [5.0] * 3
    with pytest.raises(TypeError):
        step(x)
    with pytest.raises(OverflowError):
        step(x, 10**400, True)


def test_results_that_are_views() -> None:
    """Seen through the same steps as by the slow call; those of one result share memory."""

    @gf.compile
    def turned(x: Any) -> Any:
        return (x * 2.0).reshape(3, 2).T

    @gf.compile
    def several(x: Any) -> Any:
        y = x + 1.0
        return {"whole": y, "part": y[1], "turned": y.T}

    x = gf.from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))
    slow, slowly = turned(x), several(x)
    found, all_found = called_quickly(turned, x), called_quickly(several, x)
    assert found.tolist() == slow.tolist() == [[0.0, 4.0, 8.0], [2.0, 6.0, 10.0]]
    assert found.stride() == slow.stride() and not found.requires_grad
    for name, value in all_found.items():
        assert value.tolist() == slowly[name].tolist(), name
    all_found["part"].zero_()
    assert all_found["whole"].tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
    assert all_found["turned"].tolist() == [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    assert slowly["part"].tolist() == [4.0, 5.0, 6.0]


def test_a_deleted_variable_is_missed_by_the_function_itself() -> None:
    offset = gf.tensor(1.0)

    @gf.compile
    def step(x: Any) -> Any:
        return x + offset  # noqa: F821

    assert step(gf.ones(2)).tolist() == [2.0, 2.0] == step(gf.ones(2)).tolist()
    del offset
    with pytest.raises(NameError):
        step(gf.ones(2))


def test_a_rate_beyond_single_precision_is_infinite() -> None:
    weight = nn.Parameter(gf.ones(2))
    optimizer = optim.SGD([weight], lr=0.5)

    @gf.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        optimizer.step()
        return loss

    assert [step().item() for _ in range(3)] == [2.0, 1.0, 0.0]
    optimizer.param_groups[0]["lr"] = 1e300
    assert called_quickly(step).item() == -1.0
    assert np.isneginf(weight.detach().numpy()).all()


def test_versions_of_many_parameters() -> None:
    weights = [nn.Parameter(gf.ones(1)) for _ in range(12)]
    optimizer = optim.SGD(weights, lr=1.0)

    @gf.compile
    def step() -> Any:
        optimizer.zero_grad()
        sum(w.sum() for w in weights).backward()
        optimizer.step()

    step()
    step()
    versions = [w._version for w in weights]
    step()
    assert [w._version for w in weights] == [v + 1 for v in versions]
    assert [w.item() for w in weights] == [-2.0] * 12


def test_threads_share_a_brief_program() -> None:
    step = gf.compile(lambda x: {"twice": x * 2, "more": x + 1})
    double = gf.compile(lambda x: x * 2)
    step(gf.zeros(5)), double(gf.zeros(5))
    assert double.programs[0].loaded.is_brief

    def work(number: int) -> None:
        x = gf.full((5,), float(number))
        held = []
        for _ in range(2000):
            held = [double(x), *held[:20]]
            for one in (held[0], held[-1]):
                assert one.tolist() == [2.0 * number] * 5
            assert step(x)["more"].tolist() == [number + 1.0] * 5

    in_threads(4, work)


def test_a_step_that_returns_nothing_or_plain_values_too() -> None:
    total, label = gf.zeros(2), "sum"

    @gf.compile
    def add(x: Any) -> None:
        total.add_(x)

    @gf.compile
    def described(x: Any) -> Any:
        return {"name": label, "size": x.shape, "both": (x + 1, None), "sum": x.sum()}

    for number in range(1, 4):
        assert (add if number == 1 else lambda x: called_quickly(add, x))(gf.ones(2)) is None
        assert total.tolist() == [number] * 2
    assert described(gf.ones(2))["name"] == "sum"
    found = called_quickly(described, gf.ones(2))
    assert (found["name"], found["size"], found["sum"].item()) == ("sum", (2,), 2.0)
    assert found["both"][0].tolist() == [2.0, 2.0] and found["both"][1] is None
    label = "other"
    assert described(gf.ones(2))["name"] == "other"
