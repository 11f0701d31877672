"""Elementwise operations of two operands, and ``where``.

Operands have one dtype and broadcast.  Division of an integer by zero gives 0;
the front, which sees the values in eager mode, may refuse it earlier.
"""

from __future__ import annotations

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
from graphflow.ir.ops import batches, complex_parts
from graphflow.ir.ops.gradients import mask, scalar, zeros_like
from graphflow.ir.ops.rules import (
    ANY,
    BITS,
    FLOAT,
    INEXACT,
    INTEGER,
    NUMBER,
    NUMERIC,
    ORDERED,
    Attrs,
    Templates,
    broadcast,
    check_arity,
    elementwise,
    everywhere,
    spelled,
    templates,
)
from graphflow.ir.types import TensorType, bool_

NUMBERS = ("f32", "f64", "i64", "i32")
EVERY = ("f32", "f64", "i64", "i32", "u8", "bool")
WHOLE = ("i64", "i32", "u8", "bool")
EDGES = (0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan)
GRID = Sample((np.array(EDGES).reshape(-1, 1), np.array(EDGES)))
"""Every pair of special values."""


def binary(
    name: str,
    summary: str,
    *,
    reference: Callable[..., Any],
    cpu: str | Templates,
    vjp: tuple[OperandRule | None, OperandRule | None] | None,
    kinds: frozenset[str] = NUMERIC,
    parts: PartsRule | None = None,
    condition: bool = False,
    commutative: bool = False,
    picks: bool = False,
    domain: tuple[float, float] | tuple[tuple[float, float], ...] = (-3.0, 3.0),
    tolerance: tuple[float, float] = (1e-6, 1e-13),
    dtypes: tuple[str, ...] = NUMBERS,
    samples: tuple[Sample, ...] = (GRID,),
    cost: float = 1.0,
) -> OpDef:
    """Register an elementwise operation; ``vjp=None``: its result carries no gradient.

    ``cpu`` given as text is the template for every dtype.  ``condition``: the
    result is bool.
    """
    return register(
        OpDef(
            name=name,
            kind=Kind.ELEMENTWISE,
            summary=summary,
            infer=elementwise(name, 2, kinds, bool_ if condition else None),
            reference=reference,
            vjp=NON_DIFFERENTIABLE if vjp is None else vjp,
            scalar=everywhere(cpu) if isinstance(cpu, str) else cpu,
            parts=parts,
            commutative=commutative,
            picks=picks,
            cost=cost,
            tests=OpTests(
                domain=domain,
                tolerance=dict(zip(("f32", "f64"), tolerance)),
                dtypes=dtypes,
                samples=samples,
                gradient=vjp is not None,
            ),
        )
    )


# ---- order ---------------------------------------------------------------------------

AFTER = binary(
    "after", "a, computed once b is there: it is not merged with what depends on a alone.",
    reference=lambda a, b: np.array(np.broadcast_arrays(a, b)[0]), kinds=ANY, dtypes=EVERY,
    cpu="{0}",
    vjp=(lambda b, n, ct: ct, None),
)  # fmt: skip

# ---- arithmetic ----------------------------------------------------------------------

ADD = binary(
    "add", "a + b; integers wrap; on bool: or.",
    reference=np.add, kinds=ANY, commutative=True, dtypes=EVERY,
    cpu=templates(float="{0} + {1}", integer="{0} + {1}", boolean="{0} | {1}"),
    parts=complex_parts.each,
    vjp=(lambda b, n, ct: ct, lambda b, n, ct: ct),
)  # fmt: skip
SUB = binary(
    "sub", "a - b; integers wrap.",
    reference=np.subtract, kinds=NUMBER, parts=complex_parts.each,
    cpu=templates(float="{0} - {1}", integer="{0} - {1}"),
    vjp=(lambda b, n, ct: ct, lambda b, n, ct: -ct),
)  # fmt: skip
MUL = binary(
    "mul", "a * b; integers wrap; on bool: and.",
    reference=np.multiply, kinds=ANY, commutative=True, dtypes=EVERY,
    cpu=templates(float="{0} * {1}", integer="{0} * {1}", boolean="{0} & {1}"),
    parts=complex_parts.product,
    vjp=(lambda b, n, ct: ct * n.inputs[1], lambda b, n, ct: ct * n.inputs[0]),
)  # fmt: skip
DIV = binary(
    "div", "a / b of floats; infinities and NaN at b = 0.",
    reference=np.divide, kinds=INEXACT, dtypes=("f32", "f64"), cost=3.0,
    parts=complex_parts.quotient,
    cpu=templates(float="{0} / {1}"),
    vjp=(
        lambda b, n, ct: ct / n.inputs[1],
        lambda b, n, ct: -(ct * (n.out / n.inputs[1])),
    ),
    domain=((-3.0, 3.0), (0.2, 3.0)),
)  # fmt: skip


