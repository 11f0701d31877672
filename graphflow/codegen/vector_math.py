"""``vm``: mathematical functions of generated kernels.

Each function is a formula over :mod:`graphflow.codegen.llvm_expr`.  In a
compiled kernel it is LLVM code inlined at the call, free of branches and of
calls, so that loops around it vectorise; called from Python it computes on
NumPy scalars and arrays.  The measured errors are in ``docs/vector_math.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from graphflow.codegen.llvm_expr import FLOATS, Value, evaluate, result_type
from graphflow.codegen.maths import (
    basic,
    error_function,
    exponential,
    half,
    logarithm,
    power,
    special,
    trigonometry,
)  # fmt: skip
from graphflow.codegen.maths import (
    philox as random,
)
from graphflow.records import dataclass

Formula = Callable[..., Value]
INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
NUMBERS = FLOATS + INTEGERS


@dataclass(frozen=True)
class VectorFunction:
    """One function of the namespace: its formula and the types it exists for."""

    name: str
    formula: Formula
    arity: int
    types: tuple[str, ...]
    public: Callable[..., Any]
    fixed: tuple[str, ...] = ()
    """Argument types when they are not all one type."""

    def result(self, kinds: tuple[str, ...]) -> str:
        """The type of the result at arguments of these types.

        KeyError if the function does not exist for them.
        """
        if kinds not in ([self.fixed] if self.fixed else [(t,) * self.arity for t in self.types]):
            raise KeyError(kinds)
        return _result(self.formula, kinds)


@cache
def _result(formula: Formula, kinds: tuple[str, ...]) -> str:
    # The whole formula is gone through: for all functions that would take 25 ms.
    return result_type(formula, kinds)


FUNCTIONS: dict[str, VectorFunction] = {}
_ORDER = ("bool", *INTEGERS, "f32", "f64")


def _common_type(arguments: tuple[Any, ...], allowed: tuple[str, ...]) -> str:
    dtype = np.result_type(*arguments)
    short = {"bool": "bool"}.get(dtype.name) or dtype.kind + str(8 * dtype.itemsize)
    if short in allowed:
        return short
    return "f64" if "f64" in allowed else "i64"


def _define(
    name: str, formula: Formula, arity: int, types: tuple[str, ...], fixed: tuple[str, ...] = ()
) -> Callable[..., Any]:
    def public(*arguments: Any) -> Any:
        kinds = fixed or (_common_type(arguments, types),) * arity
        return evaluate(formula, kinds, arguments)

    public.__name__ = public.__qualname__ = name
    public.__doc__ = formula.__doc__
    FUNCTIONS[name] = VectorFunction(name, formula, arity, types, public, fixed)
    return public


isnan = _define("isnan", basic.is_nan, 1, FLOATS)
abs = _define("abs", basic.absolute, 1, NUMBERS)
sign = _define("sign", basic.sign, 1, NUMBERS)
maximum = _define("maximum", basic.maximum, 2, ("bool", *NUMBERS))
minimum = _define("minimum", basic.minimum, 2, ("bool", *NUMBERS))
relu = _define("relu", basic.rectified, 1, NUMBERS)
floor = _define("floor", basic.floor, 1, NUMBERS)
ceil = _define("ceil", basic.ceil, 1, NUMBERS)
trunc = _define("trunc", basic.truncate, 1, NUMBERS)
round = _define("round", basic.round_half_even, 1, NUMBERS)
sqrt = _define("sqrt", basic.square_root, 1, FLOATS)
rsqrt = _define("rsqrt", basic.reciprocal_square_root, 1, FLOATS)
reciprocal = _define("reciprocal", basic.reciprocal, 1, FLOATS)
divide = _define("divide", basic.quotient, 2, NUMBERS)
remainder = _define("remainder", basic.remainder, 2, NUMBERS)
floor_divide = _define("floor_divide", basic.floor_divide, 2, NUMBERS)
pow = _define("pow", power.pow, 2, NUMBERS)
exp = _define("exp", exponential.exp, 1, FLOATS)
exp2 = _define("exp2", exponential.exp2, 1, FLOATS)
expm1 = _define("expm1", exponential.expm1, 1, FLOATS)
log = _define("log", logarithm.log, 1, FLOATS)
log2 = _define("log2", logarithm.log2, 1, FLOATS)
log1p = _define("log1p", logarithm.log1p, 1, FLOATS)
sigmoid = _define("sigmoid", exponential.sigmoid, 1, FLOATS)
tanh = _define("tanh", exponential.tanh, 1, FLOATS)
erf = _define("erf", error_function.erf, 1, FLOATS)
phi = _define("phi", error_function.normal_share, 1, FLOATS)
sin = _define("sin", trigonometry.sin, 1, FLOATS)
cos = _define("cos", trigonometry.cos, 1, FLOATS)
atan2 = _define("atan2", trigonometry.atan2, 2, FLOATS)
fmod = _define("fmod", basic.modulus, 2, NUMBERS)
copysign = _define("copysign", basic.copysign, 2, FLOATS)
hypot = _define("hypot", basic.hypotenuse, 2, FLOATS)
log10 = _define("log10", logarithm.log10, 1, FLOATS)
asinh = _define("asinh", logarithm.asinh, 1, FLOATS)
lgamma = _define("lgamma", special.lgamma, 1, FLOATS)
digamma = _define("digamma", special.digamma, 1, FLOATS)
zeta = _define("zeta", special.zeta, 2, FLOATS)
igamma = _define("igamma", special.igamma, 2, FLOATS)
igammac = _define("igammac", special.igammac, 2, FLOATS)
erfc = _define("erfc", special.erfc, 1, FLOATS)
erfcx = _define("erfcx", special.erfcx, 1, FLOATS)
erfinv = _define("erfinv", special.erfinv, 1, FLOATS)
ndtri = _define("ndtri", special.ndtri, 1, FLOATS)
i0 = _define("i0", special.i0, 1, FLOATS)
i0e = _define("i0e", special.i0e, 1, FLOATS)
i1 = _define("i1", special.i1, 1, FLOATS)
i1e = _define("i1e", special.i1e, 1, FLOATS)
k0 = _define("k0", special.k0, 1, FLOATS)
k0e = _define("k0e", special.k0e, 1, FLOATS)
k1 = _define("k1", special.k1, 1, FLOATS)
k1e = _define("k1e", special.k1e, 1, FLOATS)
j0 = _define("j0", special.j0, 1, FLOATS)
j1 = _define("j1", special.j1, 1, FLOATS)
y0 = _define("y0", special.y0, 1, FLOATS)
y1 = _define("y1", special.y1, 1, FLOATS)
airy_ai = _define("airy_ai", special.airy_ai, 1, FLOATS)
airy_ai_slope = _define("airy_ai_slope", special.airy_ai_slope, 1, FLOATS)
philox = _define("philox", random.philox, 4, ("u32",), fixed=("i64",) * 4)
f16_to_f32 = _define("f16_to_f32", half.f16_to_f32, 1, ("f32",), fixed=("u16",))
f32_to_f16 = _define("f32_to_f16", half.f32_to_f16, 1, ("u16",), fixed=("f32",))
bf16_to_f32 = _define("bf16_to_f32", half.bf16_to_f32, 1, ("f32",), fixed=("u16",))
f32_to_bf16 = _define("f32_to_bf16", half.f32_to_bf16, 1, ("u16",), fixed=("f32",))
