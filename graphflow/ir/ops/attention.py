"""Attention as one operation, for devices whose libraries compute it as a whole.

``softmax(query @ key.T * scale) @ value`` over ``[batch, heads, positions, features]``, beside
the logarithms of the rows' sums of exponentials: with those the gradient computes the weights
anew, element by element (Dao et al. 2022, "FlashAttention").  Elsewhere it is the products and
the exponentials that it is made of.  Sums and exponentials are those of single precision at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, GraphError, ShapeError
from graphflow.ir.op import Application, Array, Builder, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import restore_axes, scalar, transposed
from graphflow.ir.ops.matrices import column, sum_of
from graphflow.ir.ops.rules import FLOAT, Attrs, check_arity, require, spelled
from graphflow.ir.types import DType, TensorType, TupleType, float32, int32

Types = Sequence[TensorType]


def wide(dtype: DType) -> DType:
    """What scores are computed in: single precision for halves."""
    return float32 if dtype.itemsize < 4 else dtype


# ---- types -----------------------------------------------------------------------------


def _check(name: str, types: Types, attrs: Attrs) -> None:
    """Raise unless the first three operands are query, key and value that fit each other."""
    require(name, types, FLOAT)
    query, key, value = types[:3]
    if not query.dtype is key.dtype is value.dtype:
        raise DTypeError(f"{spelled(name, types)}: operands have different dtypes; cast one")
    if not query.rank == key.rank == value.rank == 4:
        raise ShapeError(
            f"{spelled(name, types)}: takes tensors [batch, heads, positions, features]"
        )
    same = query.shape[:2] == key.shape[:2] == value.shape[:2]
    if not same or query.shape[3] != key.shape[3] or key.shape[2] != value.shape[2]:
        raise ShapeError(
            f"{spelled(name, types)}: batch and heads must be the same, query and key must have "
            "equal features, key and value equal positions"
        )
    if key.shape[2] == 0:
        raise ShapeError(f"{spelled(name, types)}: there is no key to look at")
    if not isinstance(attrs.get("scale"), float) or not isinstance(attrs.get("causal"), bool):
        raise GraphError(f"{spelled(name, types)}: scale must be a float, causal true or false")


def _results(types: Types) -> tuple[TensorType, TensorType]:
    query, _, value = types[:3]
    out = TensorType(query.dtype, (*query.shape[:3], value.shape[3]))
    return out, TensorType(wide(query.dtype), query.shape[:3])


def _infer(types: Types, attrs: Attrs) -> TupleType:
    check_arity("attend", types, 3)
    _check("attend", types, attrs)
    return TupleType(_results(types))


def _infer_gradient(types: Types, attrs: Attrs) -> TupleType:
    check_arity("attend_gradient", types, 6)
    _check("attend_gradient", types, attrs)
    out, logs = _results(types)
    if tuple(types[3:]) != (out, logs, out):
        raise ShapeError(
            f"{spelled('attend_gradient', types)}: the result and its gradient must be {out}, "
            f"the logarithms {logs}"
        )
    return TupleType(tuple(types[:3]))


# ---- references ------------------------------------------------------------------------


def _scores_of(query: Array, key: Array, scale: float, causal: bool) -> Array:
    scores = query @ key.swapaxes(-1, -2) * query.dtype.type(scale)
    if causal:
        rows, columns = (np.arange(extent) for extent in scores.shape[-2:])
        scores[..., rows[:, None] < columns] = -inf
    return scores


def _attend(query: Array, key: Array, value: Array, *, scale: float, causal: bool) -> Any:
    dtype = query.dtype
    query, key, value = _widened(query, key, value)
    scores = _scores_of(query, key, scale, causal)
    top = scores.max(-1, keepdims=True)
    powers = np.exp(scores - top)
    total = powers.sum(-1, keepdims=True)
    return (powers @ value / total).astype(dtype), (top + np.log(total))[..., 0]


def _attend_gradient(
    query: Array, key: Array, value: Array, out: Array, logs: Array, ct: Array, *,
    scale: float, causal: bool,
) -> Any:  # fmt: skip
    dtype = query.dtype
    query, key, value, out, ct = _widened(query, key, value, out, ct)
    weights = np.exp(_scores_of(query, key, scale, causal) - logs[..., None])
    flow = ct @ value.swapaxes(-1, -2) - (ct * out).sum(-1, keepdims=True)
    inner = weights * flow * query.dtype.type(scale)
    found = inner @ key, inner.swapaxes(-1, -2) @ query, weights.swapaxes(-1, -2) @ ct
    return tuple(x.astype(dtype) for x in found)


def _widened(*arrays: Array) -> list[Array]:
    """Halves in single precision."""
    return [x.astype(np.float32) if x.dtype.itemsize < 4 else x for x in arrays]


# ---- what they are made of -------------------------------------------------------------


def _cast(b: Builder, x: Any, dtype: DType) -> Any:
    return x if x.dtype is dtype else b.cast(x, dtype=dtype)


def _scores(b: Builder, query: Any, key: Any, attrs: Attrs) -> Any:
    """The scores in :func:`wide` precision, -inf where a position may not look."""
    product = _cast(b, b.matmul(query, transposed(b, key)), wide(query.dtype))
    scores = b.mul(product, scalar(b, attrs["scale"], product.dtype))
    if not attrs["causal"]:
        return scores
    shape = tuple(scores.shape[-2:])
    rows, columns = (b.iota(shape=shape, axis=axis, dtype=int32) for axis in (0, 1))
    return b.where(b.le(columns, rows), scores, scalar(b, -inf, scores.dtype))


def _weights(b: Builder, query: Any, key: Any, logs: Any, attrs: Attrs) -> Any:
    """In the operands' precision: the same values for the result and for its gradient, so that
    one copy of them is in memory between the two."""
    powers = b.exp(b.sub(_scores(b, query, key, attrs), column(b, logs, -1)))
    return _cast(b, powers, query.dtype)


def _decompose(b: Builder, n: Application) -> tuple[Any, Any]:
    query, key, value = n.inputs
    scores = _scores(b, query, key, n.attrs)
    top = b.reduce_max(scores, axes=(3,))
    total = b.reduce_sum(b.exp(b.sub(scores, column(b, top, -1))), axes=(3,))
    logs = b.add(top, b.log(total))
    return b.matmul(_weights(b, query, key, logs, n.attrs), value), logs


def _decompose_gradient(b: Builder, n: Application) -> tuple[Any, Any, Any]:
    """From d weight[i] / d score[j] = weight[i] * (δ[i,j] - weight[j]), as in softmax."""
    query, key, value, out, logs, ct = n.inputs
    dtype = logs.dtype
    weights = _weights(b, query, key, logs, n.attrs)
    flow = _cast(b, b.matmul(ct, transposed(b, value)), dtype)
    inner = b.mul(_cast(b, weights, dtype), b.sub(flow, _mean(b, ct, out, dtype)))
    inner = _cast(b, b.mul(inner, scalar(b, n.attrs["scale"], dtype)), query.dtype)
    return (
        b.matmul(inner, key),
        b.matmul(transposed(b, inner), query),
        b.matmul(transposed(b, weights), ct),
    )


def _mean(b: Builder, ct: Any, out: Any, dtype: DType) -> Any:
    """Weights times their gradients, added up over each row: [..., L, 1]."""
    found = b.reduce_sum(b.mul(_cast(b, ct, dtype), _cast(b, out, dtype)), axes=(3,))
    return restore_axes(b, found, (3,), out.shape)


# ---- gradients -------------------------------------------------------------------------


def _vjp(b: Builder, n: Application, cts: Any, operand: int) -> Any:
    (query, key, _), (out, logs), (ct, ct_logs) = n.inputs, n.out, cts
    found = None
    if ct is not None:
        found = b.several("attend_gradient", *n.inputs, out, logs, ct, **n.attrs)[operand]
    if ct_logs is None or operand == 2:
        return found
    # The derivative of a row's logarithm by its scores is its weights.
    weights = _cast(b, _weights(b, query, key, logs, n.attrs), logs.dtype)
    inner = b.mul(weights, column(b, ct_logs, -1))
    inner = _cast(b, b.mul(inner, scalar(b, n.attrs["scale"], logs.dtype)), query.dtype)
    own = b.matmul(inner, key) if operand == 0 else b.matmul(transposed(b, inner), query)
    return sum_of(found, own)


def _vjp_gradient(b: Builder, n: Application, cts: Any, operand: int) -> Any:
    """Of the formulas of :func:`_decompose_gradient`, line by line from the last one."""
    dtype = n.inputs[4].dtype
    query, key, value, out, logs, ct = (_cast(b, x, dtype) for x in n.inputs)
    by_query, by_key, by_value = (None if x is None else _cast(b, x, dtype) for x in cts)
    scale = scalar(b, n.attrs["scale"], dtype)
    weights = _weights(b, query, key, logs, n.attrs)
    flow = b.sub(b.matmul(ct, transposed(b, value)), _mean(b, ct, out, dtype))
    inner = b.mul(b.mul(weights, flow), scale)
    found: list[Any] = [None] * 6

    def arrive(place: int, cotangent: Any) -> None:
        found[place] = sum_of(found[place], cotangent)

    at_inner = at_weights = None
    if by_query is not None:
        at_inner = b.matmul(by_query, transposed(b, key))
        arrive(1, b.matmul(transposed(b, inner), by_query))
    if by_key is not None:
        at_inner = sum_of(at_inner, b.matmul(query, transposed(b, by_key)))
        arrive(0, b.matmul(inner, by_key))
    if by_value is not None:
        at_weights = b.matmul(ct, transposed(b, by_value))
        arrive(5, b.matmul(weights, by_value))
    if at_inner is not None:
        at_inner = b.mul(at_inner, scale)
        at_weights = sum_of(at_weights, b.mul(at_inner, flow))
        at_flow = b.mul(at_inner, weights)
        at_mean = b.neg(column(b, b.reduce_sum(at_flow, axes=(3,)), -1))
        arrive(5, sum_of(b.matmul(at_flow, value), b.mul(at_mean, out)))
        arrive(2, b.matmul(transposed(b, at_flow), ct))
        arrive(3, b.mul(at_mean, ct))
    at_scores = b.mul(at_weights, weights)
    arrive(4, b.neg(b.reduce_sum(at_scores, axes=(3,))))
    at_scores = b.mul(at_scores, scale)
    arrive(0, b.matmul(at_scores, key))
    arrive(1, b.matmul(transposed(b, at_scores), query))
    made = found[operand]
    return None if made is None else _cast(b, made, n.inputs[operand].dtype)


# ---- records ---------------------------------------------------------------------------

_SHAPES = [(1, 1, 1, 4, 1, 4), (2, 3, 5, 4, 7, 6), (1, 2, 6, 3, 4, 3), (2, 1, 0, 4, 3, 4)]
"""Batch, heads, the query's positions and features, the key's positions, the value's features."""


