"""Standardisation over axes, which layer, batch, group and instance norms are made of.

It has a gradient rule of its own and no kernel.  The derived gradient would go through mean
and variance one after the other: three passes over the data, the second waiting for a sum of
the first.  The rule's two sums wait for nothing but operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.dims import SymDim, dim_product
from graphflow.ir.op import Application, Array, Builder, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import restore_axes, scalar
from graphflow.ir.ops.rules import FLOAT, Attrs, check_arity, check_axis, require, spelled
from graphflow.ir.types import TensorType

_LEAST = 8
"""Elements from which the sums of a row take longer than what is computed once a row."""


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("standardise", types, 1)
    require("standardise", types, FLOAT)
    axes, eps = attrs.get("axes"), attrs.get("eps")
    if not isinstance(axes, tuple) or len(set(axes)) != len(axes):
        raise GraphError(f"{spelled('standardise', types)}: axes must be a tuple of different axes")
    for axis in axes:
        check_axis("standardise", types, axis, types[0].rank)
    if not isinstance(eps, float):
        raise GraphError(f"{spelled('standardise', types)}: eps must be a float, not {eps!r}")
    return types[0]


def _standardise(x: Array, *, axes: tuple[int, ...], eps: float) -> Array:
    if not x.size:
        return np.array(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = x - x.mean(axes, keepdims=True)
        variance = np.square(centred).mean(axes, keepdims=True)
        return np.divide(centred, np.sqrt(variance + x.dtype.type(eps)), out=centred)


def mean_over(b: Builder, x: Any, axes: tuple[int, ...]) -> Any:
    """The mean over ``axes``, which stay as extents of 1."""
    number = dim_product(tuple(x.shape[axis] for axis in axes))
    total = restore_axes(b, b.reduce_sum(x, axes=axes), axes, x.shape)
    if isinstance(number, SymDim):
        return b.div(total, b.extent(dim=number, dtype=x.dtype))
    return b.div(total, scalar(b, number, x.dtype))


def _in_rows(x: Any, axes: tuple[int, ...]) -> bool:
    """Whether ``axes`` are the last ones, and worth a variance in one pass.

    Across rows (a batch norm's channels) neighbours would share a second pass that few need.
    """
    rank, number = len(x.shape), dim_product(tuple(x.shape[axis] for axis in axes))
    last = tuple(range(rank - len(axes), rank))
    return sorted(axes) == [*last] and (isinstance(number, SymDim) or number >= _LEAST)


def _in_one_pass(b: Builder, x: Any, mean: Any, variance: Any, axes: tuple[int, ...]) -> Any:
    """``variance`` as the mean of squares less the square of the mean, where that is good enough.

    Both are summed up in the pass that the mean takes anyway.  Where the variance is at least
    the mean's square, it is a difference of numbers at most twice as large: rounding errors
    double at most.  Elsewhere (rows far from zero, constant rows, sums that overflowed or are
    NaN) ``variance`` is chosen, and kernels make a pass for it in such rows only.
    """
    square = b.mul(mean, mean)
    once = b.sub(mean_over(b, b.mul(x, x), axes), square)
    good = b.logical_and(b.le(square, once), b.lt(once, scalar(b, inf, x.dtype)))
    return b.where(good, once, variance)


def _parts(b: Builder, n: Application) -> tuple[Any, Any]:
    """``x - mean`` and ``1 / sqrt(var + eps)``."""
    (x,), axes = n.inputs, n.attrs["axes"]
    mean = mean_over(b, x, axes)
    centred = b.sub(x, mean)
    variance = mean_over(b, b.mul(centred, centred), axes)
    if _in_rows(x, axes):
        variance = _in_one_pass(b, x, mean, variance, axes)
    return centred, b.rsqrt(b.add(variance, scalar(b, n.attrs["eps"], x.dtype)))


def _decompose(b: Builder, n: Application) -> Any:
    centred, scale = _parts(b, n)
    return b.mul(centred, scale)


def _vjp(b: Builder, n: Application, ct: Any) -> Any:
    """``(ct - mean(ct) - out * mean(out * ct)) / sqrt(var + eps)``.

    From d out[i] / d x[j] = (δ[i,j] - (1 + out[i] * out[j]) / n) / sqrt(var + eps): Ioffe and
    Szegedy (2015), section 3, with the sum of ``x - mean`` known to be 0.
    """
    axes = n.attrs["axes"]
    _, scale = _parts(b, n)
    along = b.mul(n.out, mean_over(b, b.mul(ct, n.out), axes))
    return b.mul(b.sub(b.sub(ct, mean_over(b, ct, axes)), along), scale)


def _samples() -> tuple[Sample, ...]:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((7,), (0,)), ((3, 4), (1,)), ((3, 4), (0,)), ((2, 3, 4), (0, 2)), ((2, 3, 4), (1, 2)),
        ((3, 1), (1,)), ((0, 3), (1,)),
    ]  # fmt: skip
    return tuple(Sample((shape,), {"axes": axes, "eps": 1e-3}) for shape, axes in shapes)


STANDARDISE = register(
    OpDef(
        name="standardise",
        kind=Kind.LINE,
        summary="(x - mean) / sqrt(var + eps) over axes, with the mean of squares as var.",
        infer=_infer,
        reference=_standardise,
        vjp=(_vjp,),
        decompose=_decompose,
        cost=16.0,
        batched=batches.TOGETHER,
        tests=OpTests(tolerance={"f32": 4e-6, "f64": 1e-12}, samples=_samples()),
    )
)
