"""Orthogonal polynomials of degree n at x, by the recurrence of three of them.

M. Abramowitz and I. Stegun, *Handbook of Mathematical Functions* (1964), table 22.7; the
Chebyshev polynomials of the third and fourth kind as in J. Mason and D. Handscomb, *Chebyshev
Polynomials* (2002).  Degrees are whole numbers (fractions are cut off); below 0 there is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from graphflow.autograd.function import Function, FunctionCtx
from graphflow.checks import need_tensor
from graphflow.functions.control import while_loop
from graphflow.functions.elementwise import add, div, eq, gt, lt, mul, sub, where
from graphflow.functions.joining import broadcast_tensors
from graphflow.functions.reductions import amax
from graphflow.ir import types as T
from graphflow.promotion import cast, operands
from graphflow.tensor import Tensor

__all__: list[str] = []

First: TypeAlias = Callable[[Tensor], Tensor]
Step: TypeAlias = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
_UNROLLED = 32
"""Up to this degree, if it is a number, each step is an expression of its own."""


def _family(name: str, meaning: str, first: First, step: Step) -> Callable[[Any, Any], Tensor]:
    """The function of x and n: 1 of degree 0, ``first(x)``, then ``step(k, x, now, before)``."""

    def function(input: Any, n: Any) -> Tensor:
        if isinstance(n, int | float) and n <= _UNROLLED:
            need_tensor(name, input)
            (x,) = operands([input], floating=True)
            return _unrolled(x, int(n), first, step)
        x, degree = broadcast_tensors(*operands([input, n], floating=True))
        degree = cast(cast(degree.detach(), T.int64), x.dtype)
        return _Derivative.apply(x, degree, first, step, 0)  # type: ignore[no-any-return]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{meaning} of degree ``n`` at ``input``; ``n`` is a number or a tensor."
    return function


def _unrolled(x: Tensor, n: int, first: First, step: Step) -> Tensor:
    before = add(mul(x, 0.0), 1.0)
    if n <= 0:
        return before if n == 0 else mul(before, 0.0)
    now = first(x)
    for k in range(1, n):
        before, now = now, step(float(k), x, now, before)
    return now


class _Derivative(Function):
    """The derivative by x of an order, 0 being the value; its own is the next, by the same loop.

    Nothing is kept of the loop's steps, whose number compiled code does not know.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, degree: Tensor, first: First, step: Step, order: int
    ) -> Tensor:
        ctx.save_for_backward(x, degree)
        ctx.next = first, step, order + 1  # type: ignore[attr-defined]
        return _looped(x, degree, first, step, order)

    @staticmethod
    def backward(ctx: FunctionCtx, ct: Tensor) -> tuple[Tensor | None, ...]:
        slope = _Derivative.apply(*ctx.saved_tensors, *ctx.next)  # type: ignore[attr-defined]
        return mul(ct, slope), None, None, None, None


def _looped(x: Tensor, degree: Tensor, first: First, step: Step, order: int) -> Tensor:
    """As many steps as the largest degree needs; each element keeps what it asks for.

    The recurrence's derivatives (Leibniz): a step is linear in x and in both polynomials, so its
    derivative of order i is the step of theirs, and i times the slope in x at those of i - 1.
    """
    zero, one = mul(x, 0.0), add(mul(x, 0.0), 1.0)
    before = (one, *[zero] * order)
    now = (first(x), sub(first(one), first(zero)), *[zero] * order)[: order + 1]
    if not x.numel():
        return now[order]
    found = where(gt(degree, 0), now[order], where(lt(degree, 0), 0.0, before[order]))
    most = amax(degree)

    def body(carry: Any) -> Any:
        k, before, now, found = carry
        after = [step(k, x, a, b) for a, b in zip(now, before, strict=True)]
        for i in range(1, order + 1):
            slope = sub(step(k, one, now[i - 1], zero), step(k, zero, now[i - 1], zero))
            after[i] = add(after[i], mul(slope, float(i)))
        kept = where(eq(degree, add(k, 1)), after[order], found)
        return add(k, 1), now, tuple(after), kept

    start = (add(mul(most, 0.0), 1.0), before, now, found)
    last: tuple[Any, ...] = while_loop(lambda carry: lt(carry[0], most), body, start)
    return last[3]  # type: ignore[no-any-return]