def _samples(gradient: bool) -> tuple[Sample, ...]:
    found = []
    for batch, heads, length, features, source, width in _SHAPES:
        lead = (batch, heads)
        out: tuple[int, ...] = (*lead, length, width)
        shapes: list[tuple[int, ...]] = [
            (*lead, length, features),
            (*lead, source, features),
            (*lead, source, width),
        ]
        shapes += [out, out[:3], out] if gradient else []
        for causal in (False, True):
            found.append(Sample(tuple(shapes), {"scale": 0.5, "causal": causal}))
    return tuple(found)


ATTEND = register(
    OpDef(
        name="attend",
        kind=Kind.OPAQUE,
        summary="Attention, and the logarithms of the rows' sums of exponentials.",
        infer=_infer,
        reference=_attend,
        vjp=_vjp,
        decompose=_decompose,
        routine="attention",
        cost=1000.0,
        batched=batches.merged,
        tests=OpTests(dtypes=(), samples=_samples(gradient=False)),
    )
)

ATTEND_GRADIENT = register(
    OpDef(
        name="attend_gradient",
        kind=Kind.OPAQUE,
        summary="The gradients of attention's query, key and value, weights computed anew.",
        infer=_infer_gradient,
        reference=_attend_gradient,
        vjp=_vjp_gradient,
        decompose=_decompose_gradient,
        routine="attention",
        cost=1000.0,
        batched=batches.merged,
        tests=OpTests(dtypes=(), samples=_samples(gradient=True)),
    )
)
