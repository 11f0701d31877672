"""Gradients of weights, whose depth threads share: sums over its halves, added afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn


def names(program: Any) -> list[str]:
    """The kernels of the last program, in the order in which they run."""
    return [kernel.name for kernel in program.explain().kernels]


def error(found: Any, wanted: Any) -> float:
    """The largest difference, in units of the largest number."""
    return float(np.abs(found.numpy() - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("m, n, k", [(129, 200, 640), (64, 70, 4000), (33, 512, 1024)])
def test_a_product_over_the_outer_axis_of_both_is_right(m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(k)
    a, b, d = (rng.standard_normal(shape, np.float32) for shape in ((k, m), (k, n), (m, n)))
    run = gf.compile(lambda a, b, d: F.relu(a.T @ b - 3.0) * 2.0 + d, dynamic=False)
    found = run(*map(gf.tensor, (a, b, d)))
    product = a.astype(np.float64).T @ b.astype(np.float64)
    assert error(found, np.maximum(product - 3.0, 0) * 2.0 + d) < 2e-6
    assert [name.split("_")[0] for name in names(run)] == ["mm", "halves"]


def test_axes_of_one_element_may_stand_before_matrices() -> None:
    rng = np.random.default_rng(8)
    a, b = (rng.standard_normal((1, 1, 1, 640, n), np.float32) for n in (129, 200))
    run = gf.compile(lambda a, b: F.relu(a.mT @ b), dynamic=False)
    found = run(gf.tensor(a), gf.tensor(b))
    wanted = np.maximum(a.astype(np.float64).swapaxes(-1, -2) @ b, 0)
    assert found.shape == wanted.shape and error(found, wanted) < 2e-6


@pytest.mark.parametrize(
    "m, n, k",
    [(129, 200, 641), (512, 512, 512), (20, 20, 200)],
    ids=["odd depth", "large result", "few operations"],
)
def test_others_are_whole(m: int, n: int, k: int) -> None:
    run = gf.compile(lambda a, b: a.T @ b, dynamic=False)
    run(gf.randn(k, m), gf.randn(k, n))
    assert not any(name.startswith("halves") for name in names(run))


def test_the_gradient_of_taps_with_a_step_is_right() -> None:
    """Between layers images are the outer axis of the depth, and channels lie together."""
    rng = np.random.default_rng(3)
    shapes = ((8, 16, 24, 24), (24, 16, 3, 3), (40, 24, 3, 3), (8, 40, 12, 12))
    x, v, w, ct = (rng.standard_normal(shape, np.float32) for shape in shapes)

    def run(x: Any, v: Any, w: Any, ct: Any) -> Any:
        w = w.detach().requires_grad_()
        y = F.conv2d(F.relu(F.conv2d(x, v, padding=1)), w, stride=2, padding=1)
        return gf.autograd.grad(y, w, ct)[0]

    program = gf.compile(run, dynamic=False)
    found = program(*map(gf.tensor, (x, v, w, ct)))
    hidden = F.relu(F.conv2d(*(gf.tensor(t, dtype=gf.float64) for t in (x, v)), padding=1))
    padded = np.pad(hidden.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    wanted = np.zeros(w.shape)
    for i in range(3):
        for j in range(3):
            shown = padded[:, :, i : i + 24 : 2, j : j + 24 : 2]
            wanted[:, :, i, j] = np.tensordot(ct, shown, ((0, 2, 3), (0, 2, 3)))
    assert error(found, wanted) < 3e-6
    assert any(name.startswith("halves") for name in names(program))


def test_more_threads_train_to_the_same_bits() -> None:
    """An optimiser's update follows the sums, in the same kernel."""
    x, target = gf.randn(640, 96), gf.randn(640, 160)

    def trained() -> tuple[Any, Any]:
        gf.manual_seed(5)
        model = nn.Linear(96, 160)
        optimizer = gf.optim.AdamW(model.parameters(), lr=0.01)

        def step(x: Any, target: Any) -> Any:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), target)
            loss.backward()
            optimizer.step()
            return loss

        program = gf.compile(step, dynamic=False)
        for _ in range(3):
            program(x, target)
        return model.weight.detach().numpy().copy(), program

    before = gf.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        gf.set_num_threads(threads)
        try:
            weights, program = trained()
        finally:
            gf.set_num_threads(before)
        found.append(weights)
        assert any(name.startswith("halves") for name in names(program))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
