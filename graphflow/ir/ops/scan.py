"""Running folds along one axis: sums, products, recurrences, log-sum-exps and extremes.

``reverse=True`` runs from the end.  Floats accumulate in double, so a long
float32 line loses no digits.  Running extremes yield the *position* of the
element; a gather makes it a value, with its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.op import (
    NON_DIFFERENTIABLE,
    Application,
    Array,
    Builder,
    Kind,
    Line,
    OpDef,
    OperandRule,
    OpTests,
    Reduction,
    Sample,
    register,
)
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import scalar, shifted
from graphflow.ir.ops.reduce import EVERY, NUMBERS, REDUCE_MAX, REDUCE_MIN, highest, lowest
from graphflow.ir.ops.rules import (
    FLOAT,
    NUMERIC,
    ORDERED,
    Attrs,
    check_arity,
    check_axis,
    require,
    spelled,
)
from graphflow.ir.types import DType, TensorType, int64

STEPWISE = 4096
"""The reference of a recurrence takes longer lines by doubling steps."""


def _rule(name: str, kinds: frozenset[str], result: DType | None = None) -> Callable[..., Any]:
    """The operand's type, or its shape in ``result``."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_arity(name, types, 1)
        require(name, types, kinds)
        check_axis(name, types, attrs.get("axis"), types[0].rank)
        return types[0] if result is None else TensorType(result, types[0].shape)

    return infer


