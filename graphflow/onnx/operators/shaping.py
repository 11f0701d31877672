"""Shapes: reshaping, transposing, joining, cutting, repeating, padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.dispatch import apply
from graphflow.errors import ShapeError
from graphflow.functions import padding
from graphflow.onnx.operators.table import axes_of, gf, ints, number, operator
from graphflow.tensor import Tensor


@operator("Reshape", known=("shape",))
def reshape(data: Tensor, shape: Any, *, allowzero: int = 0) -> Any:
    """Another shape; 0 keeps an extent (unless ``allowzero``), -1 is what is left."""
    wanted = ints(shape)
    if not allowzero:
        wanted = tuple(
            data.shape[k] if isinstance(n, int) and n == 0 else n for k, n in enumerate(wanted)
        )
    return gf.reshape(data, _rest_found(data, wanted))


def _rest_found(data: Tensor, wanted: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape with what is left in place of -1, where sizes are symbolic."""
    if all(isinstance(n, int) for n in (*data.shape, *wanted)) or not any(
        isinstance(n, int) and n == -1 for n in wanted
    ):
        return wanted
    total: Any = 1
    for extent in data.shape:
        total = total * extent
    known: Any = 1
    for extent in wanted:
        known = known if isinstance(extent, int) and extent == -1 else known * extent
    rest = total // known
    return tuple(rest if isinstance(n, int) and n == -1 else n for n in wanted)


@operator("Flatten")
def flatten(input: Tensor, *, axis: int = 1) -> Any:
    """A matrix: the axes before ``axis``, and the others."""
    split = axis + input.ndim if axis < 0 else axis
    rows: Any = 1
    for extent in input.shape[:split]:
        rows = rows * extent
    columns: Any = 1
    for extent in input.shape[split:]:
        columns = columns * extent
    return gf.reshape(input, (rows, columns))


@operator("Transpose")
def transpose(data: Tensor, *, perm: Any = None) -> Any:
    """The axes in another order (reversed if none is given)."""
    return gf.permute(data, tuple(perm) if perm is not None else tuple(range(data.ndim))[::-1])


@operator("Squeeze", known=("axes",))
def squeeze(data: Tensor, axes: Any = None) -> Any:
    """Without axes of extent 1."""
    if axes is None:
        return gf.squeeze(data)
    chosen = axes_of(axes, data.ndim)
    for axis in chosen:
        if isinstance(data.shape[axis], int) and data.shape[axis] != 1:
            raise ShapeError(f"axis {axis} of {list(data.shape)} has more than one element")
    return gf.reshape(data, [n for k, n in enumerate(data.shape) if k not in chosen])


@operator("Unsqueeze", known=("axes",))
def unsqueeze(data: Tensor, axes: Any) -> Any:
    """With new axes of extent 1, at these places of the result."""
    places = axes_of(axes, data.ndim + len(ints(axes)))
    rest = iter(data.shape)
    rank = data.ndim + len(places)
    return gf.reshape(data, [1 if k in places else next(rest) for k in range(rank)])


@operator("Concat")
def concat(*inputs: Tensor, axis: int) -> Any:
    """One after the other along an axis."""
    return gf.cat(inputs, axis)


