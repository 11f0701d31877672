"""Sums, means, norms and extremes along axes; running sums; sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.ir import types as T
from graphflow.onnx.operators.table import axes_of, gf, number, operator
from graphflow.promotion import cast
from graphflow.tensor import Tensor


def _square(x: Tensor) -> Any:
    return gf.mul(x, x)


def _largest(x: Tensor, dim: Any, keepdim: bool) -> Any:
    if x.dtype is T.bool_:
        return cast(_largest(cast(x, T.uint8), dim, keepdim), T.bool_)
    if _empty(x, dim):
        return _filled(x, dim, keepdim, "lowest")
    return gf.amax(x, dim, keepdim=keepdim)


def _smallest(x: Tensor, dim: Any, keepdim: bool) -> Any:
    if x.dtype is T.bool_:
        return cast(_smallest(cast(x, T.uint8), dim, keepdim), T.bool_)
    if _empty(x, dim):
        return _filled(x, dim, keepdim, "highest")
    return gf.amin(x, dim, keepdim=keepdim)


def _empty(x: Tensor, dim: Any) -> bool:
    return any(isinstance(x.shape[d], int) and x.shape[d] == 0 for d in dim)


def _filled(x: Tensor, dim: Any, keepdim: bool, which: str) -> Any:
    """The identity of an extreme over nothing."""
    value = float("-inf") if which == "lowest" else float("inf")
    if not x.dtype.is_floating_point:
        info = gf.iinfo(x.dtype)
        value = info.min if which == "lowest" else info.max
    axes = [d % x.ndim for d in dim]
    shape = [1 if k in axes else n for k, n in enumerate(x.shape) if keepdim or k not in axes]
    return gf.full(shape, value, dtype=x.dtype)


def _sum(x: Tensor, dim: Any, keepdim: bool) -> Any:
    return gf.sum(x, dim, keepdim=keepdim, dtype=x.dtype)


def _mean(x: Tensor, dim: Any, keepdim: bool) -> Any:
    if x.dtype.is_floating_point:
        return gf.mean(x, dim, keepdim=keepdim)
    count = 1
    for d in dim:
        count *= x.shape[d]
    return gf.div(_sum(x, dim, keepdim), count, rounding_mode="trunc").to(x.dtype)


def _product(x: Tensor, dim: Any, keepdim: bool) -> Any:
    for d in sorted((d % x.ndim for d in dim), reverse=True):
        x = gf.prod(x, d, keepdim=keepdim, dtype=x.dtype)
    return x


def _norm(x: Tensor, dim: Any, keepdim: bool) -> Any:
    if x.dtype.is_floating_point:
        return gf.sqrt(_sum(_square(x), dim, keepdim))
    return gf.sqrt(cast(_sum(_square(x), dim, keepdim), T.float64)).to(x.dtype)


def _log_sum(x: Tensor, dim: Any, keepdim: bool) -> Any:
    return gf.log(_sum(x, dim, keepdim))


def _log_sum_exp(x: Tensor, dim: Any, keepdim: bool) -> Any:
    if _empty(x, dim):
        return _filled(x, dim, keepdim, "lowest")
    return gf.logsumexp(x, dim, keepdim=keepdim)


_REDUCTIONS: dict[str, Callable[[Tensor, Any, bool], Any]] = {
    "ReduceSum": _sum, "ReduceMean": _mean, "ReduceProd": _product, "ReduceMax": _largest,
    "ReduceMin": _smallest, "ReduceL2": _norm, "ReduceLogSum": _log_sum,
    "ReduceL1": lambda x, dim, keepdim: _sum(gf.abs(x), dim, keepdim),
    "ReduceSumSquare": lambda x, dim, keepdim: _sum(_square(x), dim, keepdim),
    "ReduceLogSumExp": _log_sum_exp,
}  # fmt: skip
_ALONE: dict[str, Callable[[Tensor], Any]] = {
    "ReduceL1": lambda x: gf.abs(x), "ReduceL2": lambda x: gf.abs(x), "ReduceSumSquare": _square,
    "ReduceLogSum": lambda x: gf.log(x),
}  # fmt: skip
"""What is done to elements where there is no axis to reduce along."""


def _enter(name: str, function: Callable[[Tensor, Any, bool], Any]) -> None:
    @operator(name, known=("axes",))
    def reduce(
        data: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Any:
        chosen = axes_of(axes, data.ndim) if axes is not None else ()
        if not chosen:
            if noop_with_empty_axes or not data.ndim:
                alone = _ALONE.get(name)
                return data if alone is None else alone(data)
            chosen = tuple(range(data.ndim))
        return function(data, chosen, bool(keepdims))


for _name, _function in _REDUCTIONS.items():
    _enter(_name, _function)


def _place(function: Any, data: Tensor, axis: int, keepdims: int, last: int) -> Any:
    if not last:
        return function(data, axis, keepdim=bool(keepdims))
    found = function(gf.flip(data, (axis,)), axis, keepdim=bool(keepdims))
    return gf.sub(data.shape[axis] - 1, found)


@operator("ArgMax")
def argmax(data: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """Where the largest element is along an axis."""
    return _place(gf.argmax, data, axis, keepdims, select_last_index)


@operator("ArgMin")
def argmin(data: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """Where the smallest element is along an axis."""
    return _place(gf.argmin, data, axis, keepdims, select_last_index)


def _running(function: Any, x: Tensor, axis: Any, exclusive: int, reverse: int, first: int) -> Any:
    dim = number(axis)
    x = gf.flip(x, (dim,)) if reverse else x
    made = function(x, dim, dtype=x.dtype)
    if exclusive:
        head = gf.full_like(gf.narrow(x, dim, 0, 1), first)
        made = gf.cat([head, gf.narrow(made, dim, 0, x.shape[dim] - 1)], dim)
    return gf.flip(made, (dim,)) if reverse else made


@operator("CumSum", known=("axis",))
def cumsum(x: Tensor, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    """Running sums along an axis."""
    return _running(gf.cumsum, x, axis, exclusive, reverse, 0)


@operator("CumProd", known=("axis",))
def cumprod(x: Tensor, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    """Running products along an axis."""
    return _running(gf.cumprod, x, axis, exclusive, reverse, 1)


@operator("TopK", known=("K",))
def topk(X: Tensor, K: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    """The largest (smallest) elements along an axis, and where they are; the first of equals."""
    values, places = gf.sort(X, dim=axis, descending=bool(largest), stable=True)
    k = number(K)
    return gf.narrow(values, axis, 0, k), gf.narrow(places, axis, 0, k)


@operator("LpNormalization")
def lp_normalization(input: Tensor, *, axis: int = -1, p: int = 2) -> Any:
    """The operand over its p-norm along an axis; 0 where that is 0."""
    norm = _norm(input, (axis,), True) if p == 2 else _sum(gf.abs(input), (axis,), True)
    return gf.where(gf.eq(norm, 0), gf.zeros_like(input), gf.div(input, norm))
