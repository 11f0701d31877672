"""Softmax and its logarithm along an axis: gradient rules of their own, no kernels.

It is made of a maximum, an exponential, a sum and a quotient, which fuse into one
kernel over rows.  Their derived gradient would read three tensors of the same size,
the exponentials, the quotients and the quotients' cotangents over the sum; this rule
reads the result and its cotangent.  ``log_softmax`` is for eager code, where one
operation costs less than its six; compiled code uses those, since its gradient can
share their exponentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.op import Application, Array, Builder, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import restore_axes, scalar
from graphflow.ir.ops.rules import FLOAT, Attrs, check_arity, check_axis, require, spelled
from graphflow.ir.types import TensorType


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("softmax", types, 1)
    require("softmax", types, FLOAT)
    check_axis("softmax", types, attrs.get("axis"), types[0].rank)
    if not isinstance(attrs.get("or_zero"), bool):
        raise GraphError(f"{spelled('softmax', types)}: or_zero must be true or false")
    return types[0]


def _softmax(x: Array, *, axis: int, or_zero: bool) -> Array:
    if not x.shape[axis]:
        return np.array(x)
    with np.errstate(invalid="ignore"):
        largest = x.max(axis, keepdims=True)
        nothing = (largest == -inf) & or_zero
        powers = np.exp(x - np.where(nothing, x.dtype.type(0), largest))
        return powers / np.where(nothing, x.dtype.type(1), powers.sum(axis, keepdims=True))


def _infer_log(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("log_softmax", types, 1)
    require("log_softmax", types, FLOAT)
    check_axis("log_softmax", types, attrs.get("axis"), types[0].rank)
    return types[0]


def _log_softmax(x: Array, *, axis: int) -> Array:
    if not x.shape[axis]:
        return np.array(x)
    shifted = np.subtract(x, np.maximum.reduce(x, axis=axis, keepdims=True))
    total = np.add.reduce(np.exp(shifted), axis=axis, keepdims=True)
    return np.subtract(shifted, np.log(total, out=total), out=shifted)


def _decompose(b: Builder, n: Application) -> Any:
    (x,), axes = n.inputs, (n.attrs["axis"],)
    if x.shape[axes[0]] == 0:
        return b.copy(x)
    largest = restore_axes(b, b.reduce_max(x, axes=axes), axes, x.shape)
    if not n.attrs["or_zero"]:
        powers = b.exp(b.sub(x, largest))
        return _divided(b, powers, b.reduce_sum(powers, axes=axes), axes)
    nothing = b.eq(largest, scalar(b, -inf, x.dtype))
    powers = b.exp(b.sub(x, b.where(nothing, scalar(b, 0, x.dtype), largest)))
    total = b.reduce_sum(powers, axes=axes)
    # Where nothing is added up, the sum is that of zeros.
    total = b.where(b.eq(total, scalar(b, 0, x.dtype)), scalar(b, 1, x.dtype), total)
    return _divided(b, powers, total, axes)


def _divided(b: Builder, powers: Any, total: Any, axes: tuple[int, ...]) -> Any:
    """``powers / total`` by one quotient a line: ``total`` is from 1 to the line's length."""
    return b.mul(powers, restore_axes(b, b.reciprocal(total), axes, powers.shape))


def _decompose_log(b: Builder, n: Application) -> Any:
    (x,), axes = n.inputs, (n.attrs["axis"],)
    if x.shape[axes[0]] == 0:
        return b.copy(x)
    shifted = b.sub(x, restore_axes(b, b.reduce_max(x, axes=axes), axes, x.shape))
    total = b.reduce_sum(b.exp(shifted), axes=axes)
    return b.sub(shifted, restore_axes(b, b.log(total), axes, x.shape))


def _vjp_log(b: Builder, n: Application, ct: Any) -> Any:
    """``ct - exp(out) * sum(ct)``: from d out[i] / d x[j] = δ[i,j] - exp(out[j])."""
    axes = (n.attrs["axis"],)
    total = restore_axes(b, b.reduce_sum(ct, axes=axes), axes, ct.shape)
    return b.sub(ct, b.mul(b.exp(n.out), total))


def _vjp(b: Builder, n: Application, ct: Any) -> Any:
    """``out * (ct - sum(out * ct))``: from d out[i] / d x[j] = out[i] * (δ[i,j] - out[j])."""
    axes = (n.attrs["axis"],)
    mean = restore_axes(b, b.reduce_sum(b.mul(n.out, ct), axes=axes), axes, ct.shape)
    return b.mul(n.out, b.sub(ct, mean))


_LINES: list[tuple[tuple[int, ...], int]] = [
    ((7,), 0), ((3, 4), 1), ((3, 4), 0), ((2, 3, 4), 1), ((3, 1), 1), ((0, 3), 1), ((2, 0), 1),
]  # fmt: skip


def _samples() -> tuple[Sample, ...]:
    return tuple(
        Sample((shape,), {"axis": axis, "or_zero": or_zero})
        for shape, axis in _LINES
        for or_zero in (False, True)
    )


SOFTMAX = register(
    OpDef(
        name="softmax",
        kind=Kind.LINE,
        summary="exp(x) over its sum along an axis; with or_zero 0, not NaN, where all x are -inf.",
        infer=_infer,
        reference=_softmax,
        vjp=(_vjp,),
        decompose=_decompose,
        cost=16.0,
        batched=batches.TOGETHER,
        tests=OpTests(tolerance={"f32": 2e-6, "f64": 1e-13}, samples=_samples()),
    )
)

LOG_SOFTMAX = register(
    OpDef(
        name="log_softmax",
        kind=Kind.LINE,
        summary="The logarithm of softmax along an axis.",
        infer=_infer_log,
        reference=_log_softmax,
        vjp=(_vjp_log,),
        decompose=_decompose_log,
        cost=16.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            tolerance={"f32": 2e-6, "f64": 1e-13},
            samples=tuple(Sample((shape,), {"axis": axis}) for shape, axis in _LINES),
        ),
    )
)
