"""Order: sorting, the largest, the k-th, the middle, the most frequent; search in sorted lines.

NaN is larger than every number.  Everything stands on two primitives,
``argsort`` and ``searchsorted``; values are gathered at positions, so that the
gradient goes to the element that was chosen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphflow.checks import need_int, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, full
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.creation import as_tensor, iota, zeros
from graphflow.functions.elementwise import (
    clamp,
    div,
    eq,
    gt,
    isnan,
    logical_and,
    logical_not,
    logical_or,
    ne,
    sub,
    where,
)
from graphflow.functions.reductions import (
    ValuesAndIndices,
    chosen,
    normal_dim,
    reduce,
    sum,
)
from graphflow.functions.shaping import cat, narrow, reshape, squeeze, stack
from graphflow.ir import types as T
from graphflow.keywords import numpy_names
from graphflow.promotion import as_operand, cast, operands

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "argsort", "bucketize", "isin", "kthvalue", "median", "msort", "nanmedian", "nonzero_static",
    "searchsorted", "sort", "topk",
]  # fmt: skip
METHODS = """
argsort kthvalue median msort nanmedian nonzero_static sort topk
""".split()

# ---- sorting -------------------------------------------------------------------------


def order(
    name: str, input: Tensor, axis: int, descending: bool, count: int | None = None
) -> Tensor:
    """The stable order of the elements along ``axis``, as positions (the first ``count``)."""
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: complex numbers have no order")
    few = {} if count is None else {"count": count}
    return apply("argsort", input.detach(), axis=axis, descending=bool(descending), **few)


@numpy_names
def sort(
    input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False
) -> ValuesAndIndices:
    """The elements in order along ``dim``, and where they were.  Always stable."""
    need_tensor("sort", input)
    axis = normal_dim(dim, input.ndim)
    if input.ndim == 0:
        return _alone(input)
    return chosen(input, order("sort", input, axis, descending), axis)


def _alone(input: Tensor) -> ValuesAndIndices:
    """What a choice among one element, a 0-d tensor, yields."""
    return ValuesAndIndices(apply("copy", input), zeros((), dtype=T.int64))


@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that would sort ``input`` along ``dim``.  Always stable."""
    need_tensor("argsort", input)
    axis = normal_dim(dim, input.ndim)
    if input.ndim == 0:
        return zeros((), dtype=T.int64)
    return order("argsort", input, axis, descending)


def msort(input: Tensor) -> Tensor:
    """The elements in ascending order along the first dimension."""
    need_tensor("msort", input)
    return sort(input, 0).values


@numpy_names
def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesAndIndices:
    """The ``k`` largest (or smallest) elements along ``dim`` in order, and their indices."""
    need_tensor("topk", input)
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis] if input.ndim else 1
    if not 0 <= need_int("topk: k", k) <= extent:
        raise ShapeError(f"topk: {k} elements of a dimension of {extent}")
    if input.ndim == 0:
        return _alone(input) if k else _nothing(input)
    return chosen(input, order("topk", input, axis, largest, k), axis)


def _nothing(input: Tensor) -> ValuesAndIndices:
    return ValuesAndIndices(zeros((0,), dtype=input.dtype), zeros((0,), dtype=T.int64))


@numpy_names
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> ValuesAndIndices:
    """The ``k``-th smallest element along ``dim`` (from 1), and its index."""
    need_tensor("kthvalue", input)
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis] if input.ndim else 1
    if not 1 <= need_int("kthvalue: k", k) <= extent:
        raise ShapeError(f"kthvalue: there is no {k}th among {extent} elements")
    if input.ndim == 0:
        return _alone(input)
    found = narrow(order("kthvalue", input, axis, False, k), axis, k - 1, 1)
    return chosen(input, apply("copy", found), axis, keepdim)


# ---- the middle, the most frequent ---------------------------------------------------


