"""``x[...]`` and ``x[...] = v``: integers, slices, None, ..., index and mask tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.dispatch import apply, apply_view, assign
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.functions.shaping import cut, expand, select, unsqueeze
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast

if TYPE_CHECKING:
    from graphflow.tensor import Tensor


def get_item(input: Tensor, index: Any) -> Tensor:
    """``input[index]``: a view for basic indices, a copy for index tensors."""
    basic, advanced = _basic(input, index)
    return _take(basic, advanced) if advanced else basic


def set_item(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``, broadcast to the indexed shape."""
    target, advanced = _basic(input, index)
    new = as_operand(_plain(value), input.dtype)
    if not advanced:
        assign(target, _fitted(new, target))
        return
    axis, picks = advanced[0]
    if len(advanced) == 1 and picks.dtype is T.bool_ and picks.shape == target.shape:
        assign(target, apply("where", picks, new, target))
        return
    if len(advanced) != 1 or picks.dtype is T.bool_ or picks.ndim != 1:
        raise GraphFlowError(
            "assignment through this mix of index tensors is not supported yet; "
            "use gf.where with a mask, or assign one dimension at a time"
        )
    shape = (*target.shape[:axis], picks.shape[0], *target.shape[axis + 1 :])
    source = expand(new, shape) if new.shape != shape else new
    assign(target, _put(target, axis, picks, source))


def _fitted(new: Tensor, target: Tensor) -> Tensor:
    """``new`` broadcast to the part of a tensor it is assigned to."""
    if new.shape == target.shape:
        return new
    try:
        return expand(new, tuple(target.shape))
    except ShapeError:
        raise ShapeError(
            f"a value of shape {list(new.shape)} cannot be assigned to an indexed part of "
            f"shape {list(target.shape)}"
        ) from None


def _put(target: Tensor, axis: int, picks: Tensor, source: Tensor) -> Tensor:
    """``target`` with the entries ``picks`` of ``axis`` replaced (later ones win)."""
    from graphflow.functions.creation import iota

    extent = target.shape[axis]
    wanted = cast(picks, T.int64)
    wanted = apply("where", apply("lt", wanted, as_operand(0, T.int64)), wanted + extent, wanted)
    number = picks.shape[0]
    hits = apply("eq", unsqueeze(wanted, 0), iota((extent, number), 0, T.int64))
    rank = apply("where", hits, iota((extent, number), 1, T.int64) + 1, as_operand(0, T.int64))
    last = apply("reduce_max", rank, axes=(1,))
    chosen = apply("maximum", last - 1, as_operand(0, T.int64))
    candidate = apply("take", source, chosen, axis=axis)
    hit = apply("gt", last, as_operand(0, T.int64))
    for _ in range(target.ndim - axis - 1):
        hit = unsqueeze(hit, hit.ndim)
    return apply("where", hit, candidate, target)


def _plain(value: Any) -> Any:
    from graphflow.functions.creation import as_tensor

    return as_tensor(value) if isinstance(value, (np.ndarray, list, tuple)) else value


def _basic(input: Tensor, index: Any) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Apply the basic part of ``index``; returns the view and its index tensors by axis."""
    from graphflow.tensor import Tensor

    items = list(index) if isinstance(index, tuple) else [index]
    items = [_normal(item) for item in items]
    used = 0
    for item in items:
        if item is None or item is Ellipsis:
            continue
        used += item.ndim if isinstance(item, Tensor) and item.dtype is T.bool_ else 1
    if used > input.ndim:
        raise IndexError(
            f"too many indices for a tensor of dimension {input.ndim} ({used} were given)"
        )
    places = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(places) > 1:
        raise IndexError("an index can have one ellipsis only")
    at = places[0] if places else len(items)
    items[at : at + 1] = [slice(None)] * (input.ndim - used)
    out, axis, advanced = input, 0, []
    for item in items:
        if item is None:
            out, axis = unsqueeze(out, axis), axis + 1
        elif isinstance(item, slice):
            out, axis = _slice(out, axis, item), axis + 1
        elif isinstance(item, Tensor):
            advanced.append((axis, item))
            axis += item.ndim if item.dtype is T.bool_ else 1
        else:
            out = select(out, axis, item)
    return (input.view(tuple(input.shape)) if out is input else out), advanced


def _normal(item: Any) -> Any:
    from graphflow.functions.creation import as_tensor
    from graphflow.tensor import Tensor

    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, (bool, np.bool_)):
        raise IndexError("indexing with a Python bool is not supported; use a mask tensor")
    if isinstance(item, (list, np.ndarray)):
        item = as_tensor(item)
    if isinstance(item, Tensor):
        if item.dtype.kind not in ("int", "uint", "bool"):
            raise IndexError(
                f"tensors used as indices must be integer or bool, not {item.dtype.name}"
            )
        return item
    if hasattr(item, "__index__"):
        return int(item)
    raise IndexError(f"{type(item).__name__} cannot index a tensor")


def _slice(input: Tensor, axis: int, item: slice) -> Tensor:
    extent = input.shape[axis]
    start, stop, step = item.indices(extent)
    if step <= 0:
        raise ValueError("a slice step must be greater than zero; use flip() to reverse")
    if (start, stop, step) == (0, extent, 1):
        return input
    return cut(input, axis, start, max(start, stop), step)


def _take(input: Tensor, advanced: list[tuple[int, Tensor]]) -> Tensor:
    """Indexing by tensors: one, or several adjacent ones that broadcast together."""
    advanced = _expand_masks(advanced)
    if len(advanced) == 1:
        axis, picks = advanced[0]
        return apply("take", input, _from_the_front(picks, input.shape[axis]), axis=axis)
    axes = [axis for axis, _ in advanced]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        order = axes + [a for a in range(input.ndim) if a not in axes]
        input, axes = apply_view("permute", input, axes=tuple(order)), list(range(len(axes)))
    flat: Any = 0
    for axis, (_, picks) in zip(axes, advanced, strict=True):
        extent = input.shape[axis]
        number = _from_the_front(picks, extent)
        flat = number if isinstance(flat, int) else flat * extent + number
    shape, first, last = input.shape, axes[0], axes[-1]
    merged = input.reshape((*shape[:first], -1, *shape[last + 1 :]))
    return apply("take", merged, flat, axis=first)


def _from_the_front(picks: Tensor, extent: int) -> Tensor:
    """Positions with negative ones counted from the end, as int64."""
    number = cast(picks, T.int64)
    if mode.tracer is None and (not number.numel() or number._eager().min() >= 0):
        return number
    return apply("where", number < 0, number + extent, number)


def _expand_masks(advanced: list[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    from graphflow.cell import Cell
    from graphflow.tensor import Tensor

    found: list[tuple[int, Tensor]] = []
    for axis, picks in advanced:
        if picks.dtype is not T.bool_:
            found.append((axis, picks))
            continue
        mask = picks._concrete("indexing by a mask")
        for offset, places in enumerate(np.nonzero(mask)):
            found.append((axis + offset, Tensor._of(Cell(places.astype(np.int64)))))
    return found
