"""Statistics: moments together, covariance, quantiles, histograms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphflow.checks import need_floating, need_int, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, GraphFlowError, ShapeError, TraceError
from graphflow.functions.creation import as_tensor, iota, zeros
from graphflow.functions.elementwise import (
    add,
    clamp,
    div,
    eq,
    floor,
    gt,
    isnan,
    le,
    logical_and,
    lt,
    mul,
    sub,
    where,
)
from graphflow.functions.products import matmul
from graphflow.functions.reductions import (
    amax,
    amin,
    like,
    moments,
    normal_dim,
    root,
    sum,
)
from graphflow.functions.shaping import movedim, narrow
from graphflow.functions.sorting import sort
from graphflow.ir import types as T
from graphflow.keywords import numpy_names
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast
from graphflow.records import NamedTuple

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "bincount", "corrcoef", "cov", "histc", "histogram", "nanquantile", "quantile", "std_mean",
    "var_mean",
]  # fmt: skip
METHODS = ["bincount", "corrcoef", "cov", "histc", "histogram", "nanquantile", "quantile"]


class Histogram(NamedTuple):
    """What ``histogram`` returns."""

    hist: Tensor
    bin_edges: Tensor


# ---- moments -------------------------------------------------------------------------


@numpy_names
def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Variance and mean."""
    variance, centre = moments("var_mean", input, dim, unbiased, keepdim, correction)
    return like(variance, input), like(centre, input)


@numpy_names
def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean."""
    variance, centre = moments("std_mean", input, dim, unbiased, keepdim, correction)
    return like(root(variance), input), like(centre, input)


def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """The covariance of the variables in the rows of a matrix, observations in its columns.

    ``fweights`` says how often each observation counts, ``aweights`` how much.
    """
    need_tensor("cov", input)
    if input.ndim > 2:
        raise ShapeError(f"cov takes at most 2 dimensions, not {list(input.shape)}")
    if input.dtype is T.bool_:
        raise DTypeError("cov does not take bool tensors")
    rows = input.reshape(1, -1) if input.ndim < 2 else input
    number = rows.shape[1]
    weights = _weights(rows, number, fweights, aweights)
    if weights is None:
        centre = div(sum(rows, 1, keepdim=True), number)
        norm: Any = max(number - correction, 0)
        centred = sub(rows, centre)
        scaled = centred
    else:
        total = sum(weights)
        centre = div(sum(mul(rows, weights), 1, keepdim=True), total)
        off: Any = correction
        if aweights is not None and correction:
            off = div(mul(sum(mul(weights, aweights)), correction), total)
        norm = clamp(sub(total, off), min=0)
        centred = sub(rows, centre)
        scaled = mul(centred, weights)
    turned = scaled.transpose(0, 1)
    if turned.dtype.is_complex:
        turned = apply("conj", turned)
    product = div(matmul(centred, turned), norm)
    return product.reshape(()) if rows.shape[0] == 1 else product


def _weights(
    rows: Tensor, number: int, fweights: Tensor | None, aweights: Tensor | None
) -> Tensor | None:
    """The weight of every observation, None if all are 1."""
    found = None
    for name, weights, whole in (("fweights", fweights, True), ("aweights", aweights, False)):
        if weights is None:
            continue
        need_tensor("cov", weights, name)
        if weights.ndim > 1 or weights.numel() != number:
            raise ShapeError(
                f"cov: {name} must be a vector of {number}, not of shape {list(weights.shape)}"
            )
        if whole is not (weights.dtype.kind in ("int", "uint")):
            kind = "integers" if whole else "floating-point numbers"
            raise DTypeError(f"cov: {name} must be {kind}, not {weights.dtype.name}")
        if mode.tracer is None and weights.numel() and bool(amin(weights) < 0):
            raise ValueError(f"cov: {name} must not be negative")
        found = weights if found is None else mul(found, weights)
    return found


@beside_operands
def corrcoef(input: Tensor) -> Tensor:
    """Pearson's correlation of the variables in the rows of a matrix, within -1 … 1."""
    need_tensor("corrcoef", input)
    if input.ndim > 2:
        raise ShapeError(f"corrcoef takes at most 2 dimensions, not {list(input.shape)}")
    found = cov(input)
    if found.ndim == 0:
        return div(found, found)
    extent = found.shape[0]
    diagonal = eq(iota((extent, extent), 0, T.int64), iota((extent, extent), 1, T.int64))
    variances = sum(where(diagonal, found, 0), 1)
    if variances.dtype.is_complex:
        variances = variances.real
    spread = variances.sqrt()
    scaled = div(div(found, spread.unsqueeze(1)), spread.unsqueeze(0))
    return scaled if scaled.dtype.is_complex else clamp(scaled, -1, 1)


# ---- quantiles -----------------------------------------------------------------------

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


