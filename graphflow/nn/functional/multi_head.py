"""Attention of several heads, with the projections around it."""

from __future__ import annotations

import math
from typing import Any

from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.elementwise import add, logical_not, logical_or, where
from graphflow.functions.products import matmul
from graphflow.functions.reductions import mean
from graphflow.functions.shaping import cat, expand, permute, reshape, split, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.functional.attention import scaled_dot_product_attention
from graphflow.nn.functional.attention_weights import attention_weights
from graphflow.nn.functional.dropout import dropout
from graphflow.nn.functional.linear import linear
from graphflow.nn.functional.padding import pad
from graphflow.promotion import cast
from graphflow.records import dataclass
from graphflow.tensor import Tensor

__all__ = ["multi_head_attention_forward"]

_NAME = "multi_head_attention_forward"


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
    Boolean masks are True where attention may *not* go, others are added to the scores:
    ``attn_mask`` [L, S] or [N * heads, L, S], ``key_padding_mask`` [N, S].  ``is_causal``
    says that ``attn_mask`` is the causal one, which then need not be read.  The second
    result has the weights [N, L, S], averaged over heads, or [N, heads, L, S].  A query
    that may look nowhere gets zeros.
    """
    if query.ndim in (2, 3) and query.shape[-1] != embed_dim_to_check:
        raise ShapeError(
            f"{_NAME}: the query has {query.shape[-1]} features, {embed_dim_to_check} are expected"
        )
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    attention = MultiHead(
        num_heads, Projections(in_proj_weight, separate, in_proj_bias),
        _both(bias_k, bias_v), add_zero_attn, out_proj_weight, out_proj_bias,
    )  # fmt: skip
    masks = Masks(attn_mask, key_padding_mask, is_causal)
    shown = Shown(need_weights, average_attn_weights)
    dropped = dropout_p if training else 0.0
    return attention.apply(query, key, value, masks, dropped, shown, (static_k, static_v))


def _both(bias_k: Tensor | None, bias_v: Tensor | None) -> tuple[Tensor, Tensor] | None:
    if bias_k is not None and bias_v is not None:
        return reshape(bias_k, (1, 1, -1)), reshape(bias_v, (1, 1, -1))
    if bias_k is None and bias_v is None:
        return None
    raise GraphFlowError(f"{_NAME}: give bias_k and bias_v, or neither")


@dataclass(frozen=True)
class Projections:
    """What makes queries, keys, values: ``packed`` [3 E, E] or three matrices, ``bias`` [3 E]."""

    packed: Tensor | None
    separate: tuple[Tensor | None, Tensor | None, Tensor | None] | None
    bias: Tensor | None

    def apply(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the whole width; one product for equal inputs."""
        if self.separate is None and self.packed is None:
            raise GraphFlowError(f"{_NAME}: in_proj_weight is missing")
        width = query.shape[-1]
        if self.packed is not None and query is key is value:
            q, k, v = split(linear(query, self.packed, self.bias), width, -1)
            return q, k, v
        biases = (None, None, None) if self.bias is None else split(self.bias, width)
        if self.separate is None:
            assert self.packed is not None
            if key is value:
                first, rest = split(self.packed, (width, 2 * width))
                bias = None if self.bias is None else self.bias[width:]
                k, v = split(linear(key, rest, bias), width, -1)
                return linear(query, first, biases[0]), k, v
            weights: Any = split(self.packed, width)
        else:
            weights = self.separate
        if any(weight is None for weight in weights):
            raise GraphFlowError(f"{_NAME}: use_separate_proj_weight needs all three weights")
        q, k, v = (linear(*part) for part in zip((query, key, value), weights, biases, strict=True))
        return q, k, v