def _power(x: Array, y: Array) -> Array:
    """x ** y; whole numbers to negative powers truncate: 0, or ±1 for x = ±1."""
    if x.dtype.kind != "i":
        return np.power(x, y)
    inverse = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)).astype(x.dtype)
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0)))


def _power_base(b: Builder, n: Application, ct: Any) -> Any:
    x, y = n.inputs
    slope = y * b.pow(x, y - 1.0)
    return b.where(b.eq(y, 0), scalar(b, 0, ct.dtype), ct * slope)


def _power_exponent(b: Builder, n: Application, ct: Any) -> Any:
    x, y = n.inputs
    flat = b.logical_and(
        b.eq(x, 0), b.ge(y if not y.dtype.is_complex else b.abs(y), 0)
    )  # 0 ** y is 0 for every y > 0
    return b.where(flat, scalar(b, 0, ct.dtype), ct * (n.out * b.log(x)))


POW = binary(
    "pow", "a to the power b; NaN for a negative a and a fractional b.",
    reference=_power, kinds=NUMBER, parts=complex_parts.power, cost=40.0,
    cpu=templates(float="vm.pow({0}, {1})", integer="vm.pow({0}, {1})"),
    vjp=(_power_base, _power_exponent),
    domain=((0.1, 4.0), (-3.0, 3.0)), tolerance=(1e-5, 1e-12),
)  # fmt: skip
REMAINDER = binary(
    "remainder", "The remainder of a / b, with the sign of b.",
    reference=np.remainder, cost=12.0, cpu="vm.remainder({0}, {1})",
    vjp=(
        lambda b, n, ct: ct,
        lambda b, n, ct: -(ct * b.floor_divide(n.inputs[0], n.inputs[1])),
    ),
    domain=((-9.0, 9.0), (1.0, 4.0)), tolerance=(2e-6, 1e-13),
)  # fmt: skip
FMOD = binary(
    "fmod", "The remainder of a / b, with the sign of a.",
    reference=np.fmod, cost=12.0, cpu="vm.fmod({0}, {1})",
    vjp=(
        lambda b, n, ct: ct,
        lambda b, n, ct: -(ct * b.trunc(n.inputs[0] / n.inputs[1])),
    ),
    domain=((-9.0, 9.0), (1.0, 4.0)), tolerance=(2e-6, 1e-13),
)  # fmt: skip
FLOOR_DIVIDE = binary(
    "floor_divide", "a / b rounded down.",
    reference=np.floor_divide, cost=12.0, cpu="vm.floor_divide({0}, {1})",
    vjp=(lambda b, n, ct: zeros_like(b, n.out), lambda b, n, ct: zeros_like(b, n.out)),
    domain=((-9.0, 9.0), (1.0, 4.0)),
)  # fmt: skip
ATAN2 = binary(
    "atan2", "The angle of the point (b, a), in radians.",
    reference=np.arctan2, kinds=FLOAT, dtypes=("f32", "f64"), cost=30.0,
    cpu=templates(float="vm.atan2({0}, {1})"),
    vjp=(
        lambda b, n, ct: ct * (n.inputs[1] / _norm2(b, n)),
        lambda b, n, ct: -(ct * (n.inputs[0] / _norm2(b, n))),
    ),
    domain=((-3.0, 3.0), (0.2, 3.0)), tolerance=(2e-6, 1e-13),
)  # fmt: skip