@numpy_names
def quantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The values below which the fractions ``q`` of the elements lie; NaN if there is one.

    A vector ``q`` puts a dimension for its entries first.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, ignore_nan=False)


@numpy_names
def nanquantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """:func:`quantile` of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, ignore_nan=True)


def _quantile(
    name: str,
    input: Tensor,
    q: Any,
    dim: int | None,
    keepdim: bool,
    interpolation: str,
    ignore_nan: bool,
) -> Tensor:
    fractions = _fractions(name, input, q, interpolation)
    axis = 0 if dim is None else normal_dim(dim, input.ndim)
    source = input.reshape(-1) if dim is None or input.ndim == 0 else input
    if not source.shape[axis]:
        raise GraphFlowError(f"{name}: there is no element to choose from")
    line = movedim(sort(source, axis).values, axis, -1)
    ranks = _ranks(line, fractions.reshape(-1), ignore_nan)
    found = _between(line, ranks, interpolation)
    # The entries of q come first, the dimension itself goes or has extent 1.
    out = movedim(found, -1, 0)
    if keepdim:
        ones = (1,) * input.ndim if dim is None else None
        out = out.reshape((out.shape[0], *ones)) if ones is not None else out.unsqueeze(axis + 1)
        if input.ndim == 0:
            out = out.reshape(-1)
    return out if fractions.ndim else out.squeeze(0)


def _fractions(name: str, input: Tensor, q: Any, interpolation: str) -> Tensor:
    from graphflow.tensor import Tensor

    need_tensor(name, input)
    if input.dtype not in (T.float32, T.float64):
        raise DTypeError(f"{name} takes float32 or float64, not {input.dtype.name}")
    if interpolation not in _INTERPOLATIONS:
        known = ", ".join(_INTERPOLATIONS)
        raise ValueError(f"{name}: interpolation must be one of {known}, not {interpolation!r}")
    if isinstance(q, Tensor):
        if q.ndim > 1:
            raise ShapeError(f"{name}: q must be a number or a vector, not {list(q.shape)}")
        if q.dtype is not input.dtype:
            raise DTypeError(f"{name}: q is {q.dtype.name}, the input {input.dtype.name}")
        if mode.tracer is None and q.numel() and not (0 <= float(q.min()) <= float(q.max()) <= 1):
            raise ValueError(f"{name}: every q must be in 0 … 1")
        return q
    if not 0 <= q <= 1:
        raise ValueError(f"{name}: q must be in 0 … 1, not {q}")
    return as_tensor(float(q), dtype=input.dtype)


def _ranks(line: Tensor, fractions: Tensor, ignore_nan: bool) -> Tensor:
    """Where in the sorted last dimension each fraction falls, a number with a fraction."""
    missing = sum(isnan(line.detach()), -1, keepdim=True)
    last = line.shape[-1] - 1
    if ignore_nan:
        known = clamp(sub(last, missing), min=0)
        return mul(fractions, cast(known, line.dtype))
    ranks = mul(fractions, float(last))
    return where(gt(missing, 0), as_operand(float(last), line.dtype), ranks)


def _between(line: Tensor, ranks: Tensor, interpolation: str) -> Tensor:
    """The elements at ``ranks``, or what lies between two."""
    shape = (*line.shape[:-1], ranks.shape[-1])
    ranks = ranks.expand(shape) if tuple(ranks.shape) != shape else ranks
    axis = line.ndim - 1

    def at(places: Tensor) -> Tensor:
        return apply("gather", line, cast(places, T.int64), axis=axis)

    rounded = {"lower": "floor", "higher": "ceil", "nearest": "round"}.get(interpolation)
    if rounded is not None:
        return at(apply(rounded, ranks.detach()))
    below = floor(ranks.detach())
    weight = sub(ranks, below)
    low, high = at(below), at(apply("ceil", ranks.detach()))
    if interpolation == "midpoint":
        weight = as_operand(0.5, line.dtype)
    step = sub(high, low)
    return where(
        lt(weight, 0.5),
        add(low, mul(step, weight)),
        sub(high, mul(step, sub(1, weight))),
    )


# ---- histograms ----------------------------------------------------------------------


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall in each of ``bins`` equal bins from ``min`` to ``max``.

    Equal bounds stand for the smallest and the largest element.  The last bin
    includes its upper end; what lies outside, and NaN, does not count.
    """
    need_tensor("histc", input)
    need_floating("histc", input)
    need_int("histc: bins", bins, 1)
    low, high = _bounds("histc", input, 1.0, min, max)
    source = input.detach().reshape(-1)
    width = sub(high, low)
    place = floor(div(mul(sub(source, low), bins), width))
    place = where(eq(source, high), as_operand(bins - 1, source.dtype), place)
    inside = logical_and(le(low, source), le(source, high))
    return _counted(place, inside, None, bins, source.dtype)


