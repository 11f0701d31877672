"""Distributions beside SciPy's: densities, quantiles, moments, entropies; samples and gradients."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

import graphflow as gf
from graphflow import distributions as dist
from graphflow import nn, optim

rng = np.random.default_rng(11)
LOC, SCALE = rng.standard_normal(3), rng.uniform(0.4, 2.0, 3)
PROBS = rng.uniform(0.1, 0.9, 3)

CONTINUOUS = {
    "Normal": (dist.Normal(gf.tensor(LOC), gf.tensor(SCALE)), stats.norm(LOC, SCALE)),
    "LogNormal": (
        dist.LogNormal(gf.tensor(LOC), gf.tensor(SCALE)),
        stats.lognorm(s=SCALE, scale=np.exp(LOC)),
    ),
    "Uniform": (
        dist.Uniform(gf.tensor(LOC), gf.tensor(LOC + SCALE)),
        stats.uniform(LOC, SCALE),
    ),
    "Exponential": (dist.Exponential(gf.tensor(SCALE)), stats.expon(scale=1 / SCALE)),
    "Laplace": (dist.Laplace(gf.tensor(LOC), gf.tensor(SCALE)), stats.laplace(LOC, SCALE)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions_beside_scipy(name):
    ours, theirs = CONTINUOUS[name]
    at = theirs.ppf(np.array([[0.05], [0.4], [0.9]]))
    value = gf.tensor(at)
    np.testing.assert_allclose(ours.log_prob(value).numpy(), theirs.logpdf(at), rtol=1e-9)
    np.testing.assert_allclose(ours.cdf(value).numpy(), theirs.cdf(at), rtol=1e-9)
    np.testing.assert_allclose(ours.icdf(gf.tensor(theirs.cdf(at))).numpy(), at, rtol=1e-7)
    for found, expected in [
        (ours.mean, theirs.mean()),
        (ours.variance, theirs.var()),
        (ours.stddev, theirs.std()),
        (ours.entropy(), theirs.entropy()),
    ]:
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_follow_the_distribution(name):
    gf.manual_seed(3)
    ours, theirs = CONTINUOUS[name]
    drawn = ours.sample((4000,))
    assert drawn.shape == (4000, 3) and not drawn.requires_grad
    for column in range(3):
        one = stats.kstest(theirs.cdf(drawn.numpy())[:, column], stats.uniform.cdf)
        assert one.pvalue > 1e-4, (name, column, one)


def test_choices_beside_scipy():
    weights = rng.uniform(0.1, 1.0, (2, 4))
    share = weights / weights.sum(-1, keepdims=True)
    for choice in (
        dist.Categorical(gf.tensor(weights)),
        dist.Categorical(logits=gf.tensor(np.log(weights) + 3)),
    ):
        np.testing.assert_allclose(choice.probs.numpy(), share, rtol=1e-12)
        np.testing.assert_allclose(choice.entropy().numpy(), stats.entropy(share, axis=-1))
        found = choice.log_prob(gf.tensor([[1, 3], [0, 2], [2, 2]])).numpy()
        expected = np.log([[share[0, 1], share[1, 3]], [share[0, 0], share[1, 2]], share[:, 2]])
        np.testing.assert_allclose(found, expected)
        assert choice.enumerate_support().tolist() == [[i, i] for i in range(4)]
        gf.manual_seed(5)
        counts = (choice.sample((6000,)).numpy()[:, :, None] == np.arange(4)).sum(0)
        for row in range(2):
            assert stats.chisquare(counts[row], 6000 * share[row]).pvalue > 1e-4
    vector = dist.OneHotCategorical(gf.tensor(weights))
    assert vector.event_shape == (4,) and vector.batch_shape == (2,)
    drawn = vector.sample((5,))
    assert drawn.shape == (5, 2, 4) and drawn.sum(-1).tolist() == [[1.0, 1.0]] * 5
    expected = np.log((drawn.numpy() * share).sum(-1))
    np.testing.assert_allclose(vector.log_prob(drawn).numpy(), expected)


def test_bernoulli_beside_scipy():
    theirs = stats.bernoulli(PROBS)
    for ours in (
        dist.Bernoulli(gf.tensor(PROBS)),
        dist.Bernoulli(logits=gf.tensor(np.log(PROBS / (1 - PROBS)))),
    ):
        both = ours.enumerate_support()
        np.testing.assert_allclose(ours.log_prob(both).numpy(), theirs.logpmf(both.numpy()))
        np.testing.assert_allclose(ours.entropy().numpy(), theirs.entropy())
        np.testing.assert_allclose(ours.variance.numpy(), theirs.var())
        gf.manual_seed(1)
        away = ours.sample((4000,)).numpy().mean(0) - PROBS
        assert (abs(away) < 5 * theirs.std() / math.sqrt(4000)).all()


def test_vectors_beside_scipy():
    factor = np.tril(rng.standard_normal((3, 3)) * 0.4) + np.diag([0.7, 1.1, 1.6])
    covariance = factor @ factor.T
    theirs = stats.multivariate_normal(LOC, covariance)
    at = rng.standard_normal((5, 3))
    for given in (
        {"covariance_matrix": gf.tensor(covariance)},
        {"precision_matrix": gf.tensor(np.linalg.inv(covariance))},
        {"scale_tril": gf.tensor(factor)},
    ):
        ours = dist.MultivariateNormal(gf.tensor(LOC), **given)
        np.testing.assert_allclose(ours.log_prob(gf.tensor(at)).numpy(), theirs.logpdf(at))
        np.testing.assert_allclose(ours.entropy().item(), theirs.entropy())
        np.testing.assert_allclose(ours.covariance_matrix.numpy(), covariance)
    gf.manual_seed(2)
    drawn = ours.expand((2,)).sample((9000,)).numpy()
    assert drawn.shape == (9000, 2, 3)
    np.testing.assert_allclose(np.cov(drawn[:, 1].T), covariance, atol=0.12)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_divergence_is_the_integral_that_it_stands_for(name):
    p, theirs = CONTINUOUS[name]
    second = {"Normal": (LOC + 0.3, SCALE * 1.4), "LogNormal": (LOC + 0.3, SCALE * 1.4),
              "Uniform": (LOC - 0.2, LOC + SCALE + 0.5), "Exponential": (SCALE * 1.7,),
              "Laplace": (LOC + 0.3, SCALE * 1.4)}[name]  # fmt: skip
    q = type(p)(*map(gf.tensor, second))
    found = dist.kl_divergence(p, q).numpy()
    for column in range(3):

        def weighed(u, column=column):
            value = gf.tensor(theirs.ppf(np.full(3, u)))
            return float((p.log_prob(value) - q.log_prob(value))[column])

        expected, _ = integrate.quad(weighed, 0, 1, limit=200)
        assert found[column] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_divergence_of_choices_and_vectors():
    a, b = rng.uniform(0.1, 1.0, (2, 4)), rng.uniform(0.1, 1.0, (2, 4))
    p, q = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    for kind in (dist.Categorical, dist.OneHotCategorical):
        found = dist.kl_divergence(kind(gf.tensor(a)), kind(gf.tensor(b)))
        np.testing.assert_allclose(found.numpy(), stats.entropy(p, q, axis=-1))
    coins = dist.kl_divergence(dist.Bernoulli(gf.tensor(p)), dist.Bernoulli(gf.tensor(q)))
    pair = [np.stack([x, 1 - x]) for x in (p, q)]
    np.testing.assert_allclose(coins.numpy(), stats.entropy(*pair, axis=0))
    # A diagonal covariance: the sum over independent numbers.
    one, two = (gf.tensor(x) for x in (LOC, LOC[::-1].copy()))
    scales = [gf.tensor(x) for x in (SCALE, SCALE[::-1].copy())]
    vectors = [
        dist.MultivariateNormal(m, scale_tril=gf.diag(s))
        for m, s in zip((one, two), scales, strict=True)
    ]
    numbers = [
        dist.Independent(dist.Normal(m, s), 1) for m, s in zip((one, two), scales, strict=True)
    ]
    assert dist.kl_divergence(*vectors).item() == pytest.approx(
        dist.kl_divergence(*numbers).item(), rel=1e-10
    )
    with pytest.raises(NotImplementedError, match="no rule for Normal and Bernoulli"):
        dist.kl_divergence(dist.Normal(0.0, 1.0), dist.Bernoulli(0.5))


def test_a_policy_learns_in_a_compiled_step():
    """REINFORCE on a two-armed bandit: drawing, log_prob and entropy in one program."""
    gf.manual_seed(0)
    policy = nn.Linear(1, 2)
    optimizer = optim.Adam(policy.parameters(), lr=0.05)

    @gf.compile
    def step(x):
        choice = dist.Categorical(logits=policy(x))
        arm = choice.sample()
        reward = (arm == 1).to(gf.float32) - 0.5
        loss = -(choice.log_prob(arm) * reward).mean() - 0.01 * choice.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return choice.probs[0, 1]

    for _ in range(60):
        chosen = step(gf.ones(16, 1))
    assert chosen.item() > 0.85


def test_reparameterised_samples_carry_gradients():
    gf.manual_seed(4)
    loc = gf.tensor(LOC).requires_grad_()
    scale = gf.tensor(SCALE).requires_grad_()

    @gf.compile
    def mean_square(loc, scale):
        return dist.Independent(dist.Normal(loc, scale), 1).rsample((20000,)).square().mean(0).sum()

    mean_square(loc, scale).backward()  # of loc**2 + scale**2
    np.testing.assert_allclose(loc.grad.numpy(), 2 * LOC, atol=0.06)
    np.testing.assert_allclose(scale.grad.numpy(), 2 * SCALE, atol=0.12)
    logits = gf.zeros(3).requires_grad_()
    lent = dist.OneHotCategoricalStraightThrough(logits=logits).rsample()
    (lent * gf.tensor([1.0, 2.0, 3.0])).sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), [-1 / 3, 0, 1 / 3], atol=1e-6)


def test_mistakes_are_one_clear_error():
    for wrong, message in [
        (lambda: dist.Normal(0.0, gf.tensor([1.0, -1.0])), "Normal: scale should be positive"),
        (lambda: dist.Uniform(1.0, 1.0), "high should be greater than low"),
        (lambda: dist.Categorical(gf.tensor([-1.0, 2.0])), "probs should be a simplex"),
        (lambda: dist.Categorical(), "either probs or logits"),
        (lambda: dist.Bernoulli(0.5, 0.5), "either probs or logits"),
        (lambda: dist.Bernoulli(1.5), "probs should be between 0 and 1"),
        (lambda: dist.Categorical(gf.ones(3)).log_prob(gf.tensor(3)), "whole number from 0 to 2"),
        (lambda: dist.Exponential(1.0).log_prob(gf.tensor(-1.0)), "value should be at least 0"),
        (lambda: dist.Normal(0.0, 1.0).log_prob(2.0), "value should be a tensor, got float"),
        (lambda: dist.Normal(gf.zeros(3), 1.0).log_prob(gf.zeros(2)), r"shape \(2,\) does not fit"),
        (lambda: dist.MultivariateNormal(gf.zeros(2)), "exactly one of"),
        (lambda: dist.Independent(dist.Normal(0.0, 1.0), 1), "1 batch axes should move"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
    assert dist.Normal(0.0, -1.0, validate_args=False).scale.item() == -1.0
    assert repr(dist.Normal(0.0, 2.0)) == "Normal(loc: 0.0, scale: 2.0)"
