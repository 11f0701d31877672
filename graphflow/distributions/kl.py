"""Kullback-Leibler divergences in closed form, by the types of the two distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from graphflow.distributions.categorical import Categorical, OneHotCategorical
from graphflow.distributions.counts import Geometric, Poisson
from graphflow.distributions.distribution import Distribution
from graphflow.distributions.gamma_family import Beta, Dirichlet, Gamma
from graphflow.distributions.independent import Independent
from graphflow.distributions.more_univariate import HalfNormal
from graphflow.distributions.multivariate_normal import (
    LowRankMultivariateNormal,
    MultivariateNormal,
)
from graphflow.distributions.univariate import (
    Bernoulli,
    Exponential,
    Laplace,
    LogNormal,
    Normal,
    Uniform,
)
from graphflow.functions.diagonals import diag_embed
from graphflow.functions.elementwise import log1p, where
from graphflow.functions.special import digamma, lgamma, xlogy
from graphflow.linalg import solve_triangular
from graphflow.tensor import Tensor

Rule: TypeAlias = Callable[[Any, Any], Tensor]
NormalVectors: TypeAlias = MultivariateNormal | LowRankMultivariateNormal
AnyRule = TypeVar("AnyRule", bound=Rule)

_RULES: dict[tuple[type, type], Rule] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[AnyRule], AnyRule]:
    """Decorator: the function is KL(p || q) for these types and those derived from them."""
    for given in (type_p, type_q):
        if not (isinstance(given, type) and issubclass(given, Distribution)):
            raise TypeError(f"register_kl takes classes of distributions, not {given!r}")

    def keep(rule: AnyRule) -> AnyRule:
        _RULES[type_p, type_q] = rule
        return rule

    return keep


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), the mean of ``p.log_prob(x) - q.log_prob(x)`` over draws x of p.

    Of batch shape.  ``NotImplementedError`` for types that no rule is known for.
    """
    for kind_p in type(p).__mro__:
        for kind_q in type(q).__mro__:
            rule = _RULES.get((kind_p, kind_q))
            if rule is not None:
                return rule(p, q)
    raise NotImplementedError(
        f"kl_divergence: no rule for {type(p).__name__} and {type(q).__name__}; "
        "register_kl adds one"
    )


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).square() - 1 - ratio.log())


@register_kl(LogNormal, LogNormal)
def _log_normal(p: LogNormal, q: LogNormal) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    inside = (q.low <= p.low).logical_and(p.high <= q.high)
    return where(inside, ((q.high - q.low) / (p.high - p.low)).log(), float("inf"))


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, away = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + away / q.scale + ratio * (-away / p.scale).exp() - 1


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    ones, zeros = p.probs, 1 - p.probs
    return ones * (p.logits.sigmoid() / q.probs).log() + zeros * (zeros / (1 - q.probs)).log()


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = where(q.probs == 0, float("inf"), terms)
    return where(p.probs == 0, 0.0, terms).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._choice, q._choice)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("kl_divergence: events of Independent differ in their axes")
    return p._summed(kl_divergence(p.base_dist, q.base_dist))


@register_kl(MultivariateNormal, MultivariateNormal)
@register_kl(MultivariateNormal, LowRankMultivariateNormal)
@register_kl(LowRankMultivariateNormal, MultivariateNormal)
@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
def _normal_vectors(p: NormalVectors, q: NormalVectors) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"kl_divergence: events have the shapes {tuple(p.event_shape)} and "
            f"{tuple(q.event_shape)}"
        )
    away = _columns(q, (q.loc - p.loc).unsqueeze(-1))
    logs = q._half_log_determinant() - p._half_log_determinant()
    return logs + 0.5 * (_trace(p, q) + away - p.event_shape[0])


def _trace(p: NormalVectors, q: NormalVectors) -> Tensor:
    """The trace of q's precision times p's covariance: of its factors' columns, one by one."""
    if isinstance(p, MultivariateNormal):
        return _columns(q, p.scale_tril)
    if isinstance(q, MultivariateNormal):
        return _columns(q, p.cov_factor) + _columns(q, diag_embed(p.cov_diag.sqrt()))
    diagonal = q.cov_diag.reciprocal() - q._removed().square().sum(-2)
    return _columns(q, p.cov_factor) + (diagonal * p.cov_diag).sum(-1)


def _columns(q: NormalVectors, columns: Tensor) -> Tensor:
    """The sum of xᵀ P x over the columns x of matrices [..., n, m], with q's precision P."""
    if isinstance(q, MultivariateNormal):
        return solve_triangular(q.scale_tril, columns, upper=False).square().sum((-2, -1))
    alone = (columns.square() / q.cov_diag.unsqueeze(-1)).sum((-2, -1))
    return alone - (q._removed() @ columns).square().sum((-2, -1))


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    logs = b * (p.rate / q.rate).log() + lgamma(b) - lgamma(a)
    return logs + (a - b) * digamma(a) + (q.rate - p.rate) * (a / p.rate)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    whole = a.sum(-1)
    logs = lgamma(whole) - lgamma(b.sum(-1)) - (lgamma(a) - lgamma(b)).sum(-1)
    return logs + ((a - b) * (digamma(a) - digamma(whole).unsqueeze(-1))).sum(-1)


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    return _dirichlet(p._dirichlet, q._dirichlet)


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return xlogy(p.rate, p.rate / q.rate) - (p.rate - q.rate)


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - log1p(-q.probs) / p.probs - q.logits


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)
