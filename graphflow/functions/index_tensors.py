"""Reading and writing through index tensors: what is left of ``x[...]`` after its basic part.

A *pick* is an axis and a tensor of positions in it, or a mask over it and the axes
after it.  Several picks broadcast together, as in NumPy: the shape they broadcast to
stands where the first one was if they are neighbours, else in front.  An integer
tensor of no dimensions is not one of them: like a number, it selects an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphflow.device import beside_operands
from graphflow.dispatch import apply, apply_view
from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.functions.picking import from_the_front, known, positions
from graphflow.functions.shaping import expand, permute, reshape, unsqueeze
from graphflow.ir import types as T
from graphflow.ir.ops.shape import inverse_order
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.promotion import as_operand

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

Picks: TypeAlias = Sequence[tuple[int, "Tensor"]]


def is_mask(pick: Tensor) -> bool:
    """True for a tensor that chooses entries instead of naming them."""
    return pick.dtype is T.bool_


# ---- reading -------------------------------------------------------------------------


def read(input: Tensor, picks: Picks) -> Tensor:
    """The elements of ``input`` that the picks name: a copy."""
    for number, (axis, pick) in enumerate(picks):
        if not pick.ndim and not is_mask(pick):
            entry = apply("take", input, _in_range(pick, input.shape[axis], axis), axis=axis)
            rest = _without(picks, number)
            return read(entry, rest) if rest else entry
    source, _, axis, places = _merged(input, _unmasked(picks))
    return apply("take", source, places, axis=axis)


def _without(picks: Picks, number: int) -> list[tuple[int, Tensor]]:
    """The other picks, for the tensor without the axis of one."""
    gone = picks[number][0]
    others = [pick for k, pick in enumerate(picks) if k != number]
    return [(axis - (axis > gone), pick) for axis, pick in others]


@beside_operands
def _unmasked(picks: Picks) -> list[tuple[int, Tensor]]:
    """Masks as the positions where they hold, a pick an axis."""
    found: list[tuple[int, Tensor]] = []
    for axis, pick in picks:
        if not is_mask(pick):
            found.append((axis, pick))
            continue
        values = known("indexing by a mask", pick)
        for offset, places in enumerate(np.nonzero(values)):
            found.append((axis + offset, positions(places)))
    return found


def _merged(input: Tensor, picks: Picks) -> tuple[Tensor, tuple[int, ...], int, Tensor]:
    """One axis instead of all picked ones, and positions in it.

    Returns the tensor, the order of axes it was brought into, the axis and the positions.
    """
    shapes = [tuple(pick.shape) for _, pick in picks]
    try:
        shape: Any = broadcast_shapes(*shapes)
    except ShapeError:
        raise IndexError(
            "shape mismatch: indexing tensors could not be broadcast together with shapes "
            f"{', '.join(str(list(s)) for s in shapes)}"
        ) from None
    axes = [axis for axis, _ in picks]
    order = tuple(range(input.ndim))
    if axes != list(range(axes[0], axes[0] + len(axes))):
        order = (*axes, *(a for a in order if a not in axes))
        input = permute(input, order)
    first = axes[0] if order == tuple(range(input.ndim)) else 0
    places = _position(input, first, picks)
    if len(picks) > 1:
        last = first + len(picks)
        count = 1
        for extent in input.shape[first:last]:
            count = count * extent
        input = reshape(input, (*input.shape[:first], count, *input.shape[last:]))
    return input, order, first, places if places.shape == shape else expand(places, shape)


def _position(input: Tensor, first: int, picks: Picks) -> Tensor:
    """The position in the merged axis; -1, which no axis has, if one pick is out of range."""
    flat: Tensor | None = None
    inside: Tensor | None = None
    for offset, (axis, pick) in enumerate(picks):
        extent = input.shape[first + offset]
        number = _in_range(pick, extent, axis)
        if len(picks) > 1 and mode.tracer is not None:
            within = apply(
                "logical_and",
                apply("ge", number, as_operand(0, T.int64)),
                apply("lt", number, as_operand(extent, T.int64)),
            )
            inside = within if inside is None else apply("logical_and", inside, within)
        if flat is None:
            flat = number
        else:
            flat = apply("add", apply("mul", flat, as_operand(extent, T.int64)), number)
    assert flat is not None
    if inside is None:
        return flat
    return apply("where", inside, flat, as_operand(-1, T.int64))


def _in_range(pick: Tensor, extent: int, axis: int) -> Tensor:
    """Positions from the front; checked here where they are known."""
    if mode.tracer is None and pick.numel():
        values = pick._host()
        for bad in (values.min(), values.max()):
            if not -extent <= bad < extent:
                raise IndexRangeError(
                    f"index {int(bad)} is out of bounds for dimension {axis} with size {extent}"
                )
    return from_the_front(pick, extent)


# ---- writing -------------------------------------------------------------------------


def written(input: Tensor, picks: Picks, value: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with ``value``, broadcast, at the places that the picks name.

    Of several elements for one place the last one stays; ``accumulate`` adds them all.
    """
    if value.dtype is not input.dtype:
        raise DTypeError(
            "indexed assignment needs a value of the tensor's dtype, got "
            f"{value.dtype.name} for {input.dtype.name}; convert it with .to(...)"
        )
    for number, (_, pick) in enumerate(picks):
        if not pick.ndim and not is_mask(pick):
            return _entry_written(input, picks, number, value, accumulate)
    if len(picks) == 1 and is_mask(picks[0][1]) and fits_mask(input, picks[0], value):
        return _where(input, picks[0], value, accumulate)
    source, order, axis, places = _merged(input, _unmasked(picks))
    shape = (*source.shape[:axis], *places.shape, *source.shape[axis + 1 :])
    part = fitted(value, shape)
    count = places.numel()
    rows = (*source.shape[:axis], count, *source.shape[axis + 1 :])
    column = tuple(count if k == axis else 1 for k in range(source.ndim))
    index = expand(reshape(places, column), rows)
    op = "scatter_add" if accumulate else "scatter"
    out = apply(op, source, index, reshape(part, rows), axis=axis)
    moved = tuple(input.shape[a] for a in order)
    if out.shape != moved:
        out = reshape(out, moved)
    back = inverse_order(order)
    return out if back == tuple(range(input.ndim)) else apply_view("permute", out, axes=back)


