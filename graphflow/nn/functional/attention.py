"""Attention: scaled dot products, and several heads with their projections."""

from __future__ import annotations

import math
from typing import Any

from graphflow.checks import need_tensor
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.creation import ones, zeros
from graphflow.functions.diagonals import tril
from graphflow.functions.elementwise import add, eq, logical_not, mul, where
from graphflow.functions.products import matmul
from graphflow.functions.reductions import amax, mean, softmax
from graphflow.functions.repeating import repeat_interleave
from graphflow.functions.shaping import cat, expand, permute, reshape, transpose, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.functional.dropout import dropout
from graphflow.nn.functional.linear import linear
from graphflow.promotion import cast
from graphflow.records import dataclass
from graphflow.tensor import Tensor

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
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
    if enable_gqa:
        key, value = (_shared_heads(query, x) for x in (key, value))
    if is_causal:
        attn_mask = tril(ones(query.shape[-2], key.shape[-2], dtype=T.bool_))
    weights = _attention(query, key, attn_mask, scale)
    return matmul(dropout(weights, dropout_p), value)


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


def _shared_heads(query: Tensor, shared: Tensor) -> Tensor:
    heads, groups = query.shape[-3], shared.shape[-3]
    if heads % groups:
        raise ShapeError(f"{heads} heads of the query cannot share {groups} of the key or value")
    return repeat_interleave(shared, heads // groups, -3)


def _attention(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """The weights [..., L, S] of every position of the key; a row sums to 1, or is 0."""
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = matmul(mul(query, factor), transpose(key, -2, -1))
    if mask is None:
        return softmax(scores, -1)
    if mask.dtype is T.bool_:
        scores = where(mask, scores, -math.inf)
    else:
        scores = add(scores, mask)
    nothing = eq(amax(scores.detach(), -1, keepdim=True), -math.inf)
    return where(nothing, 0.0, softmax(where(nothing, 0.0, scores), -1))


@dataclass(frozen=True)
class _Projections:
    """The weights that make queries, keys and values: in one matrix, or one each."""

    weights: tuple[Tensor, Tensor, Tensor]
    biases: tuple[Tensor | None, Tensor | None, Tensor | None]

    @classmethod
    def of(cls, packed: Any, bias: Any, separate: Any) -> _Projections:
        """From ``in_proj_weight`` [3 E, E], or three matrices, and ``in_proj_bias`` [3 E]."""
        parts = (None, None, None) if bias is None else bias.chunk(3)
        return cls(packed.chunk(3) if separate is None else separate, parts)

    def apply(self, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        """Queries, keys and values of the whole width."""
        return [linear(*part) for part in zip(inputs, self.weights, self.biases, strict=True)]


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
    bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
    out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Attention of ``num_heads`` heads: projections in, attention, projection out.

    query [L, N, E], key and value [S, N, E], or without N; result like the query.
    Boolean masks are True where attention may *not* go: ``attn_mask`` [L, S] or
    [N * heads, L, S], ``key_padding_mask`` [N, S].  The second result has the weights
    [N, L, S], averaged over heads, or [N, heads, L, S].
    """
    if query.shape[-1] != embed_dim_to_check or embed_dim_to_check % num_heads:
        raise ShapeError(
            f"multi_head_attention_forward: the query has {query.shape[-1]} features; "
            f"{embed_dim_to_check} are expected, a multiple of {num_heads} heads"
        )
    single = query.ndim == 2
    if single:
        query, key, value = (unsqueeze(x, 1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else unsqueeze(key_padding_mask, 0)
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    made = _Projections.of(in_proj_weight, in_proj_bias, separate).apply((query, key, value))
    q, k, v = (_heads(x, num_heads) for x in made)
    k, v = (x if x0 is None else _static(x0, q) for x, x0 in ((k, static_k), (v, static_v)))
    more = 0
    if bias_k is not None and bias_v is not None:
        added = (_heads(reshape(b, (1, 1, -1)), num_heads) for b in (bias_k, bias_v))
        k, v = (_longer(x, last) for x, last in zip((k, v), added, strict=True))
        more += 1
    if add_zero_attn:
        k, v = (_longer(x, zeros(1, 1, 1, x.shape[-1], dtype=x.dtype)) for x in (k, v))
        more += 1
    mask = _mask(attn_mask, key_padding_mask, q, more)
    weights = _attention(q, k, mask, None)
    mixed = matmul(dropout(weights, dropout_p if training else 0.0), v)
    joined = reshape(permute(mixed, 2, 0, 1, 3), (*query.shape[:2], -1))
    out = linear(joined, out_proj_weight, out_proj_bias)
    shown = (mean(weights, 1) if average_attn_weights else weights) if need_weights else None
    if single:
        return out.squeeze(1), None if shown is None else shown.squeeze(0)
    return out, shown


def _heads(x: Tensor, heads: int) -> Tensor:
    """[positions, N, E] as [N, heads, positions, E / heads]."""
    return permute(reshape(x, (*x.shape[:2], heads, x.shape[2] // heads)), 1, 2, 0, 3)


def _static(given: Tensor, query: Tensor) -> Tensor:
    """Keys or values that come ready, [N * heads, S, E / heads], by batch and head."""
    return reshape(given, (*query.shape[:2], *given.shape[1:]))


def _longer(x: Tensor, last: Tensor) -> Tensor:
    """One more position, the same for every sample (and head, if ``last`` has one)."""
    return cat([x, expand(last, (*x.shape[:2], 1, x.shape[3]))], 2)


def _mask(attn: Tensor | None, padding: Tensor | None, query: Tensor, more: int) -> Tensor | None:
    """Both masks as one to add to scores [N, heads, L, S + more]; positions added are open."""
    total: Tensor | None = None
    if attn is not None:
        wide = attn if attn.ndim == 2 else reshape(attn, (*query.shape[:2], *attn.shape[1:]))
        total = _added(wide, query)
    if padding is not None:
        wide = _added(reshape(padding, (padding.shape[0], 1, 1, padding.shape[1])), query)
        total = wide if total is None else add(total, wide)
    if total is None or not more:
        return total
    return cat([total, zeros(*total.shape[:-1], more, dtype=total.dtype)], -1)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers to add: -inf where a boolean one is True."""
    if mask.dtype is not T.bool_:
        return cast(mask, like.dtype)
    return where(logical_not(mask), zeros((), dtype=like.dtype), -math.inf)
