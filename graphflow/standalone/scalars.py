"""Functions of scalars that exported kernels call, in plain Python for Numba.

A file contains those it uses.  Each means what the operation of its name means.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Scalar = Any


def select(condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """``a`` where the condition holds, else ``b``."""
    return a if condition else b


def relu(x: Scalar) -> Scalar:
    """``x``, but 0 where it is negative."""
    return type(x)(0) if x < 0 else x


def maximum(x: Scalar, y: Scalar) -> Scalar:
    """The larger one; NaN if one of them is NaN."""
    return x if x > y or x != x else y


def minimum(x: Scalar, y: Scalar) -> Scalar:
    """The smaller one; NaN if one of them is NaN."""
    return x if x < y or x != x else y


def sigmoid(x: Scalar) -> Scalar:
    """``1 / (1 + exp(-x))``."""
    one = type(x)(1)
    return one / (one + np.exp(-x))


def rsqrt(x: Scalar) -> Scalar:
    """``1 / sqrt(x)``."""
    return type(x)(1) / np.sqrt(x)


def reciprocal(x: Scalar) -> Scalar:
    """``1 / x``."""
    return type(x)(1) / x


def phi(x: Scalar) -> Scalar:
    """The standard normal distribution function."""
    return type(x)(0.5 + 0.5 * math.erf(x * math.sqrt(0.5)))


BUILT_IN = {
    "abs": "abs", "exp": "np.exp", "exp2": "np.exp2", "expm1": "np.expm1", "log": "np.log",
    "log1p": "np.log1p", "log2": "np.log2", "log10": "np.log10", "sqrt": "np.sqrt",
    "sin": "np.sin", "cos": "np.cos", "tanh": "np.tanh", "floor": "np.floor", "ceil": "np.ceil",
    "trunc": "np.trunc", "atan2": "np.arctan2", "hypot": "np.hypot", "asinh": "np.arcsinh",
    "copysign": "np.copysign", "erf": "math.erf", "erfc": "math.erfc",
}  # fmt: skip
"""Scalar functions that Numba has already."""

DEFINED = {f.__name__: f for f in (select, relu, maximum, minimum, sigmoid, rsqrt, reciprocal, phi)}
"""Those above, by name."""
