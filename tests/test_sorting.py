"""Sorting, searching and what runs along a dimension: the front against NumPy and SciPy."""

import math

import numpy as np
import pytest
import scipy.integrate
from front import agree

import graphflow as gf

SHAPES = [(7,), (3, 5), (2, 3, 4), (1, 1), (0, 3), (3, 0)]


def data(shape, seed=0, low=-2.0, high=2.0, dtype=np.float32):
    """Random numbers that a failing test can make again from its seed."""
    return np.asarray(np.random.default_rng(seed).uniform(low, high, shape)).astype(dtype)


def check(got, expected, rtol=2e-6, atol=1e-6):
    expected = np.asarray(expected)
    assert tuple(got.shape) == expected.shape
    np.testing.assert_allclose(got.numpy(), expected, rtol=rtol, atol=atol)


def gradient_of(function, x):
    """The gradient of ``function(x).sum()``."""
    t = gf.tensor(x, requires_grad=True)
    function(t).sum().backward()
    return t.grad.numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sorts_along_every_dimension(shape):
    x = data(shape, 1).round(1)
    for dim in range(-len(shape), len(shape)):
        values, indices = gf.sort(gf.tensor(x), dim)
        check(values, np.sort(x, dim))
        np.testing.assert_array_equal(indices.numpy(), np.argsort(x, dim, kind="stable"))
        check(gf.sort(gf.tensor(x), dim, descending=True).values, -np.sort(-x, dim))
        np.testing.assert_array_equal(gf.argsort(gf.tensor(x), dim).numpy(), indices.numpy())
    check(gf.msort(gf.tensor(x)), np.sort(x, 0))


def test_nan_is_the_largest_and_descending_keeps_the_order_of_equals():
    x = gf.tensor([2.0, math.nan, 1.0, 2.0, -math.inf])
    assert x.argsort().tolist() == [4, 2, 0, 3, 1]
    assert x.argsort(descending=True).tolist() == [1, 0, 3, 2, 4]
    assert x.topk(2).indices.tolist() == [1, 0]
    assert x.topk(2, largest=False).values.tolist() == [-math.inf, 1.0]


def test_the_kth_the_first_k_and_their_gradients():
    x = data((3, 6), 2)
    values, indices = gf.topk(gf.tensor(x), 4, 1)
    check(values, -np.sort(-x, 1)[:, :4])
    np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), 1), values.numpy())
    third = gf.kthvalue(gf.tensor(x), 3, 0, keepdim=True)
    check(third.values, np.sort(x, 0)[2:3])
    weights = gf.arange(4.0)
    found = gradient_of(lambda t: gf.topk(t, 4, 1).values * weights, x)
    expected = np.zeros_like(x)
    np.put_along_axis(expected, indices.numpy(), np.arange(4.0, dtype=np.float32)[None], 1)
    np.testing.assert_array_equal(found, expected)
    for call in (lambda t: gf.topk(t, 7, 1), lambda t: gf.kthvalue(t, 0)):
        with pytest.raises(gf.ShapeError):
            call(gf.tensor(x))


def test_zero_dimensional_tensors_choose_themselves():
    x = gf.tensor(3.0)
    results = (gf.sort(x), gf.topk(x, 1), gf.kthvalue(x, 1), gf.cummax(x, 0), gf.median(x, 0))
    for values, indices in (*results, gf.mode(x), gf.max(x, 0)):
        assert values.item() == 3.0 and indices.item() == 0 and values.shape == indices.shape == ()
    assert gf.cumsum(x, -1).item() == 3.0
    with pytest.raises(IndexError):
        gf.sort(x, 1)


@pytest.mark.parametrize("right", [False, True])
def test_searches(right):
    lines = np.sort(data((3, 8), 3).round(1), 1)
    values = data((3, 5), 4).round(1)
    side = "right" if right else "left"
    expected = np.stack([np.searchsorted(a, b, side) for a, b in zip(lines, values)])
    check(gf.searchsorted(gf.tensor(lines), gf.tensor(values), right=right), expected)
    check(gf.searchsorted(gf.tensor(lines), gf.tensor(values), side=side), expected)
    small = gf.bucketize(gf.tensor(values), gf.tensor(lines[0]), right=right, out_int32=True)
    assert small.dtype is gf.int32
    check(small, np.searchsorted(lines[0], values, side))
    assert gf.bucketize(0.3, gf.tensor(lines[0]), right=right).ndim == 0
    mixed = lines[:, ::-1].copy()
    sorter = np.argsort(mixed, 1, kind="stable")
    found = gf.searchsorted(
        gf.tensor(mixed), gf.tensor(values), right=right, sorter=gf.tensor(sorter)
    )
    check(found, expected)


def test_searches_refuse_what_does_not_fit():
    line = gf.tensor([1.0, 2.0])
    for call in (
        lambda: gf.searchsorted(line, gf.tensor([1])),
        lambda: gf.searchsorted(line, line, side="middle"),
        lambda: gf.searchsorted(line, line, side="left", right=True),
        lambda: gf.searchsorted(gf.ones(2, 3), gf.ones(3, 3)),
        lambda: gf.bucketize(line, gf.ones(2, 2)),
        lambda: gf.sort(gf.tensor([1j])),
    ):
        with pytest.raises((gf.GraphFlowError, ValueError)):
            call()