@operator("Split", known=("split",))
def split(
    input: Tensor, split: Any = None, *, axis: int = 0, num_outputs: int | None = None,
    outputs: int,
) -> Any:  # fmt: skip
    """Parts along an axis: of these sizes, or equal ones (the last may be smaller)."""
    if split is not None:
        return tuple(gf.split(input, list(ints(split)), axis))
    extent, count = input.shape[axis], num_outputs or outputs
    size = -(-extent // count)
    sizes = [size] * (count - 1)
    return tuple(gf.split(input, [*sizes, extent - size * (count - 1)], axis))


@operator("Slice", known=("starts", "ends", "axes", "steps"))
def cut(data: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    """Elements from ``starts`` to before ``ends`` along axes, by steps that may be negative."""
    first, last = ints(starts), ints(ends)
    chosen = axes_of(axes, data.ndim) if axes is not None else tuple(range(len(first)))
    strides = ints(steps) if steps is not None else (1,) * len(first)
    for axis, begin, end, step in zip(chosen, first, last, strides):
        data = _cut(data, axis, begin, end, step)
    return data


def _cut(x: Tensor, axis: int, begin: Any, end: Any, step: int) -> Any:
    extent = x.shape[axis]
    if step > 0:
        where = slice(begin, None if isinstance(end, int) and end > 2**31 - 2 else end, step)
        return x[(slice(None),) * axis + (where,)]
    places = range(int(extent))[slice(begin, None if end < -extent else end, step)]
    if not len(places):
        return gf.narrow(x, axis, 0, 0)
    low, span = places[-1], places[0] - places[-1]
    part = x[(slice(None),) * axis + (slice(low, low + span + 1, -step),)]
    return gf.flip(part, (axis,))


@operator("Expand", known=("shape",))
def expand(input: Tensor, shape: Any) -> Any:
    """Broadcast with a shape."""
    return gf.broadcast_to(input, _broadcast(tuple(input.shape), ints(shape)))


def _broadcast(have: tuple[Any, ...], wanted: tuple[Any, ...]) -> tuple[Any, ...]:
    rank = max(len(have), len(wanted))
    pairs = zip((1,) * (rank - len(have)) + have, (1,) * (rank - len(wanted)) + wanted)
    return tuple(a if isinstance(b, int) and b == 1 else b for a, b in pairs)


@operator("Tile", known=("repeats",))
def tile(input: Tensor, repeats: Any) -> Any:
    """Repeated along every axis."""
    return gf.tile(input, ints(repeats))


@operator("Identity", raw=True)
def identity(input: Any) -> Any:
    """The operand."""
    return input


@operator("Pad", known=("pads", "axes"))
def pad(
    data: Tensor, pads: Any, constant_value: Any = None, axes: Any = None, *,
    mode: str = "constant", value: float = 0.0,
) -> Any:  # fmt: skip
    """Elements around: a constant, the edge, reflected or wrapped; negative numbers cut."""
    amounts = ints(pads)
    chosen = axes_of(axes, data.ndim) if axes is not None else tuple(range(data.ndim))
    half = len(amounts) // 2
    sides = [(0, 0)] * data.ndim
    for k, axis in enumerate(chosen):
        sides[axis] = (amounts[k], amounts[half + k])
    if mode == "constant":
        return _constant_pad(data, sides, constant_value, value)
    cutting = [(min(a, 0), min(b, 0)) for a, b in sides]
    data = padding.constant(data, cutting[::-1]) if any(map(any, cutting)) else data
    for axis, (low, high) in enumerate(sides):
        if low > 0 or high > 0:
            around: Any = (max(low, 0), max(high, 0))
            names: Any = mode
            places = np.pad(np.arange(int(data.shape[axis])), around, names)
            data = gf.index_select(data, axis, gf.tensor(places.astype(np.int64)))
    return data


def _constant_pad(x: Tensor, sides: Any, filler: Tensor | None, value: float) -> Any:
    low, high = (tuple(s[k] for s in sides) for k in (0, 1))
    if filler is None:
        return apply("pad", x, low=low, high=high, value=_plain(value, x))
    filler = filler.reshape(())
    if filler._cell.tracer is None:
        return apply("pad", x, low=low, high=high, value=_plain(filler.item(), x))
    here = apply("pad", gf.ones_like(x, dtype=gf.bool), low=low, high=high, value=False)
    return gf.where(here, apply("pad", x, low=low, high=high, value=_plain(0, x)), filler)


def _plain(value: Any, like: Tensor) -> Any:
    """A number of the kind of a dtype."""
    kind = like.dtype.kind
    return bool(value) if kind == "bool" else float(value) if kind == "float" else int(value)


@operator("DepthToSpace")
def depth_to_space(input: Tensor, *, blocksize: int, mode: str = "DCR") -> Any:
    """Channels moved into blocks of pixels."""
    n, c, h, w = input.shape
    b = blocksize
    if mode == "DCR":
        x = gf.permute(gf.reshape(input, (n, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    else:
        x = gf.permute(gf.reshape(input, (n, c // (b * b), b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return gf.reshape(x, (n, c // (b * b), h * b, w * b))


@operator("SpaceToDepth")
def space_to_depth(input: Tensor, *, blocksize: int, mode: str = "DCR") -> Any:
    """Blocks of pixels moved into channels."""
    n, c, h, w = input.shape
    b = blocksize
    x = gf.reshape(input, (n, c, h // b, b, w // b, b))
    x = gf.permute(x, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return gf.reshape(x, (n, c * b * b, h // b, w // b))


@operator("Trilu", known=("k",))
def trilu(input: Tensor, k: Any = None, *, upper: int = 1) -> Any:
    """The upper or lower triangle, 0 elsewhere."""
    diagonal = number(k) if k is not None else 0
    return (gf.triu if upper else gf.tril)(input, diagonal)


@operator("ReverseSequence")
def reverse_sequence(
    input: Tensor, sequence_lens: Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> Any:
    """The first elements of every sequence, as many as it has, in reverse order."""
    steps = gf.arange(input.shape[time_axis])
    row = [1, 1]
    row[time_axis], row[batch_axis] = input.shape[time_axis], 1
    column = [1, 1]
    column[batch_axis] = input.shape[batch_axis]
    steps, lengths = gf.reshape(steps, row), gf.reshape(sequence_lens, column)
    places = gf.where(gf.lt(steps, lengths), gf.sub(gf.sub(lengths, 1), steps), steps)
    places = gf.reshape(places, (*places.shape, *[1] * (input.ndim - 2)))
    return gf.gather(input, time_axis, gf.broadcast_to(places, tuple(input.shape)))
