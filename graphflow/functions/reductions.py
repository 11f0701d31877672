"""Reductions: ``gf.sum``, ``gf.mean``, ``gf.max`` … over some or all dimensions.

``dim`` is a dimension, a tuple of them, or None for all; ``keepdim`` leaves
them in the result with extent 1.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

from graphflow.autocasting import in_float32
from graphflow.checks import need_dtype, need_floating, need_tensor
from graphflow.dispatch import apply, apply_view, scalar
from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.functions.elementwise import add, div, eq, exp, isnan, log, mul, sqrt, sub, where
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.keywords import numpy_names
from graphflow.mode import mode as modes
from graphflow.promotion import cast, get_default_dtype
from graphflow.records import NamedTuple

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "log_softmax",
    "logsumexp", "max", "mean", "min", "mode", "nanmean", "nansum", "prod", "softmax", "std", "sum",
    "var",
]  # fmt: skip
METHODS = """
all amax amin aminmax any argmax argmin count_nonzero log_softmax logsumexp max mean min mode
nanmean nansum prod softmax std sum sum_to_size trace var
""".split()


class ValuesAndIndices(NamedTuple):
    """What ``max(dim)`` and its kin return."""

    values: Tensor
    indices: Tensor


class Extremes(NamedTuple):
    """What ``aminmax`` returns."""

    min: Tensor
    max: Tensor


def normal_dim(dim: int, rank: int) -> int:
    """``dim`` counted from the front; IndexError as PyTorch's when out of range."""
    if not hasattr(dim, "__index__") or isinstance(dim, bool):
        raise TypeError(f"a dimension must be a whole number, not {dim!r}")
    dim, limit = int(dim), rank if rank else 1
    if not -limit <= dim < limit:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], "
            f"but got {dim})"
        )
    return dim % limit


def normal_dims(dim: Any, rank: int) -> tuple[int, ...]:
    """Sorted, distinct, non-negative dimensions; all of them for None or ()."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(rank))
    given = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    dims = tuple(sorted({normal_dim(d, rank) for d in given}))
    if len(dims) != len(given):
        raise ShapeError(f"a dimension appears twice in {given}")
    return dims if rank else ()


def reduce(op: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Primitive reduction ``op`` over ``dim``, with ``keepdim`` as a view."""
    axes = normal_dims(dim, len(input.shape))
    out = apply(op, input, axes=axes) if axes else apply("copy", input)
    return restored(out, input, axes) if keepdim and axes else out


def restored(out: Tensor, input: Tensor, axes: tuple[int, ...]) -> Tensor:
    """``out``, a reduction of ``input`` over ``axes``, with those as extents of 1."""
    kept = tuple(1 if i in axes else d for i, d in enumerate(input.shape))
    return apply_view("reshape", out, shape=kept)


def dropped(out: Tensor, axes: tuple[int, ...]) -> Tensor:
    """``out`` without its dimensions ``axes``, which have extent 1."""
    kept = tuple(d for i, d in enumerate(out.shape) if i not in axes)
    return apply_view("reshape", out, shape=kept) if axes else out


def count(input: Tensor, dim: Any) -> int:
    """How many elements are folded into one result."""
    shape, number = input.shape, 1
    for axis in normal_dims(dim, len(shape)):
        number *= shape[axis]
    return number


def wide(x: Tensor) -> Tensor:
    """Half precision in single: what several operations make is rounded once, at the end."""
    return cast(x, T.float32) if x.dtype in (T.float16, T.bfloat16) else x


def like(made: Tensor, input: Tensor) -> Tensor:
    """``made`` in half precision if ``input`` is."""
    return cast(made, input.dtype) if input.dtype in (T.float16, T.bfloat16) else made


# ---- sums and products ---------------------------------------------------------------


def _summed_as(input: Tensor, dtype: DType | None) -> Tensor:
    """``input`` in the dtype its sum has: integers and bools add up in int64."""
    dtype = need_dtype(dtype)
    whole = input.dtype.kind in ("bool", "int", "uint")
    return cast(input, dtype or (T.int64 if whole else input.dtype))


