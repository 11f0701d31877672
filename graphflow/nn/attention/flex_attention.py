"""Attention whose scores and mask are functions of positions, by PyTorch's names.

The functions see one score, and the numbers of its batch entry, head, query and key; ``vmap``
applies them to all.  Scores and masks are whole matrices here: what a mask leaves out is computed
all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from graphflow.dispatch import full
from graphflow.errors import ShapeError
from graphflow.func import vmap
from graphflow.functions.creation import arange, zeros
from graphflow.functions.elementwise import bitwise_and, bitwise_or, eq, where
from graphflow.functions.products import matmul
from graphflow.functions.repeating import repeat_interleave
from graphflow.ir.types import bool_, float32, float64
from graphflow.nn.functional import scaled_dot_product_attention, softmax
from graphflow.promotion import cast
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

__all__ = [
    "AuxOutput", "AuxRequest", "BlockMask", "and_masks", "create_block_mask", "create_mask",
    "flex_attention", "noop_mask", "or_masks",
]  # fmt: skip

ScoreMod: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
MaskMod: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class AuxRequest(NamedTuple):
    """What is wanted beside the result."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """What was asked for by an :class:`AuxRequest`, [batch, heads, queries] each."""

    lse: Tensor | None = None
    max_scores: Tensor | None = None


class BlockMask:
    """Where attention may go: a mask [batch or 1, heads or 1, queries, keys] of truths."""

    def __init__(self, mask: Tensor, mask_mod: MaskMod) -> None:
        self.mask, self.mask_mod = mask, mask_mod

    @property
    def shape(self) -> tuple[int, ...]:
        """The mask's extents."""
        return tuple(self.mask.shape)

    @property
    def seq_lengths(self) -> tuple[int, int]:
        """Queries and keys."""
        return self.shape[2], self.shape[3]

    def to(self, device: Any) -> BlockMask:
        """The same on another device."""
        return BlockMask(self.mask.to(device), self.mask_mod)

    def __repr__(self) -> str:
        return f"BlockMask(shape={self.shape})"


def noop_mask(batch: Tensor, head: Tensor, token_q: Tensor, token_kv: Tensor) -> Tensor:
    """Attention may go anywhere."""
    return full((), True, bool_, batch.device)


def and_masks(*mask_mods: MaskMod) -> MaskMod:
    """Where all of these let attention go."""
    return _combined(bitwise_and, mask_mods)


def or_masks(*mask_mods: MaskMod) -> MaskMod:
    """Where any of these lets attention go."""
    return _combined(bitwise_or, mask_mods)


def _combined(operation: Callable[..., Any], mods: tuple[MaskMod, ...]) -> MaskMod:
    if not mods or not all(map(callable, mods)):
        raise RuntimeError(f"masks to combine are functions, at least one, not {mods}")

    def mask(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        found = mods[0](b, h, q, kv)
        for mod in mods[1:]:
            found = operation(found, mod(b, h, q, kv))
        return found

    return mask


def create_mask(
    mod_fn: MaskMod, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int, device: Any = None
) -> Tensor:
    """The truths of a mask function, [B, H, Q_LEN, KV_LEN]; None stands for 1."""
    extents = (B or 1, H or 1, Q_LEN, KV_LEN)
    where_to = zeros(extents, dtype=bool_, device=device)
    return _everywhere(lambda _, b, h, q, kv: cast(mod_fn(b, h, q, kv), bool_), where_to)


def create_block_mask(
    mask_mod: MaskMod, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int, device: Any = None,
    BLOCK_SIZE: Any = 128, _compile: bool = False, **options: Any,
) -> BlockMask:  # fmt: skip
    """:func:`create_mask` for :func:`flex_attention`; how it is cut into blocks means nothing."""
    return BlockMask(create_mask(mask_mod, B, H, Q_LEN, KV_LEN, device), mask_mod)


def _everywhere(mod: ScoreMod, scores: Tensor) -> Tensor:
    """``mod`` of each score and its place."""
    axes: list[Any] = [(0, None, None, None, 0), (0, None, None, 0, None)]
    axes += [(0, None, 0, None, None), (0, 0, None, None, None)]
    function: Any = mod
    for in_dims in axes:
        function = vmap(function, in_dims=in_dims)
    places = [arange(extent, device=scores.device) for extent in scores.shape]
    made: Tensor = function(scores, *places)
    return made


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, score_mod: ScoreMod | None = None,
    block_mask: BlockMask | None = None, scale: float | None = None, enable_gqa: bool = False,
    return_lse: bool = False, kernel_options: Any = None, *, return_aux: AuxRequest | None = None,
) -> Any:  # fmt: skip
    """Attention over query [B, H, L, E], key [B, H, S, E] and value [B, H, S, Ev].

    ``score_mod(score, b, h, q, kv)`` gives the score to use; ``block_mask`` says where attention
    may go.  Where it may go nowhere the result is 0.  ``return_lse``: the logarithm of the sum
    of exponentials of the scores as well.
    """
    if query.ndim != 4 or key.ndim != 4 or value.ndim != 4:
        raise ShapeError("flex_attention: query, key and value have 4 dimensions")
    heads, shared = query.shape[1], key.shape[1]
    if heads != shared and not (enable_gqa and heads % shared == 0):
        raise ShapeError(
            f"flex_attention: {heads} heads of the query and {shared} of the key; enable_gqa=True "
            "lets several share one"
        )
    mask = None if block_mask is None else _fitting(block_mask, query, key)
    if score_mod is None and not return_lse and return_aux is None:
        return scaled_dot_product_attention(
            query, key, value, mask, scale=scale, enable_gqa=enable_gqa
        )
    if heads != shared:
        key, value = (repeat_interleave(x, heads // shared, 1) for x in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    dtype = float64 if query.dtype is float64 else float32
    scores: Tensor = cast(matmul(query, key.transpose(-2, -1)), dtype) * scale
    if score_mod is not None:
        scores = cast(_everywhere(score_mod, scores), dtype)
    if mask is not None:
        scores = where(mask, scores, -math.inf)
    nowhere = eq(scores, -math.inf).all(-1, keepdim=True)
    weights = softmax(where(nowhere, 0.0, scores), -1)
    out = matmul(cast(where(nowhere, 0.0, weights), value.dtype), value)
    if return_aux is not None:
        lse = scores.logsumexp(-1) if return_aux.lse else None
        return out, AuxOutput(lse, scores.amax(-1) if return_aux.max_scores else None)
    return (out, scores.logsumexp(-1)) if return_lse else out


def _fitting(block_mask: BlockMask, query: Tensor, key: Tensor) -> Tensor:
    wanted = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    given = block_mask.shape
    pairs = list(zip(given, wanted, strict=True))
    if any(g not in (1, w) for g, w in pairs[:2]) or given[2:] != wanted[2:]:
        raise ShapeError(
            f"flex_attention: a mask for {list(given)} does not fit scores of {list(wanted)}; "
            "make it with these lengths"
        )
    return block_mask.mask
