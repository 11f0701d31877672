"""Special functions: gamma, error and Bessel functions, entropies, logits."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from graphflow.autocasting import in_float32
from graphflow.checks import need_int, need_tensor
from graphflow.dispatch import apply
from graphflow.errors import GraphFlowError
from graphflow.functions.elementwise import (
    abs,
    add,
    clamp,
    div,
    eq,
    erf,
    exp,
    floor,
    ge,
    gt,
    isnan,
    le,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    lt,
    maximum,
    mul,
    neg,
    of_one,
    of_two,
    of_two_tensors,
    sin,
    sub,
    where,
)
from graphflow.ir import types as T
from graphflow.ir.formulas import gamma
from graphflow.promotion import cast

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "digamma", "erfc", "erfinv", "i0", "igamma", "igammac", "lgamma", "logaddexp", "logaddexp2",
    "logit", "mvlgamma", "polygamma", "xlogy",
]  # fmt: skip
METHODS = __all__
IN_PLACE = "digamma erfc erfinv i0 igamma igammac lgamma logit mvlgamma polygamma xlogy".split()

# ---- the gamma function --------------------------------------------------------------


@of_one
def lgamma(x: Tensor) -> Tensor:
    """Logarithm of the size of the gamma function."""
    return apply("lgamma", x)


@of_one
def digamma(x: Tensor) -> Tensor:
    """Derivative of ``lgamma``."""
    return apply("digamma", x)


def polygamma(n: Any, input: Any = None) -> Tensor:
    """The ``n``-th derivative of ``digamma``; ``x.polygamma(n)`` as a method."""
    if not isinstance(n, int):
        n, input = input, n
    if need_int("polygamma: n", n) < 0:
        raise GraphFlowError(f"polygamma(n, x) needs n >= 0, not {n}")
    return digamma(input) if n == 0 else _derivative_of_digamma(n)(input)


def _derivative_of_digamma(n: int) -> Any:
    """``(-1)^(n+1) n! zeta(n + 1, x)``, and Euler's reflection left of 0."""

    @of_one
    def formula(x: Tensor) -> Tensor:
        left = lt(x, 0)
        value = mul(apply("zeta", where(left, sub(1.0, x), x), s=float(n + 1)), math.factorial(n))
        turn = mul(where(left, x, 0.5), math.pi)
        cotangent = div(sin(add(turn, math.pi / 2)), sin(turn))
        slope = mul(_cotangent_slope(n, cotangent), math.pi ** (n + 1))
        # psi_n(x) = (-1)^n psi_n(1 - x) - pi d^n/dx^n cot(pi x)
        return where(left, neg(add(slope, value)), value if n % 2 else neg(value))

    return formula


def _cotangent_slope(n: int, c: Tensor) -> Tensor:
    """The ``n``-th derivative of cot at an angle whose cotangent is ``c``: a polynomial in it."""
    coefficients = [0.0, 1.0]
    for _ in range(n):  # cot' = -(1 + cot^2)
        slope = [k * a for k, a in enumerate(coefficients)][1:]
        coefficients = [0.0] * (len(slope) + 2)
        for k, a in enumerate(slope):
            coefficients[k] -= a
            coefficients[k + 2] -= a
    total: Any = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = add(mul(c, total), coefficient)
    return total  # type: ignore[no-any-return]


@of_two
def zeta(s: Tensor, x: Tensor) -> Tensor:
    """Hurwitz's zeta function: the sum of ``(other + k) ** -input`` over whole numbers k >= 0.

    Infinite at ``input = 1`` and where ``other`` is 0, -1, -2 …; NaN for an ``input`` below 1, and
    for other numbers below 0.  Both have gradients.
    """
    pole = logical_and(logical_and(le(x, 0), eq(x, floor(x))), ge(s, 1))
    order, place = (cast(v, T.float64) for v in (s, where(pole, 1.0, x)))
    return where(pole, math.inf, cast(gamma.zeta(_ON_TENSORS, order, place), x.dtype))


