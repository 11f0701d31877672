"""A view by offset and strides into elements that lie in one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.affine import Affine, Index, Piece
from graphflow.ir.dims import Dim
from graphflow.ir.node import ArrayValue
from graphflow.ir.op import Application, Array, Builder, Kind, OpDef, OpTests, register
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import zeros
from graphflow.ir.ops.rules import (
    Attrs,
    calls,
    check_arity,
    in_order,
    per_axis,
    spelled,
    wanted_shape,
)
from graphflow.ir.types import TensorType

Types = Sequence[TensorType]


def _infer(types: Types, attrs: Attrs) -> TensorType:
    check_arity("strided", types, 1)
    shape: Any = wanted_shape("strided", types, attrs)
    strides = per_axis("strided", types, attrs, "strides", len(shape))
    offset = attrs.get("offset")
    if types[0].rank != 1 or not isinstance(offset, int):
        raise ShapeError(f"{spelled('strided', types)}: needs one axis and a whole offset")
    _check_inside(types[0].shape[0], shape, strides, offset)
    return TensorType(types[0].dtype, shape)


def _check_inside(
    length: Dim, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides))
    inside = offset >= 0 and all(step >= 0 for step in strides) and in_order(last + 1, length)
    if 0 not in shape and not inside:
        raise ShapeError(
            f"strided: elements {offset} to {last} by strides {strides} do not lie within {length}"
        )


def _index(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    place = Affine((), attrs["offset"])
    for part, step in zip(index, attrs["strides"]):
        place = place + part * step
    return (Piece(0, (place,)),)


def _strided(x: Array, *, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Array:
    _check_inside(len(x), shape, strides, offset)
    if 0 in shape:
        return np.empty(shape, x.dtype)
    steps = tuple(step * x.strides[0] for step in strides)
    return np.lib.stride_tricks.as_strided(x[offset:], shape, steps)


def _places(attrs: Attrs) -> np.ndarray[Any, Any]:
    """Where in its row each element of the view lies."""
    place = np.full(attrs["shape"], attrs["offset"], np.int64)
    for axis, (extent, step) in enumerate(zip(attrs["shape"], attrs["strides"])):
        line = np.arange(extent) * step
        place += line.reshape((extent,) + (1,) * (place.ndim - 1 - axis))
    return place.reshape(-1)


def _vjp(b: Builder, n: Application, ct: Any) -> Any:
    places = b.constant(value=ArrayValue(_places(n.attrs)))
    row = b.reshape(ct, shape=tuple(places.shape))
    return b.scatter_add(zeros(b, n.inputs[0].shape, ct.dtype), places, row, axis=0)


def _inverse(emit: Any, parent: Any, new: Any, attrs: Attrs) -> Any:
    """The row with the view's elements replaced; none may be shown twice."""
    places = _places(attrs)
    if np.unique(places).size != places.size:
        raise ShapeError(
            "cannot write through overlapping strides: several elements share one memory "
            "location; call .clone() before the in-place operation"
        )
    index = emit("constant", value=ArrayValue(places))
    return emit("scatter", parent, index, emit("reshape", new, shape=places.shape), axis=0)


STRIDED = register(
    OpDef(
        name="strided",
        kind=Kind.VIEW,
        summary="Elements of one row: number offset + sum of strides times index.",
        infer=_infer,
        reference=_strided,
        vjp=(_vjp,),
        index=_index,
        view_inverse=_inverse,
        cost=0.0,
        batched=batches.strided,
        tests=OpTests(
            dtypes=("f32", "f64", "i64", "bool"),
            samples=calls(
                ((12,), {"shape": (3, 2), "strides": (4, 1), "offset": 1}),
                ((12,), {"shape": (2, 3, 2), "strides": (1, 2, 6), "offset": 0}),
                ((12,), {"shape": (4, 3), "strides": (2, 1), "offset": 2}),
                ((12,), {"shape": (2, 2), "strides": (0, 5), "offset": 3}),
                ((12,), {"shape": (), "strides": (), "offset": 11}),
                ((12,), {"shape": (0, 2), "strides": (1, 1), "offset": 0}),
            ),
        ),
    )
)
