"""One element of each of many small boxes, at a place with a number: what max pooling finds.

``pick`` computes nothing: it says of elements that were found which ones of an operand they
are (a number that is no place: none of them).  The derived gradient of the search, a chain of
choices, would be one padded tensor a place, added up; the rule's is one comparison of places.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, GraphError, ShapeError
from graphflow.ir.node import ArrayValue
from graphflow.ir.op import (
    Application,
    Array,
    Builder,
    Choice,
    Kind,
    OpDef,
    OpTests,
    Sample,
    register,
)
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import mask, scalar
from graphflow.ir.ops.rules import Attrs, check_arity, check_axis, spelled
from graphflow.ir.types import TensorType

Types = Sequence[TensorType]
MOST_PLACES = 100
"""A byte numbers them, and the number after the last."""


def _infer(types: Types, attrs: Attrs) -> TensorType:
    check_arity("pick", types, 3)
    x, index, found = types
    axes = attrs.get("axes")
    if not isinstance(axes, tuple) or list(axes) != sorted(set(axes)):
        raise GraphError(f"{spelled('pick', types)}: axes must be distinct and rise, not {axes!r}")
    for axis in axes:
        check_axis("pick", types, axis, x.rank)
    extents = [x.shape[axis] for axis in axes]
    known = [extent for extent in extents if isinstance(extent, int)]
    if len(known) < len(extents) or prod(known) > MOST_PLACES:
        raise ShapeError(
            f"{spelled('pick', types)}: picks from a known number of places, {MOST_PLACES} at most"
        )
    if index.dtype.kind not in ("int", "uint") or found.dtype is not x.dtype:
        raise DTypeError(
            f"{spelled('pick', types)}: takes numbers of places and elements of operand 0"
        )
    shape = tuple(extent for axis, extent in enumerate(x.shape) if axis not in axes)
    if index.shape != shape or found.shape != shape:
        raise ShapeError(f"{spelled('pick', types)}: operands 1 and 2 must lack exactly the axes")
    return found


def _pick(x: Array, index: Array, found: Array, *, axes: tuple[int, ...]) -> Array:
    count = prod(x.shape[axis] for axis in axes)
    places = np.moveaxis(x, axes, range(len(axes))).reshape(count, *index.shape)
    inside = (index >= 0) & (index < count)
    at = np.where(inside, index, 0).astype(np.int64)
    return np.where(inside, np.take_along_axis(places, at[None], 0)[0], found)


def _numbers(b: Builder, x: Any, axes: Sequence[int], dtype: Any) -> Any:
    """The number of its place of every element of ``x``, with extents of 1 on other axes."""
    shape = tuple(extent if axis in axes else 1 for axis, extent in enumerate(x.shape))
    return b.constant(value=ArrayValue(np.arange(prod(shape)).astype(dtype.numpy).reshape(shape)))


def _shown(b: Builder, n: Application, value: Any) -> tuple[Any, Any]:
    """Which elements of operand 0 are picked, and ``value`` at all places of its box."""
    x, index, _ = n.inputs
    axes = n.attrs["axes"]
    spread = tuple(1 if axis in axes else extent for axis, extent in enumerate(x.shape))
    numbers = _numbers(b, x, axes, index.dtype)
    return b.eq(b.reshape(index, shape=spread), numbers), b.reshape(value, shape=spread)


def _is_place(b: Builder, n: Application) -> Any:
    """Where the index operand is the number of a place."""
    (x, index, _), axes = n.inputs, n.attrs["axes"]
    inside = b.lt(index, scalar(b, prod(x.shape[axis] for axis in axes), index.dtype))
    if index.dtype.kind == "uint":
        return inside
    return b.logical_and(inside, b.ge(index, scalar(b, 0, index.dtype)))


def _together(b: Builder, n: Application, value: Any) -> Any:
    """The sums over boxes of ``value`` where operand 0 shows, else 0."""
    return mask(b, _is_place(b, n), value)


def _vjp(b: Builder, n: Application, ct: Any) -> Any:
    condition, spread = _shown(b, n, ct)
    found = mask(b, condition, spread)
    shape = tuple(n.inputs[0].shape)
    return found if tuple(found.shape) == shape else b.expand(found, shape=shape)


def _vjp_found(b: Builder, n: Application, ct: Any) -> Any:
    return b.where(_is_place(b, n), scalar(b, 0, ct.dtype), ct)


def _decompose(b: Builder, n: Application) -> Any:
    """What was found: that it is what is picked is the meaning of the operation."""
    return n.inputs[2]


def _samples() -> tuple[Sample, ...]:
    cases: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((2, 3, 2, 4, 3), (2, 4)), ((6, 3), (0,)), ((5, 4), (1,)), ((2, 2), (0, 1)),
        ((3, 0, 2), (2,)), ((3, 2), ()),
    ]  # fmt: skip
    samples = []
    for shape, axes in cases:
        left = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
        places = prod(shape[axis] for axis in axes) + 1  # the last is no place
        index = (np.arange(prod(left)) * 7 % places).reshape(left).astype(np.int8)
        x = np.sin(np.arange(1, prod(shape) + 1)).reshape(shape)
        found = _pick(x, index, np.full(left, 0.5), axes=axes)
        samples.append(Sample((x, index, found), {"axes": axes}))
    return tuple(samples)


PICK = register(
    OpDef(
        name="pick",
        kind=Kind.LINE,
        summary="Operand 2, which has elements of operand 0 at places that have numbers.",
        infer=_infer,
        reference=_pick,
        vjp=(_vjp, None, _vjp_found),
        decompose=_decompose,
        choice=Choice(_shown, _together),
        cost=0.0,
        batched=batches.TOGETHER,
        tests=OpTests(samples=_samples()),
    )
)
