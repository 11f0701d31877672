"""Elementwise operations of one operand.

References are called with NumPy's floating-point warnings silenced: an
overflow or an invalid operation yields an infinity or NaN, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError
from graphflow.ir.op import (
    NON_DIFFERENTIABLE,
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OperandRule,
    OpTests,
    PartsRule,
    Sample,
    register,
)
from graphflow.ir.ops import complex_parts
from graphflow.ir.ops.erf import erf
from graphflow.ir.ops.gradients import mask, scalar, zeros_like
from graphflow.ir.ops.pieces import in_pieces
from graphflow.ir.ops.rules import (
    ANY,
    FLOAT,
    INEXACT,
    NUMBER,
    NUMERIC,
    Attrs,
    Templates,
    TypeRule,
    check_arity,
    elementwise,
    everywhere,
    spelled,
    templates,
)
from graphflow.ir.types import DType, TensorType, bool_, dtype_named

NUMBERS = ("f32", "f64", "i64", "i32")
WITH_BOOL = ("f32", "f64", "i64", "bool")
CAST_TARGETS = ("f32", "f64", "f16", "bf16", "i64", "i32", "u8", "bool")


def unary(
    name: str,
    summary: str,
    *,
    reference: Callable[..., Any],
    cpu: str | Templates,
    vjp: OperandRule | None,
    domain: tuple[float, float] = (-3.0, 3.0),
    tolerance: tuple[float, float] = (1e-6, 1e-13),
    kinds: frozenset[str] = FLOAT,
    infer: TypeRule | None = None,
    dtypes: tuple[str, ...] = ("f32", "f64"),
    samples: tuple[Sample, ...] = (),
    cost: float = 1.0,
    parts: PartsRule | None = None,
    unordered: Callable[..., Any] | None = None,
) -> OpDef:
    """Register an elementwise operation; ``vjp=None``: its result carries no gradient.

    ``cpu`` given as text is the template for floats; ``tolerance`` is (f32, f64).
    """
    return register(
        OpDef(
            name=name,
            kind=Kind.ELEMENTWISE,
            summary=summary,
            infer=infer or elementwise(name, 1, kinds),
            reference=reference,
            unordered=unordered,
            vjp=NON_DIFFERENTIABLE if vjp is None else (vjp,),
            scalar=templates(float=cpu) if isinstance(cpu, str) and cpu != "{0}" else cpu,
            cost=cost,
            parts=parts,
            tests=OpTests(
                domain=domain,
                tolerance=dict(zip(("f32", "f64"), tolerance)),
                dtypes=dtypes,
                samples=samples,
                gradient=vjp is not None,
            ),
        )
    )


def no_slope(b: Builder, n: Application, ct: Any) -> Any:
    """The gradient of a step function: 0 (PyTorch's convention at the steps, too)."""
    return zeros_like(b, n.inputs[0])


def _exp2(x: Array) -> Array:
    """NumPy has none for complex numbers."""
    return np.exp(x * x.real.dtype.type(math.log(2.0))) if x.dtype.kind == "c" else np.exp2(x)


def _log2(x: Array) -> Array:
    """NumPy has none for complex numbers."""
    return np.log(x) / x.real.dtype.type(math.log(2.0)) if x.dtype.kind == "c" else np.log2(x)


# ---- exponentials, roots, circular functions -----------------------------------------

EXP = unary(
    "exp", "e raised to the operand.",
    reference=np.exp, cpu="vm.exp({0})", cost=12.0,
    kinds=INEXACT, parts=complex_parts.exponential,
    vjp=lambda b, n, ct: ct * n.out,
    domain=(-20.0, 20.0), tolerance=(2e-6, 1e-13),
)  # fmt: skip
EXPM1 = unary(
    "expm1", "exp(x) - 1, exact near 0.",
    reference=np.expm1, cpu="vm.expm1({0})", cost=16.0,
    kinds=INEXACT,
    vjp=lambda b, n, ct: ct * (n.out + 1.0),
    domain=(-5.0, 10.0), tolerance=(2e-6, 1e-13),
)  # fmt: skip
LOG = unary(
    "log", "Natural logarithm; NaN below 0, -inf at 0.",
    reference=np.log, cpu="vm.log({0})", cost=12.0,
    kinds=INEXACT, parts=complex_parts.logarithm,
    vjp=lambda b, n, ct: ct / n.inputs[0],
    domain=(1e-3, 100.0),
)  # fmt: skip
EXP2 = unary(
    "exp2", "2 raised to the operand.",
    reference=_exp2, cpu="vm.exp2({0})", cost=12.0,
    kinds=INEXACT, parts=complex_parts.power_of(2.0),
    vjp=lambda b, n, ct: ct * (n.out * math.log(2.0)),
    domain=(-20.0, 20.0), tolerance=(2e-6, 1e-13),
)  # fmt: skip
LOG2 = unary(
    "log2", "Logarithm to base 2; NaN below 0, -inf at 0.",
    reference=_log2, cpu="vm.log2({0})", cost=14.0,
    kinds=INEXACT, parts=complex_parts.logarithm_to(2.0),
    vjp=lambda b, n, ct: ct / (n.inputs[0] * math.log(2.0)),
    domain=(1e-3, 100.0),
)  # fmt: skip
LOG10 = unary(
    "log10", "Logarithm to base 10; NaN below 0, -inf at 0.",
    reference=np.log10, cpu="vm.log10({0})", cost=14.0,
    kinds=INEXACT, parts=complex_parts.logarithm_to(10.0),
    vjp=lambda b, n, ct: ct / (n.inputs[0] * math.log(10.0)),
    domain=(1e-3, 100.0),
)  # fmt: skip
LOG1P = unary(
    "log1p", "log(1 + x), exact near 0.",
    reference=np.log1p, cpu="vm.log1p({0})", cost=16.0,
    kinds=INEXACT,
    vjp=lambda b, n, ct: ct / (n.inputs[0] + 1.0),
    domain=(-0.9, 100.0),
)  # fmt: skip
SQRT = unary(
    "sqrt", "Square root; NaN below 0.",
    reference=np.sqrt, cpu="vm.sqrt({0})", cost=4.0,
    kinds=INEXACT, parts=complex_parts.root,
    vjp=lambda b, n, ct: ct / (n.out * 2.0),
    domain=(1e-3, 100.0),
)  # fmt: skip
RSQRT = unary(
    "rsqrt", "1 / sqrt(x).",
    reference=lambda x: np.reciprocal(np.sqrt(x)), cpu="vm.rsqrt({0})", cost=6.0,
    kinds=INEXACT, parts=complex_parts.inverse_root,
    vjp=lambda b, n, ct: ct * (n.out * n.out * n.out * -0.5),
    domain=(1e-2, 100.0),
)  # fmt: skip
SIN = unary(
    "sin", "Sine of radians.",
    reference=np.sin, cpu="vm.sin({0})", cost=16.0,
    kinds=INEXACT, parts=complex_parts.sine,
    vjp=lambda b, n, ct: ct * b.cos(n.inputs[0]),
    domain=(-10.0, 10.0), tolerance=(4e-6, 1e-13),
)  # fmt: skip
COS = unary(
    "cos", "Cosine of radians.",
    reference=np.cos, cpu="vm.cos({0})", cost=16.0,
    kinds=INEXACT, parts=complex_parts.cosine,
    vjp=lambda b, n, ct: -(ct * b.sin(n.inputs[0])),
    domain=(-10.0, 10.0), tolerance=(4e-6, 1e-13),
)  # fmt: skip
TANH = unary(
    "tanh", "Hyperbolic tangent.",
    reference=np.tanh, cpu="vm.tanh({0})", cost=16.0,
    kinds=INEXACT,
    vjp=lambda b, n, ct: ct * (1.0 - n.out * n.out),
    domain=(-20.0, 20.0), tolerance=(2e-6, 1e-13),
)  # fmt: skip

ASINH = unary(
    "asinh", "Inverse hyperbolic sine.",
    reference=np.arcsinh, cpu="vm.asinh({0})", cost=30.0,
    vjp=lambda b, n, ct: ct * b.rsqrt(n.inputs[0] * n.inputs[0] + 1.0),
    domain=(-20.0, 20.0),
)  # fmt: skip


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)): exp overflows to infinity for very negative x, and 1/inf is 0."""
    e = np.exp(np.negative(x))
    return np.reciprocal(e + 1)


SIGMOID = unary(
    "sigmoid", "1 / (1 + exp(-x)).",
    reference=_sigmoid, cpu="vm.sigmoid({0})", cost=16.0,
    kinds=INEXACT, parts=complex_parts.logistic,
    vjp=lambda b, n, ct: ct * (n.out * (1.0 - n.out)),
    domain=(-20.0, 20.0), tolerance=(4e-6, 1e-13),
)  # fmt: skip


def _erf_vjp(b: Builder, n: Application, ct: Any) -> Any:
    return ct * (b.exp(-(n.inputs[0] * n.inputs[0])) * (2.0 / math.sqrt(math.pi)))


ERF = unary(
    "erf", "Error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x.",
    reference=erf, cpu="vm.erf({0})", cost=24.0,
    vjp=_erf_vjp,
    domain=(-6.0, 6.0), tolerance=(2e-6, 1e-13),
)  # fmt: skip


@in_pieces
def _phi(x: Array) -> Array:
    """(1 + erf(x / sqrt(2))) / 2."""
    return (erf(x * x.dtype.type(math.sqrt(0.5))) + 1) * x.dtype.type(0.5)


def _phi_vjp(b: Builder, n: Application, ct: Any) -> Any:
    x = n.inputs[0]
    return ct * (b.exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi)))


PHI = unary(
    "phi", "Standard normal distribution function as a sum: absolutely accurate below 0.",
    reference=_phi, cpu="vm.phi({0})", cost=16.0,
    vjp=_phi_vjp,
    domain=(-1.0, 8.0), tolerance=(2e-6, 1e-13),
)  # fmt: skip
RECIPROCAL = unary(
    "reciprocal", "1 / x.",
    reference=np.reciprocal, cpu="vm.reciprocal({0})", cost=3.0,
    kinds=INEXACT, parts=complex_parts.inverse,
    vjp=lambda b, n, ct: -(ct * (n.out * n.out)),
    domain=(0.1, 10.0),
)  # fmt: skip

# ---- sign and rounding ---------------------------------------------------------------


def _sign(x: Array) -> Array:
    """-1, 0 or 1; 0 for NaN, as PyTorch has it (np.sign keeps NaN)."""
    return np.greater(x, 0).astype(x.dtype) - np.less(x, 0).astype(x.dtype)


def _rounding(ufunc: Callable[..., Any]) -> Callable[[Array], Array]:
    """A rounding ufunc that leaves integers (which old NumPy turns into floats) alone."""
    return lambda x: np.array(x) if x.dtype.kind in "iu" else ufunc(x)


NEG = unary(
    "neg", "-x; integers wrap.",
    reference=np.negative, cpu=templates(float="-{0}", integer="-{0}"), kinds=NUMBER,
    parts=complex_parts.each,
    vjp=lambda b, n, ct: -ct,
    dtypes=NUMBERS,
)  # fmt: skip


def _infer_abs(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    found = elementwise("abs", 1, NUMBER)(types, attrs)
    return TensorType(found.dtype.real, found.shape)


def _abs_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """``ct * sign(x)``; for complex numbers ``ct * z / |z|``, 0 at 0."""
    x = n.inputs[0]
    if not x.dtype.is_complex:
        return ct * b.sign(x)
    zero = b.eq(n.out, 0)
    scale = mask(b, b.logical_not(zero), ct / b.where(zero, scalar(b, 1, ct.dtype), n.out))
    return b.cast(scale, dtype=x.dtype) * x


ABS = unary(
    "abs", "Absolute value, real for complex numbers; the smallest integer stays itself.",
    reference=np.absolute, infer=_infer_abs, parts=complex_parts.size,
    cpu=templates(float="vm.abs({0})", integer="vm.abs({0})"),
    vjp=_abs_vjp, dtypes=NUMBERS,
)  # fmt: skip
SIGN = unary(
    "sign", "-1, 0 or 1; 0 for NaN.",
    reference=_sign, kinds=NUMERIC,
    cpu=everywhere("select({0} > {T}(0), {T}(1), select({0} < {T}(0), {T}(-1), {T}(0)))"),
    vjp=no_slope, dtypes=NUMBERS, cost=2.0,
)  # fmt: skip
RELU = unary(
    "relu", "max(x, 0); NaN and -0.0 stay.",
    reference=lambda x: np.where(np.less(x, 0), x.dtype.type(0), x), kinds=NUMERIC,
    cpu=templates(float="vm.relu({0})", integer="vm.relu({0})"),
    # Through the result, so that the operand need not be kept; NaN lets the cotangent pass.
    vjp=lambda b, n, ct: b.where(b.le(n.out, 0), scalar(b, 0, ct.dtype), ct),
    dtypes=NUMBERS,
)  # fmt: skip
FLOOR = unary(
    "floor", "Largest integer not above x.",
    reference=_rounding(np.floor), kinds=NUMERIC,
    cpu=templates(float="vm.floor({0})", integer="{0}"),
    vjp=no_slope, dtypes=NUMBERS,
)  # fmt: skip
CEIL = unary(
    "ceil", "Smallest integer not below x.",
    reference=_rounding(np.ceil), kinds=NUMERIC,
    cpu=templates(float="vm.ceil({0})", integer="{0}"),
    vjp=no_slope, dtypes=NUMBERS,
)  # fmt: skip
TRUNC = unary(
    "trunc", "The operand without its fraction.",
    reference=_rounding(np.trunc), kinds=NUMERIC,
    cpu=templates(float="vm.trunc({0})", integer="{0}"),
    vjp=no_slope, dtypes=NUMBERS,
)  # fmt: skip
ROUND = unary(
    "round", "Nearest integer, halves to even.",
    reference=_rounding(np.rint), kinds=NUMERIC,
    cpu=templates(float="vm.round({0})", integer="{0}"),
    vjp=no_slope, dtypes=NUMBERS,
    samples=(Sample((np.array([-2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5]),)),),
)  # fmt: skip

# ---- conditions ----------------------------------------------------------------------

LOGICAL_NOT = unary(
    "logical_not", "True where x is 0 or False.",
    reference=np.logical_not, infer=elementwise("logical_not", 1, ANY, bool_),
    parts=complex_parts.is_zero,
    cpu=everywhere("not {0}"),
    vjp=None, dtypes=WITH_BOOL,
)  # fmt: skip
ISNAN = unary(
    "isnan", "True where x is NaN.",
    reference=np.isnan, infer=elementwise("isnan", 1, ANY, bool_),
    parts=complex_parts.is_nan,
    cpu=everywhere("{0} != {0}"),
    vjp=None, dtypes=WITH_BOOL,
    samples=(Sample((np.array([np.nan, np.inf, -np.inf, 0.0]),)),),
)  # fmt: skip

# ---- identities and conversion -------------------------------------------------------

COPY = unary(
    "copy", "The operand, in memory of its own.",
    reference=np.array, cpu="{0}", infer=elementwise("copy", 1, ANY),
    parts=complex_parts.each,
    vjp=lambda b, n, ct: ct,
    dtypes=WITH_BOOL,
)  # fmt: skip
STOP_GRADIENT = unary(
    "stop_gradient", "The operand, as a constant to differentiation.",
    reference=np.array, unordered=lambda x: x, cpu="{0}",
    infer=elementwise("stop_gradient", 1, ANY), parts=complex_parts.each,
    vjp=None, dtypes=WITH_BOOL,
)  # fmt: skip


def _infer_cast(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("cast", types, 1)
    dtype = attrs.get("dtype")
    if not isinstance(dtype, DType):
        raise DTypeError(f"{spelled('cast', types)}: cannot cast to {dtype!r}")
    return TensorType(dtype, types[0].shape)


def _cast(x: Array, *, dtype: DType) -> Array:
    if x.dtype.kind == "c" and not dtype.is_complex:
        x = x != 0 if dtype.kind == "bool" else x.real
    if x.dtype.kind == "V" and not dtype.is_floating_point:
        x = x.astype(np.float32)  # versions of ml_dtypes differ in what negative numbers become
    return x.astype(dtype.numpy)


CAST = unary(
    "cast", "The operand in another dtype: floats truncate to integers, integers wrap.",
    reference=_cast, infer=_infer_cast, parts=complex_parts.conversion,
    cpu=everywhere("{dtype.short}({0})"),  # bool(x), f32(x), i64(x) …
    vjp=lambda b, n, ct: b.cast(ct, dtype=n.inputs[0].dtype),
    dtypes=CAST_TARGETS,
    samples=tuple(Sample(((2, 3),), {"dtype": dtype_named(short)}) for short in CAST_TARGETS),
)  # fmt: skip
