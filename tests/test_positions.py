"""Where elements are: argmax and argmin of rows in blocks, and the first few of a line."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import graphflow as gf

Array = np.ndarray[Any, Any]
LENGTHS = (1, 64, 65, 255, 256, 257, 600, 1025)


def compiled(function: Any, x: Array) -> Any:
    """What the compiled ``function`` finds."""
    return gf.compile(function)(gf.tensor(x))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, np.bool_])
def test_positions_in_rows_of_several_blocks(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(21)
    for count in LENGTHS:
        for spread in (2, 100):  # many equal elements, and few
            x = rng.integers(0, spread, (5, count)).astype(dtype)
            for axis in (1, 0):
                found = compiled(partial(getattr(gf, name), dim=axis), x).numpy()
                assert np.array_equal(found, getattr(np, name)(x, axis)), (count, spread, axis)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions_of_what_is_special(name: str) -> None:
    for count in LENGTHS:
        ramp = np.arange(count, dtype=np.float32)
        x = np.stack([ramp, -ramp, 0 * ramp, np.full(count, np.inf), np.full(count, -np.inf)])
        lost = np.random.default_rng(22).standard_normal((3, count)).astype(np.float32)
        lost[0, count // 2] = lost[1, -1] = lost[1, count // 3] = np.nan
        lost[2, 0] = np.nan
        for rows in (x, lost):
            found = compiled(lambda t: getattr(gf, name)(t, 1), rows).numpy()
            assert np.array_equal(found, getattr(np, name)(rows, 1)), count


def test_positions_of_what_is_computed_meanwhile() -> None:
    """The operand is computed again where its best element is sought."""
    x = np.random.default_rng(23).standard_normal((7, 900)).astype(np.float32)
    found = compiled(lambda t: gf.argmax(gf.softmax(t.sin() * 3 + t, -1) * t, -1), x).numpy()
    steps = np.sin(x) * 3 + x
    weights = np.exp(steps - steps.max(-1, keepdims=True))
    values = weights / weights.sum(-1, keepdims=True) * x
    best = np.take_along_axis(values, found[:, None], 1)[:, 0]
    np.testing.assert_allclose(best, values.max(1), rtol=1e-5)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8])
def test_the_first_few_are_those_of_a_stable_sort(dtype: Any, largest: bool) -> None:
    rng = np.random.default_rng(24)
    for shape, axis in (((4, 500), 1), ((90, 3), 0), ((2, 130, 3), 1)):
        for spread in (7, 10**6):
            x = rng.integers(-spread, spread, shape).astype(dtype)
            keys = -x.astype(np.int64) if largest else x.astype(np.int64)
            order = np.argsort(keys, axis, kind="stable")
            for k in (0, 1, 2, 11, 40, shape[axis]):
                wanted = np.take(order, range(k), axis)
                for run in (gf.compile, lambda function: function):
                    values, places = run(partial(gf.topk, k=k, dim=axis, largest=largest))(
                        gf.tensor(x)
                    )
                    assert np.array_equal(places.numpy(), wanted), (shape, spread, k)
                    assert np.array_equal(values.numpy(), np.take_along_axis(x, wanted, axis))


def test_nan_is_the_largest_and_zeros_are_equal() -> None:
    x = np.zeros((2, 200), np.float32)
    x[0, [150, 30]], x[0, 77], x[1, ::2] = np.nan, 5.0, -0.0
    values, places = compiled(lambda t: gf.topk(t, 4), x)
    assert places.numpy().tolist() == [[30, 150, 77, 0], [0, 1, 2, 3]]
    assert np.isnan(values.numpy()[0, :2]).all()
    assert compiled(lambda t: gf.kthvalue(t, 3)[1], x).numpy().tolist() == [2, 2]


def test_the_gradient_of_the_first_few_goes_to_them() -> None:
    x = np.random.default_rng(25).standard_normal((3, 100)).astype(np.float32)

    def slope(t: gf.Tensor) -> Any:
        t = t.detach().requires_grad_()
        values, _ = gf.topk(t, 5)
        return gf.autograd.grad((values * gf.arange(1.0, 6.0)).sum(), t)[0]

    wanted = np.zeros_like(x)
    np.put_along_axis(wanted, np.argsort(-x, 1)[:, :5], np.arange(1.0, 6.0, dtype=np.float32), 1)
    assert np.array_equal(compiled(slope, x).numpy(), wanted)