@dataclass(frozen=True)
class Masks:
    """Where attention may not go: True, or -inf to add.  ``causal``: ``attn`` is that mask."""

    attn: Tensor | None
    padding: Tensor | None
    causal: bool = False

    def check(self, query: Tensor) -> None:
        """Dtypes, dimensions, and that a causal mask is there."""
        for what, mask in (("attn_mask", self.attn), ("key_padding_mask", self.padding)):
            if mask is not None and not (mask.dtype is T.bool_ or mask.dtype.is_floating_point):
                raise DTypeError(f"{_NAME}: {what} must be bool or floating, not {mask.dtype.name}")
        if self.attn is not None and self.attn.ndim not in (2, 3):
            raise ShapeError(f"{_NAME}: attn_mask needs 2 or 3 dimensions, not {self.attn.ndim}")
        if self.padding is not None and self.padding.ndim != query.ndim - 1:
            raise ShapeError(
                f"{_NAME}: key_padding_mask needs {query.ndim - 1} dimensions for a query of "
                f"{query.ndim}, not {self.padding.ndim}"
            )
        if self.causal and self.attn is None:
            raise GraphFlowError(
                f"{_NAME}: is_causal describes attn_mask, which is missing; "
                "nn.Transformer.generate_square_subsequent_mask makes it"
            )

    def joined(self, batch: int, heads: int, length: int, source: int, more: int) -> Tensor | None:
        """For scores [N, heads, L, S + more]: True where open, or numbers to add."""
        parts = [p for p in (self._wide(batch, heads, length, source), self._across(batch, source))
                 if p is not None]  # fmt: skip
        if not parts:
            return None
        if all(part.dtype is T.bool_ for part in parts):
            closed = parts[0] if len(parts) == 1 else logical_or(*parts)
            return logical_not(pad(closed, (0, more)) if more else closed)
        added = [p if p.dtype is not T.bool_ else where(p, -math.inf, 0.0) for p in parts]
        total = added[0] if len(added) == 1 else add(*added)
        return pad(total, (0, more)) if more else total

    def _wide(self, batch: int, heads: int, length: int, source: int) -> Tensor | None:
        if self.attn is None:
            return None
        flat = self.attn.ndim == 2
        expected = (length, source) if flat else (batch * heads, length, source)
        if tuple(self.attn.shape) != expected:
            raise ShapeError(
                f"{_NAME}: attn_mask has shape {list(self.attn.shape)}, but should have "
                f"{list(expected)}"
            )
        return self.attn if flat else reshape(self.attn, (batch, heads, length, source))

    def _across(self, batch: int, source: int) -> Tensor | None:
        if self.padding is None:
            return None
        if tuple(self.padding.shape) != (batch, source):
            raise ShapeError(
                f"{_NAME}: key_padding_mask has shape {list(self.padding.shape)}, but should have "
                f"{[batch, source]}"
            )
        return reshape(self.padding, (batch, 1, 1, source))


@dataclass(frozen=True)
class Shown:
    """Whether the weights are a result, and averaged over heads."""

    weights: bool = True
    averaged: bool = True