def _turned(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(x, axis)``, from the end of the axis when ``reverse`` is set."""

    def reference(x: Array, *, axis: int, reverse: bool = False) -> Array:
        if not reverse:
            return function(x, axis)
        return np.flip(function(np.flip(x, axis), axis), axis)

    return reference


def _samples(*extra: Sample) -> tuple[Sample, ...]:
    shapes: list[tuple[tuple[int, ...], int]] = [
        ((7,), 0), ((3, 4), 1), ((3, 4), 0), ((2, 3, 4), 1), ((3, 1), 1), ((0, 3), 0), ((2, 0), 0),
    ]  # fmt: skip
    forward = [Sample((shape,), {"axis": axis, "reverse": False}) for shape, axis in shapes]
    back = [Sample((shape,), {"axis": axis, "reverse": True}) for shape, axis in shapes[:4]]
    return (*forward, *back, *extra)


def scan(
    name: str,
    summary: str,
    *,
    reference: Callable[..., Any],
    fold: Reduction,
    vjp: OperandRule,
    kinds: frozenset[str],
    dtypes: tuple[str, ...],
    samples: tuple[Sample, ...] = (),
) -> OpDef:
    """Register a scan whose result has the type of its operand."""
    return register(
        OpDef(
            name=name,
            kind=Kind.LINE,
            line=Line.SCAN,
            summary=summary,
            infer=_rule(name, kinds),
            reference=_turned(reference),
            vjp=(vjp,),
            reduction=fold,
            batched=batches.TOGETHER,
            cost=4.0,
            tests=OpTests(
                tolerance={"f32": 2e-6, "f64": 1e-13},
                dtypes=dtypes,
                samples=_samples(*samples),
            ),
        )
    )


def _accumulated(ufunc: Any) -> Callable[..., Any]:
    def running(x: Array, axis: int) -> Array:
        wide = x.dtype if x.dtype.kind in "iuc" else np.float64
        return ufunc.accumulate(x, axis=axis, dtype=wide).astype(x.dtype, copy=False)

    return running


# ---- sum -----------------------------------------------------------------------------


def _cumsum_vjp(b: Builder, n: Application, ct: Any) -> Any:
    return b.cumsum(ct, axis=n.attrs["axis"], reverse=not n.attrs["reverse"])


CUMSUM = scan(
    "cumsum", "Sums of the elements up to each one along an axis.",
    reference=_accumulated(np.add), kinds=NUMERIC | {"complex"}, dtypes=NUMBERS,
    fold=Reduction(lambda dtype: 0, "{0} + {1}"),
    vjp=_cumsum_vjp,
)  # fmt: skip

# ---- product -------------------------------------------------------------------------


def _cumprod_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """All factors before, times what the element is multiplied by later.

    The sum over j >= k of ct[j] * x[k+1] * … * x[j] is a recurrence from the end; no
    division, so that zeros need no thought, in any order of differentiation.
    """
    (x,), axis, reverse = n.inputs, n.attrs["axis"], n.attrs["reverse"]
    by = -1 if reverse else 1
    before = shifted(b, n.out, axis, by, 1)
    return before * b.recurrence(shifted(b, x, axis, -by, 1), ct, axis=axis, reverse=not reverse)


ZEROS = np.array([[1.5, 0.0, 2.0, -3.0], [0.0, 2.0, 0.0, 4.0], [0.5, -2.0, 1.0, 3.0]])

CUMPROD = scan(
    "cumprod", "Products of the elements up to each one along an axis.",
    reference=_accumulated(np.multiply), kinds=NUMERIC | {"complex"}, dtypes=NUMBERS,
    fold=Reduction(lambda dtype: 1, "{0} * {1}"),
    vjp=_cumprod_vjp,
    samples=(Sample((ZEROS,), {"axis": 1, "reverse": False}),),
)  # fmt: skip

# ---- linear recurrence ---------------------------------------------------------------


def _recurrence(a: Array, c: Array, *, axis: int, reverse: bool) -> Array:
    """Element after element, or for long lines by doubling steps, in double."""
    turn = (slice(None, None, -1),) if reverse else (slice(None),)
    factors, sums = (np.moveaxis(x, axis, 0)[turn].astype(np.float64) for x in (a, c))
    if len(sums) <= STEPWISE:
        for k in range(1, len(sums)):
            sums[k] += factors[k] * sums[k - 1]
    else:
        step = 1
        while step < len(sums):
            sums[step:] += factors[step:] * sums[:-step]
            factors[step:] = factors[step:] * factors[:-step]
            step *= 2
    return np.moveaxis(sums[turn], 0, axis).astype(c.dtype)


def _infer_recurrence(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("recurrence", types, 2)
    require("recurrence", types, FLOAT)
    if types[0] != types[1]:
        raise ShapeError(f"{spelled('recurrence', types)}: the operands must have one type")
    check_axis("recurrence", types, attrs.get("axis"), types[0].rank)
    return types[1]


def _adjoint(b: Builder, n: Application, ct: Any) -> Any:
    """The cotangent of ``c``: the recurrence the other way, by the factors of the next."""
    axis, reverse = n.attrs["axis"], n.attrs["reverse"]
    factors = shifted(b, n.inputs[0], axis, 1 if reverse else -1, 1)
    return b.recurrence(factors, ct, axis=axis, reverse=not reverse)


def _recurrence_factor(b: Builder, n: Application, ct: Any) -> Any:
    before = shifted(b, n.out, n.attrs["axis"], -1 if n.attrs["reverse"] else 1, 0)
    return _adjoint(b, n, ct) * before


RECURRENCE = register(
    OpDef(
        name="recurrence",
        kind=Kind.LINE,
        line=Line.SCAN,
        summary="s[j] = a[j] * s[j - 1] + c[j] along an axis, from s = 0.",
        infer=_infer_recurrence,
        reference=_recurrence,
        vjp=(_recurrence_factor, _adjoint),
        reduction=Reduction(lambda dtype: 0, "{1} * {0} + {2}"),
        cost=4.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            tolerance={"f32": 2e-6, "f64": 1e-13},
            domain=(-1.5, 1.5),
            samples=tuple(Sample((s.inputs[0],) * 2, s.attrs) for s in _samples()),
        ),
    )
)

# ---- log-sum-exp ---------------------------------------------------------------------


def _logcumsumexp_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """Sum over j >= k of ct[j] * exp(x[k] - out[j]), by logarithms so that nothing
    overflows: once for the positive, once for the negative cotangents."""
    return _share(b, n, ct) - _share(b, n, -ct)


def _share(b: Builder, n: Application, ct: Any) -> Any:
    """The gradient from the positive elements of ``ct``."""
    (x,), axis = n.inputs, n.attrs["axis"]
    positive = b.gt(ct, 0)
    logs = b.log(b.where(positive, ct, scalar(b, 1, ct.dtype))) - n.out
    logs = b.where(positive, logs, scalar(b, -np.inf, ct.dtype))
    return b.exp(b.logcumsumexp(logs, axis=axis, reverse=not n.attrs["reverse"]) + x)


LOGCUMSUMEXP = scan(
    "logcumsumexp", "Logarithms of the summed exponentials up to each element along an axis.",
    reference=_accumulated(np.logaddexp), kinds=FLOAT, dtypes=("f32", "f64"),
    fold=Reduction(
        lambda dtype: -np.inf,
        f"{{0}} + {log(2.0)!r} if {{0}} == {{1}} else "
        "vm.maximum({0}, {1}) + vm.log1p(vm.exp(-vm.abs({0} - {1})))",
    ),
    vjp=_logcumsumexp_vjp,
    samples=(
        Sample((np.array([[-np.inf, 1.0, np.inf, 0.0], [800.0, -800.0, 800.0, np.nan]]),),
               {"axis": 1, "reverse": False}),
    ),
)  # fmt: skip

# ---- extremes ------------------------------------------------------------------------


def _position(ufunc: Any) -> Callable[..., Any]:
    """The last position up to each element of the extreme so far (of a NaN, once one came)."""

    def reference(x: Array, *, axis: int) -> Array:
        running = ufunc.accumulate(x, axis=axis)
        shape = [1] * x.ndim
        shape[axis] = -1
        places = np.arange(x.shape[axis]).reshape(shape)
        return np.maximum.accumulate(np.where((x == running) | (x != x), places, 0), axis=axis)

    return reference


def _extreme(name: str, summary: str, ufunc: Any, fold: Reduction) -> OpDef:
    ties = np.array([[1.0, 3.0, 3.0, np.nan], [2.0, np.nan, 5.0, np.nan], [-np.inf, 0.0, 0.0, 1.0]])
    samples = [Sample(s.inputs, {"axis": s.attrs["axis"]}) for s in _samples()[:7]]
    return register(
        OpDef(
            name=name,
            kind=Kind.LINE,
            line=Line.SCAN,
            summary=summary,
            infer=_rule(name, ORDERED, int64),
            reference=_position(ufunc),
            vjp=NON_DIFFERENTIABLE,
            reduction=fold,
            batched=batches.TOGETHER,
            cost=4.0,
            tests=OpTests(
                dtypes=EVERY, samples=(*samples, Sample((ties,), {"axis": 1})), gradient=False
            ),
        )
    )


CUMARGMAX = _extreme(
    "cumargmax", "Where the largest element up to each one is: the last of equals, or of NaNs.",
    np.maximum,
    Reduction(lowest, "({1} >= {0}) | ({1} != {1})", position=True, element=REDUCE_MAX),
)  # fmt: skip
CUMARGMIN = _extreme(
    "cumargmin", "Where the smallest element up to each one is: the last of equals, or of NaNs.",
    np.minimum,
    Reduction(highest, "({1} <= {0}) | ({1} != {1})", position=True, element=REDUCE_MIN),
)  # fmt: skip
