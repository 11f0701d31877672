"""Special functions of one operand, and Hurwitz's zeta function.

The formulas are in :mod:`graphflow.ir.formulas`; NumPy has none of these.
"""

from __future__ import annotations

import math
from typing import Any

from graphflow.ir.formulas import airy, bessel, bessel_waves, errors, gamma, incomplete_gamma
from graphflow.ir.formulas.maths import on_numpy
from graphflow.ir.op import Application, Array, Builder
from graphflow.ir.ops.elementwise_binary import binary
from graphflow.ir.ops.elementwise_unary import unary
from graphflow.ir.ops.gradients import scalar
from graphflow.ir.ops.rules import FLOAT, calls
from graphflow.ir.types import float64

_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)

# ---- gamma function ------------------------------------------------------------------


def _trigamma(b: Builder, x: Any) -> Any:
    """The derivative of digamma: zeta(2, x), left of 1/2 by Euler's reflection."""
    left = b.lt(x, 0.5)
    value = b.zeta(b.where(left, 1.0 - x, x), s=2.0)
    sine = b.sin(b.where(left, x, scalar(b, 0.5, x.dtype)) * math.pi)
    return b.where(left, math.pi**2 / (sine * sine) - value, value)


LGAMMA = unary(
    "lgamma", "Logarithm of the size of the gamma function.",
    reference=on_numpy(gamma.lgamma), cpu="vm.lgamma({0})", cost=90.0,
    vjp=lambda b, n, ct: ct * b.digamma(n.inputs[0]),
    domain=(0.1, 20.0), tolerance=(1e-5, 1e-12),
)  # fmt: skip
DIGAMMA = unary(
    "digamma", "Derivative of lgamma; NaN at -1, -2, …, infinite at 0.",
    reference=on_numpy(gamma.digamma), cpu="vm.digamma({0})", cost=90.0,
    vjp=lambda b, n, ct: ct * _trigamma(b, n.inputs[0]),
    domain=(1.6, 20.0), tolerance=(1e-5, 1e-12),
)  # fmt: skip


def _zeta(x: Array, *, s: float) -> Array:
    return on_numpy(lambda m, x: gamma.zeta(m, x * 0.0 + s, x))(x)


ZETA = unary(
    "zeta", "Hurwitz's zeta function, the sum of (x + k) ** -s over k >= 0, for s > 1 and x >= 0.",
    reference=_zeta, cpu="vm.zeta({T}({s}), {0})", cost=200.0,
    vjp=lambda b, n, ct: ct * (b.zeta(n.inputs[0], s=n.attrs["s"] + 1.0) * -n.attrs["s"]),
    domain=(0.1, 20.0), tolerance=(1e-5, 1e-12),
    samples=calls(((), {"s": 2.0}), ((2, 3), {"s": 3.0}), ((5,), {"s": 1.5}), ((0,), {"s": 4.0})),
)  # fmt: skip


def _gamma_density(b: Builder, n: Application) -> Any:
    """``x^(a-1) exp(-x) / gamma(a)``, the slope of :data:`IGAMMA` in its second operand."""
    a, x = n.inputs
    return b.exp(b.log(x) * (a - 1.0) - x - b.lgamma(a))


def _gamma_shape_slope(b: Builder, n: Application) -> Any:
    """The slope of P(a, x) in ``a``, by differences of fourth order, in double precision.

    Steps are a thousandth of what P changes over, so that the rule's error and the rounding of
    the differences are both near 1e-12; the smaller of P and Q is looked at, for tails.
    """
    a, x = (b.cast(v, dtype=float64) for v in n.inputs)
    step = a * 1e-3 / b.sqrt(a + 1.0)
    below = b.lt(x, a)

    def at(k: float) -> Any:
        moved = a + step * k
        return b.where(below, b.igamma(moved, x), -b.igammac(moved, x))

    slope = ((at(1.0) - at(-1.0)) * 8.0 - (at(2.0) - at(-2.0))) / (step * 12.0)
    return b.cast(slope, dtype=n.out.dtype)


