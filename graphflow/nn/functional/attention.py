"""Scaled dot-product attention: short sequences directly, long ones block by block."""

from __future__ import annotations

import math

from graphflow.checks import need_tensor
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.creation import ones
from graphflow.functions.diagonals import tril
from graphflow.functions.elementwise import add, mul, where
from graphflow.functions.products import matmul
from graphflow.functions.reductions import weights
from graphflow.functions.shaping import flatten, transpose, unflatten, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.functional.dropout import dropout
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """``softmax(query @ key.T * scale + mask) @ value`` (Vaswani et al. 2017).

    query [..., L, E], key [..., S, E], value [..., S, Ev]; result [..., L, Ev].
    A boolean mask is True where attention may go, any other is added to the scores;
    ``is_causal`` keeps position i from looking beyond position i.  ``scale`` is
    1 / sqrt(E) by default.  Where nothing may be looked at the result is 0.
    ``enable_gqa``: several heads (dimension -3) of the query share one of the key.
    """
    _check_operands(query, key, value)
    if is_causal and attn_mask is not None:
        raise GraphFlowError("scaled_dot_product_attention: give attn_mask or is_causal, not both")
    if attn_mask is not None and attn_mask.dtype not in (T.bool_, T.float32, query.dtype):
        raise DTypeError(
            f"scaled_dot_product_attention: attn_mask must be bool or {query.dtype.name}, "
            f"not {attn_mask.dtype.name}"
        )
    groups = _groups(query, key, value) if enable_gqa else 1
    if groups > 1:
        query = unflatten(query, -3, (-1, groups))
        key, value = unsqueeze(key, -3), unsqueeze(value, -3)
        attn_mask = None if attn_mask is None else _grouped(attn_mask, groups)
    if is_causal:
        attn_mask = causal_mask(query.shape[-2], key.shape[-2])
    found = attention_weights(query, key, attn_mask, scale, whole=is_causal)
    out = matmul(dropout(found, dropout_p), value)
    return flatten(out, -4, -3) if groups > 1 else out


def _check_operands(query: Tensor, key: Tensor, value: Tensor) -> None:
    for what, operand in (("query", query), ("key", key), ("value", value)):
        if need_tensor("scaled_dot_product_attention", operand, what).ndim < 2:
            raise ShapeError(
                f"scaled_dot_product_attention: {what} needs at least two dimensions "
                f"(positions, features), got {list(operand.shape)}"
            )
        if operand.dtype is not query.dtype:
            raise DTypeError(
                "scaled_dot_product_attention: query, key and value must have one dtype, got "
                f"{query.dtype.name}, {key.dtype.name} and {value.dtype.name}"
            )


def _groups(query: Tensor, key: Tensor, value: Tensor) -> int:
    """How many heads of the query share one of the key, and of the value."""
    if min(x.ndim for x in (query, key, value)) < 3:
        raise ShapeError("scaled_dot_product_attention: enable_gqa needs heads (dimension -3)")
    heads = query.shape[-3]
    for shared in (key.shape[-3], value.shape[-3]):
        if shared != key.shape[-3] or heads % shared:
            raise ShapeError(
                f"{heads} heads of the query cannot share {key.shape[-3]} of the key and "
                f"{value.shape[-3]} of the value"
            )
    return heads // key.shape[-3]


def _grouped(mask: Tensor, groups: int) -> Tensor:
    """A mask of [..., heads, L, S] for scores of [..., heads / groups, groups, L, S]."""
    if mask.ndim < 3:
        return mask
    return unsqueeze(mask, -3) if mask.shape[-3] == 1 else unflatten(mask, -3, (-1, groups))


def causal_mask(length: int, source: int) -> Tensor:
    """Bool [length, source]: True where position i may look at position j, that is j <= i."""
    return tril(ones(length, source, dtype=T.bool_))


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, whole: bool = False
) -> Tensor:
    """The weights [..., L, S] of every position of the key; a row sums to 1, or is 0.

    ``whole``: the mask leaves every row something to look at.
    """
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = mul(matmul(query, transpose(key, -2, -1)), factor)
    if mask is None:
        return weights(scores, -1)
    if mask.dtype is T.bool_:
        scores = where(mask, scores, -math.inf)
    else:
        scores = add(scores, cast(mask, scores.dtype))
    return weights(scores, -1, or_zero=not whole)