def _bounds(name: str, input: Tensor, widen: float, low: Any, high: Any) -> tuple[Any, Any]:
    """The range of a histogram: given, or from the data; one of width 0 is widened."""
    low, high = float(low), float(high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: the range must be finite, not {low} … {high}")
    if low > high:
        raise ValueError(f"{name}: max must be larger than min, not {high} < {low}")
    if low < high:
        ends = as_operand(low, input.dtype), as_operand(high, input.dtype)
        return ends
    source = input.detach()
    if not input.numel():
        return as_operand(low, source.dtype), as_operand(high + 1, source.dtype)
    if low == high == 0:
        found = amin(source), amax(source)
        if mode.tracer is None and not math.isfinite(float(sub(*found))):
            raise ValueError(f"{name}: the range of the elements is not finite")
    else:
        found = as_operand(low, source.dtype), as_operand(high, source.dtype)
    none = eq(*found)
    return where(none, sub(found[0], widen), found[0]), where(none, add(found[1], widen), found[1])


@beside_operands
def _counted(place: Tensor, inside: Tensor, weight: Tensor | None, bins: int, dtype: Any) -> Tensor:
    """The weights (or ones) of the elements ``inside``, added up by ``place``."""
    index = cast(clamp(where(inside, place, 0), 0, bins - 1), T.int64)
    ones = cast(inside, dtype) if weight is None else where(inside, weight, 0)
    return apply("scatter_add", zeros((bins,), dtype=dtype), index, ones, axis=0)


def histogram(
    input: Tensor,
    bins: Any,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Histogram:
    """The elements (or their weights) counted in ``bins`` equal bins over ``range``, or
    between increasing edges ``bins``; ``density`` makes the integral 1."""
    from graphflow.tensor import Tensor

    need_tensor("histogram", input)
    need_floating("histogram", input)
    source = input.detach().reshape(-1)
    if isinstance(bins, Tensor):
        if bins.ndim != 1 or bins.shape[0] < 2:
            raise ShapeError(f"histogram: edges must be a vector of 2 or more: {list(bins.shape)}")
        if bins.dtype is not input.dtype:
            raise DTypeError(f"histogram: edges of {bins.dtype.name} for {input.dtype.name}")
        edges = bins.detach()
    else:
        number = need_int("histogram: bins", bins, 1)
        low, high = _bounds("histogram", input, 0.5, *(range or (0.0, 0.0)))
        edges = _edges(low, high, number)
    number = edges.shape[0] - 1
    flat = None if weight is None else weight.detach().reshape(-1)
    if flat is not None and flat.shape != source.shape:
        raise ShapeError("histogram: weight must have the shape of the input")
    place = sub(apply("searchsorted", edges, source, right=True), 1)
    first, last = narrow(edges, 0, 0, 1), narrow(edges, 0, number, 1)
    place = where(eq(source, last), as_operand(number - 1, T.int64), place)
    inside = logical_and(le(first, source), le(source, last))
    hist = _counted(place, inside, flat, number, source.dtype)
    if density:
        widths = sub(narrow(edges, 0, 1, number), narrow(edges, 0, 0, number))
        hist = div(div(hist, sum(hist)), widths)
    return Histogram(hist, edges)


@beside_operands
def _edges(low: Tensor, high: Tensor, number: int) -> Tensor:
    """``number + 1`` even steps from ``low`` to ``high``, exact at both ends."""
    step = div(sub(high, low), number)
    places = cast(iota((number + 1,), 0, T.int64), low.dtype)
    return where(
        lt(places, (number + 1) // 2),
        add(low, mul(places, step)),
        sub(high, mul(sub(number, places), step)),
    )


@beside_operands
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each whole number occurs (or the sum of its weights).

    The result has an entry up to the largest number, so its size is only known
    outside compiled functions.
    """
    need_tensor("bincount", input)
    if input.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"bincount takes integers, not {input.dtype.name}")
    if input.ndim != 1:
        raise ShapeError(f"bincount takes a vector, not a tensor of shape {list(input.shape)}")
    least = need_int("bincount: minlength", minlength, 0)
    if weights is not None and weights.shape != input.shape:
        raise ShapeError("bincount: weights must have the shape of the input")
    if mode.tracer is not None:
        raise TraceError(
            "bincount: the size of the result depends on values, which a compiled function "
            "does not know; use scatter_add into zeros of a known size"
        )
    bins = least
    if input.numel():
        if int(input.min()) < 0:
            raise ValueError("bincount takes numbers from 0 up only")
        bins = max(least, int(input.max()) + 1)
    index = cast(input, T.int64)
    if weights is None:
        source = cast(eq(index, index), T.int64)
    else:
        source = weights if weights.dtype is T.float32 else cast(weights, T.float64)
    if not bins:
        return zeros((0,), dtype=source.dtype)
    return apply("scatter_add", zeros((bins,), dtype=source.dtype), index, source, axis=0)