HYPOT = binary(
    "hypot", "sqrt(a * a + b * b), without overflow on the way.",
    reference=np.hypot, kinds=FLOAT, dtypes=("f32", "f64"), cost=12.0, commutative=True,
    cpu=templates(float="vm.hypot({0}, {1})"),
    vjp=(
        lambda b, n, ct: ct * (n.inputs[0] / n.out),
        lambda b, n, ct: ct * (n.inputs[1] / n.out),
    ),
    domain=((-3.0, 3.0), (0.2, 3.0)),
)  # fmt: skip
COPYSIGN = binary(
    "copysign", "The size of a with the sign of b.",
    reference=np.copysign, kinds=FLOAT, dtypes=("f32", "f64"),
    cpu=templates(float="vm.copysign({0}, {1})"),
    vjp=(
        lambda b, n, ct: ct * (b.sign(n.inputs[0]) * b.copysign(1.0, n.inputs[1])),
        lambda b, n, ct: zeros_like(b, n.out),
    ),
    samples=(),
)  # fmt: skip


def _norm2(b: Any, n: Application) -> Any:
    """The square of the distance from (0, 0), there 1: the slopes are taken as 0."""
    y, x = n.inputs
    square = y * y + x * x
    return b.where(b.eq(square, 0), scalar(b, 1, square.dtype), square)


# ---- larger, smaller -----------------------------------------------------------------


def _share(beaten: str, operand: int) -> OperandRule:
    """All of the cotangent to the winner, half to each on a tie, all of it on NaN."""

    def rule(b: Builder, n: Application, ct: Any) -> Any:
        mine, other = n.inputs[operand], n.inputs[1 - operand]
        won = b.where(b.eq(mine, other), ct * 0.5, ct)
        return b.where(b.emit(beaten, mine, other), scalar(b, 0, ct.dtype), won)

    return rule


MAXIMUM = binary(
    "maximum", "The larger operand; NaN if either is NaN; on bool: or.",
    reference=np.maximum, kinds=ORDERED, commutative=True, picks=True, dtypes=EVERY,
    cpu=templates(
        float="vm.maximum({0}, {1})", integer="vm.maximum({0}, {1})", boolean="{0} | {1}"
    ),
    vjp=(_share("lt", 0), _share("lt", 1)),
)  # fmt: skip
MINIMUM = binary(
    "minimum", "The smaller operand; NaN if either is NaN; on bool: and.",
    reference=np.minimum, kinds=ORDERED, commutative=True, picks=True, dtypes=EVERY,
    cpu=templates(
        float="vm.minimum({0}, {1})", integer="vm.minimum({0}, {1})", boolean="{0} & {1}"
    ),
    vjp=(_share("gt", 0), _share("gt", 1)),
)  # fmt: skip

# ---- comparisons (False on NaN, but for ne) ------------------------------------------


def comparison(
    name: str,
    symbol: str,
    ufunc: Callable[..., Any],
    commutative: bool,
    parts: PartsRule | None = None,
) -> OpDef:
    """Register ``a <symbol> b`` with a bool result."""
    return binary(
        name, f"a {symbol} b.",
        reference=ufunc, kinds=ORDERED if parts is None else ANY, parts=parts, condition=True,
        commutative=commutative, dtypes=EVERY, cpu=f"{{0}} {symbol} {{1}}", vjp=None,
    )  # fmt: skip


EQ = comparison("eq", "==", np.equal, True, complex_parts.equal)
NE = comparison("ne", "!=", np.not_equal, True, complex_parts.different)
LT = comparison("lt", "<", np.less, False)
LE = comparison("le", "<=", np.less_equal, False)
GT = comparison("gt", ">", np.greater, False)
GE = comparison("ge", ">=", np.greater_equal, False)

# ---- logic and bits ------------------------------------------------------------------


def logical(name: str, symbol: str, ufunc: Callable[..., Any]) -> OpDef:
    """Register a logical operation on truth values (numbers: true unless 0)."""
    numbers = everywhere(f"({{0}} != {{T}}(0)) {symbol} ({{1}} != {{T}}(0))")
    return binary(
        name, f"a {symbol} b of truth values; a number is true unless it is 0.",
        reference=ufunc, kinds=ORDERED, condition=True, commutative=True, dtypes=EVERY,
        cpu={**numbers, "bool": f"{{0}} {symbol} {{1}}"}, vjp=None,
    )  # fmt: skip


def bitwise(name: str, symbol: str, ufunc: Callable[..., Any]) -> OpDef:
    """Register a bitwise operation on integers or truth values."""
    return binary(
        name, f"a {symbol} b, bit by bit.",
        reference=ufunc, kinds=BITS, commutative=True, dtypes=WHOLE, samples=(),
        cpu=templates(integer=f"{{0}} {symbol} {{1}}", boolean=f"{{0}} {symbol} {{1}}"), vjp=None,
    )  # fmt: skip


