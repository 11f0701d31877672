"""Kullback-Leibler divergences between families, from the entropy and the moments of the first.

KL(p || q) is minus p's entropy, less the mean of q's log-density under p.  Infinite where p
draws what q cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphflow.distributions.bounded import ContinuousBernoulli
from graphflow.distributions.composed import TransformedDistribution
from graphflow.distributions.counts import Binomial, Poisson
from graphflow.distributions.distribution import EULER, LOG_PI, Distribution
from graphflow.distributions.gamma_family import Beta, Gamma, InverseGamma
from graphflow.distributions.kl import kl_divergence, register_kl
from graphflow.distributions.more_univariate import Cauchy, Gumbel, HalfCauchy, Pareto
from graphflow.distributions.quotients import log_expm1_quotient
from graphflow.distributions.transform import Transform, summed
from graphflow.distributions.univariate import Bernoulli, Exponential, Laplace, Normal, Uniform
from graphflow.functions.elementwise import erf, where
from graphflow.functions.joining import broadcast_shapes
from graphflow.functions.special import digamma, lgamma, xlogy
from graphflow.mode import mode as tracing
from graphflow.nn.functional.activation import softplus
from graphflow.tensor import Tensor

# ---- what the first draws and the second cannot -----------------------------------------

_ANYWHERE: tuple[type[Distribution], ...] = (Gumbel, Laplace, Normal)
_FROM_ZERO: tuple[type[Distribution], ...] = (Exponential, Gamma)
_SHARES: tuple[type[Distribution], ...] = (Beta, ContinuousBernoulli)
_ELSEWHERE: list[tuple[tuple[type[Distribution], ...], tuple[type[Distribution], ...]]] = [
    (_ANYWHERE, (*_FROM_ZERO, *_SHARES, Pareto, Uniform)),
    (_FROM_ZERO, (*_SHARES, Pareto, Uniform)),
    ((Pareto,), (*_SHARES, Uniform)),
    (_SHARES, (Pareto,)),
    ((Poisson,), (Bernoulli, Binomial)),
]


def _infinite(p: Any, q: Any) -> Tensor:
    """Infinite, of both batch shapes."""
    return p.mean.new_full(broadcast_shapes(p.batch_shape, q.batch_shape), math.inf)


for _first, _second in _ELSEWHERE:
    for _p in _first:
        for _q in _second:
            register_kl(_p, _q)(_infinite)


def _between(*firsts: type[Distribution], second: type[Distribution]) -> Callable[[Any], Any]:
    """Decorator: the function is the mean of ``second``'s log-density under each of the first."""

    def keep(mean_log: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        def rule(p: Any, q: Any) -> Tensor:
            mean = mean_log(p, q)
            return where(mean == -math.inf, math.inf, -p.entropy() - mean)

        for first in firsts:
            register_kl(first, second)(rule)
        return mean_log

    return keep


# ---- means under the first ----------------------------------------------------------------


def _mean_log(p: Any) -> Tensor:
    """The mean of log x; x >= 0."""
    if isinstance(p, Beta):
        a, b = p.concentration1, p.concentration0
        return digamma(a) - digamma(a + b)
    if isinstance(p, Exponential):
        return -EULER - p.rate.log()
    if isinstance(p, Pareto):
        return p.scale.log() + p.alpha.reciprocal()
    return _mean_log_between(p.low, p.high)


def _mean_log_between(low: Tensor, high: Tensor) -> Tensor:
    """Of log x of numbers x that are uniform between two numbers from 0 on."""
    return (xlogy(high, high) - xlogy(low, low)) / (high - low) - 1


def _mean_exp(p: Any, t: Tensor) -> Tensor:
    """The mean of exp(-t x)."""
    if isinstance(p, Exponential):
        return p.rate / (p.rate + t)
    if isinstance(p, Gamma):
        return (p.rate / (p.rate + t)) ** p.concentration
    if isinstance(p, Normal):
        return (0.5 * (t * p.scale).square() - t * p.loc).exp()
    if isinstance(p, Gumbel):
        return (lgamma(1 + t * p.scale) - t * p.loc).exp()
    return (log_expm1_quotient(t * (p.low - p.high)) - t * p.low).exp()


# ---- mean log-densities of the second -------------------------------------------------------


@_between(
    *_SHARES, Exponential, Gamma, Gumbel, Laplace, Pareto, Uniform, second=Normal
)  # fmt: skip
def _normal(p: Any, q: Normal) -> Tensor:
    square = p.variance + (p.mean - q.loc).square()
    return -0.5 * (square / q.variance + math.log(2) + LOG_PI) - q.scale.log()


@_between(Normal, second=Laplace)
def _laplace(p: Normal, q: Laplace) -> Tensor:
    away = (p.loc - q.loc) / p.scale
    near = math.sqrt(2 / math.pi) * (-0.5 * away.square()).exp()
    distance = p.scale * (near + away * erf(away / math.sqrt(2)))
    return -distance / q.scale - (2 * q.scale).log()


@_between(Exponential, Gamma, Gumbel, Normal, Uniform, second=Gumbel)
def _gumbel(p: Any, q: Gumbel) -> Tensor:
    t = q.scale.reciprocal()
    return -t * (p.mean - q.loc) - (t * q.loc).exp() * _mean_exp(p, t) - q.scale.log()


@_between(*_SHARES, Gamma, Pareto, second=Exponential)
def _exponential(p: Any, q: Exponential) -> Tensor:
    return q.rate.log() - q.rate * p.mean


@_between(Uniform, second=Exponential)
def _exponential_of_uniform(p: Uniform, q: Exponential) -> Tensor:
    return where(p.low >= 0, _exponential(p, q), -math.inf)


@_between(Beta, Exponential, Pareto, second=Gamma)
def _gamma(p: Any, q: Gamma) -> Tensor:
    a, b = q.concentration, q.rate
    return xlogy(a, b) - lgamma(a) + (a - 1) * _mean_log(p) - b * p.mean


@_between(Uniform, second=Gamma)
def _gamma_of_uniform(p: Uniform, q: Gamma) -> Tensor:
    return where(p.low >= 0, _gamma(p, q), -math.inf)


@_between(Uniform, second=Beta)
def _beta_of_uniform(p: Uniform, q: Beta) -> Tensor:
    a, b = q.concentration1, q.concentration0
    logs = (a - 1) * _mean_log(p) + (b - 1) * _mean_log_between(1 - p.high, 1 - p.low)
    found = logs + lgamma(a + b) - lgamma(a) - lgamma(b)
    return where((p.low >= 0).logical_and(p.high <= 1), found, -math.inf)


@_between(*_SHARES, second=ContinuousBernoulli)
def _continuous_bernoulli(p: Any, q: ContinuousBernoulli) -> Tensor:
    return q.logits * p.mean - log_expm1_quotient(q.logits)


@_between(Uniform, second=ContinuousBernoulli)
def _continuous_bernoulli_of_uniform(p: Uniform, q: ContinuousBernoulli) -> Tensor:
    inside = (p.low >= 0).logical_and(p.high <= 1)
    return where(inside, _continuous_bernoulli(p, q), -math.inf)


@_between(*_SHARES, second=Uniform)
def _uniform(p: Any, q: Uniform) -> Tensor:
    inside = (q.low <= 0).logical_and(q.high >= 1)
    return where(inside, -(q.high - q.low).log(), -math.inf)


@_between(Pareto, Uniform, second=Pareto)
def _pareto(p: Any, q: Pareto) -> Tensor:
    least = p.scale if isinstance(p, Pareto) else p.low
    found = q.alpha.log() + q.alpha * q.scale.log() - (q.alpha + 1) * _mean_log(p)
    return where(least >= q.scale, found, -math.inf)


@_between(Bernoulli, second=Poisson)
def _poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return xlogy(p.probs, q.rate) - q.rate  # the factorials of 0 and 1 are 1


# ---- of one family, by other rules ------------------------------------------------------------


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    # F. Chyzak and F. Nielsen, "A closed-form formula for the Kullback-Leibler divergence
    # between Cauchy distributions" (2019).
    wide = (p.scale + q.scale).square() + (p.loc - q.loc).square()
    return (wide / (4 * p.scale * q.scale)).log()


@register_kl(HalfCauchy, HalfCauchy)
@register_kl(InverseGamma, InverseGamma)
def _of_the_base(p: HalfCauchy | InverseGamma, q: HalfCauchy | InverseGamma) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    """NaN where p has fewer trials in compiled code, which does not know the numbers."""
    fewer = p.total_count < q.total_count
    if tracing.tracer is None and bool(fewer.any()):
        raise NotImplementedError(
            "kl_divergence: a Binomial of fewer trials than the other has no closed form"
        )
    each = p.probs * (p.logits - q.logits) - softplus(p.logits) + softplus(q.logits)
    found = where(p.total_count > q.total_count, math.inf, p.total_count * each)
    return where(fewer, math.nan, found)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.event_shape != q.event_shape or not _alike(p.transforms, q.transforms):
        raise NotImplementedError(
            f"kl_divergence: the transforms {p.transforms} and {q.transforms} are not known to be "
            "the same"
        )
    found = kl_divergence(p.base_dist, q.base_dist)
    return summed(found, len(p.event_shape) - len(p.base_dist.event_shape))


def _alike(first: Any, second: Any) -> bool:
    """Whether two transforms, or lists of them, are the same: of one class, and made of the same
    numbers, tensors and transforms."""
    if first is second:
        return True
    if type(first) is not type(second) or isinstance(first, Tensor):
        return False
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_alike, first, second))
    if isinstance(first, Transform):
        return all(_alike(value, vars(second).get(name)) for name, value in vars(first).items())
    return bool(first == second)
