"""Tails, tilted shares, normal vectors of low rank; divergences between families; parts."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats as st

import graphflow as gf
import graphflow.distributions as D
from graphflow.autograd import gradcheck, gradgradcheck
from graphflow.distributions import quotients
from graphflow.testing import assert_close

SEED = 20261130
C = D.constraints


def t(x: Any) -> gf.Tensor:
    return gf.tensor(np.asarray(x), dtype=gf.float64)


def drawn_alike(ours: Any, count: int) -> Any:
    """Draws, that are the same compiled."""
    gf.manual_seed(SEED)
    eager = ours.sample((count,))
    gf.manual_seed(SEED)
    assert_close(gf.compile(lambda: ours.sample((count,)))(), eager, rtol=1e-9, atol=1e-12)
    return eager.numpy()


# ---- quotients -------------------------------------------------------------------------

NEAR = [0.0, 1e-300, -1e-12, 0.02, -0.0299, 0.031, 0.3, -0.49, 0.51, -2.0, 7.0]
QUOTIENTS: dict[str, tuple[Any, Any, list[float]]] = {
    "log1p_quotient": (lambda x: mpmath.log1p(x) / x, 1, [-0.999, 40.0]),
    "expm1_quotient": (lambda x: mpmath.expm1(x) / x, 1, [-300.0, 300.0]),
    "log_expm1_quotient": (lambda x: mpmath.log(mpmath.expm1(x) / x), 0, [-3000.0, 3000.0]),
    "tilted_mean": (lambda x: -1 / mpmath.expm1(-x) - 1 / x, 0.5, [-3000.0, 3000.0]),
    "tilted_variance": (
        lambda x: 1 / x**2 - 1 / (4 * mpmath.sinh(x / 2) ** 2), 1 / 12, [-600.0, 600.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", QUOTIENTS)
def test_quotients_are_exact_and_smooth_at_zero(name: str) -> None:
    exact, at_zero, far = QUOTIENTS[name]
    ours = getattr(quotients, name)
    points = [x for x in [*NEAR, *far] if name != "log1p_quotient" or x > -1]
    with mpmath.workdps(1000):
        wanted = [float(exact(mpmath.mpf(x))) if x else at_zero for x in points]
    np.testing.assert_allclose(ours(t(points)).numpy(), wanted, rtol=4e-14, atol=1e-300)
    x = t([0.0, 0.029999, 0.03, -0.1, 0.49, 2.0]).requires_grad_()
    assert gradcheck(ours, [x]) and gradgradcheck(ours, [x])


# ---- distributions ----------------------------------------------------------------------


@pytest.mark.parametrize("k", [-1.5, -1.0, -0.3, 0.0, 1e-9, 0.2, 0.9, 2.0])
def test_tails_are_scipys(k: float) -> None:
    ours, oracle = D.GeneralizedPareto(t(0.7), t(1.9), t(k)), st.genpareto(k, 0.7, 1.9)
    x = drawn_alike(ours, 2000)
    assert st.kstest(x, oracle.cdf).pvalue > 1e-4 and ours.support.check(t(x)).all()
    np.testing.assert_allclose(ours.log_prob(t(x)).numpy(), oracle.logpdf(x), 1e-8, 1e-8)
    np.testing.assert_allclose(ours.cdf(t(x)).numpy(), oracle.cdf(x), 1e-8, 1e-12)
    np.testing.assert_allclose(ours.log_cdf(t(x)).exp().numpy(), oracle.cdf(x), 1e-8, 1e-12)
    logs = ours.log_survival_function(t(x)).numpy()
    np.testing.assert_allclose(np.exp(logs), oracle.sf(x), 1e-8, 1e-12)
    shares = np.array([1e-9, 0.1, 0.5, 0.999])
    np.testing.assert_allclose(ours.icdf(t(shares)).numpy(), oracle.ppf(shares), 1e-8)
    assert ours.entropy().item() == pytest.approx(oracle.entropy(), rel=1e-8)
    mean, variance = ours.mean.item(), ours.variance.item()
    assert mean == pytest.approx(oracle.mean(), rel=1e-9) if k < 1 else math.isnan(mean)
    assert variance == pytest.approx(oracle.var(), rel=1e-9) if k < 0.5 else math.isnan(variance)
    leaves = [t(v).requires_grad_() for v in (0.7, 1.9, k)]
    value = t(0.9)
    for ask in ("log_prob", "cdf"):
        assert gradcheck(lambda *p, a=ask: getattr(D.GeneralizedPareto(*p), a)(value), leaves)
    assert gradcheck(lambda *p: D.GeneralizedPareto(*p).icdf(t(0.4)), leaves)


@pytest.mark.parametrize("logits", [-40.0, -3.0, -1e-5, 0.0, 1e-9, 0.4, 0.6, 25.0])
def test_tilted_shares_are_what_they_integrate_to(logits: float) -> None:
    ours = D.ContinuousBernoulli(logits=t(logits))
    with mpmath.workdps(30):
        tilt = mpmath.mpf(logits)
        mass = mpmath.quad(lambda x: mpmath.exp(tilt * x), [0, 0.1, 0.5, 0.9, 1])

        def mean_of(f: Any, high: float = 1) -> float:
            places = [0, 0.1 * high, 0.5 * high, 0.9 * high, high]
            return float(mpmath.quad(lambda x: f(x) * mpmath.exp(tilt * x), places) / mass)

        mean, square = mean_of(lambda x: x), mean_of(lambda x: x * x)
        entropy = -mean_of(lambda x: tilt * x - mpmath.log(mass))
        below = [mean_of(lambda x: 1, high) for high in (0.1, 0.5, 0.99)]
    assert ours.mean.item() == pytest.approx(mean, rel=1e-12)
    assert ours.variance.item() == pytest.approx(square - mean**2, rel=1e-10)
    assert ours.entropy().item() == pytest.approx(entropy, abs=1e-12)
    logs = ours.log_prob(t([0.0, 0.3, 1.0])).numpy()
    wanted = logits * np.array([0.0, 0.3, 1.0]) - float(mpmath.log(mass))
    np.testing.assert_allclose(logs, wanted, 1e-12, 1e-13)
    found = ours.cdf(t([0.1, 0.5, 0.99]))
    np.testing.assert_allclose(found.numpy(), below, 1e-12)
    if abs(logits) < 10:
        np.testing.assert_allclose(ours.icdf(found).numpy(), [0.1, 0.5, 0.99], 1e-11)
    assert st.kstest(ours.cdf(t(drawn_alike(ours, 2000))).numpy(), "uniform").pvalue > 1e-4
    leaf = t(logits).requires_grad_()
    for ask, value in (("log_prob", 0.3), ("cdf", 0.3), ("icdf", 0.6)):

        def asked(logits: Any, ask: str = ask, value: float = value) -> Any:
            return getattr(D.ContinuousBernoulli(logits=logits), ask)(t(value))

        assert gradcheck(asked, [leaf])
    same = D.ContinuousBernoulli(ours.probs).expand((2, 3))
    assert same.batch_shape == same.param_shape == (2, 3)


def test_normal_vectors_of_low_rank_are_scipys() -> None:
    rng = np.random.default_rng(SEED)
    loc, factor = rng.standard_normal(5), rng.standard_normal((5, 2))
    diagonal = rng.uniform(0.3, 2, 5)
    ours = D.LowRankMultivariateNormal(t(loc), t(factor), t(diagonal))
    oracle = st.multivariate_normal(loc, factor @ factor.T + np.diag(diagonal))
    x = oracle.rvs(6, random_state=SEED)
    np.testing.assert_allclose(ours.log_prob(t(x)).numpy(), oracle.logpdf(x), 1e-10)
    assert ours.entropy().item() == pytest.approx(oracle.entropy(), rel=1e-12)
    np.testing.assert_allclose(ours.covariance_matrix.numpy(), oracle.cov, 1e-12)
    np.testing.assert_allclose(ours.variance.numpy(), np.diag(oracle.cov), 1e-12)
    np.testing.assert_allclose((ours.precision_matrix.numpy() @ oracle.cov), np.eye(5), 0, 1e-12)
    np.testing.assert_allclose((ours.scale_tril @ ours.scale_tril.mT).numpy(), oracle.cov, 1e-12)
    drawn = drawn_alike(ours, 20000)
    np.testing.assert_allclose(np.cov(drawn.T), oracle.cov, atol=0.25)
    whole = D.MultivariateNormal(t(loc + 0.3), t(np.eye(5) + 0.2))
    dense = D.MultivariateNormal(t(loc), t(oracle.cov))
    other = D.LowRankMultivariateNormal(t(loc + 1), t(factor[:, :1]), t(diagonal * 2))
    dense_other = D.MultivariateNormal(t(loc + 1), other.covariance_matrix)
    for p, q, dense_p, dense_q in (
        (ours, whole, dense, whole), (whole, ours, whole, dense), (ours, other, dense, dense_other),
    ):  # fmt: skip
        wanted = D.kl_divergence(dense_p, dense_q)
        assert_close(D.kl_divergence(p, q), wanted, rtol=1e-10, atol=1e-10)
    wide = ours.expand((4, 3))
    assert wide.rsample((2,)).shape == (2, 4, 3, 5) and wide.log_prob(t(x[0])).shape == (4, 3)
    leaves = [t(v).requires_grad_() for v in (loc, factor, diagonal)]
    assert gradcheck(lambda *p: D.LowRankMultivariateNormal(*p).log_prob(t(x[:2])), leaves)
    for wrong in ((t(1.0), t(factor), t(diagonal)), (t(loc), t(factor.T), t(diagonal)),
                  (t(loc), t(factor), t([1.0]))):  # fmt: skip
        with pytest.raises(ValueError, match=r"LowRankMultivariateNormal: (loc|cov_)"):
            D.LowRankMultivariateNormal(*wrong)


def test_broken_sticks_have_a_density() -> None:
    ours = D.LogisticNormal(t([0.4, -0.7]), t([0.8, 1.3]))
    assert ours.batch_shape == () and ours.event_shape == (3,) and "loc" in repr(ours)

    place = (np.arange(500) + 0.5) / 500
    a, b = (x.ravel() for x in np.meshgrid(place, place))
    a, b = a[a + b < 1], b[a + b < 1]
    total = ours.log_prob(t(np.stack([a, b, 1 - a - b], -1))).exp().mean().item() * len(a) / 500**2
    assert total == pytest.approx(1, abs=2e-3)
    drawn = drawn_alike(ours, 3000)
    logits = np.log(drawn / (1 - np.cumsum(drawn, -1)).clip(1e-300))[:, :2] + np.log([2, 1])
    for column, normal in zip(logits.T, (st.norm(0.4, 0.8), st.norm(-0.7, 1.3)), strict=True):
        assert st.kstest(column, normal.cdf).pvalue > 1e-4
    assert D.LogisticNormal(0.0, 1.0).sample().shape == (2,)
    assert ours.expand((4,)).sample((2,)).shape == (2, 4, 3)
    with pytest.raises(NotImplementedError, match="LogisticNormal has no cdf"):
        ours.cdf(t([0.2, 0.3, 0.5]))
    leaves = [t([0.4, -0.7]).requires_grad_(), t([0.8, 1.3]).requires_grad_()]
    assert gradcheck(lambda *p: D.LogisticNormal(*p).log_prob(t([0.2, 0.3, 0.5])), leaves)


def test_entropy_of_trials_of_several_numbers() -> None:
    n, p = np.array([0, 1, 4, 9]), np.array([0.3, 0.0, 0.35, 0.9])
    ours = D.Binomial(gf.tensor(n), t(p))
    np.testing.assert_allclose(ours.entropy().numpy(), st.binom(n, p).entropy(), 1e-6, 1e-10)


# ---- divergences ------------------------------------------------------------------------

MADE: dict[str, list[Any]] = {
    "Beta": [(1.6, 2.3), (2.1, 0.8)], "Cauchy": [(0.5, 1.2), (-1.0, 2.0)],
    "ContinuousBernoulli": [(0.2,), (0.7,)], "Exponential": [(0.8,), (1.7,)],
    "Gamma": [(1.6, 0.7), (2.5, 1.1)], "Gumbel": [(0.4, 0.9), (-0.2, 1.4)],
    "HalfCauchy": [(0.8,), (1.5,)], "InverseGamma": [(3.0, 1.2), (2.0, 0.7)],
    "Laplace": [(0.4, 0.9), (-0.2, 1.4)], "Normal": [(0.4, 0.9), (-0.2, 1.4)],
    "Pareto": [(1.4, 4.5), (1.1, 2.0)], "Uniform": [(0.15, 0.8), (-0.5, 1.3)],
}  # fmt: skip
PAIRS = [
    (p, q) for p, q in sorted((p.__name__, q.__name__) for p, q in D.kl._RULES)
    if p in MADE and q in MADE
]  # fmt: skip
SHARE = (np.arange(20000) + 0.5) / 20000


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_divergences_are_means_of_differences(first: str, second: str) -> None:
    p = getattr(D, first)(*map(t, MADE[first][0]))
    q = getattr(D, second)(*map(t, MADE[second][1]), validate_args=False)
    found = D.kl_divergence(p, q)
    draws = p.icdf(t(SHARE)) if hasattr(p, "icdf") and first not in HARD else t(_quantiles(p))
    fits = q.support.check(draws)
    if not bool(fits.all()):
        assert found.item() == math.inf
        return
    apart = (p.log_prob(draws) - q.log_prob(draws)).numpy()
    assert found.item() == pytest.approx(apart.mean(), rel=3e-3, abs=3e-3)
    leaves = [t(value).requires_grad_() for value in (*MADE[first][0], *MADE[second][1])]
    count = len(MADE[first][0])

    def divergence(*given: Any) -> Any:
        return D.kl_divergence(
            getattr(D, first)(*given[:count]), getattr(D, second)(*given[count:])
        )

    assert gradcheck(divergence, leaves)


HARD = ("Beta", "Gamma", "InverseGamma")


def _quantiles(p: Any) -> Any:
    if isinstance(p, D.Beta):
        return st.beta(p.concentration1.item(), p.concentration0.item()).ppf(SHARE)
    gamma = st.invgamma if isinstance(p, D.InverseGamma) else st.gamma
    scale = p.rate.item() if isinstance(p, D.InverseGamma) else 1 / p.rate.item()
    return gamma(p.concentration.item(), scale=scale).ppf(SHARE)


def test_divergences_of_counts_and_transformed() -> None:
    few, many = D.Binomial(4, t([0.3, 0.6])), D.Binomial(7, t(0.5))
    same = D.Binomial(4, logits=t(0.4))
    values = gf.arange(5, dtype=gf.float64).reshape(5, 1)
    logs = few.log_prob(values)
    wanted = (logs.exp() * (logs - same.log_prob(values))).sum(0)
    assert_close(D.kl_divergence(few, same), wanted)
    assert D.kl_divergence(many, few).tolist() == [math.inf, math.inf]
    with pytest.raises(NotImplementedError, match="fewer trials"):
        D.kl_divergence(few, many)
    p, q = D.Bernoulli(t(0.3)), D.Poisson(t(0.8))
    logs = p.log_prob(values[:2])
    assert_close(D.kl_divergence(p, q), (logs.exp() * (logs - q.log_prob(values[:2]))).sum())
    assert D.kl_divergence(q, p).item() == D.kl_divergence(q, few)[0].item() == math.inf
    normals = D.Normal(t([0.1, 0.4]), t(1.2)), D.Normal(t([0.9, -0.4]), t(0.7))
    scale = t(2.0)
    moved = [D.TransformedDistribution(n, [D.AffineTransform(1.0, scale)]) for n in normals]
    assert_close(D.kl_divergence(*moved), D.kl_divergence(*normals))
    sticks = [D.LogisticNormal(n.loc, n.scale) for n in normals]
    assert_close(D.kl_divergence(*sticks), D.kl_divergence(*normals).sum())
    other = D.TransformedDistribution(normals[1], [D.AffineTransform(1.0, t(2.0))])
    with pytest.raises(NotImplementedError, match="not known to be"):
        D.kl_divergence(moved[0], other)


# ---- parts -------------------------------------------------------------------------------


def parts() -> dict[str, tuple[Any, tuple[int, ...]]]:
    exp, affine, tanh = D.ExpTransform(), D.AffineTransform(1.0, -2.0), D.TanhTransform()
    sticks = D.StickBreakingTransform()
    vector = D.IndependentTransform(exp, 1)
    return {
        "cat": (D.CatTransform([exp, affine, tanh], -1, [1, 2, 1]), (3, 4)),
        "cat rows": (D.CatTransform([exp, affine]), (2, 3)),
        "cat vectors": (D.CatTransform([vector, tanh], 0, [1, 2]), (3, 4)),
        "cat in a vector": (D.CatTransform([vector, tanh], 1, [1, 2]), (2, 3)),
        "stack": (D.StackTransform([exp, affine, tanh], -1), (2, 3)),
        "stack rows": (D.StackTransform([exp, tanh]), (2, 3)),
        "stack vectors": (D.StackTransform([vector, tanh]), (2, 3)),
        "stack in a vector": (D.StackTransform([vector, tanh], -1), (3, 2)),
        "cat of sticks": (D.CatTransform([sticks, D.StickBreakingTransform()], 0), (2, 1)),
    }


@pytest.mark.parametrize("name", parts())
def test_parts_are_transformed_each_in_its_way(name: str) -> None:
    transform, shape = parts()[name]
    x = t(np.random.default_rng(SEED).standard_normal(shape))
    y = transform(x)
    assert_close(transform.inv(y), x, rtol=1e-9, atol=1e-9)
    assert transform.codomain.check(y).all() and not transform.codomain.check(y * math.nan).any()
    assert_close(gf.compile(transform)(x), y)
    if name == "cat of sticks":
        return
    jacobian = gf.func.jacrev(transform)(x).numpy().reshape(x.numel(), x.numel())
    stretch = transform.log_abs_det_jacobian(x, y)
    assert stretch.shape == transform.codomain.check(y).shape
    assert stretch.sum().item() == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-9)


def test_parts_say_what_is_wrong_and_are_registered() -> None:
    constraint = C.cat([C.positive, C.real, C.unit_interval], -1, [1, 1, 2])
    x = t(np.random.default_rng(SEED).standard_normal((5, 4)))
    for registry in (D.biject_to, D.transform_to):
        assert constraint.check(registry(constraint)(x)).all()
        stacked = C.stack([C.positive, C.real, C.unit_interval, C.less_than(0.0)], 1)
        assert stacked.check(registry(stacked)(x)).all()
    assert constraint.check(t([[1.0, -1.0, 0.5, 2.0]])).tolist() == [[True, True, True, False]]
    with pytest.raises(ValueError, match="axis 0 should be of size 2"):
        D.StackTransform([D.ExpTransform(), D.ExpTransform()])(x)
    with pytest.raises(ValueError, match="2 lengths are given for 1 parts"):
        D.CatTransform([D.ExpTransform()], 0, [1, 2])
    with pytest.raises(TypeError, match="a sequence of transforms"):
        D.CatTransform([C.real])
    once = D.TanhTransform().with_cache()
    assert once.inv(once(x)) is x and once.with_cache() is once
    assert once.inv.with_cache(0)(once(x)) is not x
