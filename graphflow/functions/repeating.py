"""Copies and turns: ``repeat``, ``tile``, ``repeat_interleave``, ``roll``, ``rot90``, ``kron``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.checks import need_index, need_int, need_tensor
from graphflow.dispatch import apply
from graphflow.errors import ShapeError
from graphflow.functions.creation import iota
from graphflow.functions.elementwise import mul
from graphflow.functions.picking import known, positions
from graphflow.functions.reductions import normal_dim
from graphflow.functions.shaping import cut, expand, flip, reshape, sizes_of, transpose
from graphflow.ir import types as T
from graphflow.promotion import as_operand, cast

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "fliplr", "flipud", "kron", "repeat_interleave", "roll", "rot90", "tile", "unravel_index",
]  # fmt: skip
METHODS = """
fliplr flipud kron repeat repeat_interleave roll rot90 tile
""".split()

# ---- copies --------------------------------------------------------------------------


def repeat(input: Tensor, *repeats: Any, **named: Any) -> Tensor:
    """Every dimension so many times one after the other; more repeats than dimensions: new ones."""
    times = sizes_of("repeat", repeats, named, "repeats")
    if len(times) < input.ndim:
        raise ShapeError(
            f"repeat: {len(times)} repeats are fewer than the {input.ndim} dimensions of the input"
        )
    if any(n < 0 for n in times):
        raise ShapeError(f"repeat: a dimension cannot repeat {min(times)} times")
    shape = (1,) * (len(times) - input.ndim) + tuple(input.shape)
    apart = tuple(d for extent in shape for d in (1, extent))
    wide = tuple(d for n, extent in zip(times, shape) for d in (n, extent))
    whole = tuple(n * extent for n, extent in zip(times, shape))
    return apply("reshape", expand(reshape(input, apart), wide), shape=whole)


def tile(input: Tensor, *dims: Any, **named: Any) -> Tensor:
    """Like :meth:`repeat`; missing repeats in front are 1."""
    times = sizes_of("tile", dims, named, "dims")
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Every entry of a dimension so many times in a row: a number, or one number an entry.

    Without ``dim`` the input is taken as one dimension; without ``repeats`` the input
    says how often each of the positions 0, 1, … comes.  In a compiled function a tensor
    of repeats needs ``output_size``, the sum of the repeats.
    """
    if repeats is None:
        repeats, input = (
            input,
            iota((need_tensor("repeat_interleave", input).shape[0],), 0, T.int64),
        )
    if dim is None:
        input, dim = reshape(input, -1), 0
    axis = normal_dim(dim, input.ndim)
    base = input if input.ndim else reshape(input, 1)
    if isinstance(repeats, int):
        return _each_repeated(base, repeats, axis)
    extent = base.shape[axis]
    need_index("repeat_interleave", need_tensor("repeat_interleave", repeats, "repeats"))
    times = expand(repeats, (extent,)) if repeats.numel() == 1 and repeats.ndim < 2 else repeats
    if times.shape != (extent,):
        raise ShapeError(
            f"repeat_interleave: repeats of shape {list(repeats.shape)} do not fit dimension {dim} "
            f"of extent {extent}"
        )
    return apply("take", base, _interleaved(times, output_size), axis=axis)


def _each_repeated(base: Tensor, times: int, axis: int) -> Tensor:
    if times < 0:
        raise ShapeError(f"repeat_interleave: an entry cannot repeat {times} times")
    shape = tuple(base.shape)
    apart = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    wide = (*shape[: axis + 1], times, *shape[axis + 1 :])
    whole = (*shape[:axis], shape[axis] * times, *shape[axis + 1 :])
    out = reshape(expand(reshape(base, apart), wide), whole)
    return out.clone() if times == 1 else out


