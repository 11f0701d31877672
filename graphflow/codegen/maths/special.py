"""Special functions: the formulas of :mod:`graphflow.ir.formulas` over expressions.

All compute in f64; f32 arguments are widened, and the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable

from graphflow.codegen.llvm_expr import Value, polynomial, select
from graphflow.codegen.maths import exponential, logarithm, trigonometry
from graphflow.ir.formulas import airy, bessel, bessel_waves, errors, gamma, incomplete_gamma
from graphflow.ir.formulas.maths import Formula, Maths, Number

Function = Callable[..., Value]


class ExpressionMaths:
    """:class:`graphflow.ir.formulas.maths.Maths` over :class:`Value`."""

    exp = staticmethod(exponential.exp)
    log = staticmethod(logarithm.log)
    sin = staticmethod(trigonometry.sin)
    cos = staticmethod(trigonometry.cos)
    polynomial = staticmethod(polynomial)

    @staticmethod
    def select(condition: Value, a: Number, b: Number) -> Value:
        """A choice; both may be numbers, which are then f64."""
        if not isinstance(a, Value) and not isinstance(b, Value):
            machine = condition.machine
            a = Value(machine, "f64", machine.constant("f64", a))
        return select(condition, a, b)

    @staticmethod
    def equals(a: Value, b: Number) -> Value:
        """Ordered equality."""
        return a.equals(b)

    @staticmethod
    def absolute(x: Value) -> Value:
        """The size of a float."""
        return x.call("abs")

    @staticmethod
    def copysign(size: Value, sign: Value) -> Value:
        """A sign from elsewhere."""
        return size.call("copysign", sign)

    @staticmethod
    def nearest(x: Value) -> Value:
        """Halves to even."""
        return x.call("rint")

    @staticmethod
    def sqrt(x: Value) -> Value:
        """Correctly rounded."""
        return x.call("sqrt")


MATHS: Maths = ExpressionMaths()


def in_double(function: Function) -> Function:
    """``function`` of f64, for f32 as well."""

    def widened(*arguments: Value) -> Value:
        wide = [a.convert("f64") for a in arguments]
        return function(*wide).convert(arguments[0].type)

    widened.__doc__ = function.__doc__
    return widened


def kernel_function(formula: Formula) -> Function:
    """``formula`` as a function of kernels."""

    def function(*arguments: Value) -> Value:
        return formula(MATHS, *arguments)  # type: ignore[no-any-return]

    function.__doc__ = formula.__doc__
    return in_double(function)


lgamma = kernel_function(gamma.lgamma)
digamma = kernel_function(gamma.digamma)
zeta = kernel_function(gamma.zeta)
igamma = kernel_function(incomplete_gamma.igamma)
igammac = kernel_function(incomplete_gamma.igammac)
erfc = kernel_function(errors.erfc)
erfcx = kernel_function(errors.erfcx)
erfinv = kernel_function(errors.erfinv)
ndtri = kernel_function(errors.ndtri)
i0, i0e = kernel_function(bessel.i0), kernel_function(bessel.i0e)
i1, i1e = kernel_function(bessel.i1), kernel_function(bessel.i1e)
k0, k0e = kernel_function(bessel.k0), kernel_function(bessel.k0e)
k1, k1e = kernel_function(bessel.k1), kernel_function(bessel.k1e)
j0, j1 = kernel_function(bessel_waves.j0), kernel_function(bessel_waves.j1)
y0, y1 = kernel_function(bessel_waves.y0), kernel_function(bessel_waves.y1)
airy_ai, airy_ai_slope = kernel_function(airy.airy_ai), kernel_function(airy.airy_ai_slope)