@numpy_names
@in_float32
def sum(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Sum; integers and bools add up in int64."""
    need_tensor("sum", input)
    return reduce("reduce_sum", _summed_as(input, dtype), dim, keepdim)


@numpy_names
def nansum(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Sum in which NaN counts as 0."""
    need_tensor("nansum", input)
    if input.dtype.is_complex:
        raise DTypeError(f"nansum does not take complex tensors ({input.dtype.name})")
    known = where(isnan(input), 0, input) if input.dtype.is_floating_point else input
    return sum(known, dim, keepdim, dtype=dtype)


@numpy_names
def mean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Arithmetic mean of floating-point values."""
    source = _averaged("mean", input, dtype)
    total = reduce("reduce_sum", wide(source), dim, keepdim)
    return cast(div(total, count(input, dim)), source.dtype)


@numpy_names
def nanmean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Arithmetic mean of the values that are not NaN."""
    source = _averaged("nanmean", input, dtype)
    if source.dtype.is_complex:
        raise DTypeError(f"nanmean does not take complex tensors ({source.dtype.name})")
    missing = isnan(source)
    total = reduce("reduce_sum", wide(where(missing, 0, source)), dim, keepdim)
    known = sum(missing.logical_not(), dim, keepdim)
    return cast(div(total, cast(known, total.dtype)), source.dtype)


def _averaged(name: str, input: Tensor, dtype: DType | None) -> Tensor:
    need_tensor(name, input)
    source = cast(input, need_dtype(dtype) or input.dtype)
    if not (source.dtype.is_floating_point or source.dtype.is_complex):
        raise DTypeError(f"{name} needs a floating dtype, not {source.dtype.name}; pass dtype=")
    return source


@numpy_names
@in_float32
def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Product; integers and bools multiply in int64."""
    need_tensor("prod", input)
    return reduce("reduce_prod", _summed_as(input, dtype), dim, keepdim)


@numpy_names
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are not 0."""
    need_tensor("count_nonzero", input)
    return sum(cast(cast(input, T.bool_), T.int64), dim)


# ---- extremes ------------------------------------------------------------------------


def _nonempty(name: str, input: Tensor, dim: Any) -> None:
    need_tensor(name, input)
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: complex numbers have no order")
    if count(input, dim) == 0 and input.ndim:
        raise IndexRangeError(
            f"{name}: there is no element to choose from in a tensor of shape {list(input.shape)}"
        )


@numpy_names
def amax(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Largest value; NaN if there is one.  Ties share the gradient evenly."""
    _nonempty("amax", input, dim)
    return reduce("reduce_max", input, dim, keepdim)


@numpy_names
def amin(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Smallest value; NaN if there is one.  Ties share the gradient evenly."""
    _nonempty("amin", input, dim)
    return reduce("reduce_min", input, dim, keepdim)


@numpy_names
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Extremes:
    """Smallest and largest value, as ``(min, max)``."""
    return Extremes(amin(input, dim, keepdim), amax(input, dim, keepdim))


@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first largest value (in the flattened tensor for ``dim=None``)."""
    return _arg("argmax", input, dim, keepdim)


@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first smallest value (in the flattened tensor for ``dim=None``)."""
    return _arg("argmin", input, dim, keepdim)


def _arg(op: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    _nonempty(op, input, dim)
    source = input.detach()
    if dim is None or input.ndim == 0:
        normal_dims(dim, input.ndim)
        out = apply(op, source.reshape(-1), axis=0)
        return out.reshape((1,) * input.ndim) if keepdim else out
    axis = normal_dim(dim, input.ndim)
    out = apply(op, source, axis=axis)
    return out.unsqueeze(axis) if keepdim else out


@numpy_names
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Largest value; with ``dim`` (values, indices); with a tensor the elementwise maximum."""
    return _extreme("max", amax, input, dim if other is None else other, keepdim)


@numpy_names
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Smallest value; with ``dim`` (values, indices); with a tensor the elementwise minimum."""
    return _extreme("min", amin, input, dim if other is None else other, keepdim)


def _extreme(name: str, fold: Any, input: Tensor, dim: Any, keepdim: bool) -> Any:
    from graphflow.functions import elementwise
    from graphflow.tensor import Tensor

    need_tensor(name, input)
    if isinstance(dim, Tensor):
        return getattr(elementwise, f"{name}imum")(input, dim)
    _nonempty(name, input, dim)
    if dim is None:
        return fold(input)
    arg = f"arg{name}"
    if input.ndim == 0:
        normal_dim(dim, 0)
        return ValuesAndIndices(apply("copy", input), _arg(arg, input, None, False))
    axis = normal_dim(dim, input.ndim)
    return chosen(input, _arg(arg, input, axis, True), axis, keepdim)


def chosen(input: Tensor, indices: Tensor, axis: int, keepdim: bool = True) -> ValuesAndIndices:
    """``input`` at ``indices`` along ``axis``, which has extent 1 there unless it is kept."""
    values = apply("gather", input, indices, axis=axis)
    if not keepdim:
        return ValuesAndIndices(values.squeeze(axis), indices.squeeze(axis))
    return ValuesAndIndices(values, indices)


@numpy_names
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesAndIndices:
    """The most frequent value along ``dim``, the smallest of several, and its last index."""
    from graphflow.functions.sorting import most_frequent

    return most_frequent(input, dim, keepdim)


@numpy_names
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """True where some element is not 0 (uint8 stays uint8)."""
    return _truth("any", "reduce_max", input, dim, keepdim)


@numpy_names
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """True where every element is not 0 (uint8 stays uint8)."""
    return _truth("all", "reduce_min", input, dim, keepdim)


def _truth(name: str, op: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    need_tensor(name, input)
    result = T.uint8 if input.dtype is T.uint8 else T.bool_
    bits = cast(cast(input, T.bool_), T.uint8)
    if count(input, dim) == 0:  # of no elements none is true, and all are
        bits = reduce("reduce_sum" if name == "any" else "reduce_prod", bits, dim, keepdim)
        return cast(bits, result)
    return cast(reduce(op, bits, dim, keepdim), result)


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """Summed over the dimensions that broadcasting made of ``size``."""
    given = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    wanted, shape = tuple(given), tuple(input.shape)
    lead = len(shape) - len(wanted)
    if lead < 0 or builtins.any(w not in (1, d) for w, d in zip(wanted, shape[lead:])):
        raise ShapeError(f"sum_to_size: {list(shape)} was not expanded from {list(wanted)}")
    pairs = enumerate(zip(shape[lead:], wanted), lead)
    axes = (*range(lead), *(k for k, (d, w) in pairs if w != d))
    total = apply("reduce_sum", input, axes=axes) if axes else input
    return apply_view("reshape", total, shape=wanted) if tuple(total.shape) != wanted else total


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    need_tensor("trace", input)
    if input.ndim != 2:
        raise ShapeError(f"trace takes a matrix, not a tensor of shape {list(input.shape)}")
    rows, columns = input.shape
    extent = builtins.min(rows, columns)
    # The diagonal is every (columns + 1)-th element of the rows in one line.
    flat = input.reshape(-1)
    limit = (extent - 1) * (columns + 1) + 1 if extent else 0
    part = apply("slice", flat, starts=(0,), limits=(limit,), steps=(columns + 1,))
    return sum(part, 0)


# ---- variance ------------------------------------------------------------------------


@numpy_names
def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Variance; ``correction`` (default 1) is taken off the number of elements."""
    variance = moments("var", input, dim, unbiased, keepdim, correction)[0]
    return like(variance, input)


@numpy_names
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Standard deviation: the root of :func:`var`.  Its slope where it is 0 counts as 0."""
    return like(root(moments("std", input, dim, unbiased, keepdim, correction)[0]), input)


def moments(
    name: str, input: Tensor, dim: Any, unbiased: bool, keepdim: bool, correction: float | None
) -> tuple[Tensor, Tensor]:
    """Variance and mean of ``input`` over ``dim`` (a bool stands for ``unbiased``), those of
    half precision in single."""
    need_tensor(name, input)
    need_floating(name, input)
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    off = (1 if unbiased else 0) if correction is None else correction
    axes, source = normal_dims(dim, input.ndim), wide(input)
    centre = mean(source, axes, keepdim=True)
    total = reduce("reduce_sum", squared_size(sub(source, centre)), axes, keepdim)
    number = count(input, axes) - off
    variance = div(total, number if number > 0 else 0)
    return variance, centre if keepdim else dropped(centre, axes)


def squared_size(x: Tensor) -> Tensor:
    """|x|² of real or complex numbers."""
    if not x.dtype.is_complex:
        return mul(x, x)
    size = apply("abs", x)
    return mul(size, size)


def root(x: Tensor) -> Tensor:
    """Square root whose slope at 0 counts as 0, not as infinite."""
    zero = eq(x, 0)
    return where(zero, 0.0, sqrt(where(zero, 1.0, x)))


# ---- exponentials --------------------------------------------------------------------


@numpy_names
@in_float32
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))), computed around the largest value so that it cannot overflow."""
    need_tensor("logsumexp", input)
    real = input.dtype.is_floating_point
    source = wide(input) if real else cast(input, get_default_dtype())
    axes = normal_dims(dim, input.ndim)
    if count(source, axes) == 0:
        return like(log(reduce("reduce_sum", exp(source), axes, keepdim)), input)
    largest = reduce("reduce_max", source.detach(), axes, True)
    finite = where(apply("lt", apply("abs", largest), _inf(largest)), largest, 0)
    total = reduce("reduce_sum", exp(sub(source, finite)), axes, True)
    out = like(add(log(total), finite), input)
    return out if keepdim else dropped(out, axes)


def _inf(like: Tensor) -> Tensor:
    return scalar(float("inf"), like.dtype)


def _real(name: str, input: Tensor, dtype: DType | None) -> Tensor:
    need_tensor(name, input)
    source = cast(input, need_dtype(dtype) or input.dtype)
    need_floating(name, source)
    return source


@numpy_names
@in_float32
def softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """exp(input) over its sum along ``dim``."""
    source = _real("softmax", input, dtype)
    return weights(source, dim)


def weights(input: Tensor, dim: int, or_zero: bool = False) -> Tensor:
    """Softmax of a floating tensor; ``or_zero``: 0, not NaN, where there is nothing but -inf."""
    axes = normal_dims((dim,), input.ndim)
    if not axes:  # a number is all there is
        line = apply_view("reshape", input, shape=(1,))
        return apply_view("reshape", weights(line, 0, or_zero), shape=())
    return like(apply("softmax", wide(input), axis=axes[0], or_zero=or_zero), input)


@numpy_names
@in_float32
def log_softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """log(softmax(input)), without the overflow."""
    source = _real("log_softmax", input, dtype)
    if count(source, dim) == 0:
        return apply("copy", source)
    scores = wide(source)
    axes = normal_dims((dim,), scores.ndim)
    if modes.tracer is None and axes:
        return like(apply("log_softmax", scores, axis=axes[0]), source)
    shifted = sub(scores, reduce("reduce_max", scores.detach(), dim, True))
    return like(sub(shifted, log(reduce("reduce_sum", exp(shifted), dim, True))), source)
