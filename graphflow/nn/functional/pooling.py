"""Pooling: the largest, the mean or a norm of every window, and what undoes it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import numpy as np

from graphflow.checks import need_int, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, full, literal
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import abs, div, mul, pow, relu, sign, where
from graphflow.functions.reductions import mean, reduce
from graphflow.functions.shaping import reshape
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.nn.functional.pool_windows import (
    LEADING,
    Windows,
    are_apart,
    batched,
    by_tables,
    chosen,
    largest,
    lie_side_by_side,
    padded,
    read_at,
    sums_inside,
    unbatched,
    windows_of,
)
from graphflow.nn.sizes import per_dimension
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d", "adaptive_max_pool3d_with_indices", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool1d_with_indices",
    "max_pool2d", "max_pool2d_with_indices", "max_pool3d", "max_pool3d_with_indices",
    "max_unpool1d", "max_unpool2d", "max_unpool3d",
]  # fmt: skip

# ---- the largest ---------------------------------------------------------------------


def _max_pool(
    name: str, dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any,
    dilation: Any, ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    w = windows_of(name, input, kernel_size, stride, padding, dilation, ceil_mode, dims)
    x = batched(input, dims)
    recorded = mode.grad and x.requires_grad
    if recorded and not return_indices and mode.tracer is not None and are_apart(w):
        return unbatched(chosen(x, w), input, dims)  # one kernel of a program, several eagerly
    indices = return_indices or recorded
    found, index = largest(x.detach(), w, indices)
    return _with_indices(x, found, index, input, dims, return_indices)


def _with_indices(
    x: Tensor, found: Tensor, index: Tensor | None, input: Tensor, dims: int, wanted: bool
) -> Any:
    if index is None:
        return unbatched(found, input, dims)
    values = unbatched(read_at(x, found, index), input, dims)
    return (values, unbatched(cast(index, T.int64), input, dims)) if wanted else values


def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of every window of [N, C, L] or [C, L]; see :func:`max_pool2d`."""
    given = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _max_pool("max_pool1d", 1, input, *given)


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of every window of [N, C, H, W] or [C, H, W].

    Padding never wins.  With ``return_indices`` also where the first largest element
    lies in its channel, counted in row-major order; the gradient goes there.
    """
    given = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _max_pool("max_pool2d", 2, input, *given)


def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of every window of [N, C, D, H, W] or [C, D, H, W]."""
    given = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _max_pool("max_pool3d", 3, input, *given)


def max_pool1d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """:func:`max_pool1d` with indices."""
    return max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """:func:`max_pool2d` with indices."""
    return max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """:func:`max_pool3d` with indices."""
    return max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


# ---- the mean ------------------------------------------------------------------------


Total: TypeAlias = Callable[[Tensor, Windows], Tensor]
"""What the elements of every window of ``x[N, C, ...]`` add up to."""


@beside_operands
def sums(x: Tensor, w: Windows, value: Any = 0, dtype: T.DType | None = None) -> Tensor:
    """The sum of every window: where they overlap, a convolution with ones, channel by channel.

    ``value`` is what padding counts as, ``dtype`` that of the sums (else that of ``x``).
    """
    full_x = padded(x, w, value)
    if dtype is None and lie_side_by_side(w):
        return sums_inside(full_x, w)
    spatial = tuple(full_x.shape[LEADING:])
    dims, count = len(spatial), x.shape[0] * x.shape[1]
    ones = full((1, 1, 1, *w.sizes), 1, x.dtype)
    ends = [(n - 1) * s + span for n, s, span in zip(w.counts, w.steps, w.spans)]
    high = tuple(min(0, end - extent) for end, extent in zip(ends, spatial))
    out = apply(
        "conv", reshape(full_x, (count, 1, 1, *spatial)), ones, steps=w.steps, low=(0,) * dims,
        high=high, spread=(1,) * dims, dilations=(1,) * dims,
        **({} if dtype is None else {"dtype": dtype}),
    )  # fmt: skip
    return reshape(out, (*x.shape[:LEADING], *w.counts))


def _members(w: Windows, padding_counts: bool) -> np.ndarray[Any, Any]:
    """How many elements of every window count for its mean."""
    total: Any = np.ones((), np.int64)
    for axis, count in enumerate(w.counts):
        begin = np.arange(count) * w.steps[axis] - w.edges[axis]
        edge = w.edges[axis] if padding_counts else 0
        end = np.minimum(begin + w.sizes[axis], w.extents[axis] + edge)
        total = np.multiply.outer(total, end - np.maximum(begin, -edge))
    return np.asarray(total)


