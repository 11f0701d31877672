"""Look-ups in a table: ``embedding`` and sums, means and maxima of bags of them."""

from __future__ import annotations

import warnings
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.checks import need_index, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply
from graphflow.errors import IndexRangeError, ShapeError
from graphflow.functions.creation import iota, ones_like, zeros
from graphflow.functions.elementwise import (
    abs,
    add,
    clamp,
    div,
    eq,
    logical_and,
    logical_not,
    mul,
    ne,
    pow,
    sub,
    where,
)
from graphflow.functions.reductions import amax, argmax, sum
from graphflow.functions.shaping import expand, squeeze, unsqueeze
from graphflow.functions.sorting import searchsorted
from graphflow.ir import types as T
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = ["embedding", "embedding_bag"]


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """The rows of ``weight`` [K, D] that ``input`` [...] names: [..., D].

    The row ``padding_idx`` gets no gradient; rows looked up whose norm is above
    ``max_norm`` are first shortened to it, in ``weight`` itself;
    ``scale_grad_by_freq`` divides a row's gradient by how often it was looked up.
    """
    index = _checked("embedding", input, weight, sparse)
    pad = _padding("embedding", weight, padding_idx)
    if max_norm is not None:
        _shorten(weight, index, max_norm, norm_type)
    rows = _rows("embedding", weight, index)
    return _graded(rows, index, weight, pad, scale_grad_by_freq)


def _rows(name: str, weight: Tensor, index: Tensor) -> Tensor:
    """The rows of ``weight`` that ``index`` names."""
    try:
        return apply("take", weight, index, axis=0)
    except IndexRangeError as error:
        last = weight.shape[0] - 1
        raise IndexRangeError(
            f"{name}: the input names a row that the table does not have: {error} (rows are 0 to "
            f"{last}; num_embeddings is {last + 1})"
        ) from None


def _checked(name: str, input: Tensor, weight: Tensor, sparse: bool) -> Tensor:
    """The positions, as int64."""
    need_index(name, need_tensor(name, input))
    if need_tensor(name, weight, "weight").ndim != 2:
        raise ShapeError(f"{name}: weight must have 2 dimensions, got {list(weight.shape)}")
    if sparse:
        warnings.warn(f"{name}: gradients are dense here; sparse=True is ignored", stacklevel=3)
    return cast(input, T.int64)


def _padding(name: str, weight: Tensor, padding_idx: int | None) -> int | None:
    if padding_idx is None:
        return None
    rows = weight.shape[0]
    if not -rows <= padding_idx < rows:
        raise ValueError(f"{name}: padding_idx must be within the {rows} rows, not {padding_idx}")
    return padding_idx % rows


@beside_operands
def _counts(index: Tensor, rows: int) -> Tensor:
    """How often every row is looked up."""
    flat = index.reshape(-1)
    return apply("scatter_add", zeros(rows, dtype=T.int64), flat, ones_like(flat), axis=0)


def _graded(
    rows: Tensor, index: Tensor, weight: Tensor, pad: int | None, by_frequency: bool
) -> Tensor:
    """``rows``, with the gradient stopped at padding and scaled by frequency."""
    if by_frequency:
        often = cast(_counts(index, weight.shape[0]), weight.dtype)
        share = unsqueeze(div(1.0, apply("take", often, index, axis=0)), -1)
        held = rows.detach()
        rows = add(held, mul(sub(rows, held), share))
    if pad is not None:
        rows = where(unsqueeze(eq(index, pad), -1), rows.detach(), rows)
    return rows