def _twice(k: Any, x: Tensor, now: Tensor, before: Tensor) -> Tensor:
    return sub(mul(mul(x, now), 2.0), before)


def _shifted(x: Tensor) -> Tensor:
    return sub(mul(x, 2.0), 1.0)


def _twice_shifted(k: Any, x: Tensor, now: Tensor, before: Tensor) -> Tensor:
    return _twice(k, _shifted(x), now, before)


def _hermite(k: Any, x: Tensor, now: Tensor, before: Tensor) -> Tensor:
    return mul(sub(mul(x, now), mul(before, k)), 2.0)


def _hermite_e(k: Any, x: Tensor, now: Tensor, before: Tensor) -> Tensor:
    return sub(mul(x, now), mul(before, k))


def _laguerre(k: Any, x: Tensor, now: Tensor, before: Tensor) -> Tensor:
    # By the step: what is added is smaller than the sum of the products.
    change = sub(mul(sub(now, before), k), mul(x, now))
    return add(now, div(change, k + 1.0))


def _legendre(k: Any, x: Tensor, now: Tensor, before: Tensor) -> Tensor:
    product = mul(x, now)
    return div(add(mul(sub(product, before), k), mul(product, k + 1.0)), k + 1.0)


_KINDS: dict[str, tuple[str, First]] = {
    "t": ("first", lambda x: mul(x, 1.0)),
    "u": ("second", lambda x: mul(x, 2.0)),
    "v": ("third", lambda x: sub(mul(x, 2.0), 1.0)),
    "w": ("fourth", lambda x: add(mul(x, 2.0), 1.0)),
}


def _chebyshev(kind: str) -> Callable[[Any, Any], Tensor]:
    word, first = _KINDS[kind]
    meaning = f"Chebyshev polynomial of the {word} kind"
    return _family(f"chebyshev_polynomial_{kind}", meaning, first, _twice)


def _chebyshev_shifted(kind: str) -> Callable[[Any, Any], Tensor]:
    word, first = _KINDS[kind]
    return _family(
        f"shifted_chebyshev_polynomial_{kind}",
        f"Chebyshev polynomial of the {word} kind, of ``2 input - 1``,",
        lambda x: first(_shifted(x)), _twice_shifted,
    )  # fmt: skip


chebyshev_polynomial_t, chebyshev_polynomial_u = _chebyshev("t"), _chebyshev("u")
chebyshev_polynomial_v, chebyshev_polynomial_w = _chebyshev("v"), _chebyshev("w")
shifted_chebyshev_polynomial_t = _chebyshev_shifted("t")
shifted_chebyshev_polynomial_u = _chebyshev_shifted("u")
shifted_chebyshev_polynomial_v = _chebyshev_shifted("v")
shifted_chebyshev_polynomial_w = _chebyshev_shifted("w")
hermite_polynomial_h = _family(
    "hermite_polynomial_h", "Hermite polynomial (orthogonal by ``exp(-x^2)``)",
    lambda x: mul(x, 2.0), _hermite,
)  # fmt: skip
hermite_polynomial_he = _family(
    "hermite_polynomial_he", "Hermite polynomial (orthogonal by ``exp(-x^2 / 2)``)",
    lambda x: mul(x, 1.0), _hermite_e,
)  # fmt: skip
laguerre_polynomial_l = _family(
    "laguerre_polynomial_l", "Laguerre polynomial", lambda x: sub(1.0, x), _laguerre
)
legendre_polynomial_p = _family(
    "legendre_polynomial_p", "Legendre polynomial", lambda x: mul(x, 1.0), _legendre
)