@dataclass(frozen=True)
class MultiHead:
    """Heads, the projections around them, and the positions added to keys and values.

    Inputs are [positions, N, E], or [N, positions, E] with ``batch_first``: neither is
    rearranged before its projection.
    """

    heads: int
    projections: Any
    """:class:`Projections`, or what applies layers in their place."""
    learned: tuple[Tensor, Tensor] | None
    zero: bool
    out_weight: Any
    """The matrix of what goes out, or a layer in its place."""
    out_bias: Tensor | None
    batch_first: bool = False

    def apply(
        self, query: Tensor, key: Tensor, value: Tensor, masks: Masks, dropout_p: float,
        shown: Shown, static: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The attended values in the layout of ``query``, and the weights if ``shown``."""
        self._check(query, key, value)
        masks.check(query)
        if query.ndim == 2:
            return self._single(query, key, value, masks, dropout_p, shown, static)
        q, k, v = (self._split(x) for x in self.projections.apply(query, key, value))
        batch, _, length, _ = q.shape
        source = k.shape[2]
        k, v = (x if x0 is None else _given(x, x0) for x, x0 in zip((k, v), static, strict=True))
        if self.learned is not None:
            if static != (None, None):
                raise GraphFlowError(f"{_NAME}: no bias can be added to static keys or values")
            k, v = (_longer(x, self._split(b)) for x, b in zip((k, v), self.learned, strict=True))
        if self.zero:
            k, v = (_longer(x, x.new_zeros((1, 1, 1, x.shape[-1]))) for x in (k, v))
        if masks.causal and masks.padding is None and not shown.weights:
            mixed = scaled_dot_product_attention(q, k, v, None, dropout_p, True)
            return self._joined(mixed), None
        mask = masks.joined(batch, self.heads, length, source, k.shape[2] - source)
        if mask is not None and mask.dtype is not T.bool_:
            mask = cast(mask, q.dtype)
        if not shown.weights:
            return self._joined(scaled_dot_product_attention(q, k, v, mask, dropout_p)), None
        weights = dropout(attention_weights(q, k, mask, None), dropout_p)
        out = self._joined(matmul(weights, v))
        return out, mean(weights, 1) if shown.averaged else weights

    def _single(
        self, query: Tensor, key: Tensor, value: Tensor, masks: Masks, dropout_p: float,
        shown: Shown, static: tuple[Tensor | None, Tensor | None],
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """A batch of one, without its dimension."""
        axis = 0 if self.batch_first else 1
        made: dict[int, Tensor] = {}  # equal inputs stay one tensor
        q, k, v = (
            made.setdefault(id(x), unsqueeze(x, axis)) for x in (query, key, value)
        )  # fmt: skip
        padding = None if masks.padding is None else unsqueeze(masks.padding, 0)
        masks = Masks(masks.attn, padding, masks.causal)
        out, weights = self.apply(q, k, v, masks, dropout_p, shown, static)
        return out.squeeze(axis), None if weights is None else weights.squeeze(0)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
            raise ShapeError(
                f"{_NAME}: query, key and value need 3 dimensions, or 2 without a batch; they "
                f"have {query.ndim}, {key.ndim} and {value.ndim}"
            )
        if query.shape[-1] % self.heads:
            raise ShapeError(f"{_NAME}: {query.shape[-1]} features are no multiple of {self.heads}")
        same = key.ndim - (self.projections.separate is not None)
        if key.shape[:same] != value.shape[:same]:
            raise ShapeError(
                f"{_NAME}: key of shape {list(key.shape)} and value of shape "
                f"{list(value.shape)} do not belong together"
            )

    def _split(self, x: Tensor) -> Tensor:
        """[positions, N, E] as [N, heads, positions, E / heads]."""
        parts = reshape(x, (*x.shape[:2], self.heads, x.shape[2] // self.heads))
        return permute(parts, 0, 2, 1, 3) if self.batch_first else permute(parts, 1, 2, 0, 3)

    def _joined(self, mixed: Tensor) -> Tensor:
        """The heads side by side again, projected."""
        back = permute(mixed, 0, 2, 1, 3) if self.batch_first else permute(mixed, 2, 0, 1, 3)
        rows = reshape(back, (*back.shape[:2], -1))
        if isinstance(self.out_weight, Tensor):
            return linear(rows, self.out_weight, self.out_bias)
        made: Tensor = self.out_weight(rows)
        return made


def _given(made: Tensor, static: Tensor) -> Tensor:
    """Keys or values that come ready, [N * heads, S, E / heads], by batch and head."""
    batch, heads, _, width = made.shape
    if static.ndim != 3 or (static.shape[0], static.shape[2]) != (batch * heads, width):
        raise ShapeError(
            f"{_NAME}: static keys and values need shape [{batch * heads}, S, {width}], "
            f"not {list(static.shape)}"
        )
    return reshape(static, (batch, heads, *static.shape[1:]))


def _longer(x: Tensor, last: Tensor) -> Tensor:
    """One more position, the same for every sample (and head, if ``last`` has one)."""
    return cat([x, expand(last, (*x.shape[:2], 1, x.shape[3]))], 2)