@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element, the lower of two; NaN if there is one.

    With ``dim`` (values, indices); without, the middle of all elements, whose
    gradient all elements equal to it share evenly.
    """
    return _middle("median", input, dim, keepdim, ignore_nan=False)


@numpy_names
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """:func:`median` of the elements that are not NaN (NaN if there are none)."""
    return _middle("nanmedian", input, dim, keepdim, ignore_nan=True)


def _middle(name: str, input: Tensor, dim: int | None, keepdim: bool, ignore_nan: bool) -> Any:
    need_tensor(name, input)
    if dim is None:
        return _middle_of_all(name, input, ignore_nan)
    axis = normal_dim(dim, input.ndim)
    if input.ndim == 0:
        return _alone(input)
    return chosen(input, _middle_index(name, input, axis, ignore_nan), axis, keepdim)


def _middle_index(name: str, input: Tensor, axis: int, ignore_nan: bool) -> Tensor:
    """The index of the median along ``axis``, which has extent 1."""
    extent = input.shape[axis]
    if extent == 0:
        raise IndexError(f"{name}: dimension {axis} holds no elements to choose from")
    found = order(name, input, axis, False)
    if not input.dtype.is_floating_point:
        return apply("copy", narrow(found, axis, (extent - 1) // 2, 1))
    missing = sum(isnan(input.detach()), axis, keepdim=True)
    known = sub(extent, missing)
    middle = apply("floor_divide", sub(known, 1), as_operand(2, T.int64))
    if ignore_nan:
        place = clamp(middle, min=0)
    else:
        place = where(gt(missing, 0), known, as_operand((extent - 1) // 2, T.int64))
    return apply("gather", found, place, axis=axis)


def _middle_of_all(name: str, input: Tensor, ignore_nan: bool) -> Tensor:
    flat = input.reshape(-1)
    if not flat.shape[0]:
        if not input.dtype.is_floating_point:
            raise GraphFlowError(f"{name}: there is no element to choose from")
        return div(sum(flat), 0.0)
    place = _middle_index(name, flat, 0, ignore_nan)
    value = apply("gather", flat.detach(), place, axis=0)
    if not input.dtype.is_floating_point:
        return squeeze(value, 0)
    same = logical_or(eq(flat, value), logical_and(isnan(flat), isnan(value)))
    return reduce("reduce_max", where(same, flat, float("-inf")), 0, False)


@beside_operands
def most_frequent(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesAndIndices:
    """``mode``: runs of equal elements in the sorted line; the end of the first longest."""
    need_tensor("mode", input)
    axis = normal_dim(dim, input.ndim)
    if input.ndim == 0:
        return _alone(input)
    extent = input.shape[axis]
    if extent == 0:
        raise IndexError(f"mode: dimension {axis} holds no elements to choose from")
    source = input.detach()
    found = order("mode", source, axis, False)
    line = apply("gather", source, found, axis=axis)
    places = iota(tuple(line.shape), axis, T.int64)
    before = apply("gather", line, clamp(sub(places, 1), min=0), axis=axis)
    begins = logical_or(eq(places, 0), ne(line, before))
    start = where(begins, places, as_operand(0, T.int64))
    start = apply("gather", start, apply("cumargmax", start, axis=axis), axis=axis)
    best = apply("argmax", sub(places, start), axis=axis).unsqueeze(axis)
    return chosen(input, apply("gather", found, best, axis=axis), axis, keepdim)


# ---- search --------------------------------------------------------------------------


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each value would go in the sorted last dimension: before its equals, or with
    ``right`` (``side="right"``) after them.  ``sorter`` sorts ``sorted_sequence``."""
    need_tensor("searchsorted", sorted_sequence, "sorted_sequence")
    if side not in (None, "left", "right"):
        raise ValueError(f"searchsorted: side must be 'left' or 'right', not {side!r}")
    if side == "left" and right:
        raise ValueError("searchsorted: side='left' contradicts right=True")
    line = sorted_sequence
    if line.ndim == 0:
        raise ShapeError("searchsorted: sorted_sequence must have at least one dimension")
    if sorter is not None:
        need_tensor("searchsorted", sorter, "sorter")
        if sorter.dtype is not T.int64 or tuple(sorter.shape) != tuple(line.shape):
            raise ShapeError(
                "searchsorted: sorter must be int64 of the shape of sorted_sequence, "
                f"{list(line.shape)}, not {sorter.dtype.name} of shape {list(sorter.shape)}"
            )
        line = apply("gather", line, sorter, axis=line.ndim - 1)
    return _search("searchsorted", line, input, right or side == "right", out_int32)


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The bucket each value falls in, between the sorted ``boundaries``."""
    need_tensor("bucketize", boundaries, "boundaries")
    if boundaries.ndim != 1:
        raise ShapeError(
            f"bucketize: boundaries must have one dimension, not shape {list(boundaries.shape)}"
        )
    return _search("bucketize", boundaries, input, right, out_int32)


def _search(name: str, line: Tensor, values: Any, right: bool, out_int32: bool) -> Tensor:
    from graphflow.tensor import Tensor

    if isinstance(values, Tensor):
        if values.dtype is not line.dtype:
            raise DTypeError(
                f"{name}: the values are {values.dtype.name}, the sorted ones {line.dtype.name}; "
                "cast one of them"
            )
        wanted = values
    else:
        if line.ndim != 1:
            raise ShapeError(f"{name}: a number is looked up in one sorted dimension, not several")
        line, wanted = operands([line, as_tensor(values)])
    found = apply("searchsorted", line.detach(), wanted.detach(), right=bool(right))
    return cast(found, T.int32) if out_int32 else found


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each of ``elements`` is among ``test_elements``."""
    from graphflow.tensor import Tensor

    if not isinstance(elements, Tensor) and not isinstance(test_elements, Tensor):
        raise TypeError("isin takes at least one tensor")
    values, known = operands([elements, test_elements])
    flat = known.reshape(-1)
    if flat.shape[0] == 0:
        found = zeros(tuple(values.shape), dtype=T.bool_)
    else:
        line = sort(flat.detach(), 0).values
        # NaN, at the end, would mislead the bisection; nothing equals it anyway.
        known = line if not line.dtype.is_floating_point else where(isnan(line), math.inf, line)
        place = apply("searchsorted", known, values.detach(), right=False)
        last = as_operand(flat.shape[0] - 1, T.int64)
        nearest = apply("take", line, apply("minimum", place, last), axis=0)
        found = eq(nearest, values)
    return logical_not(found) if invert else found


@beside_operands
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first ``size`` rows of ``nonzero``; rows of ``fill_value`` where there are fewer.

    The shape does not depend on values, so compiled code has it, too.
    """
    count = need_int("nonzero_static: size", size, 0)
    flat = reshape(ne(need_tensor("nonzero_static", input), 0), -1)
    order = narrow(argsort(logical_not(flat), stable=True), 0, 0, min(count, flat.numel()))
    shape = (order.numel(), input.ndim)
    from graphflow.functions.repeating import unravel_index  # sorting is common, this is not

    places = stack(unravel_index(order, input.shape), -1) if input.ndim else zeros(shape)
    real = iota((shape[0], 1), 0, T.int64) < sum(flat)
    found = where(real, cast(places, T.int64), fill_value)
    return cat([found, full((count - shape[0], input.ndim), fill_value, T.int64)], 0)