def _interleaved(times: Tensor, size: int | None) -> Tensor:
    """The positions 0, 1, … each so many times."""
    if size is None:
        counts = known("repeat_interleave without output_size=", times)
        if counts.size and counts.min() < 0:
            raise ShapeError("repeat_interleave: repeats cannot be negative")
        return positions(np.repeat(np.arange(counts.size), counts))
    ends = apply("cumsum", cast(times, T.int64), axis=0, reverse=False)
    return apply("searchsorted", ends, iota((size,), 0, T.int64), right=True)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: every element of the input times the whole of ``other``."""
    a, b = need_tensor("kron", input), need_tensor("kron", other, "other")
    rank = max(a.ndim, b.ndim)
    left = (1,) * (rank - a.ndim) + tuple(a.shape)
    right = (1,) * (rank - b.ndim) + tuple(b.shape)
    product = mul(
        reshape(a, tuple(d for extent in left for d in (extent, 1))),
        reshape(b, tuple(d for extent in right for d in (1, extent))),
    )
    return reshape(product, tuple(d * e for d, e in zip(left, right)))


# ---- turns ---------------------------------------------------------------------------


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Entries moved along dimensions; what leaves at the end comes in at the beginning.

    Without ``dims`` the input is moved as one dimension and keeps its shape.
    """
    by = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    over = () if dims is None else tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    if not by:
        raise ShapeError("roll: shifts are required")
    if not over and len(by) == 1:
        return reshape(_rolled(reshape(input, -1), by[0], 0), tuple(input.shape))
    if len(by) != len(over):
        raise ShapeError(f"roll: {len(by)} shifts for {len(over)} dimensions")
    out = input
    for shift, dim in zip(by, over):
        if not input.ndim:
            raise IndexError(f"roll: dimension {dim} is given, but the tensor has no dimensions")
        out = _rolled(out, shift, normal_dim(dim, input.ndim))
    return out


def _rolled(x: Tensor, shift: int, axis: int) -> Tensor:
    extent = x.shape[axis]
    at = -need_int("roll: a shift", shift) % extent if extent else 0
    if not at:
        return apply("copy", x)
    parts = cut(x, axis, at, extent, 1), cut(x, axis, 0, at, 1)
    return apply("concatenate", *parts, axis=axis)


def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Turned by ``k`` times 90° in the plane of two dimensions, from the first to the second."""
    if len(dims) != 2:
        raise ShapeError(f"rot90: needs 2 dimensions to turn in, not {len(dims)}")
    if input.ndim < 2:
        raise ShapeError(f"rot90: needs a tensor of at least 2 dimensions, not {input.ndim}")
    first, second = (normal_dim(d, input.ndim) for d in dims)
    if first == second:
        raise ShapeError(f"rot90: the dimensions must be different, not {dims[0]} and {dims[1]}")
    turns = k % 4
    if turns == 0:
        return apply("copy", input)
    if turns == 2:
        return flip(input, first, second)
    if turns == 1:
        return transpose(flip(input, second), first, second)
    return transpose(flip(input, first), first, second)


def fliplr(input: Tensor) -> Tensor:
    """Dimension 1 in reverse order."""
    if input.ndim < 2:
        raise ShapeError(f"fliplr: needs at least 2 dimensions, not {input.ndim}")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Dimension 0 in reverse order."""
    if input.ndim < 1:
        raise ShapeError("flipud: needs at least 1 dimension")
    return flip(input, 0)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Positions in a tensor of ``shape`` taken as one dimension, as one position a dimension."""
    need_index("unravel_index", need_tensor("unravel_index", indices, "indices"))
    extents = (shape,) if isinstance(shape, int) else tuple(int(d) for d in shape)
    if any(d < 0 for d in extents):
        raise ValueError(f"unravel_index: a shape cannot have negative extents: {list(extents)}")
    rest, found = cast(indices, T.int64), []
    for extent in reversed(extents):
        size = as_operand(max(extent, 1), T.int64)
        found.append(apply("remainder", rest, size))
        rest = apply("floor_divide", rest, size)
    return tuple(reversed(found))
