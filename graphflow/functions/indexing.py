"""``x[...]`` and ``x[...] = v``: integers, slices, None, ..., index and mask tensors.

The *basic* part of an index (integers, slices, None, ...) is a view.  What is left,
index tensors and masks, reads or writes through :mod:`graphflow.functions.index_tensors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.autocasting import in_widest
from graphflow.checks import as_whole, slice_bounds
from graphflow.device import devices, is_placed
from graphflow.dispatch import apply_view, assign, assign_at
from graphflow.errors import ShapeError
from graphflow.functions.index_tensors import Picks, fitted, is_mask, read, written
from graphflow.functions.picking import positions
from graphflow.functions.shaping import cut, select, unsqueeze
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast
from graphflow.traced_sizes import same_size

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = ["index_put"]
METHODS = ("index_put",)
IN_PLACE = ("index_put",)

MOST_IN_LIST = 32
"""A list of fewer entries, one of them a sequence or slice, stands for a tuple."""


def get_item(input: Tensor, index: Any) -> Tensor:
    """``input[index]``: a view for basic indices, a copy for index tensors."""
    basic, picks = _basic(input, index)
    return read(basic, picks) if picks else basic


def set_item(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``, broadcast to the indexed shape."""
    from graphflow.tensor import Tensor

    target, picks = _basic(input, index)
    new = value
    if not isinstance(value, Tensor):
        new = _beside(input, as_operand(_plain(value), input.dtype))
    if not picks:
        assign(target, fitted(cast(new, input.dtype), target.shape))
        return
    if new._weak or (not new.ndim and is_mask(picks[0][1])):
        new = cast(new, input.dtype)
    if not _written_at_once(target, picks, new):
        assign(target, written(target, picks, new))


def _written_at_once(target: Tensor, picks: Picks, new: Tensor) -> bool:
    """Write the elements themselves, where nothing is traced or recorded."""
    if mode.tracer is not None or new.dtype is not target.dtype:
        return False
    if devices.used and any(is_placed(x._eager()) for x in (target, new)):
        return False
    if mode.grad and any(x._requires_grad for x in (target, target._base, new) if x is not None):
        return False
    places: list[Any] = [slice(None)] * target.ndim
    for axis, pick in sorted(picks, key=lambda p: -p[0]):
        places[axis : axis + (pick.ndim if is_mask(pick) else 1)] = [pick._eager()]
    value = new._eager()
    while value.ndim > 1 and value.shape[0] == 1:
        value = value[0]  # NumPy, too, takes leading 1s, but not in front of a mask's elements
    try:
        assign_at(target, tuple(places), value)
    except IndexError as error:
        raise IndexError(str(error).replace("axis", "dimension")) from None
    except ValueError as error:
        raise ShapeError(f"indexed assignment: {error}") from None
    return True


@in_widest
def index_put(
    input: Tensor, indices: Sequence[Tensor | None], values: Any, accumulate: bool = False
) -> Tensor:
    """``input`` with ``values``, broadcast, at the places that the index tensors name.

    ``None`` stands for a whole dimension.  Of several elements for one place the last
    one stays; ``accumulate`` adds them all.
    """
    target, picks = _basic(input, tuple(slice(None) if i is None else i for i in indices))
    new = as_operand(values, input.dtype) if not hasattr(values, "_concrete") else values
    return written(target, picks, new, accumulate) if picks else fitted(new, target.shape)


def _plain(value: Any) -> Any:
    from graphflow.functions.creation import as_tensor

    return as_tensor(value) if isinstance(value, (np.ndarray, list, tuple)) else value


# ---- the basic part ------------------------------------------------------------------