IGAMMA = binary(
    "igamma", "Regularised lower incomplete gamma function P(a, x).", kinds=FLOAT,
    reference=on_numpy(incomplete_gamma.igamma), cpu="vm.igamma({0}, {1})", cost=2000.0,
    vjp=(lambda b, n, ct: ct * _gamma_shape_slope(b, n),
         lambda b, n, ct: ct * _gamma_density(b, n)),
    domain=((0.3, 40.0), (0.3, 40.0)), tolerance=(2e-5, 1e-11), dtypes=("f32", "f64"),
)  # fmt: skip
IGAMMAC = binary(
    "igammac", "Regularised upper incomplete gamma function Q(a, x).", kinds=FLOAT,
    reference=on_numpy(incomplete_gamma.igammac), cpu="vm.igammac({0}, {1})", cost=2000.0,
    vjp=(lambda b, n, ct: -ct * _gamma_shape_slope(b, n),
         lambda b, n, ct: -ct * _gamma_density(b, n)),
    domain=((0.3, 40.0), (0.3, 40.0)), tolerance=(2e-5, 1e-11), dtypes=("f32", "f64"),
)  # fmt: skip

# ---- error function and its inverses --------------------------------------------------

ERFC = unary(
    "erfc", "1 - erf(x), exact where erf is close to 1.",
    reference=on_numpy(errors.erfc), cpu="vm.erfc({0})", cost=50.0,
    vjp=lambda b, n, ct: ct * (b.exp(-(n.inputs[0] * n.inputs[0])) * -_TWO_OVER_ROOT_PI),
    domain=(-4.0, 6.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
ERFCX = unary(
    "erfcx", "exp(x * x) * erfc(x).",
    reference=on_numpy(errors.erfcx), cpu="vm.erfcx({0})", cost=50.0,
    vjp=lambda b, n, ct: ct * (n.inputs[0] * n.out * 2.0 - _TWO_OVER_ROOT_PI),
    domain=(-3.0, 20.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
ERFINV = unary(
    "erfinv", "Inverse of erf; NaN outside [-1, 1].",
    reference=on_numpy(errors.erfinv), cpu="vm.erfinv({0})", cost=60.0,
    vjp=lambda b, n, ct: ct * (b.exp(n.out * n.out) * (1 / _TWO_OVER_ROOT_PI)),
    domain=(-0.9, 0.9), tolerance=(1e-5, 1e-12),
)  # fmt: skip
NDTRI = unary(
    "ndtri", "Standard normal quantile; NaN outside [0, 1].",
    reference=on_numpy(errors.ndtri), cpu="vm.ndtri({0})", cost=60.0,
    vjp=lambda b, n, ct: ct * (b.exp(n.out * n.out * 0.5) * math.sqrt(2 * math.pi)),
    domain=(0.01, 0.45), tolerance=(1e-5, 1e-12),
)  # fmt: skip

# ---- Bessel functions ------------------------------------------------------------------


def _i1_slope(b: Builder, n: Application, ct: Any) -> Any:
    """``I0(x) - I1(x) / x``, which is 1/2 at 0."""
    x = n.inputs[0]
    zero = b.eq(x, 0)
    quotient = n.out / b.where(zero, scalar(b, 1, ct.dtype), x)
    return ct * b.where(zero, scalar(b, 0.5, ct.dtype), b.i0(x) - quotient)


def _i1e_slope(b: Builder, n: Application, ct: Any) -> Any:
    x = n.inputs[0]
    zero = b.eq(x, 0)
    inverse = b.reciprocal(b.where(zero, scalar(b, 1, ct.dtype), x))
    slope = b.i0e(x) - n.out * (b.sign(x) + inverse)
    return ct * b.where(zero, scalar(b, 0.5, ct.dtype), slope)


I0 = unary(
    "i0", "Modified Bessel function of the first kind, order 0.",
    reference=on_numpy(bessel.i0), cpu="vm.i0({0})", cost=70.0,
    vjp=lambda b, n, ct: ct * b.i1(n.inputs[0]),
    domain=(-12.0, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
I1 = unary(
    "i1", "Modified Bessel function of the first kind, order 1.",
    reference=on_numpy(bessel.i1), cpu="vm.i1({0})", cost=70.0,
    vjp=_i1_slope,
    domain=(-12.0, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
I0E = unary(
    "i0e", "exp(-|x|) times the Bessel function i0.",
    reference=on_numpy(bessel.i0e), cpu="vm.i0e({0})", cost=70.0,
    vjp=lambda b, n, ct: ct * (b.i1e(n.inputs[0]) - b.sign(n.inputs[0]) * n.out),
    domain=(-12.0, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
I1E = unary(
    "i1e", "exp(-|x|) times the Bessel function i1.",
    reference=on_numpy(bessel.i1e), cpu="vm.i1e({0})", cost=70.0,
    vjp=_i1e_slope,
    domain=(-12.0, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip


def _over(b: Builder, n: Application) -> Any:
    """The result over the operand."""
    return n.out / n.inputs[0]


K0 = unary(
    "k0", "Modified Bessel function of the second kind, order 0; NaN below 0.",
    reference=on_numpy(bessel.k0), cpu="vm.k0({0})", cost=90.0,
    vjp=lambda b, n, ct: -ct * b.k1(n.inputs[0]),
    domain=(0.1, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
K1 = unary(
    "k1", "Modified Bessel function of the second kind, order 1; NaN below 0.",
    reference=on_numpy(bessel.k1), cpu="vm.k1({0})", cost=90.0,
    vjp=lambda b, n, ct: -ct * (b.k0(n.inputs[0]) + _over(b, n)),
    domain=(0.1, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
K0E = unary(
    "k0e", "exp(x) times the Bessel function k0.",
    reference=on_numpy(bessel.k0e), cpu="vm.k0e({0})", cost=90.0,
    vjp=lambda b, n, ct: ct * (n.out - b.k1e(n.inputs[0])),
    domain=(0.1, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
K1E = unary(
    "k1e", "exp(x) times the Bessel function k1.",
    reference=on_numpy(bessel.k1e), cpu="vm.k1e({0})", cost=90.0,
    vjp=lambda b, n, ct: ct * (n.out - b.k0e(n.inputs[0]) - _over(b, n)),
    domain=(0.1, 12.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip


def _j1_slope(b: Builder, n: Application, ct: Any) -> Any:
    """``J0(x) - J1(x) / x``, which is 1/2 at 0."""
    x = n.inputs[0]
    zero = b.eq(x, 0)
    quotient = n.out / b.where(zero, scalar(b, 1, ct.dtype), x)
    return ct * b.where(zero, scalar(b, 0.5, ct.dtype), b.j0(x) - quotient)


J0 = unary(
    "j0", "Bessel function of the first kind, order 0.",
    reference=on_numpy(bessel_waves.j0), cpu="vm.j0({0})", cost=120.0,
    vjp=lambda b, n, ct: -ct * b.j1(n.inputs[0]),
    domain=(-20.0, 20.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
J1 = unary(
    "j1", "Bessel function of the first kind, order 1.",
    reference=on_numpy(bessel_waves.j1), cpu="vm.j1({0})", cost=120.0,
    vjp=_j1_slope,
    domain=(-20.0, 20.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
Y0 = unary(
    "y0", "Bessel function of the second kind, order 0; NaN below 0.",
    reference=on_numpy(bessel_waves.y0), cpu="vm.y0({0})", cost=140.0,
    vjp=lambda b, n, ct: -ct * b.y1(n.inputs[0]),
    domain=(0.1, 20.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
Y1 = unary(
    "y1", "Bessel function of the second kind, order 1; NaN below 0.",
    reference=on_numpy(bessel_waves.y1), cpu="vm.y1({0})", cost=140.0,
    vjp=lambda b, n, ct: ct * (b.y0(n.inputs[0]) - _over(b, n)),
    domain=(0.1, 20.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip

# ---- Airy function -----------------------------------------------------------------------

AIRY_AI = unary(
    "airy_ai", "Airy function Ai.",
    reference=on_numpy(airy.airy_ai), cpu="vm.airy_ai({0})", cost=160.0,
    vjp=lambda b, n, ct: ct * b.airy_ai_slope(n.inputs[0]),
    domain=(-12.0, 6.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
AIRY_AI_SLOPE = unary(
    "airy_ai_slope", "The derivative of the Airy function Ai.",
    reference=on_numpy(airy.airy_ai_slope), cpu="vm.airy_ai_slope({0})", cost=160.0,
    vjp=lambda b, n, ct: ct * (n.inputs[0] * b.airy_ai(n.inputs[0])),
    domain=(-12.0, 6.0), tolerance=(2e-5, 1e-12),
)  # fmt: skip
