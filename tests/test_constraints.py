"""Constraints, what distributions say with them, and transforms to their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.distributions as D
from graphflow.distributions import constraints as C
from graphflow.testing import assert_close

SEED = 20261203
NAN = float("nan")


def t(x: Any) -> gf.Tensor:
    return gf.tensor(np.asarray(x), dtype=gf.float64)


EYE, LOW = np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]])
# constraint: (values in it, values that are not)
CHECKED: list[tuple[Any, list[Any], list[Any]]] = [
    (C.real, [0.0, -1e300, np.inf], [NAN]),
    (C.boolean, [0, 1], [0.5, -1, 2]),
    (C.positive, [1e-300, np.inf], [0.0, -1.0, NAN]),
    (C.nonnegative, [0.0, 3.0], [-1e-300, NAN]),
    (C.less_than(2.0), [1.9, -5.0], [2.0, 3.0, NAN]),
    (C.unit_interval, [0.0, 0.5, 1.0], [-0.1, 1.1, NAN]),
    (C.half_open_interval(-1.0, 1.0), [-1.0, 0.9], [1.0, -1.1]),
    (C.integer_interval(1, 3), [1, 2, 3], [0, 4, 1.5]),
    (C.nonnegative_integer, [0, 7], [-1, 0.5]),
    (C.positive_integer, [1, 7], [0, 1.5]),
    (C.real_vector, [[1.0, 2.0]], [[1.0, NAN]]),
    (C.simplex, [[0.2, 0.8], [0.0, 1.0]], [[0.3, 0.8], [-0.2, 1.2]]),
    (C.one_hot, [[0, 1], [1, 0]], [[0, 0], [1, 1], [0.5, 0.5]]),
    (C.multinomial(3), [[1, 2], [0, 3]], [[1, 1], [-1, 4], [1.5, 1.5]]),
    (C.square, [EYE], [[[1.0, 2.0]]]),
    (C.symmetric, [EYE, [[1.0, 2.0], [2.0, 0.0]]], [[[1.0, 2.0], [1.0, 0.0]], [[1.0, 2.0]]]),
    (C.positive_definite, [EYE, LOW @ LOW.T], [-EYE, LOW, EYE * 0, EYE * NAN, [[1.0, 2.0]]]),
    (C.positive_semidefinite, [EYE, EYE * 0], [-EYE, LOW]),
    (C.lower_triangular, [LOW, -LOW], [LOW.T]),
    (C.lower_cholesky, [LOW, EYE], [-LOW, LOW.T]),
    (C.corr_cholesky, [LOW, EYE], [LOW * 2, LOW.T]),
    (C.independent(C.positive, 2), [[[1.0, 2.0]]], [[[1.0, 0.0]]]),
]


@pytest.mark.parametrize(("constraint", "good", "bad"), CHECKED, ids=lambda x: repr(x)[:40])
def test_values_are_checked(constraint: Any, good: list[Any], bad: list[Any]) -> None:
    for values, wanted in ((good, True), (bad, False)):
        for value in values:
            found = constraint.check(t(value))
            assert found.shape == () and found.dtype is gf.bool and found.item() is wanted, value
            batch = t(np.stack([value, value]))
            assert constraint.check(batch).tolist() == [wanted] * 2
            assert gf.compile(constraint.check)(t(value)).item() is wanted


def test_constraints_are_shown_by_their_names() -> None:
    assert repr(C.positive) == "GreaterThan(lower_bound=0.0)" and repr(C.simplex) == "Simplex()"
    assert repr(C.interval(-1, 2)) == "Interval(lower_bound=-1, upper_bound=2)"
    assert C.is_dependent(C.dependent) and not C.is_dependent(C.real)
    with pytest.raises(ValueError, match="at least 1 axes"):
        C.real_vector.check(t(1.0))


P = np.array([0.2, 0.7])
MADE: dict[str, Any] = {
    "Bernoulli": lambda: D.Bernoulli(t(P)), "Beta": lambda: D.Beta(t(P), t(P + 1)),
    "Binomial": lambda: D.Binomial(gf.tensor([3, 5]), t(P)),
    "Categorical": lambda: D.Categorical(t(P)), "Cauchy": lambda: D.Cauchy(t(P), t(P)),
    "Chi2": lambda: D.Chi2(t(P)), "Dirichlet": lambda: D.Dirichlet(t(P)),
    "Exponential": lambda: D.Exponential(t(P)), "Gamma": lambda: D.Gamma(t(P), t(P)),
    "Geometric": lambda: D.Geometric(t(P)), "Gumbel": lambda: D.Gumbel(t(P), t(P)),
    "HalfNormal": lambda: D.HalfNormal(t(P)), "InverseGamma": lambda: D.InverseGamma(t(P), t(P)),
    "Laplace": lambda: D.Laplace(t(P), t(P)), "LogNormal": lambda: D.LogNormal(t(P), t(P)),
    "Multinomial": lambda: D.Multinomial(4, t(P)), "Normal": lambda: D.Normal(t(P), t(P)),
    "MultivariateNormal": lambda: D.MultivariateNormal(t(P), scale_tril=t(LOW)),
    "NegativeBinomial": lambda: D.NegativeBinomial(t(P), t(P)),
    "OneHotCategorical": lambda: D.OneHotCategorical(t(P)),
    "Pareto": lambda: D.Pareto(t(P), t(P)), "Poisson": lambda: D.Poisson(t(P)),
    "RelaxedBernoulli": lambda: D.RelaxedBernoulli(t(0.5), t(P)),
    "StudentT": lambda: D.StudentT(t(P)), "Uniform": lambda: D.Uniform(t(-P), t(P)),
    "Weibull": lambda: D.Weibull(t(P), t(P)),
    "Kumaraswamy": lambda: D.Kumaraswamy(t(P), t(P)), "VonMises": lambda: D.VonMises(t(P), t(P)),
    "FisherSnedecor": lambda: D.FisherSnedecor(t(P), t(P)),
    "Wishart": lambda: D.Wishart(t(P + 2), scale_tril=t(LOW)),
    "LKJCholesky": lambda: D.LKJCholesky(3, t(P)),
    "ContinuousBernoulli": lambda: D.ContinuousBernoulli(t(P)),
    "GeneralizedPareto": lambda: D.GeneralizedPareto(t(P), t(P), t(P - 0.5)),
    "LogisticNormal": lambda: D.LogisticNormal(t(P), t(P)),
    "LowRankMultivariateNormal": lambda: D.LowRankMultivariateNormal(t(P), t(LOW), t(P)),
    "Independent": lambda: D.Independent(D.Exponential(t(P)), 1),
    "TransformedDistribution": lambda: D.TransformedDistribution(
        D.Independent(D.Normal(t(P), t(P)), 1), D.TanhTransform()
    ),
    "MixtureSameFamily": lambda: D.MixtureSameFamily(D.Categorical(t(P)), D.Exponential(t(P))),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_draws_are_in_the_support_and_parameters_in_their_constraints(name: str) -> None:
    gf.manual_seed(SEED)
    ours = MADE[name]()
    drawn = ours.sample((50,))
    support = ours.support
    fits = support.check(drawn)
    assert fits.shape == (50, *ours.batch_shape) and fits.all()
    assert support.event_dim == len(ours.event_shape)
    for parameter in ours.parameters:
        constraint = ours.arg_constraints[parameter]
        if not C.is_dependent(constraint):
            assert constraint.check(getattr(ours, parameter)).all()
    if not C.is_dependent(type(ours).support):
        assert type(ours).support.is_discrete is support.is_discrete
    with pytest.raises(ValueError, match="value should be"):
        ours.log_prob(drawn * NAN)


# ---- transforms ------------------------------------------------------------------------

REACHED: list[tuple[Any, tuple[int, ...]]] = [
    (C.real, (3,)), (C.positive, (3,)), (C.greater_than(2.0), (3,)), (C.less_than(-1.0), (3,)),
    (C.unit_interval, (3,)), (C.interval(-2.0, 3.0), (3,)), (C.nonnegative, (3,)),
    (C.half_open_interval(1.0, 2.0), (3,)), (C.simplex, (3,)), (C.lower_cholesky, (3, 3)),
    (C.positive_definite, (3, 3)), (C.corr_cholesky, (6,)), (C.real_vector, (3,)),
    (C.independent(C.positive, 1), (3,)),
]  # fmt: skip


@pytest.mark.parametrize(("constraint", "shape"), REACHED, ids=lambda x: repr(x)[:40])
@pytest.mark.parametrize("registry", [D.biject_to, D.transform_to])
def test_transforms_reach_their_constraint(registry: Any, constraint: Any, shape: Any) -> None:
    transform = registry(constraint)
    x = t(np.random.default_rng(SEED).standard_normal((2, *shape)))
    y = transform(x)
    assert constraint.check(y).all() and y.shape == transform.forward_shape((2, *shape))
    assert transform.inverse_shape(tuple(y.shape)) == (2, *shape)
    back = transform.inv(y)
    assert_close(transform(back), y, rtol=1e-9, atol=1e-9)
    if transform.bijective:
        assert_close(back.tril() if len(shape) > 1 else back, x.tril() if len(shape) > 1 else x,
                     rtol=1e-7, atol=1e-7)  # fmt: skip
    assert_close(gf.compile(transform)(x), y)
    assert transform.codomain.event_dim == constraint.event_dim


@pytest.mark.parametrize("count", [1, 3, 6])
def test_factors_of_correlations_say_how_they_stretch(count: int) -> None:
    transform = D.CorrCholeskyTransform()
    x = t(np.random.default_rng(SEED).standard_normal(count))
    y = transform(x)
    size = y.shape[-1]
    np.testing.assert_allclose((y @ y.mT).diagonal().numpy(), np.ones(size), 1e-12)
    rows, columns = np.tril_indices(size, -1)
    jacobian = gf.func.jacrev(transform)(x).numpy()[rows, columns]
    stretch = transform.log_abs_det_jacobian(x, y).item()
    assert stretch == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-9)
    with pytest.raises(ValueError, match="is not n"):
        transform(gf.ones(4))


def test_other_shapes_blocks_and_quantiles() -> None:
    reshape = D.ReshapeTransform((6,), (2, 3))
    x = t(np.random.default_rng(SEED).standard_normal((5, 6)))
    assert reshape(x).shape == (5, 2, 3) and reshape.event_dim == 2
    assert_close(reshape.inv(reshape(x)), x)
    assert reshape.log_abs_det_jacobian(x, reshape(x)).tolist() == [0.0] * 5
    for wrong in (lambda: D.ReshapeTransform((2,), (3,)), lambda: reshape(t([1.0]))):
        with pytest.raises(ValueError, match="ReshapeTransform"):
            wrong()
    block = D.IndependentTransform(D.ExpTransform(), 1)
    assert_close(block.log_abs_det_jacobian(x, block(x)), x.sum(-1))
    share = D.CumulativeDistributionTransform(D.Normal(t(0.0), t(1.0)))
    assert_close(share.inv(share(x)), x)
    slope = gf.func.jacrev(share)(x[0, 0])
    assert_close(share.log_abs_det_jacobian(x, share(x))[0, 0], slope.log())


def test_transforms_are_registered() -> None:
    class Even(C.Constraint):
        pass

    registry = type(D.biject_to)()
    with pytest.raises(NotImplementedError, match="no transform to Even"):
        registry(Even())
    registry.register(Even, lambda constraint: D.AffineTransform(0.0, 2.0))
    assert registry(Even())(t(3.0)).item() == 6
    with pytest.raises(TypeError, match="takes a constraint"):
        registry.register(int, lambda constraint: D.ExpTransform())
    with pytest.raises(NotImplementedError, match="IntegerGreaterThan"):
        D.biject_to(C.nonnegative_integer)
