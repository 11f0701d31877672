"""Adam for tables of which a step reads a few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim

READ = [[0, 2, 2], [1, 2, 4], [4, 4, 0], [2, 1, 1]]


def formula(table: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The table after a step for each of ``READ``: moments and rows move where they are read."""
    mean, square = np.zeros_like(table), np.zeros_like(table)
    for step, rows in enumerate(READ, 1):
        gradient = np.zeros_like(table)
        np.add.at(gradient, rows, table[rows] - targets)
        for row in set(rows):
            mean[row] = 0.9 * mean[row] + 0.1 * gradient[row]
            square[row] = 0.99 * square[row] + 0.01 * gradient[row] ** 2
            rate = 0.1 * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
            table[row] -= rate * mean[row] / (np.sqrt(square[row]) + 1e-8)
    return table


@pytest.mark.filterwarnings("ignore:.*gradients are dense")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("jit", [lambda f: f, gf.compile], ids=["eager", "compiled"])
def test_rows_that_are_not_read_stay(jit: Callable[[Any], Any], sparse: bool) -> None:
    draw = np.random.default_rng(20261130)
    start, targets = draw.standard_normal((6, 3)), draw.standard_normal((3, 3))
    table = nn.Embedding(6, 3, sparse=sparse, _weight=gf.tensor(start.copy()))
    opt = optim.SparseAdam(table.parameters(), lr=0.1, betas=(0.9, 0.99))
    wanted = gf.tensor(targets)

    @jit
    def step(rows: gf.Tensor) -> None:
        opt.zero_grad()
        ((table(rows) - wanted) ** 2).sum().div(2).backward()
        opt.step()

    for rows in READ:
        step(gf.tensor(rows))
    found = table.weight.detach().numpy()
    np.testing.assert_allclose(found, formula(start.copy(), targets), rtol=1e-6)
    assert np.array_equal(found[[3, 5]], start[[3, 5]])
    state = opt.state_dict()
    assert sorted(state["state"][0]) == ["exp_avg", "exp_avg_sq", "step"]
    assert set(state["param_groups"][0]) == {"lr", "betas", "eps", "maximize", "params"}
