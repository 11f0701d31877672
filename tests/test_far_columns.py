"""Columns of matrices larger than a cache, folded several rows at a time: against NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf

Function = Callable[..., Any]

CASES: dict[str, tuple[Function, Function]] = {
    "sum": (lambda x, v: x.sum(0), lambda x, v: x.sum(0)),
    "of a product": (lambda x, v: (x * v - 3).sum(0), lambda x, v: (x * v - 3).sum(0)),
    "maximum": (lambda x, v: x.amax(0), lambda x, v: x.max(0)),
    "both ends": (lambda x, v: x.amax(0) - x.amin(0), lambda x, v: x.max(0) - x.min(0)),
    "position": (lambda x, v: x.argmax(0), lambda x, v: x.argmax(0)),
    "all": (lambda x, v: (x < v).all(0), lambda x, v: (x < v).all(0)),
    "around the largest": (
        lambda x, v: (x - x.amax(0, keepdim=True)).sum(0),
        lambda x, v: (x - x.max(0, keepdims=True)).sum(0),
    ),
}


@pytest.mark.parametrize("shape", [(203, 10_300), (2050, 1_100)])
@pytest.mark.parametrize("name", CASES)
def test_columns(name: str, shape: tuple[int, int]) -> None:
    step, like = CASES[name]
    rng = np.random.default_rng(shape[0])
    x, v = (rng.integers(-99, 99, s).astype(np.float32) for s in (shape, shape[1:]))
    before = gf.get_num_threads()
    for threads in (1, 3):
        gf.set_num_threads(threads)
        try:
            compiled = gf.compile(step)
            found = compiled(gf.tensor(x), gf.tensor(v)).numpy()
        finally:
            gf.set_num_threads(before)
        np.testing.assert_array_equal(found, like(x, v))
    sources = [call.kernel.source for call in compiled.programs[-1].schedule.steps]
    assert any("several + 8" in source for source in sources)


def test_the_middle_axis_and_a_weight_of_each_row() -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(-9, 9, (2, 16, 70_001)).astype(np.float32)
    w = rng.integers(-9, 9, (16, 1)).astype(np.float32)
    found = gf.compile(lambda x, w: (x * w).sum(1))(gf.tensor(x), gf.tensor(w))
    np.testing.assert_array_equal(found.numpy(), (x * w).sum(1))


def test_what_takes_longer_than_reading_is_folded_row_by_row() -> None:
    x = gf.randn(500, 4200)
    compiled = gf.compile(lambda x: gf.exp(x).sum(0))
    np.testing.assert_allclose(compiled(x).numpy(), np.exp(x.numpy()).sum(0), rtol=1e-5)
    assert not any("several" in call.kernel.source for call in compiled.programs[-1].schedule.steps)