_ON_TENSORS: Any = SimpleNamespace(select=where, equals=eq, exp=exp, log=log)
"""What the formula of :func:`zeta` is written in, on tensors."""


def mvlgamma(input: Any, p: int) -> Tensor:
    """Logarithm of the multivariate gamma function of dimension ``p``."""
    if need_int("mvlgamma: p", p) < 1:
        raise GraphFlowError(f"mvlgamma needs p >= 1, not {p}")
    total = lgamma(input)
    for i in range(1, p):
        total = add(total, lgamma(sub(input, 0.5 * i)))
    return add(total, 0.25 * p * (p - 1) * math.log(math.pi))


@of_two_tensors
def igamma(a: Tensor, x: Tensor) -> Tensor:
    """Regularised lower incomplete gamma function of ``input`` (a) and ``other`` (x).

    The integral of ``t^(a-1) exp(-t) / gamma(a)`` up to x.  Both have gradients.
    """
    return apply("igamma", a, x)


@of_two_tensors
def igammac(a: Tensor, x: Tensor) -> Tensor:
    """Regularised upper incomplete gamma function, ``1 - igamma(input, other)``."""
    return apply("igammac", a, x)


# ---- the error function --------------------------------------------------------------


@of_one
def erfc(x: Tensor) -> Tensor:
    """``1 - erf(input)``."""
    return apply("erfc", x)


@of_one
def erfcx(x: Tensor) -> Tensor:
    """``exp(input ** 2) * erfc(input)``."""
    return apply("erfcx", x)


@in_float32
@of_one
def erfinv(x: Tensor) -> Tensor:
    """The inverse of ``erf``; NaN outside [-1, 1]."""
    return apply("erfinv", x)


@of_one
def ndtr(x: Tensor) -> Tensor:
    """The standard normal distribution function."""
    scaled = mul(x, math.sqrt(0.5))
    far = mul(apply("erfc", mul(scaled, -1.0)), 0.5)
    return where(lt(x, -1), far, add(mul(erf(scaled), 0.5), 0.5))


@of_one
def log_ndtr(x: Tensor) -> Tensor:
    """The logarithm of ``ndtr``."""
    scaled = mul(x, math.sqrt(0.5))
    far = lt(x, -1)
    low, high = where(far, scaled, -1.0), where(far, 0.0, scaled)
    below = sub(log(mul(apply("erfcx", mul(low, -1.0)), 0.5)), mul(low, low))
    return where(far, below, log1p(mul(apply("erfc", high), -0.5)))


@of_one
def ndtri(x: Tensor) -> Tensor:
    """The standard normal quantile; NaN outside [0, 1]."""
    return apply("ndtri", x)


# ---- Bessel functions ------------------------------------------------------------------


@of_one
def i0(x: Tensor) -> Tensor:
    """Modified Bessel function of the first kind, order 0."""
    return apply("i0", x)


@of_one
def i0e(x: Tensor) -> Tensor:
    """``exp(-|input|) * i0(input)``."""
    return apply("i0e", x)


@of_one
def i1(x: Tensor) -> Tensor:
    """Modified Bessel function of the first kind, order 1."""
    return apply("i1", x)


@of_one
def i1e(x: Tensor) -> Tensor:
    """``exp(-|input|) * i1(input)``."""
    return apply("i1e", x)


@of_one
def airy_ai(x: Tensor) -> Tensor:
    """Airy function Ai."""
    return apply("airy_ai", x)


@of_one
def bessel_j0(x: Tensor) -> Tensor:
    """Bessel function of the first kind, order 0."""
    return apply("j0", x)


@of_one
def bessel_j1(x: Tensor) -> Tensor:
    """Bessel function of the first kind, order 1."""
    return apply("j1", x)


@of_one
def bessel_y0(x: Tensor) -> Tensor:
    """Bessel function of the second kind, order 0; NaN below 0."""
    return apply("y0", x)


@of_one
def bessel_y1(x: Tensor) -> Tensor:
    """Bessel function of the second kind, order 1; NaN below 0."""
    return apply("y1", x)


