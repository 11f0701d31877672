"""Running folds along one axis: sums, products, log-sum-exps and extremes up to each element.

``reverse=True`` runs from the end.  Floats accumulate in double, so a long
float32 line loses no digits.  Running extremes yield the *position* of the
element; a gather makes it a value, with its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import numpy as np

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
from graphflow.ir.ops.gradients import mask, scalar
from graphflow.ir.ops.reduce import EVERY, NUMBERS, highest, lowest
from graphflow.ir.ops.rules import (
    FLOAT,
    NUMERIC,
    ORDERED,
    Attrs,
    check_arity,
    check_axis,
    require,
)
from graphflow.ir.types import DType, TensorType, int64


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
    """What comes after, over the element; the first zero of a line gets the rest of it.

    Element k has the gradient sum over j >= k of ct[j] * out[j] / x[k].  Before the
    first zero that can be computed as it stands.  At the first zero, out without that
    factor takes its place; after it everything is 0.
    """
    (x,), axis, reverse = n.inputs, n.attrs["axis"], n.attrs["reverse"]
    one = scalar(b, 1, x.dtype)
    zero = b.eq(x, 0)
    zeros = b.cumsum(b.cast(zero, dtype=int64), axis=axis, reverse=reverse)
    first = b.logical_and(zero, b.eq(zeros, 1))
    without = b.cumprod(b.where(first, one, x), axis=axis, reverse=reverse)
    before = b.cumsum(ct * n.out, axis=axis, reverse=not reverse) / b.where(zero, one, x)
    there = b.cumsum(ct * without, axis=axis, reverse=not reverse)
    return b.where(b.eq(zeros, 0), before, mask(b, first, there))


ZEROS = np.array([[1.5, 0.0, 2.0, -3.0], [0.0, 2.0, 0.0, 4.0], [0.5, -2.0, 1.0, 3.0]])

CUMPROD = scan(
    "cumprod", "Products of the elements up to each one along an axis.",
    reference=_accumulated(np.multiply), kinds=NUMERIC | {"complex"}, dtypes=NUMBERS,
    fold=Reduction(lambda dtype: 1, "{0} * {1}"),
    vjp=_cumprod_vjp,
    samples=(Sample((ZEROS,), {"axis": 1, "reverse": False}),),
)  # fmt: skip

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
            cost=4.0,
            tests=OpTests(
                dtypes=EVERY, samples=(*samples, Sample((ties,), {"axis": 1})), gradient=False
            ),
        )
    )


CUMARGMAX = _extreme(
    "cumargmax", "Where the largest element up to each one is: the last of equals, or of NaNs.",
    np.maximum, Reduction(lowest, "({1} >= {0}) | ({1} != {1})", position=True),
)  # fmt: skip
CUMARGMIN = _extreme(
    "cumargmin", "Where the smallest element up to each one is: the last of equals, or of NaNs.",
    np.minimum, Reduction(highest, "({1} <= {0}) | ({1} != {1})", position=True),
)  # fmt: skip
