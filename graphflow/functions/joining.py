"""Joins and cuts beside ``cat`` and ``split``: stacks by name, grids, products of sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.checks import as_whole, need_int, need_tensor, need_tensors, slice_bounds
from graphflow.dispatch import apply
from graphflow.errors import ShapeError
from graphflow.functions.picking import positions
from graphflow.functions.reductions import normal_dim
from graphflow.functions.shaping import (
    cat,
    cut,
    expand,
    reshape,
    split_with_sizes,
    stack,
    unsqueeze,
)
from graphflow.ir.types import broadcast_shapes as common_shape
from graphflow.tensor import Size

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_shapes", "broadcast_tensors",
    "cartesian_prod", "column_stack", "combinations", "dsplit", "dstack", "hsplit", "hstack",
    "meshgrid", "row_stack", "tensor_split", "vsplit", "vstack",
]  # fmt: skip
METHODS = """
dsplit hsplit tensor_split vsplit
""".split()

# ---- at least so many dimensions -----------------------------------------------------


def _each(name: str, at_least: Callable[[Tensor], Tensor], tensors: tuple[Any, ...]) -> Any:
    """``at_least`` of one tensor, or a tuple of all of several (or of one sequence)."""
    if len(tensors) == 1 and not isinstance(tensors[0], (tuple, list)):
        return at_least(need_tensor(name, tensors[0]))
    given = tensors[0] if len(tensors) == 1 else tensors
    return tuple(at_least(need_tensor(name, x, f"entry {i}")) for i, x in enumerate(given))


def atleast_1d(*tensors: Any) -> Any:
    """Tensors of no dimension with one; views."""
    return _each("atleast_1d", _line, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors of fewer than 2 dimensions as rows; views."""
    return _each("atleast_2d", _row, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors of fewer than 3 dimensions with 3; vectors lie along the middle one; views."""
    return _each("atleast_3d", _block, tensors)


def _line(x: Tensor) -> Tensor:
    return x if x.ndim else reshape(x, 1)


def _row(x: Tensor) -> Tensor:
    return x if x.ndim >= 2 else reshape(x, (1, *(x.shape or (1,))))


def _block(x: Tensor) -> Tensor:
    row = _row(x)
    return row if row.ndim >= 3 else unsqueeze(row, 2)


# ---- stacks and splits by name -------------------------------------------------------


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dimension 1; vectors along their only one."""
    parts = [_line(x) for x in need_tensors("hstack", tensors)]
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dimension 0; vectors are rows."""
    return cat([_row(x) for x in need_tensors("vstack", tensors)], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dimension 2, of which the result has at least 3."""
    return cat([_block(x) for x in need_tensors("dstack", tensors)], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dimension 1; vectors are columns."""
    found = need_tensors("column_stack", tensors)
    return cat([x if x.ndim >= 2 else reshape(x, (-1, 1)) for x in found], 1)


row_stack = vstack


def tensor_split(
    input: Tensor,
    indices_or_sections: Any = None,
    dim: int = 0,
    *,
    indices: Any = None,
    sections: Any = None,
) -> tuple[Tensor, ...]:
    """Cut before every position in a sequence, or into a number of nearly equal pieces: views."""
    if not input.ndim:
        raise ShapeError("tensor_split needs a tensor of at least 1 dimension")
    given = next(x for x in (indices_or_sections, indices, sections) if x is not None)
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    if hasattr(given, "_concrete"):
        given = given._concrete("tensor_split").tolist()
    if isinstance(given, (tuple, list)):
        return _cut_at(input, axis, [as_whole(at) for at in given])
    count = need_int("tensor_split: the number of sections", given)
    if count <= 0:
        raise ShapeError(f"tensor_split: the number of sections must be positive, not {count}")
    size, more = divmod(extent, count)
    return split_with_sizes(input, [size + (k < more) for k in range(count)], axis)


def _cut_at(input: Tensor, axis: int, places: Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces as Python's slices between the places would be."""
    extent = input.shape[axis]
    pieces, begin = [], 0
    for place in (*places, extent):
        first, last, _ = slice_bounds(slice(begin, place), extent)
        pieces.append(cut(input, axis, first, max(first, last), 1))
        begin = place
    return tuple(pieces)


def _split_along(name: str, input: Tensor, dim: int, least: int, given: Any) -> tuple[Tensor, ...]:
    if input.ndim < least:
        raise ShapeError(f"{name} needs a tensor of at least {least} dimensions, got {input.ndim}")
    if not isinstance(given, (tuple, list)) and input.shape[dim] % given:
        raise ShapeError(
            f"{name}: dimension {dim} of extent {input.shape[dim]} does not divide into {given} "
            "equal sections"
        )
    return tensor_split(input, given, dim)


def hsplit(input: Tensor, *indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Cut along dimension 1, vectors along their only one: views."""
    dim = 1 if input.ndim > 1 else 0
    return _split_along("hsplit", input, dim, 1, _one_or_all(indices_or_sections))


def vsplit(input: Tensor, *indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Cut along dimension 0: views."""
    return _split_along("vsplit", input, 0, 2, _one_or_all(indices_or_sections))


def dsplit(input: Tensor, *indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Cut along dimension 2: views."""
    return _split_along("dsplit", input, 2, 3, _one_or_all(indices_or_sections))


def _one_or_all(given: tuple[Any, ...]) -> Any:
    return given[0] if len(given) == 1 else given


# ---- broadcasting together -----------------------------------------------------------


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of these shapes broadcast to (a number is a shape of one)."""
    given = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    if any(d < 0 for s in given for d in s):
        raise ShapeError(f"broadcast_shapes: a shape cannot have negative extents: {given}")
    return Size(common_shape(*given))  # type: ignore[arg-type]


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape: views."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    found = [need_tensor("broadcast_tensors", x, f"entry {i}") for i, x in enumerate(given)]
    shape = broadcast_shapes(*[tuple(x.shape) for x in found])
    return tuple(expand(x, shape) for x in found)


# ---- grids and sets ------------------------------------------------------------------


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of a grid: one tensor a vector, each varying along its own dimension.

    ``indexing="xy"``: the first two dimensions exchanged.  Views.
    """
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: indexing must be 'ij' or 'xy', not {indexing!r}")
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    found = [_vector("meshgrid", x) for x in need_tensors("meshgrid", given)]
    if any(x.dtype is not found[0].dtype for x in found):
        raise ShapeError("meshgrid: all tensors must have one dtype")
    swap = indexing == "xy" and len(found) > 1
    axes = list(range(len(found)))
    if swap:
        axes[:2] = [1, 0]
    shape = [0] * len(found)
    for x, axis in zip(found, axes):
        shape[axis] = x.shape[0]
    grid = []
    for x, axis in zip(found, axes):
        line = tuple(x.shape[0] if k == axis else 1 for k in range(len(found)))
        grid.append(expand(reshape(x, line), tuple(shape)))
    return tuple(grid)


def _vector(name: str, x: Tensor) -> Tensor:
    if x.ndim > 1:
        raise ShapeError(
            f"{name}: takes vectors and numbers, not a tensor of shape {list(x.shape)}"
        )
    return _line(x)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """Every choice of one element a vector, a row a choice."""
    found = need_tensors("cartesian_prod", tensors)
    for x in found:
        if x.ndim != 1:
            raise ShapeError(
                f"cartesian_prod: takes vectors, not a tensor of shape {list(x.shape)}"
            )
    if len(found) == 1:
        return found[0]
    return stack([reshape(x, -1) for x in meshgrid(*found)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Every choice of ``r`` elements of a vector in its order, a row a choice."""
    if input.ndim != 1:
        raise ShapeError(f"combinations: takes a vector, not a tensor of shape {list(input.shape)}")
    if r < 0:
        raise ShapeError(f"combinations: r must be at least 0, not {r}")
    if r == 0:
        return cut(input, 0, 0, 0, 1)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input.shape[0]), r))
    picks = np.array(rows, np.int64).reshape(-1, r)
    return apply("take", input, positions(picks), axis=0)