@of_one
def modified_bessel_k0(x: Tensor) -> Tensor:
    """Modified Bessel function of the second kind, order 0; NaN below 0."""
    return apply("k0", x)


@of_one
def modified_bessel_k1(x: Tensor) -> Tensor:
    """Modified Bessel function of the second kind, order 1; NaN below 0."""
    return apply("k1", x)


@of_one
def scaled_modified_bessel_k0(x: Tensor) -> Tensor:
    """``exp(input) * modified_bessel_k0(input)``."""
    return apply("k0e", x)


@of_one
def scaled_modified_bessel_k1(x: Tensor) -> Tensor:
    """``exp(input) * modified_bessel_k1(input)``."""
    return apply("k1e", x)


@of_one
def spherical_bessel_j0(x: Tensor) -> Tensor:
    """``sin(input) / input``, and 1 at 0."""
    near = lt(abs(x), 0.5)
    square = where(near, mul(x, x), 0.0)
    series = add(mul(square, 0.0), 1.0)
    for k in range(8, 0, -1):  # a series, so that slopes do not cancel
        series = sub(1.0, div(mul(square, series), float(2 * k * (2 * k + 1))))
    far = where(near, 1.0, x)
    ended = eq(abs(x), math.inf)
    return where(near, series, where(ended, 0.0, div(sin(where(ended, 1.0, far)), far)))


# ---- logarithms ------------------------------------------------------------------------


@of_two
def xlogy(x: Tensor, y: Tensor) -> Tensor:
    """``input * log(other)``, and 0 where ``input`` is 0 (NaN where ``other`` is)."""
    usable = logical_and(gt(y, 0), lt(y, math.inf))
    still = logical_and(eq(x, 0), logical_not(logical_or(usable, isnan(y))))
    return mul(x, log(where(still, 1.0, y)))


@of_two
def xlog1py(x: Tensor, y: Tensor) -> Tensor:
    """``input * log1p(other)``, and 0 where ``input`` is 0 (NaN where ``other`` is)."""
    usable = logical_and(gt(y, -1), lt(y, math.inf))
    still = logical_and(eq(x, 0), logical_not(logical_or(usable, isnan(y))))
    return mul(x, log1p(where(still, 0.0, y)))


@of_one
def entr(x: Tensor) -> Tensor:
    """``-input * log(input)``; 0 at 0, ``-inf`` below."""
    positive = gt(x, 0)
    inside = logical_or(positive, isnan(x))
    value = mul(neg(x), log(where(inside, x, 1.0)))
    return where(inside, value, where(lt(x, 0), -math.inf, 0.0))


def logit(input: Any, eps: float | None = None) -> Tensor:
    """``log(p / (1 - p))``; with ``eps``, ``p`` is first limited to [eps, 1 - eps]."""
    return _logit(input if eps is None else _limited(input, eps))


def _limited(input: Tensor, eps: float) -> Tensor:
    (x,) = _floating(need_tensor("logit", input))
    return clamp(x, eps, 1.0 - eps)


def _floating(input: Tensor) -> list[Tensor]:
    from graphflow.promotion import operands

    return operands([input], floating=True)


@of_one
def _logit(x: Tensor) -> Tensor:
    return log(div(x, sub(1.0, x)))


@of_two_tensors
def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """``log(exp(input) + exp(other))`` without overflow."""
    return add(maximum(x, y), log1p(exp(_below(x, y))))


@of_two_tensors
def logaddexp2(x: Tensor, y: Tensor) -> Tensor:
    """``log2(2 ** input + 2 ** other)`` without overflow."""
    rest = log1p(apply("exp2", _below(x, y)))
    return add(maximum(x, y), mul(rest, 1.0 / math.log(2.0)))


def _below(x: Tensor, y: Tensor) -> Tensor:
    """``-|x - y|``, and 0 for equal infinities."""
    return neg(abs(where(eq(x, y), 0.0, sub(x, y))))
