"""What a formula is written in, and its meaning on NumPy arrays.

A formula is a function ``formula(m, x, …)`` over operators and the functions of
``m``, a :class:`Maths`.  It has no branches, only ``m.select``, so that kernels
made from it vectorise.  Formulas compute in double precision; single and half
precision results are rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from graphflow.ir.op import Array

Number: TypeAlias = Any  # an array in NumPy, an expression in a kernel, a Python number
Formula: TypeAlias = Callable[..., Number]

_SPLITTER = 134217729.0  # 2^27 + 1 (Veltkamp)


class Maths(Protocol):
    """The functions formulas are made of."""

    def select(self, condition: Number, a: Number, b: Number) -> Number:
        """``a`` where ``condition`` holds, else ``b``."""

    def equals(self, a: Number, b: Number) -> Number:
        """``a == b``."""

    def absolute(self, x: Number) -> Number:
        """``|x|``."""

    def copysign(self, size: Number, sign: Number) -> Number:
        """``size`` with the sign of ``sign``."""

    def nearest(self, x: Number) -> Number:
        """The nearest whole number."""

    def sqrt(self, x: Number) -> Number:
        """Square root."""

    def exp(self, x: Number) -> Number:
        """e to the power ``x``."""

    def log(self, x: Number) -> Number:
        """Natural logarithm."""

    def sin(self, x: Number) -> Number:
        """Sine."""

    def cos(self, x: Number) -> Number:
        """Cosine."""

    def polynomial(self, x: Number, coefficients: Sequence[float]) -> Number:
        """``coefficients``, constant term first, at ``x``."""


class NumpyMaths:
    """:class:`Maths` on NumPy arrays in double precision."""

    select = staticmethod(np.where)
    equals = staticmethod(np.equal)
    absolute = staticmethod(np.absolute)
    copysign = staticmethod(np.copysign)
    nearest = staticmethod(np.rint)
    sqrt = staticmethod(np.sqrt)
    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    sin = staticmethod(np.sin)
    cos = staticmethod(np.cos)

    @staticmethod
    def polynomial(x: Number, coefficients: Sequence[float]) -> Number:
        """Horner's rule."""
        total = np.full_like(x, coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = total * x + coefficient
        return total


NUMPY: Maths = NumpyMaths()


def on_numpy(formula: Formula) -> Callable[..., Array]:
    """``formula`` as the reference of an operation: any floating dtype in, the same out."""

    def reference(*operands: Array) -> Array:
        wide = [np.asarray(x, np.float64) for x in operands]
        return np.asarray(formula(NUMPY, *wide)).astype(operands[0].dtype)

    return reference


def exp_of_square(m: Maths, size: Number, sign: float) -> Number:
    """``exp(sign * size^2)``, keeping what rounding the square loses; 0 or infinite from 30 on."""
    size = m.select(size > 30.0, 30.0, size)
    scaled = size * _SPLITTER
    high = scaled - (scaled - size)
    low = size - high
    square = size * size
    lost = ((high * high - square) + high * low * 2.0) + low * low
    return m.exp(square * sign) * (lost * sign + 1.0)
