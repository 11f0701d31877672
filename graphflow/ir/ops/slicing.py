"""Parts of tensors: slice, pad, concatenate and slice_update.

The first three are views in the sense of :mod:`graphflow.ir.ops.shape`;
``slice_update`` writes a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, GraphError, ShapeError
from graphflow.ir.affine import Condition, Index, Piece
from graphflow.ir.dims import Dim, Shape, dim_sum
from graphflow.ir.op import (
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OpTests,
    register,
)
from graphflow.ir.ops import batches, complex_parts, orders
from graphflow.ir.ops.gradients import zeros, zeros_like
from graphflow.ir.ops.rules import (
    Attrs,
    calls,
    check_arity,
    check_axis,
    check_tensors,
    in_order,
    per_axis,
    spelled,
)
from graphflow.ir.types import DType, TensorType

Types = Sequence[TensorType]
EVERY = ("f32", "f64", "i64", "bool")

# ---- slice ---------------------------------------------------------------------------


def _infer_slice(types: Types, attrs: Attrs) -> TensorType:
    check_arity("slice", types, 1)
    old = types[0].shape
    bounds = [per_axis("slice", types, attrs, key, len(old)) for key in _SLICE_KEYS]
    shape = tuple(
        _slice_extent(types, axis, extent, *part)
        for axis, (extent, *part) in enumerate(zip(old, *bounds))
    )
    return TensorType(types[0].dtype, shape)


_SLICE_KEYS = ("starts", "limits", "steps")


def _slice_extent(types: Types, axis: int, extent: Dim, start: Dim, limit: Dim, step: int) -> Dim:
    length = limit - start
    fits = step >= 1 and in_order(0, start) and in_order(0, length) and in_order(limit, extent)
    if not fits:
        raise ShapeError(
            f"{spelled('slice', types)}: {start}:{limit}:{step} is not within "
            f"0:{extent} in axis {axis}"
        )
    return length if step == 1 else -(-length // step)


def _index_slice(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    bounds = zip(index, attrs["starts"], attrs["steps"])
    return (Piece(0, tuple(part * step + start for part, start, step in bounds)),)


def _slice(
    x: Array, *, starts: tuple[int, ...], limits: tuple[int, ...], steps: tuple[int, ...]
) -> Array:
    return x[(..., *map(slice, starts, limits, steps))]


def _slice_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """Zeros around the cotangent (between its elements, too, for steps above 1)."""
    shape, starts, steps = tuple(n.inputs[0].shape), n.attrs["starts"], n.attrs["steps"]
    if any(step != 1 for step in steps):
        return b.slice_update(zeros(b, shape, ct.dtype), ct, starts=starts, steps=steps)
    high = tuple(extent - limit for extent, limit in zip(shape, n.attrs["limits"]))
    return b.pad(ct, low=starts, high=high, value=0)


SLICE = register(
    OpDef(
        name="slice",
        kind=Kind.VIEW,
        summary="Elements starts, starts + steps, … below limits, in every axis.",
        infer=_infer_slice,
        reference=_slice,
        vjp=(_slice_vjp,),
        index=_index_slice,
        view_inverse=lambda emit, parent, new, attrs: emit(
            "slice_update", parent, new, starts=attrs["starts"], steps=attrs["steps"]
        ),
        reordered=orders.with_values("starts", "limits", "steps"),
        cost=0.0,
        batched=batches.together(starts=0, limits=batches.SIZE, steps=1),
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((7,), {"starts": (1,), "limits": (6,), "steps": (2,)}),
                ((4, 5), {"starts": (1, 0), "limits": (3, 5), "steps": (1, 1)}),
                ((4, 5), {"starts": (0, 2), "limits": (4, 5), "steps": (3, 2)}),
                ((4,), {"starts": (2,), "limits": (2,), "steps": (1,)}),
                ((), {"starts": (), "limits": (), "steps": ()}),
            ),
        ),
    )
)  # fmt: skip

# ---- pad -----------------------------------------------------------------------------


def _infer_pad(types: Types, attrs: Attrs) -> TensorType:
    check_arity("pad", types, 1)
    rank = types[0].rank
    low = per_axis("pad", types, attrs, "low", rank)
    high = per_axis("pad", types, attrs, "high", rank)
    if any(not in_order(0, n) for n in (*low, *high)):
        raise ShapeError(f"{spelled('pad', types)}: low {low} and high {high} must be >= 0; slice")
    if not isinstance(attrs.get("value"), (bool, int, float)):
        raise DTypeError(f"{spelled('pad', types)}: value must be a number")
    shape = tuple(before + d + after for d, before, after in zip(types[0].shape, low, high))
    return TensorType(types[0].dtype, shape)


def _index_pad(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    shown, conditions = [], []
    for part, extent, low, high in zip(index, types[0].shape, attrs["low"], attrs["high"]):
        inside = part + low * -1
        shown.append(inside)
        if low != 0 or high != 0:
            conditions.append(Condition(inside, 0, extent))
    return (Piece(0, tuple(shown), tuple(conditions)),)


def _pad_fill(attrs: Attrs, dtype: DType) -> bool | int | float:
    value: bool | int | float = attrs["value"]
    return value


def _pad(x: Array, *, low: tuple[int, ...], high: tuple[int, ...], value: Any) -> Array:
    shape = tuple(before + d + after for d, before, after in zip(x.shape, low, high))
    out = np.full(shape, value, x.dtype)
    middle: Any = (..., *(slice(start, start + d) for start, d in zip(low, x.shape)))
    out[middle] = x
    return out


def _pad_vjp(b: Builder, n: Application, ct: Any) -> Any:
    low, shape = n.attrs["low"], n.inputs[0].shape
    limits = tuple(start + extent for start, extent in zip(low, shape))
    return b.slice(ct, starts=low, limits=limits, steps=(1,) * len(low))


PAD = register(
    OpDef(
        name="pad",
        kind=Kind.VIEW,
        summary="The operand with low and high elements of value around it in every axis.",
        infer=_infer_pad,
        reference=_pad,
        vjp=(_pad_vjp,),
        index=_index_pad,
        fill=_pad_fill,
        parts=complex_parts.padded,
        reordered=orders.with_values("low", "high"),
        cost=2.0,
        batched=batches.together(low=0, high=0),
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((3,), {"low": (1,), "high": (2,), "value": 0}),
                ((2, 3), {"low": (0, 1), "high": (2, 0), "value": 1}),
                ((0,), {"low": (1,), "high": (1,), "value": 1}),
                ((), {"low": (), "high": (), "value": 1}),
            ),
        ),
    )
)  # fmt: skip

# ---- concatenate ---------------------------------------------------------------------


def _infer_concatenate(types: Types, attrs: Attrs) -> TensorType:
    if not types:
        raise GraphError("concatenate(): takes at least one operand")
    check_tensors("concatenate", types)
    first = types[0]
    axis = check_axis("concatenate", types, attrs.get("axis"), first.rank)
    for other in types[1:]:
        if other.dtype is not first.dtype:
            raise DTypeError(f"{spelled('concatenate', types)}: operands have different dtypes")
        same = other.rank == first.rank and not any(
            k != axis and d != e for k, (d, e) in enumerate(zip(first.shape, other.shape))
        )
        if not same:
            raise ShapeError(
                f"{spelled('concatenate', types)}: shapes may differ in axis {axis} only"
            )
    total = dim_sum(tuple(t.shape[axis] for t in types))
    return TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _starts(shapes: Sequence[Shape], axis: int) -> list[Dim]:
    """Where each operand begins in the result."""
    starts: list[Dim] = [0]
    for shape in shapes[:-1]:
        starts.append(starts[-1] + shape[axis])
    return starts


def _index_concatenate(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    axis = attrs["axis"]
    pieces = []
    for operand, start in enumerate(_starts([t.shape for t in types], axis)):
        inside = index[axis] + start * -1
        shown = (*index[:axis], inside, *index[axis + 1 :])
        within = Condition(inside, 0, types[operand].shape[axis])
        pieces.append(Piece(operand, shown, (within,)))
    return tuple(pieces)


def _concatenate(*arrays: Array, axis: int) -> Array:
    return np.concatenate(arrays, axis)


def _concatenate_vjp(b: Builder, n: Application, ct: Any, operand: int) -> Any:
    axis, shape = n.attrs["axis"], tuple(n.inputs[operand].shape)
    begin = _starts([x.shape for x in n.inputs], axis)[operand]
    starts = tuple(begin if k == axis else 0 for k in range(len(shape)))
    limits = tuple(begin + d if k == axis else d for k, d in enumerate(shape))
    return b.slice(ct, starts=starts, limits=limits, steps=(1,) * len(shape))


CONCATENATE = register(
    OpDef(
        name="concatenate",
        kind=Kind.VIEW,
        summary="The operands one after the other along an axis.",
        infer=_infer_concatenate,
        reference=_concatenate,
        vjp=_concatenate_vjp,
        index=_index_concatenate,
        reordered=orders.with_axes,
        cost=2.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((2,), (3,), {"axis": 0}), ((2, 3), (2, 1), {"axis": 1}), ((2,), {"axis": 0}),
                ((0, 3), (2, 3), (1, 3), {"axis": 0}),
            ),
        ),
    )
)  # fmt: skip

# ---- slice_update --------------------------------------------------------------------


def _infer_slice_update(types: Types, attrs: Attrs) -> TensorType:
    check_arity("slice_update", types, 2)
    base, value = types
    if base.dtype is not value.dtype or base.rank != value.rank:
        raise ShapeError(f"{spelled('slice_update', types)}: dtypes and ranks must agree")
    starts = per_axis("slice_update", types, attrs, "starts", base.rank)
    steps = per_axis("slice_update", types, attrs, "steps", base.rank)
    for axis, (d, n, start, step) in enumerate(zip(base.shape, value.shape, starts, steps)):
        last = start + (n - 1) * step
        inside = n == 0 or in_order(last + 1, d)
        if step < 1 or not in_order(0, start) or not inside:
            raise ShapeError(
                f"{spelled('slice_update', types)}: elements {start}, {start}+{step} … {last} "
                f"do not lie in axis {axis} of extent {d}"
            )
    return base


def _index_slice_update(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    """Where in the base element ``index`` of the value goes."""
    places = zip(index, attrs["starts"], attrs["steps"])
    return (Piece(0, tuple(part * step + start for part, start, step in places)),)


def _limits(shape: Sequence[Dim], starts: Sequence[Dim], steps: Sequence[int]) -> tuple[Dim, ...]:
    """The limits of the slice that shows ``shape`` elements."""
    return tuple(
        start if n == 0 else start + (n - 1) * step + 1
        for n, start, step in zip(shape, starts, steps)
    )


def _slice_update(
    base: Array, value: Array, *, starts: tuple[int, ...], steps: tuple[int, ...]
) -> Array:
    out = np.array(base)
    limits: tuple[Any, ...] = _limits(value.shape, starts, steps)
    part: Any = (..., *map(slice, starts, limits, steps))
    out[part] = value
    return out


def _slice_update_base(b: Builder, n: Application, ct: Any) -> Any:
    cleared = zeros_like(b, n.inputs[1])
    return b.slice_update(ct, cleared, starts=n.attrs["starts"], steps=n.attrs["steps"])


def _slice_update_value(b: Builder, n: Application, ct: Any) -> Any:
    starts, steps = n.attrs["starts"], n.attrs["steps"]
    limits = _limits(n.inputs[1].shape, starts, steps)
    return b.slice(ct, starts=starts, limits=limits, steps=steps)


SLICE_UPDATE = register(
    OpDef(
        name="slice_update",
        kind=Kind.SCATTER,
        summary="The first operand with the elements that a slice shows replaced by the second.",
        infer=_infer_slice_update,
        reference=_slice_update,
        vjp=(_slice_update_base, _slice_update_value),
        index=_index_slice_update,
        reordered=orders.with_values("starts", "steps"),
        batched=batches.together(starts=0, steps=1),
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((7,), (3,), {"starts": (1,), "steps": (2,)}),
                ((4, 5), (2, 5), {"starts": (1, 0), "steps": (1, 1)}),
                ((4,), (0,), {"starts": (2,), "steps": (1,)}),
                ((), (), {"starts": (), "steps": ()}),
            ),
        ),
    )
)  # fmt: skip
