"""How threads share products: each finds in its caches what the kernels before have left there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from captured import program_of, training

import graphflow as gf
from graphflow import nn
from graphflow.codegen import sharing
from graphflow.codegen.contraction.kernels import FAVOUR_AT
from graphflow.codegen.schedule import Call, plain_steps
from graphflow.codegen.schedule_form import from_data, to_data
from graphflow.codegen.sharing import Split, Ways, _Plan
from graphflow.program import Program

KINDS: tuple[Split, ...] = ("outer", "inner", "whole", "first")


def _owned(kind: Split, thread: int, threads: int) -> np.ndarray:
    """Which elements of a square a thread touches."""
    side = 2 * threads
    mine = np.zeros((side, side), bool)
    part = slice(2 * thread, 2 * thread + 2)
    if kind == "outer":
        mine[part] = True
    elif kind == "inner":
        mine[:, part] = True
    else:
        mine[:] = kind == "whole" or thread == 0
    return mine


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_what_is_fetched_is_what_the_busiest_thread_lacks(threads: int) -> None:
    plan = _Plan((), (), threads)
    for held in KINDS:
        for wanted in KINDS:
            lacking = [
                (_owned(wanted, t, threads) & ~_owned(held, t, threads)).mean()
                for t in range(threads)
            ]
            assert plan._share(held, wanted) == pytest.approx(max(lacking)), (held, wanted)


def _step(batch: int) -> tuple[Callable[[Any], Any], Any]:
    gf.manual_seed(1)
    model = nn.Sequential(nn.Linear(768, 128), nn.ReLU(), nn.Linear(128, 10))
    return training(model, gf.optim.SGD(model.parameters(), lr=0.01)), gf.randn(batch, 768)


def _decisions(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[tuple[int, ...], tuple[Ways, bool]], Program]:
    """For each product that can be shared in two ways: whether it is by columns."""
    found: dict[tuple[int, ...], tuple[Ways, bool]] = {}
    real = sharing._Plan.handicaps

    def handicaps(plan: _Plan) -> dict[int, int]:
        made = real(plan)
        for key, call in plan._products.items():
            assert call.ways is not None
            extents = tuple(a.value for a in call.arguments[3:6])  # type: ignore[union-attr]
            by_columns = call.ways.columns <= call.ways.rows + made[key]
            found[extents] = call.ways, by_columns
        return made

    monkeypatch.setattr(sharing._Plan, "handicaps", handicaps)
    step, x = _step(batch)
    return found, program_of(step, x)


def test_a_weight_stays_with_the_threads_that_update_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found, program = _decisions(32, monkeypatch)
    _, forward = found[32, 128, 768]  # columns are rows of the weight, which is [128, 768]
    ways, update = found[128, 768, 32]
    assert forward and not update
    assert ways.columns < ways.rows  # alone it would have been shared by columns
    calls = [c for c in plain_steps(program.schedule.steps) if isinstance(c, Call)]
    assert all(call.ways is None for call in calls)
    again = plain_steps(from_data(*to_data(program.schedule)).steps)
    words = [[c.arguments for c in kept if isinstance(c, Call)] for kept in (again, calls)]
    assert words[0] == words[1]


def test_what_has_left_the_caches_crosses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = _decisions(4096, monkeypatch)
    ways, by_columns = found[4096, 128, 768]
    assert by_columns == (ways.columns <= ways.rows)


def test_the_result_does_not_depend_on_the_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Sequence[np.ndarray]] = []
    for price in (0.0, 0.2, 100.0):
        monkeypatch.setattr(sharing, "CROSSING", price)
        _, program = _decisions(32, monkeypatch)
        _, x = _step(32)
        loss = program(x)
        results.append([loss.numpy(), *(v.numpy() for v in program.state_dict().values())])
    for others in results[1:]:
        for ours, theirs in zip(results[0], others):
            np.testing.assert_array_equal(ours, theirs)


def test_handicaps_are_where_kernels_look_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _, program = _decisions(32, monkeypatch)
    words = [
        call.arguments[FAVOUR_AT].value  # type: ignore[union-attr]
        for call in plain_steps(program.schedule.steps)
        if isinstance(call, Call) and call.kernel.name.startswith("mm_f32")
    ]
    assert any(words)
    assert any("args[FAVOUR_AT]" in kernel.source for kernel in program.schedule.kernels)


def test_steps_of_a_loop_count_as_often_as_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every iteration fetches again outweighs what one operand costs once."""
    seen: list[_Plan] = []
    real = sharing._Plan.handicaps
    monkeypatch.setattr(sharing._Plan, "handicaps", lambda plan: [seen.append(plan), real(plan)][1])
    program_of(nn.RNN(64, 256), gf.randn(12, 64, 64))
    plan = seen[-1]
    times = {plan._products[key].ways.depth: count for key, count in plan._times.items()
             if key in plan._products}  # fmt: skip
    assert times[256] == 12  # the hidden state's product, once a step of the sequence
    assert all(count in (1, 12) for count in times.values())