def _entry_written(
    input: Tensor, picks: Picks, number: int, value: Tensor, accumulate: bool
) -> Tensor:
    """Pick ``number`` names one entry: change that, then put it back."""
    axis, pick = picks[number]
    place = _in_range(pick, input.shape[axis], axis)
    entry = apply("take", input, place, axis=axis)
    rest = _without(picks, number)
    if rest:
        new = written(entry, rest, value, accumulate)
    else:
        new = fitted(value, tuple(entry.shape))
        new = apply("add", entry, new) if accumulate else new
    source = unsqueeze(new, axis)
    index = expand(reshape(place, (1,) * input.ndim), tuple(source.shape))
    return apply("scatter", input, index, source, axis=axis)


def fits_mask(input: Tensor, pick: tuple[int, Tensor], value: Tensor) -> bool:
    """True when ``value`` broadcasts over the elements a mask chooses, however many."""
    axis, mask = pick
    after = input.ndim - axis - mask.ndim  # axes of the result behind the chosen elements
    return value.ndim <= after or value.shape[value.ndim - 1 - after] == 1


def _where(input: Tensor, pick: tuple[int, Tensor], value: Tensor, accumulate: bool) -> Tensor:
    """Masked assignment without counting: a choice between value and input."""
    axis, mask = pick
    after = input.ndim - axis - mask.ndim
    if value.ndim > after:  # the axis of the chosen elements, of extent 1, becomes the mask's
        cut = value.ndim - 1 - after
        shape = (*value.shape[:cut], *(1,) * mask.ndim, *value.shape[cut + 1 :])
        value = reshape(value, shape)
    if after:
        mask = reshape(mask, (*mask.shape, *(1,) * after))
    value = fitted(value, tuple(input.shape))
    return apply("where", mask, apply("add", input, value) if accumulate else value, input)


def fitted(value: Tensor, shape: Sequence[Any]) -> Tensor:
    """``value`` broadcast to the part of a tensor it is written to; leading 1s may go."""
    wanted = tuple(shape)
    if tuple(value.shape) == wanted:
        return value
    extra = value.ndim - len(wanted)
    if extra > 0 and all(d == 1 for d in value.shape[:extra]):
        value = reshape(value, tuple(value.shape[extra:]))
    try:
        return expand(value, wanted)
    except ShapeError:
        raise ShapeError(
            f"shape mismatch: a value of shape {list(value.shape)} cannot be broadcast to the "
            f"indexed part of shape {list(wanted)}"
        ) from None
