"""Pooling against its definition, one window at a time, eagerly and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F

Array = np.ndarray[Any, Any]
BOTH = [lambda f: f, gf.compile]


def window_bounds(
    extent: int, size: int, step: int, pad: int, dilation: int, ceil: bool
) -> list[list[int]]:
    """The elements of every window along one dimension, padding included (out of range)."""
    span = dilation * (size - 1) + 1
    count = (extent + 2 * pad - span + (step - 1 if ceil else 0)) // step + 1
    if ceil and (count - 1) * step >= extent + pad:
        count -= 1
    return [[i * step - pad + k * dilation for k in range(size)] for i in range(count)]


def pooled(x: Array, tables: list[list[list[int]]], fold: Callable[[list[Any]], float]) -> Array:
    """``fold`` over the (flat position, value) pairs of every window."""
    spatial = x.shape[2:]
    out = np.zeros((*x.shape[:2], *map(len, tables)))
    for place in np.ndindex(out.shape):
        rows = [table[k] for table, k in zip(tables, place[2:])]
        members = [
            (int(np.ravel_multi_index(at, spatial)), x[(*place[:2], *at)])
            for at in product(*rows)
            if all(0 <= i < n for i, n in zip(at, spatial))
        ]
        out[place] = fold(members)
    return out


def first_largest(members: list[Any]) -> tuple[int, float]:
    best = max(value for _, value in members)
    return next(pair for pair in members if pair[1] == best)


GEOMETRY: tuple[tuple[Any, ...], ...] = (
    # extents, size, step, padding, dilation, ceil
    ((11,), (3,), (2,), (1,), (1,), False),
    ((10,), (3,), (4,), (1,), (2,), True),
    ((6, 7), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((7, 9), (3, 3), (2, 2), (1, 1), (1, 1), True),
    ((12, 13), (5, 4), (3, 2), (2, 1), (2, 1), False),
    ((4, 5, 6), (2, 3, 2), (2, 1, 2), (1, 1, 0), (1, 1, 1), True),
)


@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
def test_largest(geometry: tuple[Any, ...]) -> None:
    extents, size, step, pad, dilation, ceil = geometry
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (2, 3, *extents)).astype(np.float32)  # with ties
    tables = [window_bounds(*part, ceil) for part in zip(extents, size, step, pad, dilation)]
    expected = pooled(x, tables, lambda m: first_largest(m)[1])
    places = pooled(x, tables, lambda m: first_largest(m)[0])
    pool = getattr(F, f"max_pool{len(extents)}d")
    ct = rng.standard_normal(expected.shape).astype(np.float32)
    gradient = np.zeros((2, 3, int(np.prod(extents))))
    for n, c in np.ndindex(2, 3):
        np.add.at(gradient[n, c], places[n, c].astype(int).ravel(), ct[n, c].ravel())

    def step_(x: Any, ct: Any) -> Any:
        x = x.detach().requires_grad_()
        values, index = pool(x, size, step, pad, dilation, ceil, return_indices=True)
        (values * ct).sum().backward()
        return values, index, x.grad

    for wrap in BOTH:
        values, index, grad = wrap(step_)(gf.tensor(x), gf.tensor(ct))
        assert np.array_equal(values.detach().numpy(), expected)
        assert np.array_equal(index.numpy(), places)
        np.testing.assert_allclose(grad.numpy().reshape(gradient.shape), gradient, atol=1e-6)
        plain = wrap(lambda x: pool(x, size, step, pad, dilation, ceil))(gf.tensor(x))
        assert np.array_equal(plain.numpy(), expected)


@pytest.mark.parametrize("geometry", [g for g in GEOMETRY if set(g[4]) == {1}], ids=str)
@pytest.mark.parametrize("padding_counts", [True, False])
def test_mean(geometry: tuple[Any, ...], padding_counts: bool) -> None:
    extents, size, step, pad, dilation, ceil = geometry
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, *extents)).astype(np.float32)
    parts = list(zip(extents, size, step, pad, dilation))
    tables = [window_bounds(*part, ceil) for part in parts]
    sums = pooled(x, tables, lambda m: sum(float(value) for _, value in m))
    kept = [(n + p if padding_counts else n, -p if padding_counts else 0)
            for n, _, _, p, _ in parts]  # fmt: skip
    counts = [[sum(low <= i < high for i in row) for row in table]
              for table, (high, low) in zip(tables, kept)]  # fmt: skip
    members: Any = reduce(np.multiply.outer, map(np.array, counts))
    expected = sums / members
    pool = getattr(F, f"avg_pool{len(extents)}d")
    ct = rng.standard_normal(expected.shape).astype(np.float32)
    direction = rng.standard_normal(x.shape)
    change = pooled(direction, tables, lambda m: sum(float(v) for _, v in m)) / members

    def step_(x: Any, ct: Any) -> Any:
        x = x.detach().requires_grad_()
        out = pool(x, size, step, pad, ceil, padding_counts)
        (out * ct).sum().backward()
        return out, x.grad

    for wrap in BOTH:
        out, grad = wrap(step_)(gf.tensor(x), gf.tensor(ct))
        np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-4, atol=1e-6)
        assert (grad.numpy() * direction).sum() == pytest.approx((change * ct).sum(), rel=1e-3)


def even_tables(extents: tuple[int, ...], counts: tuple[int, ...]) -> Iterator[list[list[int]]]:
    for n, count in zip(extents, counts):
        yield [list(range(i * n // count, -(-(i + 1) * n // count))) for i in range(count)]


@pytest.mark.parametrize(
    ("extents", "counts"),
    [((10,), (4,)), ((8, 9), (3, 5)), ((8, 6), (4, 2)), ((5, 7), (1, 1)), ((4, 5, 6), (3, 2, 6))],
)
def test_a_given_number_of_windows(extents: tuple[int, ...], counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, *extents)).astype(np.float32)
    tables = list(even_tables(extents, counts))
    means = pooled(x, tables, lambda m: float(np.mean([float(value) for _, value in m])))
    largest = pooled(x, tables, lambda m: first_largest(m)[1])
    places = pooled(x, tables, lambda m: first_largest(m)[0])
    dims = len(extents)

    def both(x: Any) -> Any:
        best = getattr(F, f"adaptive_max_pool{dims}d")(x, counts, return_indices=True)
        return getattr(F, f"adaptive_avg_pool{dims}d")(x, counts), *best

    for wrap in BOTH:
        average, best, index = (t.numpy() for t in wrap(both)(gf.tensor(x)))
        np.testing.assert_allclose(average, means, rtol=1e-5, atol=1e-6)
        assert np.array_equal(best, largest)
        assert np.array_equal(index, places)


def test_an_extent_can_be_kept() -> None:
    x = gf.randn(2, 3, 7, 6)
    assert F.adaptive_avg_pool2d(x, (None, 3)).shape == (2, 3, 7, 3)
    assert F.adaptive_max_pool2d(x[0], (2, None)).shape == (3, 2, 6)


def test_nan_is_the_largest() -> None:
    x = gf.tensor([[[1.0, float("nan"), 3.0, 5.0]]], requires_grad=True)
    assert np.isnan(F.max_pool1d(x, 2).detach().numpy()).tolist() == [[[True, False]]]


@pytest.mark.parametrize("extents", [(6, 4), (7, 5)])
def test_the_first_of_equal_elements_gets_the_gradient_in_compiled_steps(
    extents: tuple[int, int],
) -> None:
    """Windows side by side are chosen from without indices; against the places found eagerly."""
    rng = np.random.default_rng(9)
    x = rng.integers(-1, 2, (2, 3, *extents)).astype(np.float32)
    x[0, 0, 0, 0] = np.nan
    _, places = F.max_pool2d(gf.tensor(x), 2, return_indices=True)
    weights = rng.standard_normal(tuple(places.shape)).astype(np.float32)
    expected = np.zeros((2, 3, extents[0] * extents[1]), np.float32)
    rows = np.where(np.isnan(F.max_pool2d(gf.tensor(x), 2).numpy()), 0, weights)
    flat = places.numpy().reshape(2, 3, -1)
    np.put_along_axis(expected, flat, rows.reshape(2, 3, -1), 2)

    @gf.compile
    def gradient(x: Any, weights: Any) -> Any:
        x = x.detach().requires_grad_()
        return gf.autograd.grad(F.max_pool2d(x, 2), x, weights)[0]

    found = gradient(gf.tensor(x), gf.tensor(weights)).numpy()
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_unpooling_puts_values_back() -> None:
    rng = np.random.default_rng(3)
    x = gf.tensor(rng.standard_normal((2, 3, 6, 8)), requires_grad=True)
    values, index = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(values, index, 2)
    whole = x.detach().numpy()
    spread = np.kron(values.detach().numpy(), np.ones((2, 2)))
    assert np.array_equal(back.detach().numpy(), np.where(whole == spread, whole, 0.0))
    back.sum().backward()
    assert np.array_equal(x.grad.numpy(), (whole == spread).astype(float))
    with pytest.raises(ValueError, match="output_size"):
        F.max_unpool2d(values, index, 2, output_size=(20, 20))


def test_norms_of_windows() -> None:
    x = np.random.default_rng(4).standard_normal((2, 3, 8))
    expected = np.sqrt((x.reshape(2, 3, 4, 2) ** 2).sum(-1))
    np.testing.assert_allclose(F.lp_pool1d(gf.tensor(x), 2.0, 2).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.max_pool2d(gf.zeros(1, 1, 4, 4), 2, padding=2), "half"),
        (lambda: F.max_pool2d(gf.zeros(1, 1, 4, 4), 5), "do not fit"),
        (lambda: F.max_pool2d(gf.zeros(4, 4), 2), "dimensions"),
        (lambda: F.avg_pool2d(gf.zeros(1, 1, 4, 4), 2, divisor_override=0), "divisor_override"),
        (lambda: F.avg_pool1d(gf.zeros(1, 1, 4), 2, stride=0), "stride"),
        (lambda: F.adaptive_avg_pool2d(gf.zeros(1, 1, 4, 4), (1, 2, 3)), "output_size"),
    ],
)
def test_what_does_not_fit(call: Callable[[], Any], words: str) -> None:
    with pytest.raises((gf.GraphFlowError, ValueError, RuntimeError), match=words):
        call()
