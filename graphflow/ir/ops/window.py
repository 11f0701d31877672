"""Sliding windows: a view of overlapping parts, and the sum of parts over one another.

``window`` is what convolution, pooling and ``unfold`` read through; its result has
an axis a windowed axis more, the position inside the window.  ``window_add`` is its
adjoint: every element goes back to the place it was read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import lcm
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.affine import Index, Piece
from graphflow.ir.dims import Dim, SymDim
from graphflow.ir.op import (
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OpTests,
    Reduction,
    Sample,
    register,
)
from graphflow.ir.ops import batches, orders
from graphflow.ir.ops.gradients import zeros
from graphflow.ir.ops.rules import (
    NUMERIC,
    Attrs,
    calls,
    check_arity,
    check_axis,
    in_order,
    require,
    spelled,
)
from graphflow.ir.types import TensorType

Types = Sequence[TensorType]
_KEYS = ("sizes", "steps", "dilations")


def windowed_shape(name: str, types: Types, attrs: Attrs) -> tuple[Dim, ...]:
    """The shape of all windows over the first operand; the attributes are checked."""
    shape = list(types[0].shape)
    axes = attrs.get("axes")
    if not isinstance(axes, tuple) or len(set(axes)) != len(axes):
        raise ShapeError(f"{spelled(name, types)}: axes must be distinct, not {axes!r}")
    parts: list[Any] = [attrs.get(key) for key in _KEYS]
    for key, part in zip(_KEYS, parts):
        if not isinstance(part, tuple) or len(part) != len(axes):
            raise ShapeError(f"{spelled(name, types)}: {key} must have one entry an axis in axes")
    for axis, size, step, dilation in zip(axes, *parts):
        check_axis(name, types, axis, len(shape))
        shape[axis] = _windows(name, types, axis, size, step, dilation)
    return (*shape, *attrs["sizes"])


def _windows(name: str, types: Types, axis: int, size: int, step: int, dilation: int) -> Dim:
    """How many windows lie along ``axis``."""
    if size < 0 or step < 1 or dilation < 1:
        raise ShapeError(
            f"{spelled(name, types)}: sizes must be >= 0, steps and dilations >= 1, "
            f"not {size}, {step} and {dilation}"
        )
    extent, span = types[0].shape[axis], dilation * (size - 1) + 1 if size else 0
    if not in_order(span, extent):
        raise ShapeError(
            f"{spelled(name, types)}: a window of {span} elements is longer than axis {axis}, "
            f"which has {extent}"
        )
    return (extent - span) // step + 1


# ---- window --------------------------------------------------------------------------


def _infer_window(types: Types, attrs: Attrs) -> TensorType:
    check_arity("window", types, 1)
    return TensorType(types[0].dtype, windowed_shape("window", types, attrs))


def _places(rank: int, attrs: Attrs, index: Index) -> Index:
    """Where element ``index`` of the windows lies: ``step * window + dilation * inside``."""
    at = list(index[:rank])
    for k, axis in enumerate(attrs["axes"]):
        inside = index[rank + k] * attrs["dilations"][k]
        at[axis] = at[axis] * attrs["steps"][k] + inside
    return tuple(at)


def _index_window(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    return (Piece(0, _places(types[0].rank, attrs, index)),)


def _window(
    x: Array,
    *,
    axes: tuple[int, ...],
    sizes: tuple[int, ...],
    steps: tuple[int, ...],
    dilations: tuple[int, ...],
) -> Array:
    shape, strides = list(x.shape), list(x.strides)
    for axis, size, step, dilation in zip(axes, sizes, steps, dilations):
        shape[axis] = (x.shape[axis] - (dilation * (size - 1) + 1 if size else 0)) // step + 1
        strides[axis] *= step
    inside = [x.strides[axis] * dilation for axis, dilation in zip(axes, dilations)]
    return np.lib.stride_tricks.as_strided(x, (*shape, *sizes), (*strides, *inside))


def _window_vjp(b: Builder, n: Application, ct: Any) -> Any:
    return b.window_add(zeros(b, n.inputs[0].shape, ct.dtype), ct, **n.attrs)


def _window_inverse(emit: Any, parent: Any, new: Any, attrs: Attrs) -> Any:
    """The parent with its windows replaced; they may not overlap."""
    parts = zip(attrs["axes"], attrs["sizes"], attrs["steps"], attrs["dilations"])
    if 0 not in new.shape and any(_overlap(new.shape[axis], *part) for axis, *part in parts):
        raise ShapeError(
            "cannot write through overlapping windows: several elements share one memory "
            "location; call .clone() before the in-place operation"
        )
    return emit("window_set", parent, new, **attrs)


def _overlap(count: Dim, size: int, step: int, dilation: int) -> bool:
    """Whether some of ``count`` windows share an element: ``m * step = j * dilation``
    for two windows ``m`` apart and two places ``j`` apart."""
    meet = lcm(step, dilation)
    return size > meet // dilation and (isinstance(count, SymDim) or count > meet // step)


_APART: tuple[tuple[tuple[int, ...], Attrs], ...] = (
    ((2, 8, 3), {"axes": (1,), "sizes": (2,), "steps": (3,), "dilations": (1,)}),
    ((4,), {"axes": (0,), "sizes": (4,), "steps": (5,), "dilations": (1,)}),
    ((2, 3), {"axes": (), "sizes": (), "steps": (), "dilations": ()}),
)
_SAMPLES: tuple[tuple[tuple[int, ...], Attrs], ...] = (
    ((7,), {"axes": (0,), "sizes": (3,), "steps": (1,), "dilations": (1,)}),
    ((9,), {"axes": (0,), "sizes": (3,), "steps": (2,), "dilations": (2,)}),
    ((2, 3, 6, 7), {"axes": (2, 3), "sizes": (3, 2), "steps": (1, 2), "dilations": (2, 1)}),
    ((5, 4), {"axes": (1, 0), "sizes": (2, 3), "steps": (1, 1), "dilations": (1, 1)}),
    ((0, 5), {"axes": (1,), "sizes": (2,), "steps": (1,), "dilations": (1,)}),
    *_APART,
)

WINDOW = register(
    OpDef(
        name="window",
        kind=Kind.VIEW,
        summary="All windows of the given sizes along axes; the place inside is a new last axis.",
        infer=_infer_window,
        reference=_window,
        vjp=(_window_vjp,),
        index=_index_window,
        view_inverse=_window_inverse,
        reordered=orders.windowed,
        cost=0.0,
        batched=batches.TOGETHER,
        tests=OpTests(dtypes=("f32", "f64", "i64", "bool"), samples=calls(*_SAMPLES)),
    )
)

# ---- window_add, window_set ----------------------------------------------------------


def _infer_into(name: str, types: Types, attrs: Attrs) -> TensorType:
    check_arity(name, types, 2)
    base, value = types
    if base.dtype is not value.dtype:
        raise DTypeError(f"{spelled(name, types)}: operands have different dtypes")
    shape = windowed_shape(name, types, attrs)
    same = value.rank == len(shape) and all(
        in_order(d, e) and in_order(e, d) for d, e in zip(value.shape, shape)
    )
    if not same:
        raise ShapeError(
            f"{spelled(name, types)}: the windows have shape [{','.join(map(str, shape))}]"
        )
    return base


def _infer_window_add(types: Types, attrs: Attrs) -> TensorType:
    require("window_add", types, NUMERIC)
    return _infer_into("window_add", types, attrs)


def _window_add(base: Array, value: Array, **attrs: Any) -> Array:
    """Adds one place of all windows after the other: those never overlap."""
    out = np.array(base)
    everything = _window(out, **attrs)
    for place in product(*map(range, attrs["sizes"])):
        everything[(..., *place)] += value[(..., *place)]
    return out


def _read_back(b: Builder, n: Application, ct: Any) -> Any:
    return b.window(ct, **n.attrs)


def _into_samples(cases: Sequence[tuple[tuple[int, ...], Attrs]]) -> tuple[Sample, ...]:
    """Samples whose second operand has the shape of the windows of the first."""
    return tuple(
        Sample((shape, _window(np.empty(shape), **attrs).shape), attrs) for shape, attrs in cases
    )


WINDOW_ADD = register(
    OpDef(
        name="window_add",
        kind=Kind.SCATTER,
        summary="The first operand with the second added at the places that windows show.",
        infer=_infer_window_add,
        reference=_window_add,
        vjp=(lambda b, n, ct: ct, _read_back),
        index=_index_window,
        reduction=Reduction(lambda dtype: 0, "add_fast({0}, {1})", reassociate=False),
        cost=2.0,
        batched=batches.TOGETHER,
        tests=OpTests(dtypes=("f32", "f64", "i64"), samples=_into_samples(_SAMPLES)),
    )
)


def _infer_window_set(types: Types, attrs: Attrs) -> TensorType:
    return _infer_into("window_set", types, attrs)


def _window_set(base: Array, value: Array, **attrs: Any) -> Array:
    out = np.array(base)
    _window(out, **attrs)[...] = value
    return out


def _window_set_base(b: Builder, n: Application, ct: Any) -> Any:
    cleared = zeros(b, n.inputs[1].shape, ct.dtype)
    return b.window_set(ct, cleared, **n.attrs)


WINDOW_SET = register(
    OpDef(
        name="window_set",
        kind=Kind.SCATTER,
        summary="The first operand with what windows show replaced by the second.",
        infer=_infer_window_set,
        reference=_window_set,
        vjp=(_window_set_base, _read_back),
        index=_index_window,
        batched=batches.TOGETHER,
        tests=OpTests(dtypes=("f32", "f64", "i64", "bool"), samples=_into_samples(_APART)),
    )
)
