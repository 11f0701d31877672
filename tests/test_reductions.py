"""Reductions, statistics and norms of the front against NumPy and SciPy, eager and compiled."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from front import agree

import graphflow as gf
from graphflow.nn import functional as F


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


NAN = np.array([[1.0, math.nan, 3.0], [math.nan] * 3, [2.0, -1.0, 0.0]], np.float32)


def test_sums_that_leave_nan_out():
    t = gf.tensor(NAN)
    check(gf.nansum(t, 1), np.nansum(NAN, 1))
    check(gf.nansum(t), np.nansum(NAN))
    check(gf.nanmean(t, 1), [2.0, math.nan, 1 / 3])
    assert gf.nansum(gf.tensor([1, 2], dtype=gf.int8)).dtype is gf.int64
    np.testing.assert_array_equal(gradient_of(gf.nansum, NAN), np.isnan(NAN) == 0)
    with pytest.raises(gf.DTypeError):
        gf.nanmean(gf.tensor([1, 2]))


def test_the_dtype_of_sums_and_products_can_be_chosen():
    x = gf.tensor([3, 4], dtype=gf.uint8)
    for f in (gf.sum, gf.prod, gf.nansum):
        assert f(x).dtype is gf.int64 and f(x, dtype=gf.float64).dtype is gf.float64
    assert gf.mean(x, dtype=gf.float32).item() == 3.5
    assert gf.prod(x, 0, dtype=gf.int8).item() == 12


def test_truth_of_nothing_of_bytes_and_of_several_dimensions():
    assert gf.zeros(0, 2).all(0).tolist() == [True, True]
    assert gf.zeros(0, 2).any(0).tolist() == [False, False]
    assert gf.ones(2, dtype=gf.uint8).all().dtype is gf.uint8
    x = data((2, 3, 4), 1) > 0.8
    check(gf.any(gf.tensor(x), (0, 2)), x.any((0, 2)))
    check(gf.all(gf.tensor(~x), (-1, 1), keepdim=True), (~x).all((1, 2), keepdims=True))
    assert gf.tensor([math.nan]).any().item() is True


def test_extremes_of_both_ends_and_counts():
    x = np.array([[0.0, 2.0, 0.0], [3.0, -1.0, 4.0]], np.float32)
    low, high = gf.aminmax(gf.tensor(x), dim=1, keepdim=True)
    check(low, x.min(1, keepdims=True))
    check(high, x.max(1, keepdims=True))
    assert gf.count_nonzero(gf.tensor(x)).item() == 4
    assert gf.count_nonzero(gf.tensor(x), dim=0).tolist() == [1, 2, 1]
    for bad in (gf.amax, gf.aminmax, gf.argmin, gf.median, gf.quantile):
        with pytest.raises((gf.GraphFlowError, IndexError, TypeError)):
            bad(gf.zeros(2, 0), dim=1)


def test_half_precision_is_rounded_once():
    x = data((3000,), 2, 20, 60).astype(np.float16)
    t = gf.tensor(x)
    exact = x.astype(np.float64)
    for got, expected in (
        (t.mean(), exact.mean()), (t.var(), exact.var(ddof=1)), (t.std(), exact.std(ddof=1)),
        (gf.norm(t, 3), (exact**3).sum() ** (1 / 3)),
        (gf.logsumexp(t, 0), np.logaddexp.reduce(exact)),
    ):  # fmt: skip
        assert got.dtype is gf.float16
        assert abs(got.item() / expected - 1) < 1e-2, expected


def test_the_names_of_numpy_for_keywords():
    x = data((2, 3), 3)
    check(gf.tensor(x).sum(axis=1, keepdims=True), x.sum(1, keepdims=True))
    check(gf.sort(gf.tensor(x), axis=0).values, np.sort(x, 0))
    with pytest.raises(TypeError):
        gf.sum(gf.tensor(x), 0, axis=1)


def test_sums_undo_broadcasting():
    x = data((4, 2, 3), 4)
    check(gf.tensor(x).sum_to_size(2, 1), x.sum((0, 2))[:, None])
    check(gf.tensor(x).sum_to_size((4, 2, 3)), x)
    with pytest.raises(gf.ShapeError):
        gf.tensor(x).sum_to_size(2, 2)


def test_ties_share_the_gradient_or_go_to_the_index():
    x = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    check(gf.tensor(gradient_of(gf.amax, x)), [0, 0.5, 0.5, 0])
    check(gf.tensor(gradient_of(gf.max, x)), [0, 0.5, 0.5, 0])
    check(gf.tensor(gradient_of(lambda t: gf.max(t, 0).values, x)), [0, 1, 0, 0])
    y = np.array([2.0, 1.0, 2.0, 3.0, 2.0], np.float32)
    check(gf.tensor(gradient_of(gf.median, y)), np.array([1, 0, 1, 0, 1]) / 3)
    check(gf.tensor(gradient_of(lambda t: gf.median(t, 0).values, y)), [0, 0, 1, 0, 0])


@pytest.mark.parametrize("correction", [0, 1, 2.5, 4])
def test_moments(correction):
    x = data((3, 4), 3)
    expected = np.var(x.astype(np.float64), 1, keepdims=True, ddof=min(correction, 3))
    variance, centre = gf.var_mean(gf.tensor(x), 1, correction=correction, keepdim=True)
    spread, again = gf.std_mean(gf.tensor(x), 1, correction=correction, keepdim=True)
    check(variance, np.where(correction < 4, expected, np.inf), rtol=1e-5)
    check(spread, np.sqrt(np.where(correction < 4, expected, np.inf)), rtol=1e-5)
    check(centre, x.mean(1, keepdims=True))
    check(again, x.mean(1, keepdims=True))


def test_moments_in_all_their_spellings():
    x = data((3, 4), 4)
    t = gf.tensor(x)
    for got in (
        t.var(False),
        gf.var(t, unbiased=False),
        gf.var(t, None, False),
        t.std(0, False) ** 2,
    ):
        check(got.sum(), x.var() if got.ndim == 0 else x.var(0).sum(), rtol=1e-5)
    assert math.isnan(gf.var(gf.tensor([1.0]), 0).item())
    check(gf.tensor(gradient_of(gf.std, np.ones(3, np.float32))), np.zeros(3))


def test_covariance_and_correlation():
    x = data((3, 6), 5, dtype=np.float64)
    often = np.array([1, 2, 0, 1, 3, 1])
    much = data(6, 6, 0.1, 1.0, np.float64)
    t = gf.tensor(x)
    check(gf.cov(t), np.cov(x))
    check(gf.cov(t, correction=0, fweights=gf.tensor(often)), np.cov(x, ddof=0, fweights=often))
    found = gf.cov(t, fweights=gf.tensor(often), aweights=gf.tensor(much))
    check(found, np.cov(x, fweights=often, aweights=much))
    check(gf.corrcoef(t), np.corrcoef(x))
    check(gf.cov(t[0]), np.cov(x[0]))
    with pytest.raises(ValueError, match="negative"):
        gf.cov(t, fweights=gf.tensor(-often))


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantiles(interpolation):
    x = data((3, 7), 7)
    q = np.array([0.0, 0.15, 0.5, 0.9, 1.0], np.float32)
    for dim in (None, 0, -1):
        got = gf.quantile(gf.tensor(x), gf.tensor(q), dim, interpolation=interpolation)
        check(got, np.quantile(x, q, axis=dim, method=interpolation), rtol=1e-5)
    kept = gf.quantile(gf.tensor(x), 0.4, 1, keepdim=True, interpolation=interpolation)
    check(kept, np.quantile(x, 0.4, axis=1, keepdims=True, method=interpolation), rtol=1e-5)


def test_quantiles_and_medians_with_nan():
    t = gf.tensor(NAN)
    check(gf.nanquantile(t, 0.5, 1), [2.0, math.nan, 0.0])
    check(gf.quantile(t, 0.5, 1), [math.nan, math.nan, 0.0])
    values, indices = gf.median(t, 1)
    check(values, [math.nan, math.nan, 0.0])
    assert indices.tolist() == [1, 0, 2]
    check(gf.nanmedian(t, 1).values, [1.0, math.nan, 0.0])
    check(gf.nanmedian(t), 1.0)
    check(gf.median(t), math.nan)
    assert gf.median(gf.tensor([4, 1, 3, 2])).item() == 2
    with pytest.raises(ValueError, match="0 … 1"):
        gf.quantile(gf.tensor([1.0]), 1.5)


def test_the_mode_is_the_smallest_of_the_most_frequent():
    x = np.random.default_rng(8).integers(0, 4, (5, 9))
    values, indices = gf.mode(gf.tensor(x), 1)
    np.testing.assert_array_equal(values.numpy(), scipy.stats.mode(x, axis=1).mode)
    np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy()[:, None], 1)[:, 0], values)
    assert gf.mode(gf.tensor([2.0, 1.0, 2.0, 1.0])).indices.item() == 3


def test_histograms():
    x = data(200, 9)
    for bins, low, high in [(10, 0, 0), (7, -1, 1.5), (1, 0.5, 2)]:
        span = (low, high) if low != high else (x.min(), x.max())
        expected = np.histogram(x, bins, span)[0]
        check(gf.histc(gf.tensor(x), bins, low, high), expected)
        got, edges = gf.histogram(gf.tensor(x), bins, range=span)
        check(got, expected)
        check(edges, np.linspace(*span, bins + 1), rtol=1e-5)
    weight = data(200, 10, 0, 1)
    edges = np.array([-2.0, -0.5, 0.25, 1.0], np.float32)
    hist, _ = gf.histogram(gf.tensor(x), gf.tensor(edges), weight=gf.tensor(weight), density=True)
    check(hist, np.histogram(x, edges, weights=weight, density=True)[0], rtol=1e-5)
    check(gf.histc(gf.tensor([2.0, 2.0, math.nan]), 3, 2, 2), [0, 2, 0])
    counts = np.array([0, 3, 3, 7])
    assert gf.bincount(gf.tensor(counts), minlength=9).tolist() == [1, 0, 0, 2, 0, 0, 0, 1, 0]
    check(gf.bincount(gf.tensor(counts), gf.tensor(weight[:4])), np.bincount(counts, weight[:4]))
    with pytest.raises(gf.GraphFlowError, match="depends on values"):
        gf.compile(gf.bincount)(gf.tensor(counts))


NORMS = [0, 0.5, 1, 1.5, 2, 3, math.inf, -math.inf]


@pytest.mark.parametrize("p", NORMS)
def test_norms(p):
    x = data((3, 5), 11)
    for got in (gf.norm(gf.tensor(x), p, 1), gf.tensor(x).norm(p, 1)):
        check(got, np.array([np.linalg.norm(row, p) for row in x]), rtol=1e-5)
    y = data((4, 5), 12)
    difference = x[:, None] - y[None]
    expected = np.array([[np.linalg.norm(d, p) for d in row] for row in difference])
    if p >= 0:
        check(gf.cdist(gf.tensor(x), gf.tensor(y), p), expected, rtol=1e-5)
    check(gf.dist(gf.tensor(x[0]), gf.tensor(y[0]), p), expected[0, 0], rtol=1e-5)
    zero = gradient_of(lambda t: gf.norm(t, p), np.zeros(3, np.float32))
    assert np.isfinite(zero).all()


def test_distances_among_rows():
    x, y = data((40, 3), 13), data((30, 3), 14)
    check(gf.cdist(gf.tensor(x), gf.tensor(y)), scipy.spatial.distance.cdist(x, y), atol=2e-3)
    exact = gf.cdist(gf.tensor(x), gf.tensor(y), compute_mode="donot_use_mm_for_euclid_dist")
    check(exact, scipy.spatial.distance.cdist(x, y), rtol=1e-5)
    check(F.pdist(gf.tensor(x[:6])), scipy.spatial.distance.pdist(x[:6]), rtol=1e-5)
    check(F.pairwise_distance(gf.tensor(x[:30]), gf.tensor(y), eps=0.0),
          np.linalg.norm(x[:30] - y, axis=1), rtol=1e-5)  # fmt: skip
    cosines = [1 - scipy.spatial.distance.cosine(a, b) for a, b in zip(x[:30], y)]
    check(F.cosine_similarity(gf.tensor(x[:30]), gf.tensor(y)), cosines, rtol=1e-4, atol=1e-5)
    clipped = gf.renorm(gf.tensor(x), 2, 0, 1.0)
    assert np.linalg.norm(clipped.numpy(), axis=1).max() < 1 + 1e-5
    with pytest.raises(gf.ShapeError):
        gf.cdist(gf.zeros(2, 3), gf.zeros(2, 4))


def test_the_trace_of_a_matrix():
    for shape in ((3, 3), (2, 5), (5, 2), (0, 3), (1, 4)):
        x = data(shape, 15)
        check(gf.trace(gf.tensor(x)), np.trace(x))
        check(gf.tensor(x).trace(), np.trace(x))


def test_compiled_and_eager_agree():
    x = data((4, 6), 16)

    def program(jit):
        t = gf.tensor(x, requires_grad=True)

        @jit
        def step(t):
            values = [
                gf.std(t, 1), gf.nanmean(t, 0), gf.median(t, 1).values, gf.mode(t.round()).values,
                gf.quantile(t, 0.3, 1), gf.corrcoef(t), gf.norm(t, 3, 1), F.pdist(t),
                gf.histc(t, 5), gf.trace(t), gf.cov(t), gf.any(t > 1.5, 1), gf.renorm(t, 1, 0, 2.0),
            ]  # fmt: skip
            loss = sum(v.sum() for v in values if v.requires_grad)
            return values, gf.autograd.grad(loss, [t])

        return step(t)

    agree(program, rtol=1e-5, atol=1e-5)


def test_a_long_single_precision_mean_keeps_its_digits():
    x = np.full((1_000_000, 2), 0.1, np.float32)
    step = gf.compile(lambda t: (t.mean(), t.mean(0), t.sum(0)))
    for whole, columns, total in (step.original(gf.tensor(x)), step(gf.tensor(x))):
        exact = float(x[0, 0])
        assert abs(whole.item() / exact - 1) < 2e-6
        assert np.abs(columns.numpy() / exact - 1).max() < 2e-6
        assert np.abs(total.numpy() / (exact * len(x)) - 1).max() < 2e-6


@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])
def test_softmax_and_its_gradients_over_axes_infinities_and_nothing(wrap):
    generator = np.random.default_rng(5)
    x = generator.standard_normal((3, 4, 5))
    x[0, 1, 2], x[1, 2, 3] = -np.inf, -np.inf
    ct = generator.standard_normal(x.shape)
    for axis in (0, 1, -1):

        @wrap
        def both(x, ct, axis=axis):
            out = gf.softmax(x, axis)
            return out, gf.autograd.grad(out, x, ct)[0]

        e = np.exp(x - x.max(axis, keepdims=True))
        p = e / e.sum(axis, keepdims=True)
        out, grad = both(gf.tensor(x, requires_grad=True), gf.tensor(ct))
        np.testing.assert_allclose(out.detach().numpy(), p, rtol=1e-13)
        expected = p * (ct - (p * ct).sum(axis, keepdims=True))  # from p[i] (δ[i,j] - p[j])
        np.testing.assert_allclose(grad.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert wrap(lambda x: gf.softmax(x, 0))(gf.tensor(3.0)).item() == 1.0
    assert wrap(lambda x: gf.softmax(x, 1))(gf.zeros(2, 0)).shape == (2, 0)
    nothing = wrap(lambda x: gf.softmax(x, 0))(gf.full((2,), -np.inf))
    assert nothing.isnan().all()


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "amax"])
def test_extremes_of_nothing_name_what_was_called(name):
    for dim in ((0,), ()) if name != "amax" else ((0,),):
        with pytest.raises(IndexError, match=f"^{name}: there is no element to choose from"):
            getattr(gf.zeros(0, 3), name)(*dim)