LOGICAL_AND = logical("logical_and", "&", np.logical_and)
LOGICAL_OR = logical("logical_or", "|", np.logical_or)
LOGICAL_XOR = logical("logical_xor", "^", np.logical_xor)
BITWISE_AND = bitwise("bitwise_and", "&", np.bitwise_and)
BITWISE_OR = bitwise("bitwise_or", "|", np.bitwise_or)
BITWISE_XOR = bitwise("bitwise_xor", "^", np.bitwise_xor)


def _shift_templates(symbol: str, beyond: str) -> Templates:
    """Counts below 0 or not below the width give ``beyond``; hardware would wrap them."""
    found = {}
    for short, text in templates(integer="{T}({0} SHIFT select(OK, {1}, {T}(0)))").items():
        width = int(short[1:])
        inside = f"({{1}} >= {short}(0)) & ({{1}} < {short}({width}))"
        shifted = text.replace("SHIFT", symbol).replace("OK", inside)
        last = beyond if short.startswith("i") else "{T}(0)"
        found[short] = f"select({inside}, {shifted}, {last})".replace("{T}", short)
    return found


SHIFT_LEFT = binary(
    "shift_left", "a << b; 0 when b is negative or not below the width.",
    reference=np.left_shift, kinds=INTEGER, vjp=None,
    cpu=_shift_templates("<<", "{T}(0)"),
    dtypes=("i64", "i32", "u8", "u32"), domain=((0.0, 100.0), (0.0, 40.0)), samples=(),
)  # fmt: skip
SHIFT_RIGHT = binary(
    "shift_right", "a >> b, keeping the sign; counts beyond the width leave only the sign.",
    reference=np.right_shift, kinds=INTEGER, vjp=None,
    cpu=_shift_templates(">>", "select({0} < {T}(0), {T}(-1), {T}(0))"),
    dtypes=("i64", "i32", "u8", "u32"), domain=((-100.0, 100.0), (0.0, 40.0)), samples=(),
)  # fmt: skip

GCD = register(
    OpDef(
        name="gcd",
        kind=Kind.OPAQUE,  # Euclid's algorithm takes as long as its operands ask for
        summary="The greatest common divisor of whole numbers.",
        infer=elementwise("gcd", 2, INTEGER),
        reference=np.gcd,
        vjp=NON_DIFFERENTIABLE,
        commutative=True,
        batched=batches.broadcast,
        tests=OpTests(
            dtypes=("i64", "i32", "u8"),
            domain=(-60.0, 60.0),
            samples=(Sample(((2, 3), (3,))), Sample(((), ())), Sample(((0,), (1,)))),
            gradient=False,
        ),
    )
)

# ---- choice --------------------------------------------------------------------------


def _infer_where(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("where", types, 3)
    condition, a, b = types
    if condition.dtype is not bool_:
        raise DTypeError(f"{spelled('where', types)}: the condition must be bool; cast it")
    if a.dtype is not b.dtype:
        raise DTypeError(f"{spelled('where', types)}: the two choices must have one dtype")
    if condition.shape == a.shape == b.shape:
        return a
    return TensorType(a.dtype, broadcast("where", types))


WHERE = register(
    OpDef(
        name="where",
        kind=Kind.ELEMENTWISE,
        summary="The second operand where the first (bool) holds, else the third.",
        infer=_infer_where,
        reference=np.where,
        vjp=(
            None,
            lambda b, n, ct: mask(b, n.inputs[0], ct),
            lambda b, n, ct: b.where(n.inputs[0], scalar(b, 0, ct.dtype), ct),
        ),
        scalar="select({0}, {1}, {2})",
        chooses=True,
        parts=complex_parts.each,
        tests=OpTests(
            dtypes=("f32", "f64", "i64", "bool"),
            samples=(
                Sample((np.array([True, False, True]), (2, 3), ())),
                Sample((np.array([[True], [False]]), (2, 3), (3,))),
                Sample((np.array(True), (3,), (3,))),
                Sample((np.zeros((0, 3), bool), (0, 3), (3,))),
            ),
        ),
    )
)
