"""Shares, angles and matrices at random: densities, moments, draws, gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats as st

import graphflow as gf
import graphflow.distributions as D
from graphflow.autograd import gradcheck
from graphflow.distributions import utils as U
from graphflow.testing import assert_close

SEED = 20261204
A, B = np.array([0.4, 1.3, 3.0, 12.0]), np.array([0.7, 2.0, 0.5, 3.0])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.2, 0.7]])


def t(x: Any) -> gf.Tensor:
    return gf.tensor(np.asarray(x), dtype=gf.float64)


def drawn_alike(ours: Any, count: int) -> gf.Tensor:
    """Draws, that are the same compiled."""
    gf.manual_seed(SEED)
    eager = ours.sample((count,))
    gf.manual_seed(SEED)
    assert_close(gf.compile(lambda: ours.sample((count,)))(), eager, rtol=1e-9, atol=1e-12)
    return eager


def test_kumaraswamy_is_a_power_of_a_beta_variable() -> None:
    ours, power = D.Kumaraswamy(t(A), t(B)), st.beta(1, B)  # x^a is Beta(1, b)
    x = power.rvs((5, 4), random_state=SEED) ** (1 / A)
    logs = power.logpdf(x**A) + np.log(A) + (A - 1) * np.log(x)
    np.testing.assert_allclose(ours.log_prob(t(x)).numpy(), logs, 1e-9)
    np.testing.assert_allclose(ours.cdf(t(x)).numpy(), power.cdf(x**A), 1e-9)
    np.testing.assert_allclose(ours.icdf(t(power.cdf(x**A))).numpy(), x, 1e-6)
    for i, (a, b) in enumerate(zip(A, B, strict=True)):
        moments = [st.beta(1, b).expect(lambda y, a=a, k=k: y ** (k / a)) for k in (1, 2)]
        assert ours.mean[i].item() == pytest.approx(moments[0], rel=1e-6)
        assert ours.variance[i].item() == pytest.approx(moments[1] - moments[0] ** 2, rel=1e-5)
    smooth = D.Kumaraswamy(t([1.5, 3.0]), t([2.5, 4.0]))
    y = (np.arange(40000) + 0.5) / 40000
    logs = smooth.log_prob(t(y[:, None])).numpy()
    np.testing.assert_allclose(smooth.entropy().numpy(), -(np.exp(logs) * logs).mean(0), 1e-5)
    np.testing.assert_allclose(smooth.mode.numpy(), y[logs.argmax(0)], atol=1e-4)
    below = power.cdf(drawn_alike(ours, 4000).numpy() ** A)
    assert all(st.kstest(column, "uniform").pvalue > 1e-4 for column in below.T)


@pytest.mark.parametrize("k", [1e-9, 0.02, 0.5, 5.0, 1e3, 1e8])
def test_angles_are_von_mises(k: float) -> None:
    ours, oracle = D.VonMises(t(0.0), t(k)), st.vonmises(k)
    x = drawn_alike(ours, 4000)
    assert (x.abs() <= math.pi).all()
    assert st.kstest(x.numpy(), oracle.cdf).pvalue > 1e-4
    # What of the density depends on the angle is k cos(x), as large as k: so is its rounding.
    near = 1e-9 + k * 4e-16
    np.testing.assert_allclose(ours.log_prob(x).numpy(), oracle.logpdf(x.numpy()), atol=near)
    assert ours.entropy().item() == pytest.approx(oracle.entropy(), abs=near)
    moved = D.VonMises(t(3.0), t(k)).sample((500,))
    assert (moved.abs() <= math.pi).all()
    if k > 100:
        away = np.angle(np.exp(1j * (moved.numpy() - 3)))
        assert np.abs(away).max() < 6 / math.sqrt(k)


def test_wishart_matrices_are_scipys() -> None:
    scale = FACTOR @ FACTOR.T
    ours, oracle = D.Wishart(t(4.5), scale_tril=t(FACTOR)), st.wishart(4.5, scale)
    x = oracle.rvs(7, random_state=SEED)
    logs = [oracle.logpdf(v) for v in x]
    np.testing.assert_allclose(ours.log_prob(t(x)).numpy(), logs, 1e-9)
    for same in (D.Wishart(t(4.5), t(scale)), D.Wishart(4.5, precision_matrix=t(scale).inverse())):
        np.testing.assert_allclose(same.log_prob(t(x)).numpy(), logs, 1e-7)
    for found, wanted in (
        (ours.mean, oracle.mean()), (ours.variance, oracle.var()),
        (ours.mode, oracle.mode()), (ours.entropy(), oracle.entropy()),
    ):  # fmt: skip
        np.testing.assert_allclose(found.numpy(), wanted, 1e-9)
    drawn = drawn_alike(ours, 20000)
    np.testing.assert_allclose(drawn.mean(0).numpy(), oracle.mean(), atol=0.25)
    logs = ours.log_prob(drawn).numpy()
    assert -logs.mean() == pytest.approx(oracle.entropy(), abs=4.5 * logs.std() / math.sqrt(20000))
    wide = D.Wishart(t([3.0, 5.0]), scale_tril=t(FACTOR)).expand((4, 2))
    assert wide.sample((6,)).shape == (6, 4, 2, 3, 3) and wide.log_prob(t(x[0])).shape == (4, 2)
    with pytest.raises(ValueError, match="df should be greater than n - 1 = 2"):
        D.Wishart(2.0, scale_tril=t(FACTOR))


def test_gradients_of_matrices() -> None:
    x = t(st.wishart(5, FACTOR @ FACTOR.T).rvs(random_state=SEED))

    def logs(df: Any, below: Any) -> Any:
        return D.Wishart(df, scale_tril=below.tril()).log_prob(x)

    assert gradcheck(logs, [t(4.5).requires_grad_(), t(FACTOR).requires_grad_()])
    # The mean of log det of draws is a sum of digamma functions of df, half.
    df = t(4.5).requires_grad_()
    gf.manual_seed(SEED)
    D.Wishart(df, scale_tril=t(FACTOR)).rsample((20000,)).logdet().mean().backward()
    wanted = sum(gf.polygamma(1, t((4.5 - i) / 2)).item() / 2 for i in range(3))
    assert df.grad.item() == pytest.approx(wanted, rel=0.05)
    factors = D.LKJCholesky(3, t(2.0)).sample()
    assert gradcheck(lambda a: D.LKJCholesky(3, a).log_prob(factors), [t(2.0).requires_grad_()])
    share = t([0.3, 0.8])
    for make, inputs in ((D.Kumaraswamy, (2.0, 3.0)), (D.FisherSnedecor, (2.0, 3.0)),
                         (D.VonMises, (0.5, 3.0))):  # fmt: skip
        leaves = [t(value).requires_grad_() for value in inputs]
        assert gradcheck(lambda a, b, make=make: make(a, b).log_prob(share), leaves)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_correlations_are_all_alike(size: int) -> None:
    a = np.array([0.6, 1.0, 4.0])
    ours = D.LKJCholesky(size, t(a))
    factors = drawn_alike(ours, 5000)
    assert D.constraints.corr_cholesky.check(factors).all()
    below = (factors @ factors.mT).numpy()[..., *np.tril_indices(size, -1)]
    # (c + 1) / 2 of a correlation c is a beta variable of these two equal parameters.
    for i, concentration in enumerate(a):
        both = concentration + (size - 2) / 2
        for column in below[:, i].T:
            assert st.kstest((column + 1) / 2, st.beta(both, both).cdf).pvalue > 1e-5
    assert ours.expand((2, 3)).log_prob(factors[0]).shape == (2, 3)
    with pytest.raises(ValueError, match="dim should be at least 2"):
        D.LKJCholesky(1)


def test_densities_of_factors_are_normalised() -> None:
    rng = np.random.default_rng(SEED)
    a = np.array([1.0, 1.5, 3.0])
    c = rng.uniform(-1, 1, 7)
    two = np.zeros((7, 1, 2, 2))
    two[:, 0, 0, 0], two[:, 0, 1, 0], two[:, 0, 1, 1] = 1, c, np.sqrt(1 - c * c)
    wanted = st.beta(a, a).logpdf((c[:, None] + 1) / 2) - math.log(2)
    np.testing.assert_allclose(D.LKJCholesky(2, t(a)).log_prob(t(two)).numpy(), wanted, 1e-9)
    # Three by three: the elements below the diagonal, of a segment and a disc.
    angle, radius = rng.uniform(0, 2 * math.pi, 200000), np.sqrt(rng.uniform(0, 1, 200000))
    x, y, z = rng.uniform(-1, 1, 200000), radius * np.cos(angle), radius * np.sin(angle)
    three = np.zeros((200000, 1, 3, 3))
    three[:, 0, 0, 0], three[:, 0, 1, 0], three[:, 0, 1, 1] = 1, x, np.sqrt(1 - x * x)
    three[:, 0, 2, 0], three[:, 0, 2, 1], three[:, 0, 2, 2] = y, z, np.sqrt(1 - radius * radius)
    density = D.LKJCholesky(3, t(a), validate_args=False).log_prob(t(three)).exp().numpy()
    np.testing.assert_allclose(density.mean(0) * 2 * math.pi, 1, rtol=0.02)


def test_a_distribution_of_ones_own_finds_its_helpers() -> None:
    class Gate(D.Distribution):
        def __init__(self, logits: Any, scale: Any) -> None:
            self.logits, self.scale = U.broadcast_all(logits, scale)
            super().__init__(self.logits.shape, validate_args=False)

        @U.lazy_property
        def probs(self) -> gf.Tensor:
            return U.logits_to_probs(self.logits, is_binary=True)

    gate = Gate(gf.tensor([0.0, np.log(3.0)]), 2)
    assert gate.scale.tolist() == [2.0, 2.0] and gate.probs is gate.probs
    np.testing.assert_allclose(gate.probs.numpy(), [0.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(
        U.probs_to_logits(gate.probs, is_binary=True).numpy(), gate.logits.numpy(), atol=1e-6
    )
    shares = gf.tensor([0.25, 0.75])
    np.testing.assert_allclose(
        U.logits_to_probs(U.probs_to_logits(shares)).numpy(), shares.numpy(), rtol=1e-6
    )
    assert U.clamp_probs(gf.tensor([0.0, 1.0])).log().isfinite().all()
    assert U._standard_normal((2, 3), gf.float64, None).dtype is gf.float64