@beside_operands
def average(
    name: str, dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any,
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None = None,
    total: Total = sums,
) -> Tensor:  # fmt: skip
    """The mean of every window, by the sums that ``total`` finds; see :func:`avg_pool2d`."""
    w = windows_of(name, input, kernel_size, stride, padding, 1, ceil_mode, dims)
    if divisor_override == 0:
        raise ValueError(f"{name}: divisor_override must not be 0")
    found = total(batched(input, dims), w)
    divisor: Any = divisor_override
    if divisor is None and not ceil_mode and not any(w.edges):
        divisor = prod(w.sizes)
    elif divisor is None:
        members = _members(w, count_include_pad)
        same = members.size and (members == members.flat[0]).all()
        divisor = int(members.flat[0]) if same else literal(members.astype(found.dtype.numpy))
    rounding = None if found.dtype.is_floating_point else "trunc"
    return unbatched(div(found, divisor, rounding_mode=rounding), input, dims)


def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of every window of [N, C, L] or [C, L]; see :func:`avg_pool2d`."""
    given = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    return average("avg_pool1d", 1, input, *given)


def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of every window of [N, C, H, W] or [C, H, W].

    Zeros of the padding count unless ``count_include_pad`` is false;
    ``divisor_override`` replaces the number of elements.
    """
    given = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return average("avg_pool2d", 2, input, *given)


def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of every window of [N, C, D, H, W] or [C, D, H, W]; see :func:`avg_pool2d`."""
    given = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return average("avg_pool3d", 3, input, *given)


# ---- norms ---------------------------------------------------------------------------


def _lp_pool(
    name: str, dims: int, input: Tensor, norm_type: Any, kernel_size: Any, stride: Any,
    ceil_mode: bool,
) -> Tensor:  # fmt: skip
    sizes = per_dimension(name, "kernel_size", kernel_size, dims, 1)
    powers = pow(input, norm_type)
    means = average(name, dims, powers, kernel_size, stride, 0, ceil_mode, True)
    positive = mul(sign(means), relu(abs(means)))
    return pow(mul(positive, prod(sizes)), 1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x ** norm_type) ** (1 / norm_type)`` of every window of [N, C, L] or [C, L]."""
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The norm of every window of [N, C, H, W] or [C, H, W]; see :func:`lp_pool1d`."""
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The norm of every window of [N, C, D, H, W] or [C, D, H, W]; see :func:`lp_pool1d`."""
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


# ---- a given number of windows -------------------------------------------------------


def wanted_counts(name: str, dims: int, input: Tensor, output_size: Any) -> tuple[int, ...]:
    shape = need_tensor(name, input).shape
    if len(shape) not in (dims + 1, dims + LEADING):
        raise ShapeError(
            f"{name} takes an input of {dims + 1} (unbatched) or {dims + LEADING} dimensions, "
            f"not one of shape {list(shape)}"
        )
    if 0 in shape[-dims - 1 :]:
        raise ShapeError(f"{name}: an input of shape {list(shape)} has nothing to pool")
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * dims
    if len(given) != dims:
        raise ShapeError(f"{name}: output_size must be one number or {dims}, not {output_size!r}")
    return tuple(
        n if size is None else need_int(f"{name}: output_size", size, 0)
        for n, size in zip(shape[-dims:], given)
    )