def test_membership():
    x, among = np.array([[1, 2, 3], [3, 5, 7]]), np.array([3, 7, 9])
    check(gf.isin(gf.tensor(x), gf.tensor(among)), np.isin(x, among))
    check(gf.isin(gf.tensor(x), gf.tensor(among), invert=True), ~np.isin(x, among))
    assert gf.isin(gf.tensor(x), 3).sum().item() == 2
    assert gf.isin(3, gf.tensor(among)).item() is True
    assert not gf.isin(gf.tensor(x), gf.tensor([], dtype=gf.int64)).any().item()
    found = gf.isin(gf.tensor([1.0, math.nan, math.inf]), gf.tensor([math.nan, 1.0, math.nan]))
    assert found.tolist() == [True, False, False]
    assert not gf.isin(gf.tensor([math.nan]), gf.tensor([math.nan])).any().item()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_folds(shape):
    x = data(shape, 5)
    for dim in range(-len(shape), len(shape)):
        check(gf.cumsum(gf.tensor(x), dim), np.cumsum(x, dim), rtol=1e-5)
        check(gf.cumprod(gf.tensor(x), dim), np.cumprod(x, dim), rtol=1e-5)
        check(gf.logcumsumexp(gf.tensor(x), dim), np.logaddexp.accumulate(x, dim), rtol=1e-5)
        check(gf.cummax(gf.tensor(x), dim).values, np.maximum.accumulate(x, dim))
        check(gf.cummin(gf.tensor(x), dim).values, np.minimum.accumulate(x, dim))


def test_running_folds_of_integers_and_their_indices():
    x = gf.tensor([True, True, False])
    assert x.cumsum(0).tolist() == [1, 2, 2] and x.cumsum(0).dtype is gf.int64
    assert gf.cumsum(gf.tensor([100, 100], dtype=gf.int8), 0, dtype=gf.int8).tolist() == [100, -56]
    assert gf.cumprod(gf.tensor([3, 4]), 0, dtype=gf.float32).dtype is gf.float32
    values, indices = gf.cummax(gf.tensor([1.0, 3.0, 3.0, math.nan, 5.0]), 0)
    assert indices.tolist() == [0, 1, 2, 3, 3] and math.isnan(values[4].item())
    y = gf.tensor([1.0, 2.0])
    assert y.cumsum_(0) is y and y.tolist() == [1.0, 3.0]


def test_gradients_of_running_folds_at_zeros_and_ties():
    zeros = np.array([2.0, 0.0, 3.0, 0.0], np.float32)
    check(gf.tensor(gradient_of(lambda t: gf.cumprod(t, 0), zeros)), [1.0, 8.0, 0.0, 0.0])
    ties = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    check(gf.tensor(gradient_of(lambda t: gf.cummax(t, 0).values, ties)), [1, 1, 2, 0])


def test_differences():
    x = data((3, 6), 6)
    for n in range(4):
        check(gf.diff(gf.tensor(x), n), np.diff(x, n), atol=1e-5)
    ends = {"prepend": x[:, :2], "append": x[:, :1]}
    found = gf.diff(gf.tensor(x), 1, 1, **{k: gf.tensor(v) for k, v in ends.items()})
    check(found, np.diff(x, 1, 1, **ends))
    assert gf.diff(gf.tensor(x), 9).shape == (3, 0)
    assert gf.diff(gf.tensor([True, False, False])).tolist() == [True, False]


@pytest.mark.parametrize("order", [1, 2])
def test_slopes(order):
    x = data((4, 5), 7)
    uneven = np.cumsum(data(5, 8, 0.2, 1.0))
    for got, expected in zip(
        gf.gradient(gf.tensor(x), spacing=0.5, edge_order=order),
        np.gradient(x, 0.5, edge_order=order),
    ):
        check(got, expected, rtol=1e-4, atol=1e-5)
    (got,) = gf.gradient(gf.tensor(x), spacing=[gf.tensor(uneven)], dim=1, edge_order=order)
    check(got, np.gradient(x, uneven, axis=1, edge_order=order), rtol=1e-3, atol=1e-4)


def test_integrals():
    y, x = data((3, 6), 9), np.sort(data(6, 10))
    check(gf.trapezoid(gf.tensor(y), gf.tensor(x)), np.trapezoid(y, x), rtol=1e-5)
    check(gf.trapz(gf.tensor(y), dx=0.5, dim=0), np.trapezoid(y, dx=0.5, axis=0), rtol=1e-5)
    expected = scipy.integrate.cumulative_trapezoid(y, x)
    check(gf.cumulative_trapezoid(gf.tensor(y), gf.tensor(x)), expected, rtol=1e-5)


def test_compiled_and_eager_agree():
    x = data((4, 40), 11)

    def program(jit):
        t = gf.tensor(x, requires_grad=True)

        @jit
        def step(t):
            values = [
                gf.sort(t, 1, descending=True), gf.topk(t, 3, 0), gf.kthvalue(t, 2),
                gf.searchsorted(gf.arange(-2.0, 2.0, 0.5), t), gf.isin(t.round(), t[0].round()),
                gf.cumsum(t, 1), gf.cumprod(t, 0), gf.logcumsumexp(t, 1), gf.cummax(t, 1),
                gf.diff(t), gf.gradient(t), gf.trapezoid(t),
            ]  # fmt: skip
            floats = [
                v for item in values for v in (item if isinstance(item, (tuple, list)) else [item])
            ]
            loss = sum((v * v).sum() for v in floats if v.requires_grad)
            return floats, gf.autograd.grad(loss, [t])

        return step(t)

    agree(program, rtol=1e-5, atol=1e-5)


def test_nothing_but_kernels_runs():
    step = gf.compile(lambda t: (gf.sort(t, 1), gf.cumsum(t, 1), gf.cummax(t, 1).indices))
    step(gf.tensor(data((3, 4), 12)))
    assert not step.explain().host_ops
