"""What an application is on operands whose axes are put in another order.

An *order* names, for every axis of the reordered operand, the axis it was: the operand is
``permute(x, axes=order)``.  A rule of :attr:`graphflow.ir.op.OpDef.reordered` gives the
attributes for reordered operands and the order in which the result's axes come out, or
``None`` where the application has no such form.  Layout passes ask these rules, so they know
no operation by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

from graphflow.ir.op import Attrs, Order, OrderRule, Reordered
from graphflow.ir.types import TensorType

Orders: TypeAlias = Sequence[Order]


CHANNELS_LAST: Order = (0, 2, 3, 1)
"""Images ``[N, C, H, W]`` as ``[N, H, W, C]``."""
LEAST_CHANNELS = 8
"""Fewer do not fill a vector."""
WIDEST_GROUP = 4
"""Channels that vectors have groups of, at most."""


def put(values: Sequence[object], order: Order) -> tuple[object, ...]:
    """``values``, one an axis, in the order of axes ``order``."""
    return tuple(values[axis] for axis in order)


def inverse(order: Order) -> Order:
    """The order that undoes ``order``."""
    return tuple(order.index(axis) for axis in range(len(order)))


def pointwise(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered:
    """Operations without attributes that speak of axes; operands have one rank and order."""
    return attrs, orders[0]


def with_values(*keys: str) -> OrderRule:
    """Attributes ``keys`` hold a value for every axis."""

    def rule(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered:
        return {**attrs, **{key: put(attrs[key], orders[0]) for key in keys}}, orders[0]

    return rule


def with_axes(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered:
    """``axes`` or ``axis`` names axes, which the result keeps."""
    where = inverse(orders[0])
    if "axis" in attrs:
        return {**attrs, "axis": where[attrs["axis"]]}, orders[0]
    return {**attrs, "axes": tuple(sorted(where[axis] for axis in attrs["axes"]))}, orders[0]


def folded(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered:
    """``axes`` names axes that the result lacks."""
    order, axes = orders[0], attrs["axes"]
    kept = [axis for axis in range(len(order)) if axis not in axes]
    found = tuple(kept.index(axis) for axis in order if axis not in axes)
    where = inverse(order)
    return {**attrs, "axes": tuple(sorted(where[axis] for axis in axes))}, found


def permuted(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered:
    """A permutation of the operand is the reordered operand itself, in another order."""
    axes = attrs["axes"]
    return {"axes": tuple(range(len(axes)))}, tuple(axes.index(axis) for axis in orders[0])


def expanded(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered | None:
    """Broadcasts that add no axes."""
    if len(attrs["shape"]) != types[0].rank:
        return None
    return {"shape": put(attrs["shape"], orders[0])}, orders[0]


def windowed(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered:
    """The axes of places inside windows follow as they were."""
    order = orders[0]
    more = tuple(range(len(order), len(order) + len(attrs["axes"])))
    where = inverse(order)
    return {**attrs, "axes": tuple(where[axis] for axis in attrs["axes"])}, (*order, *more)


def labelled(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered:
    """Labels go with their axes; the result keeps its order."""
    left, right = (put(attrs[key], order) for key, order in zip(("left", "right"), orders))
    return {**attrs, "left": left, "right": right}, tuple(range(len(attrs["out"])))


def of_tiles(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered | None:
    """``last`` says that channels are, of operands and of a result that is an image."""
    images = [order for order in orders if len(order) == len(CHANNELS_LAST)]
    if attrs["last"] or any(order != CHANNELS_LAST for order in images):
        return None
    result = CHANNELS_LAST if len(images) == 1 else tuple(range(len(CHANNELS_LAST)))
    return {**attrs, "last": True}, result


def reshaped(types: Sequence[TensorType], attrs: Attrs, orders: Orders) -> Reordered | None:
    """Axes that are split, and merged where the order leaves them together.

    Axes of one element stay behind the axis before them.
    """
    order, new = orders[0], attrs["shape"]
    parts = _parts(types[0].shape, new)
    if parts is None:
        return None
    found = list(_singles(new, 0))
    waiting = [axis for axis in order if types[0].shape[axis] != 1]
    while waiting:
        old, made = parts[waiting[0]]
        if tuple(waiting[: len(old)]) != old:
            return None
        for axis in made:
            found += [axis, *_singles(new, axis + 1)]
        waiting = waiting[len(old) :]
    return {"shape": put(new, tuple(found))}, tuple(found)


def below_reshape(
    old: Sequence[object], new: Sequence[object], axes: Sequence[int]
) -> tuple[int, ...] | None:
    """The axes of shape ``new`` that together are ``axes`` of shape ``old``; ``None`` if none are.

    Axes of one element count as among them.
    """
    parts = _parts(old, new)
    if parts is None:
        return None
    kept: set[int] = set()
    for olds, news in parts.values():
        inside = [axis in axes for axis in olds]
        if any(inside) != all(inside):
            return None
        if not inside[0]:
            kept.update(news)
    return tuple(axis for axis in range(len(new)) if axis not in kept)


def _singles(shape: Sequence[object], first: int) -> range:
    """Axes of one element that follow each other from ``first`` on."""
    last = first
    while last < len(shape) and shape[last] == 1:
        last += 1
    return range(first, last)


_Part: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


def _parts(old: Sequence[object], new: Sequence[object]) -> dict[int, _Part] | None:
    """Runs of axes on both sides that hold the same elements, by each old axis of a run.

    Axes of one element are left out; extents that are not known must agree one to one.
    """
    before = [axis for axis, extent in enumerate(old) if extent != 1]
    after = [axis for axis, extent in enumerate(new) if extent != 1]
    parts: dict[int, _Part] = {}
    while before and after:
        olds, news = [before.pop(0)], [after.pop(0)]
        while (have := _product(old, olds)) != (want := _product(new, news)):
            if not isinstance(have, int) or not isinstance(want, int) or 0 in (have, want):
                return None
            side, axes = (before, olds) if have < want else (after, news)
            if not side:
                return None
            axes.append(side.pop(0))
        for axis in olds:
            parts[axis] = tuple(olds), tuple(news)
    return None if before or after else parts


def _product(shape: Sequence[object], axes: Sequence[int]) -> object:
    """The extent of an axis; of several the number of elements, None if it is not known."""
    if len(axes) == 1:
        return shape[axes[0]]
    known = [extent for axis in axes if isinstance(extent := shape[axis], int)]
    return prod(known) if len(known) == len(axes) else None