def _basic(input: Tensor, index: Any) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Apply the basic part of ``index``; returns the view and its picks by axis."""
    from graphflow.tensor import Tensor

    items = [_normal(item) for item in _listed(index)]
    used = sum(map(_consumed, items))
    if used > input.ndim:
        raise IndexError(
            f"too many indices for tensor of dimension {input.ndim} ({used} were given)"
        )
    ellipses = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can have one ellipsis only")
    at = ellipses[0] if ellipses else len(items)
    items[at : at + 1] = [slice(None)] * (input.ndim - used)
    out, axis = input, 0
    picks: list[tuple[int, Tensor]] = []
    for item in items:
        if item is None:
            out, axis = unsqueeze(out, axis), axis + 1
        elif isinstance(item, slice):
            out, axis = _slice(out, axis, item), axis + 1
        elif isinstance(item, bool):
            out = unsqueeze(out, axis)
            picks.append((axis, positions(np.arange(int(item)))))
            axis += 1
        elif isinstance(item, Tensor):
            _check_mask(item, out, axis)
            picks.append((axis, item))
            axis += item.ndim if is_mask(item) else 1
        else:
            out = select(out, axis, item)
    if out is input and not picks:
        out = apply_view("reshape", input, shape=tuple(input.shape))
    return out, [(axis, _beside(input, pick)) for axis, pick in picks]


def _beside(input: Tensor, other: Tensor) -> Tensor:
    """``other`` where ``input`` lies: an index may come from the CPU, as in PyTorch."""
    if not devices.used or mode.tracer is not None:
        return other
    from graphflow.moves import moved

    return moved(other, input.device)


def _listed(index: Any) -> list[Any]:
    """The entries of an index: a tuple's, or a short list's that cannot be a tensor."""
    if isinstance(index, tuple):
        return list(index)
    if isinstance(index, list) and len(index) < MOST_IN_LIST and any(map(_is_entry, index)):
        return index
    return [index]


def _is_entry(item: Any) -> bool:
    """True for what stands for a whole dimension or more in an index."""
    from graphflow.tensor import Tensor

    kinds = (list, tuple, slice, np.ndarray, Tensor)
    return item is None or item is Ellipsis or isinstance(item, kinds)


def _consumed(item: Any) -> int:
    """How many dimensions an entry of an index uses up."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.ndim if getattr(item, "dtype", None) is T.bool_ else 1


def _normal(item: Any) -> Any:
    """An entry as None, Ellipsis, slice, bool, int, or a tensor of positions or a mask."""
    from graphflow.functions.creation import as_tensor, tensor
    from graphflow.tensor import Tensor

    if item is None or item is Ellipsis or isinstance(item, (slice, bool)):
        return item
    if isinstance(item, np.bool_):
        return bool(item)
    if isinstance(item, (list, tuple, range)):
        item = tensor(list(item), dtype=T.int64 if len(item) == 0 else None)
    elif isinstance(item, np.ndarray):
        item = as_tensor(item)
    if isinstance(item, Tensor):
        return _index_tensor(item)
    if hasattr(item, "__index__"):
        return as_whole(item)
    raise IndexError(
        "only integers, slices (`:`), ellipsis (`...`), None and integer or bool tensors are "
        f"valid indices (got {type(item).__name__})"
    )


def _index_tensor(item: Tensor) -> Any:
    """A tensor as an index; where its value is known, one of no dimensions is a number."""
    if item.dtype not in (T.int64, T.int32, T.uint8, T.bool_):
        raise IndexError(
            "tensors used as indices must be long, int, byte or bool tensors, not "
            f"{item.dtype.name}"
        )
    if item.dtype is T.uint8:
        item = cast(item, T.bool_)
    if not item.ndim and (mode.tracer is None or is_mask(item)):
        value = item._concrete("indexing by a mask without dimensions").item()
        return bool(value) if is_mask(item) else int(value)
    return item


def _check_mask(mask: Tensor, out: Tensor, axis: int) -> None:
    if not is_mask(mask):
        return
    for offset, extent in enumerate(mask.shape):
        if extent != out.shape[axis + offset]:
            raise IndexError(
                f"The shape of the mask {list(mask.shape)} at index {offset} does not match the "
                f"shape of the indexed tensor {list(out.shape)} at index {axis + offset}"
            )


def _slice(input: Tensor, axis: int, item: slice) -> Tensor:
    if item.start is None and item.stop is None and item.step is None:
        return input
    extent = input.shape[axis]
    start, stop, step = slice_bounds(item, extent)
    if step <= 0:
        raise ValueError("step must be greater than zero; use flip() to reverse")
    if step == 1 and same_size(start, 0) and same_size(stop, extent):
        return input
    return cut(input, axis, start, max(start, stop), step)
