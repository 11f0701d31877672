"""Gamma variables, counts, transforms, mixtures and relaxed choices against SciPy and draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st

import graphflow as gf
import graphflow.distributions as D
from graphflow.errors import GraphFlowError
from graphflow.testing import assert_close

SEED = 20261202
A, B = np.array([0.4, 1.3, 3.0, 12.0]), np.array([0.7, 2.0, 0.5, 3.0])
P = np.array([0.1, 0.35, 0.6, 0.9])


def t(x: Any) -> gf.Tensor:
    return gf.tensor(np.asarray(x), dtype=gf.float64)


# name: (parameters, SciPy's)
CONTINUOUS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "Gamma": ((A, B), st.gamma(A, scale=1 / B)),
    "Chi2": ((A,), st.chi2(A)),
    "InverseGamma": ((A + 2, B), st.invgamma(A + 2, scale=B)),
    "Beta": ((A, B), st.beta(A, B)),
    "StudentT": ((A + 2, B, A), st.t(A + 2, B, A)),
    "Cauchy": ((A, B), st.cauchy(A, B)),
    "Gumbel": ((A, B), st.gumbel_r(A, B)),
    "HalfNormal": ((B,), st.halfnorm(scale=B)),
    "HalfCauchy": ((B,), st.halfcauchy(scale=B)),
    "Weibull": ((B, A + 1), st.weibull_min(A + 1, scale=B)),
    "FisherSnedecor": ((A + 1, B + 4), st.f(A + 1, B + 4)),
    "Pareto": ((B, A + 2), st.pareto(A + 2, scale=B)),
}
COUNTS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "Poisson": ((np.array([0.3, 4.0, 25.0, 300.0]),), st.poisson([0.3, 4.0, 25.0, 300.0])),
    "Geometric": ((P,), st.geom(P, -1)),
    "Binomial": ((np.array([1, 4, 9, 30]), P), st.binom([1, 4, 9, 30], P)),
    "NegativeBinomial": ((A + 1, P), st.nbinom(A + 1, 1 - P)),
}


def made(name: str) -> tuple[Any, Any]:
    parameters, oracle = {**CONTINUOUS, **COUNTS}[name]
    return getattr(D, name)(*map(t, parameters)), oracle


@pytest.mark.parametrize("name", [*CONTINUOUS, *COUNTS])
def test_densities_and_moments_are_scipys(name: str) -> None:
    ours, oracle = made(name)
    value = oracle.rvs((5, 4), random_state=SEED).astype(np.float64)
    logs = oracle.logpdf(value) if name in CONTINUOUS else oracle.logpmf(value)
    np.testing.assert_allclose(ours.log_prob(t(value)).numpy(), logs, 1e-9, 1e-9)
    if name not in ("Cauchy", "HalfCauchy"):
        np.testing.assert_allclose(ours.mean.numpy(), oracle.mean(), 1e-9)
        np.testing.assert_allclose(ours.variance.numpy(), oracle.var(), 1e-9)
    for what in ("cdf", "icdf", "entropy"):
        if getattr(type(ours), what) is getattr(D.Distribution, what):
            continue
        if what == "entropy":
            np.testing.assert_allclose(ours.entropy().numpy(), oracle.entropy(), 1e-8)
            continue
        point = oracle.cdf(value) if what == "icdf" else value
        wanted = value if what == "icdf" else oracle.cdf(value)
        np.testing.assert_allclose(getattr(ours, what)(t(point)).numpy(), wanted, 1e-6)
    assert ours.expand((2, 4)).batch_shape == (2, 4) and ours.batch_shape == (4,)


@pytest.mark.parametrize("name", [*CONTINUOUS, *COUNTS])
def test_draws_are_distributed_so_and_the_same_compiled(name: str) -> None:
    ours, oracle = made(name)
    gf.manual_seed(SEED)
    eager = ours.sample((4000,))
    gf.manual_seed(SEED)
    assert_close(gf.compile(lambda: ours.sample((4000,)))(), eager, rtol=1e-9, atol=1e-12)
    below = oracle.cdf(eager.numpy())
    if name in COUNTS:  # a share of each step, at random: uniform again
        before = oracle.cdf(eager.numpy() - 1)
        below = before + np.random.default_rng(SEED).random(below.shape) * (below - before)
    for column in np.sort(below, 0).T:
        gap = np.abs(column - (np.arange(4000) + 0.5) / 4000).max()
        assert gap < 2.2 / math.sqrt(4000)  # Kolmogorov: 1 in 10,000


def test_gradients_of_gamma_draws_follow_their_quantiles() -> None:
    gf.manual_seed(SEED)
    a = t([0.3, 2.0, 9.0]).requires_grad_()
    D.Gamma(a, gf.ones(3, dtype=gf.float64)).rsample((20000,)).log().mean(0).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), sp.polygamma(1, [0.3, 2.0, 9.0]), 0.05)
    c = t([0.7, 2.0, 3.0]).requires_grad_()
    D.Dirichlet(c).rsample((20000,))[:, 0].mean().backward()
    total = 5.7
    wanted = np.array([total - 0.7, -0.7, -0.7]) / total**2
    np.testing.assert_allclose(c.grad.numpy(), wanted, 0.05, 2e-3)
    b = t([2.0]).requires_grad_()
    D.Beta(b, t([3.0])).log_prob(t([0.4])).backward()
    np.testing.assert_allclose(b.grad.numpy(), np.log(0.4) - sp.digamma(2) + sp.digamma(5), 1e-9)


def test_dirichlet_and_multinomial_are_scipys() -> None:
    a = np.array([0.7, 2.0, 3.0])
    ours, oracle = D.Dirichlet(t(a)), st.dirichlet(a)
    x = oracle.rvs(5, random_state=SEED)
    np.testing.assert_allclose(ours.log_prob(t(x)).numpy(), [oracle.logpdf(v) for v in x], 1e-9)
    np.testing.assert_allclose(ours.entropy().numpy(), oracle.entropy(), 1e-9)
    np.testing.assert_allclose(ours.variance.numpy(), oracle.var(), 1e-9)
    assert ours.mode.sum().item() == pytest.approx(1) and ours.rsample((7,)).shape == (7, 3)
    p = np.array([0.2, 0.3, 0.5])
    counts, oracle = D.Multinomial(6, t(p)), st.multinomial(6, p)
    x = oracle.rvs(5, random_state=SEED)
    np.testing.assert_allclose(counts.log_prob(t(x)).numpy(), oracle.logpmf(x), 1e-9)
    np.testing.assert_allclose(counts.entropy().numpy(), oracle.entropy(), 1e-9)
    gf.manual_seed(SEED)
    drawn = counts.sample((3000,))
    assert (drawn.sum(-1) == 6).all()
    np.testing.assert_allclose(drawn.mean(0).numpy(), 6 * p, 0.05)


def test_poisson_is_a_function_too() -> None:
    rates = gf.tensor([0.0, 2.5, 40.0, 1e6])
    gf.manual_seed(SEED)
    drawn = gf.poisson(rates.expand(3000, 4))
    assert drawn.dtype is gf.float32 and not drawn[:, 0].any()
    np.testing.assert_allclose(drawn.mean(0).numpy(), rates.numpy(), 0.05, 1e-9)
    np.testing.assert_allclose(drawn[:, 1:].var(0).numpy(), rates[1:].numpy(), 0.1)
    with pytest.raises(GraphFlowError, match="at least 0"):
        gf.poisson(gf.tensor([-1.0]))
    with pytest.raises(GraphFlowError, match="floating"):
        gf.poisson(gf.tensor([1]))


# ---- transforms ----------------------------------------------------------------------------------

TRANSFORMS: dict[str, D.Transform] = {
    "exp": D.ExpTransform(), "affine": D.AffineTransform(0.3, -2.0),
    "sigmoid": D.SigmoidTransform(), "tanh": D.TanhTransform(), "softplus": D.SoftplusTransform(),
    "power": D.ComposeTransform([D.ExpTransform(), D.PowerTransform(2.5)]),
    "stick": D.StickBreakingTransform(), "nothing": D.identity_transform,
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_undone_and_say_how_they_stretch(name: str) -> None:
    transform = TRANSFORMS[name]
    x = t(np.random.default_rng(SEED).standard_normal(3))
    y = transform(x)
    assert_close(transform.inv(y), x, rtol=1e-9, atol=1e-9)
    assert transform.inv.inv is transform and y.shape == transform.forward_shape((3,))
    jacobian = gf.func.jacrev(transform)(x).numpy()
    jacobian = jacobian[:-1] if name == "stick" else jacobian
    wanted = np.linalg.slogdet(jacobian)[1]
    stretch = transform.log_abs_det_jacobian(x, y)
    assert stretch.sum().item() == pytest.approx(wanted, abs=1e-9)
    assert_close(transform.inv.log_abs_det_jacobian(y, x), -stretch)


def test_transformed_distributions_have_the_density_of_what_they_draw() -> None:
    loc, scale = t([0.2, -0.4]), t([0.5, 1.5])
    ours = D.TransformedDistribution(D.Normal(loc, scale), D.ExpTransform())
    same, x = D.LogNormal(loc, scale), t([[0.3, 2.0], [1.0, 0.1]])
    for what in ("log_prob", "cdf"):
        assert_close(getattr(ours, what)(x), getattr(same, what)(x))
    assert_close(ours.icdf(t([0.2, 0.9])), same.icdf(t([0.2, 0.9])))
    falling = D.TransformedDistribution(D.Normal(loc, scale), [D.AffineTransform(0.0, -1.0)])
    assert_close(falling.cdf(x), D.Normal(-loc, scale).cdf(x))
    squashed = D.TransformedDistribution(
        D.Independent(D.Normal(loc, scale), 1), D.TanhTransform(cache_size=1)
    )
    assert squashed.event_shape == (2,) and squashed.expand((3,)).batch_shape == (3,)

    @gf.compile
    def loss(mean: Any) -> Any:
        policy = D.TransformedDistribution(
            D.Independent(D.Normal(mean, scale), 1), D.TanhTransform(cache_size=1)
        )
        drawn = policy.rsample((64,))
        return policy.log_prob(drawn).mean()

    mean = (loc + 20).detach().requires_grad_()  # tanh is 1 there: only the cache can undo it
    value = loss(mean)
    assert np.isfinite(value.item())
    simplex = D.TransformedDistribution(D.Normal(loc, scale), D.StickBreakingTransform())
    assert simplex.event_shape == (3,) and simplex.sample((4,)).shape == (4, 3)
    assert simplex.log_prob(simplex.sample((4,))).shape == (4,)


def test_mixtures_weigh_their_components() -> None:
    gf.manual_seed(SEED)
    weights, loc, scale = t([0.3, 0.7]), t([-2.0, 1.0]), t([0.5, 1.5])
    mixture = D.MixtureSameFamily(D.Categorical(weights), D.Normal(loc, scale))
    x = np.linspace(-4, 4, 9)
    parts = [w * st.norm(m, s).pdf(x) for w, m, s in ((0.3, -2.0, 0.5), (0.7, 1.0, 1.5))]
    np.testing.assert_allclose(mixture.log_prob(t(x)).exp().numpy(), sum(parts), 1e-9)
    drawn = mixture.sample((8000,))
    assert drawn.mean().item() == pytest.approx(mixture.mean.item(), abs=0.08)
    assert drawn.var().item() == pytest.approx(mixture.variance.item(), rel=0.06)
    assert mixture.cdf(t(9.0)).item() == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="entries of the mixture"):
        D.MixtureSameFamily(D.Categorical(weights), D.Normal(gf.zeros(3), gf.ones(3)))


def test_relaxed_choices_integrate_to_one_and_carry_gradients() -> None:
    relaxed = D.RelaxedBernoulli(t(0.7), logits=t(0.4))
    y = 1 / (1 + np.exp(-np.linspace(-30, 30, 4001)))
    inner = (y > 1e-12) & (y < 1 - 1e-12)
    density = relaxed.log_prob(t(y[inner])).exp().numpy()
    assert np.trapezoid(density, y[inner]) == pytest.approx(1, abs=1e-3)
    logits = t([0.1, 0.5, -0.3]).requires_grad_()
    gf.manual_seed(SEED)
    drawn = D.RelaxedOneHotCategorical(t(0.5), logits=logits).rsample((500,))
    assert_close(drawn.sum(-1), gf.ones(500, dtype=gf.float64))
    drawn[:, 1].mean().backward()
    assert logits.grad[1] > 0 > logits.grad[0]
    two = D.RelaxedOneHotCategorical(t(0.7), logits=t([0.4, 0.0]))
    pair = t(np.stack([y[inner], 1 - y[inner]], -1))
    assert np.trapezoid(two.log_prob(pair).exp().numpy(), y[inner]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["Gamma", "Beta", "Poisson", "Geometric", "HalfNormal"])
def test_divergences_are_the_mean_of_the_logarithms(name: str) -> None:
    gf.manual_seed(SEED)
    given = [[t(2.0), t(1.5)], [t(2.6), t(1.1)]]
    if name in ("Poisson", "HalfNormal", "Geometric"):
        given = [[t(0.6)], [t(0.4)]]
    p, q = (getattr(D, name)(*parameters) for parameters in given)
    drawn = p.sample((40000,))
    logs = (p.log_prob(drawn) - q.log_prob(drawn)).numpy()
    error = 4.5 * logs.std() / 200
    assert D.kl_divergence(p, q).item() == pytest.approx(logs.mean(), abs=error)


def test_parameters_and_values_are_checked() -> None:
    for wrong in (lambda: D.Gamma(-1.0, 1.0), lambda: D.Poisson(-1.0), lambda: D.Geometric(1.5),
                  lambda: D.Dirichlet(gf.tensor(1.0)), lambda: D.Binomial(3),
                  lambda: D.Beta(1.0, 1.0).log_prob(t(1.5)),
                  lambda: D.Poisson(1.0).log_prob(t(0.5)),
                  lambda: D.Multinomial(3, t([0.5, 0.5])).log_prob(t([1.0, 1.0])),
                  lambda: D.Pareto(1.0, 1.0).log_prob(t(0.5))):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()
    assert D.Binomial(2, t(0.5)).enumerate_support().tolist() == [0.0, 1.0, 2.0]