def _spans(extent: int, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where each of ``count`` windows over ``extent`` elements begins and ends."""
    numbers = np.arange(count)
    return numbers * extent // count, -(-(numbers + 1) * extent // count)


def even_windows(extents: Any, counts: tuple[int, ...]) -> Windows | None:
    """Windows of one size that do not overlap, where the numbers work out so."""
    if any(count == 0 or extent % count for extent, count in zip(extents, counts)):
        return None
    sizes = tuple(extent // count for extent, count in zip(extents, counts))
    zeros, ones = (0,) * len(sizes), (1,) * len(sizes)
    return Windows(tuple(extents), sizes, sizes, zeros, ones, counts)


def _tables(x: Tensor, counts: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    """[windows, longest] a dimension: the elements of every window, the last one repeated."""
    found = []
    for extent, count in zip(x.shape[LEADING:], counts):
        begin, end = _spans(extent, count)
        longest = int((end - begin).max()) if count else 1
        found.append(np.minimum(begin[:, None] + np.arange(longest), end[:, None] - 1))
    return found


def adaptive_average(
    name: str, dims: int, input: Tensor, output_size: Any, total: Total | None = None
) -> Tensor:
    """The means of windows that cover all; ``total`` adds up those that are of one size."""
    counts = wanted_counts(name, dims, input, output_size)
    x = batched(input, dims)
    even = even_windows(x.shape[LEADING:], counts)
    if set(counts) == {1} and total is None:
        out = mean(x, tuple(range(LEADING, x.ndim)), keepdim=True)
    elif even is not None:
        out = div((total or sums)(x, even), prod(even.sizes))
    else:
        out = x
        for axis, table in enumerate(_tables(x, counts), start=LEADING):
            out = _means(out, axis, table)
    return unbatched(out, input, dims)


@beside_operands
def _means(x: Tensor, axis: int, table: np.ndarray[Any, Any]) -> Tensor:
    """The mean over the elements that each row of ``table`` names, repeats left out."""
    fresh = np.ones(table.shape, np.bool_)
    fresh[:, 1:] = table[:, 1:] != table[:, :-1]
    trailing = (1,) * (x.ndim - axis - 1)
    shown = apply("take", x, literal(table.astype(np.int64)), axis=axis)
    kept = where(literal(fresh.reshape(*table.shape, *trailing)), shown, 0.0)
    members = fresh.sum(1).astype(x.dtype.numpy).reshape(-1, *trailing)
    return div(reduce("reduce_sum", kept, axis + 1, False), literal(members))


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The means of ``output_size`` windows that cover [N, C, L] or [C, L] evenly."""
    return adaptive_average("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of [H, W] windows that cover [N, C, ., .] evenly; None keeps an extent."""
    return adaptive_average("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The means of [D, H, W] windows that cover [N, C, ., ., .] evenly; None keeps an extent."""
    return adaptive_average("adaptive_avg_pool3d", 3, input, output_size)


def _adaptive_max_pool(
    name: str, dims: int, input: Tensor, output_size: Any, return_indices: bool
) -> Any:
    counts = wanted_counts(name, dims, input, output_size)
    x = batched(input, dims)
    even = even_windows(x.shape[LEADING:], counts)
    indices = return_indices or (mode.grad and x.requires_grad)
    if even is not None:
        found, index = largest(x.detach(), even, indices)
    else:
        found, index = by_tables(x.detach(), _tables(x, counts), indices)
    return _with_indices(x, found, index, input, dims, return_indices)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest of ``output_size`` windows that cover [N, C, L] or [C, L] evenly."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest of [H, W] windows that cover [N, C, ., .] evenly; None keeps an extent."""
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest of [D, H, W] windows that cover [N, C, ., ., .] evenly."""
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> Any:
    """:func:`adaptive_max_pool1d` with indices."""
    return adaptive_max_pool1d(input, output_size, True)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> Any:
    """:func:`adaptive_max_pool2d` with indices."""
    return adaptive_max_pool2d(input, output_size, True)


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> Any:
    """:func:`adaptive_max_pool3d` with indices."""
    return adaptive_max_pool3d(input, output_size, True)


# ---- back to the places ---------------------------------------------------------------


@beside_operands
def _max_unpool(
    name: str, dims: int, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any,
    padding: Any, output_size: Any,
) -> Tensor:  # fmt: skip
    sizes = per_dimension(name, "kernel_size", kernel_size, dims, 1)
    steps = per_dimension(name, "stride", kernel_size if stride is None else stride, dims, 1)
    edges = per_dimension(name, "padding", padding, dims, 0)
    if need_tensor(name, input).shape != need_tensor(name, indices, "indices").shape:
        raise ShapeError(
            f"{name}: input {list(input.shape)} and indices {list(indices.shape)} must have "
            "one shape"
        )
    if input.ndim not in (dims + 1, dims + LEADING):
        raise ShapeError(f"{name} takes {dims + 1} or {dims + LEADING} dimensions")
    extents = zip(input.shape[-dims:], sizes, steps, edges)
    natural = tuple((n - 1) * s - 2 * p + k for n, k, s, p in extents)
    shape = natural if output_size is None else tuple(output_size)[-dims:]
    near = zip(shape, natural, steps)
    if len(shape) != dims or any(not n - s < got < n + s for got, n, s in near):
        raise ValueError(
            f"{name}: output_size {output_size!r} must be within a stride {list(steps)} "
            f"of {list(natural)}"
        )
    x, index = batched(input, dims), batched(indices, dims)
    rows = (*x.shape[:LEADING], -1)
    base = full((*x.shape[:LEADING], int(np.prod(shape))), 0, x.dtype)
    flat = apply("scatter", base, reshape(index, rows), reshape(x, rows), axis=LEADING)
    return unbatched(reshape(flat, (*x.shape[:LEADING], *shape)), input, dims)


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros with every element of [N, C, L] at the place its index names in the channel."""
    given = (indices, kernel_size, stride, padding, output_size)
    return _max_unpool("max_unpool1d", 1, input, *given)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros with every element of [N, C, H, W] at the place its index names in the channel."""
    given = (indices, kernel_size, stride, padding, output_size)
    return _max_unpool("max_unpool2d", 2, input, *given)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros with every element of [N, C, D, H, W] at the place its index names."""
    given = (indices, kernel_size, stride, padding, output_size)
    return _max_unpool("max_unpool3d", 3, input, *given)
