"""Parameters of every distribution and transform of PyTorch's, in words both sides share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Make = Callable[[Any, dict[str, Any]], Any]

PAIR = [0.4, 2.5]
OTHER = [1.7, 0.9]
SHARE = [0.2, 0.75]
SHARES = [[0.2, 0.5, 0.3], [0.1, 0.15, 0.75]]
SCORES = [[0.3, -1.0, 0.5], [2.0, 0.1, -0.4]]
LOW = [[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.2, 0.7]]
WIDE = [[1.0, 0.2, -0.3], [0.2, 2.0, 0.4], [-0.3, 0.4, 1.5]]
TALL = [[0.5, -1.0], [0.3, 0.2], [1.5, 0.4]]


@dataclass(frozen=True)
class Case:
    """Parameters that have gradients, what else is given, and how it is made of them."""

    parameters: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    make: Make | None = None


def _one(**parameters: Any) -> Case:
    return Case(parameters)


def _independent(lib: Any, p: dict[str, Any]) -> Any:
    return lib.distributions.Independent(lib.distributions.Gamma(p["a"], p["b"]), 1)


def _mixture(lib: Any, p: dict[str, Any]) -> Any:
    d = lib.distributions
    return d.MixtureSameFamily(d.Categorical(logits=p["scores"]), d.Normal(p["loc"], p["scale"]))


def _transformed(lib: Any, p: dict[str, Any]) -> Any:
    d = lib.distributions
    steps = [d.transforms.AffineTransform(0.5, -2.0), d.transforms.SigmoidTransform()]
    return d.TransformedDistribution(d.Normal(p["loc"], p["scale"]), steps)


def _sticks(lib: Any, p: dict[str, Any]) -> Any:
    d = lib.distributions
    return d.TransformedDistribution(
        d.Independent(d.Normal(p["loc"], p["scale"]), 1), [d.transforms.StickBreakingTransform()]
    )


def _wishart(lib: Any, p: dict[str, Any]) -> Any:
    # PyTorch has slopes above the diagonal, too, of what it makes of the whole matrix.
    return lib.distributions.Wishart(p["df"], scale_tril=p["factor"].tril())


CASES: dict[str, list[Case]] = {
    "Bernoulli": [_one(probs=SHARE), _one(logits=[-1.5, 0.4])],
    "Beta": [_one(concentration1=PAIR, concentration0=OTHER),
             _one(concentration1=[3.0, 1.5], concentration0=[2.0, 4.0])],
    "Binomial": [Case({"probs": SHARE}, {"total_count": 5}),
                 Case({"logits": [0.3, -1.0]}, {"total_count": 5})],
    "Categorical": [_one(probs=SHARES), _one(logits=SCORES)],
    "Cauchy": [_one(loc=[0.5, -1.0], scale=PAIR), _one(loc=[1.5, -0.2], scale=OTHER)],
    "Chi2": [_one(df=PAIR), _one(df=[3.0, 7.0])],
    "ContinuousBernoulli": [_one(probs=[0.1, 0.85]), _one(logits=[0.5, -3.0]),
                            _one(logits=[5.0, -0.02])],
    "Dirichlet": [_one(concentration=[[0.7, 2.0, 3.0], [1.5, 1.5, 4.0]]),
                  _one(concentration=[[2.0, 2.5, 1.3], [3.0, 0.8, 1.0]])],
    "Exponential": [_one(rate=PAIR), _one(rate=OTHER)],
    "FisherSnedecor": [_one(df1=[3.0, 5.0], df2=[6.0, 9.5])],
    "Gamma": [_one(concentration=PAIR, rate=OTHER), _one(concentration=OTHER, rate=PAIR)],
    "GeneralizedPareto": [_one(loc=[0.5, -1.0], scale=PAIR, concentration=[0.2, -0.4]),
                          _one(loc=[0.0, 1.0], scale=OTHER, concentration=[0.8, -1.5])],
    "Geometric": [_one(probs=SHARE), _one(logits=[0.4, -1.2])],
    "Gumbel": [_one(loc=[0.5, -1.0], scale=PAIR), _one(loc=[1.5, -0.2], scale=OTHER)],
    "HalfCauchy": [_one(scale=PAIR), _one(scale=OTHER)],
    "HalfNormal": [_one(scale=PAIR), _one(scale=OTHER)],
    "Independent": [Case({"a": [PAIR], "b": [OTHER]}, make=_independent),
                    Case({"a": [OTHER], "b": [PAIR]}, make=_independent)],
    "InverseGamma": [_one(concentration=[3.0, 5.5], rate=OTHER),
                     _one(concentration=[2.5, 4.0], rate=PAIR)],
    "Kumaraswamy": [_one(concentration1=[1.4, 2.5], concentration0=OTHER)],
    "LKJCholesky": [Case({"concentration": PAIR}, {"dim": 3})],
    "Laplace": [_one(loc=[0.5, -1.0], scale=PAIR), _one(loc=[1.5, -0.2], scale=OTHER)],
    "LogNormal": [_one(loc=[0.5, -1.0], scale=PAIR), _one(loc=[1.5, -0.2], scale=OTHER)],
    "LogisticNormal": [_one(loc=[0.5, -1.0], scale=PAIR), _one(loc=[1.5, -0.2], scale=OTHER)],
    "LowRankMultivariateNormal": [
        _one(loc=[0.5, -1.0, 0.2], cov_factor=TALL, cov_diag=[0.5, 1.5, 0.8]),
        _one(loc=[[0.1, -0.4, 1.2]], cov_factor=[[[0.3], [-0.5], [1.0]]], cov_diag=[1.5, 0.6, 2.0]),
    ],
    "MixtureSameFamily": [
        Case({"scores": SCORES, "loc": SCORES, "scale": SHARES}, make=_mixture),
    ],
    "Multinomial": [Case({"probs": SHARES}, {"total_count": 4}),
                    Case({"logits": SCORES}, {"total_count": 6})],
    "MultivariateNormal": [
        _one(loc=[0.5, -1.0, 0.2], scale_tril=LOW),
        _one(loc=[0.5, -1.0, 0.2], precision_matrix=WIDE),
        _one(loc=[[0.1, -0.4, 1.2]], covariance_matrix=WIDE),
    ],
    "NegativeBinomial": [_one(total_count=[3.0, 5.5], probs=SHARE),
                         _one(total_count=[2.0, 4.0], logits=[0.4, -1.2])],
    "Normal": [_one(loc=[0.5, -1.0], scale=PAIR), _one(loc=[1.5, -0.2], scale=OTHER)],
    "OneHotCategorical": [_one(probs=SHARES), _one(logits=SCORES)],
    "OneHotCategoricalStraightThrough": [_one(probs=SHARES), _one(logits=SCORES)],
    "Pareto": [_one(scale=[2.0, 1.0], alpha=[2.5, 4.0]), _one(scale=[1.5, 1.2], alpha=[3.0, 2.2])],
    "Poisson": [_one(rate=PAIR), _one(rate=OTHER)],
    "RelaxedBernoulli": [_one(temperature=0.7, probs=SHARE), _one(temperature=1.5, logits=PAIR)],
    "RelaxedOneHotCategorical": [_one(temperature=0.7, probs=SHARES),
                                 _one(temperature=1.5, logits=SCORES)],
    "StudentT": [_one(df=[3.0, 7.0], loc=[0.5, -1.0], scale=PAIR)],
    "TransformedDistribution": [
        Case({"loc": [0.5, -1.0], "scale": PAIR}, make=_transformed),
        Case({"loc": [1.5, -0.2], "scale": OTHER}, make=_transformed),
        Case({"loc": [0.5, -1.0], "scale": PAIR}, make=_sticks),
    ],
    "Uniform": [_one(low=[0.1, 0.3], high=[0.6, 0.9]), _one(low=[-0.2, 0.1], high=[1.2, 2.0])],
    "VonMises": [_one(loc=[0.5, -1.0], concentration=PAIR),
                 _one(loc=[1.5, -0.2], concentration=OTHER)],
    "Weibull": [_one(scale=PAIR, concentration=OTHER)],
    "Wishart": [Case({"df": [4.5, 6.0], "factor": LOW}, make=_wishart),
                _one(df=[3.5], covariance_matrix=WIDE)],
}  # fmt: skip

TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "AbsTransform": (lambda t: t.AbsTransform(), [[0.5, -1.0], [2.0, 0.1]]),
    "AffineTransform": (lambda t: t.AffineTransform(0.5, -2.0, event_dim=1), SCORES),
    "CatTransform": (
        lambda t: t.CatTransform(
            [t.ExpTransform(), t.SigmoidTransform()], dim=-1, lengths=[1, 2]), SCORES),
    "ComposeTransform": (
        lambda t: t.ComposeTransform([t.ExpTransform(), t.AffineTransform(1.0, 3.0, 1)]), SCORES),
    "CorrCholeskyTransform": (lambda t: t.CorrCholeskyTransform(), SCORES),
    "ExpTransform": (lambda t: t.ExpTransform().with_cache(), SCORES),
    "IndependentTransform": (lambda t: t.IndependentTransform(t.TanhTransform(), 1), SCORES),
    "LowerCholeskyTransform": (lambda t: t.LowerCholeskyTransform(), WIDE),
    "PositiveDefiniteTransform": (lambda t: t.PositiveDefiniteTransform(), WIDE),
    "PowerTransform": (lambda t: t.PowerTransform(1.5), SHARES),
    "ReshapeTransform": (lambda t: t.ReshapeTransform((2, 3), (6,)), SCORES),
    "SigmoidTransform": (lambda t: t.SigmoidTransform(), SCORES),
    "SoftmaxTransform": (lambda t: t.SoftmaxTransform(), SCORES),
    "SoftplusTransform": (lambda t: t.SoftplusTransform(), SCORES),
    "StackTransform": (
        lambda t: t.StackTransform([t.ExpTransform(), t.TanhTransform()], dim=0), SCORES),
    "StickBreakingTransform": (lambda t: t.StickBreakingTransform(), SCORES),
    "TanhTransform": (lambda t: t.TanhTransform(), SCORES),
    "inverse": (lambda t: t.ExpTransform().inv, SHARES),
}  # fmt: skip