def _shorten(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows looked up down to ``max_norm``, in place."""
    with no_grad():
        if norm_type == float("inf"):
            length = amax(abs(weight), 1)
        else:
            length = pow(sum(pow(abs(weight), norm_type), 1), 1.0 / norm_type)
        long = logical_and(length > max_norm, _counts(index, weight.shape[0]) > 0)
        # PyTorch's guard against division by 0.
        factor = where(long, div(max_norm, add(length, 1e-7)), 1.0)
        weight.copy_(mul(weight, unsqueeze(factor, 1)))


@beside_operands
def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean",
    sparse: bool = False, per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """Sums, means or maxima of the rows of ``weight`` that each bag names: [B, D].

    input [B, N]: B bags of N; input [N]: bag b starts at ``offsets[b]``
    (``include_last_offset``: the last offset is where the last bag ends).
    ``per_sample_weights`` scale the rows (mode "sum" only); ``padding_idx`` is
    left out; an empty bag is 0.
    """
    index = _checked("embedding_bag", input, weight, sparse)
    pad = _padding("embedding_bag", weight, padding_idx)
    _check_bags(input, offsets, mode, per_sample_weights)
    if max_norm is not None:
        _shorten(weight, index, max_norm, norm_type)
    rows = _graded(_rows("embedding_bag", weight, index), index, weight, pad, scale_grad_by_freq)
    used = None if pad is None else ne(index, pad)
    if per_sample_weights is not None:
        rows = mul(rows, unsqueeze(per_sample_weights, -1))
    if offsets is None:
        return _even_bags(rows, used, mode)
    return _uneven_bags(rows, used, mode, cast(offsets, T.int64), include_last_offset)


def _check_bags(
    input: Tensor, offsets: Tensor | None, mode: str, per_sample_weights: Tensor | None
) -> None:
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode must be sum, mean or max, not {mode!r}")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError("embedding_bag: per_sample_weights need mode='sum'")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError(
            f"embedding_bag: per_sample_weights of shape {list(per_sample_weights.shape)} must "
            f"have the input's shape {list(input.shape)}"
        )
    if input.ndim not in (1, 2) or (input.ndim == 2) != (offsets is None):
        raise ValueError(
            f"embedding_bag: an input of {input.ndim} dimensions; it needs 2 without offsets, "
            "or 1 with them"
        )
    if offsets is not None and offsets.ndim != 1:
        raise ValueError(f"embedding_bag: offsets must have 1 dimension, got {offsets.ndim}")


def _even_bags(rows: Tensor, used: Tensor | None, mode: str) -> Tensor:
    """rows [B, N, D]."""
    bags, size, width = rows.shape
    if not size:
        return zeros(bags, width, dtype=rows.dtype)
    if mode == "max":
        return _largest(rows, used)
    total = sum(rows if used is None else where(unsqueeze(used, -1), rows, 0.0), 1)
    if mode == "sum":
        return total
    return div(total, size) if used is None else _divided(total, sum(cast(used, T.int64), 1))


def _divided(total: Tensor, number: Tensor) -> Tensor:
    """Means of bags; an empty one is 0."""
    return div(total, unsqueeze(cast(clamp(number, min=1), total.dtype), -1))


def _largest(rows: Tensor, member: Tensor | None) -> Tensor:
    """The largest of every column among the members of a bag; the first of equals counts.

    rows [B or 1, N, D], member [B, N] (none: all are).
    """
    if member is None:
        return _picked(rows, argmax(rows, 1, True))
    shape = (member.shape[0], *rows.shape[1:])
    inside = expand(unsqueeze(member, -1), shape)
    spread = expand(rows, shape)
    best = argmax(where(inside, spread, float("-inf")), 1, True)
    empty = logical_not(cast(amax(cast(member, T.uint8), 1), T.bool_))
    return where(unsqueeze(empty, -1), 0.0, _picked(spread, best))


def _picked(rows: Tensor, best: Tensor) -> Tensor:
    """The elements of rows [B, N, D] at positions best [B, 1, D]: [B, D]."""
    return squeeze(apply("gather", rows, best, axis=1), 1)


def _uneven_bags(
    rows: Tensor, used: Tensor | None, mode: str, offsets: Tensor, last: bool
) -> Tensor:
    """rows [N, D]; a row belongs to the last bag that starts at or before it."""
    number, width = rows.shape
    bags = offsets.shape[0] - (1 if last else 0)
    if not number or not bags:
        return add(zeros(bags, width, dtype=rows.dtype), mul(sum(rows), 0.0))
    places = iota((number,), 0, T.int64)
    bag = sub(searchsorted(offsets[:bags], places, right=True), 1)
    taken = bag >= 0 if used is None else logical_and(used, bag >= 0)
    if last:
        taken = logical_and(taken, places < offsets[bags])
    bag = clamp(bag, min=0)
    if mode == "max":
        member = logical_and(eq(unsqueeze(bag, 0), iota((bags, number), 0, T.int64)), taken)
        return _largest(unsqueeze(rows, 0), member)
    kept = where(unsqueeze(taken, 1), rows, 0.0)
    column = expand(unsqueeze(bag, 1), (number, width))
    base: Any = zeros(bags, width, dtype=rows.dtype)
    total = apply("scatter_add", base, column, kept, axis=0)
    if mode == "sum":
        return total
    count = apply("scatter_add", zeros(bags, dtype=T.int64), bag, cast(taken, T.int64), axis=0)
    return _divided(total, count)
