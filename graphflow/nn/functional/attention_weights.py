"""The weights of attention: scores, a mask, a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow.functions.creation import arange
from graphflow.functions.elementwise import add, ge, mul, where
from graphflow.functions.products import matmul
from graphflow.functions.reductions import weights
from graphflow.functions.shaping import expand, narrow, transpose, unsqueeze
from graphflow.ir import types as T
from graphflow.promotion import cast
from graphflow.tensor import Tensor


def causal_mask(shape: Sequence[Any], first: int = 0) -> Tensor:
    """True where position ``first + i`` may look at position j <= first + i; [..., L, S].

    Of the whole shape, so that a compiled program makes it where it is used, not in memory.
    """
    length, source = shape[-2:]
    rows = narrow(arange(first + length), 0, first, length)
    return ge(expand(unsqueeze(rows, 1), shape), expand(arange(source), shape))


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
