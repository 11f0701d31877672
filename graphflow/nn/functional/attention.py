"""Scaled dot-product attention: short sequences directly, long ones block by block."""

from __future__ import annotations

import math
from typing import Any

from graphflow.autocasting import in_lower_precision
from graphflow.checks import need_tensor
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.products import matmul
from graphflow.functions.reductions import like, wide
from graphflow.functions.shaping import flatten, unflatten, unsqueeze
from graphflow.ir import types as T
from graphflow.ir.types import broadcast_shapes
from graphflow.nn.functional.attention_blocks import Blocks, attended_in_blocks, cut
from graphflow.nn.functional.attention_fused import fused, need_products
from graphflow.nn.functional.attention_weights import attention_weights, causal_mask
from graphflow.nn.functional.dropout import dropout, idle
from graphflow.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


@in_lower_precision
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
    On the CPU, scores of more than 16 MiB are never in memory as a whole, nor kept for the
    backward pass (:mod:`graphflow.nn.functional.attention_blocks`).  Compiled for a device,
    attention without mask and dropout is a library's (:mod:`.attention_fused`).
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
    out = _attended(query, key, value, attn_mask, dropout_p, is_causal, scale)
    return flatten(out, -4, -3) if groups > 1 else out


def _attended(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: Any,
    causal: bool, scale: float | None,
) -> Tensor:  # fmt: skip
    """All at once, or block by block where the scores would be large."""
    length, source = query.shape[-2], key.shape[-2]
    masked = () if mask is None else mask.shape[:-2]
    lead = broadcast_shapes(broadcast_shapes(query.shape[:-2], key.shape[:-2]), masked)
    drops = not idle("scaled_dot_product_attention", query, dropout_p, True)
    placed = query.device.type != "cpu"
    how = cut(lead, length, source, query.dtype.itemsize, drops, placed)
    if placed:
        plain = mask is None and not drops
        whole = fused(query, key, value, causal, scale, how is None) if plain else None
        if whole is not None:
            return whole
        need_products()
    if how is not None and not (mask is not None and mask.requires_grad):
        factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
        if mask is None and not drops:
            from graphflow.nn.functional.attention_tiles import attended_in_tiles, tiles_of

            tiles = None if placed else tiles_of(lead, length, source, factor, causal)
            if tiles is not None:
                return like(attended_in_tiles(wide(query), wide(key), wide(value), tiles), query)
        blocks = Blocks(how, factor, causal, dropout_p if drops else None, [])
        out = attended_in_blocks(wide(query), wide(key), wide(value), mask, blocks)
        return like(out, query)
    if causal:
        mask = causal_mask((*lead, length, source))
    found = attention_weights(query, key, mask, scale, whole=causal)
    return matmul(dropout(found, dropout_p), value)


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
