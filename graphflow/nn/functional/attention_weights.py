"""The weights of attention: scores, a mask, a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow.dispatch import apply
from graphflow.functions.creation import arange
from graphflow.functions.elementwise import add, ge, mul, where
from graphflow.functions.products import matmul
from graphflow.functions.reductions import weights
from graphflow.functions.shaping import expand, narrow, transpose, unsqueeze
from graphflow.ir import types as T
from graphflow.promotion import cast
from graphflow.tensor import Tensor


def causal_mask(
    shape: Sequence[Any], first: int = 0, most: int = 0, token: Tensor | None = None,
    turned: bool = False,
) -> Tensor:  # fmt: skip
    """To be added to scores [..., L, S]: -inf where position ``first + i`` comes before j, else 0.

    Of the whole shape, so that a compiled program makes it where it is used, not in memory.
    Numbers, for the gradient of a sum does not need them.  ``most``: the number of positions
    of all the blocks that are cut from one sequence; ``token``: see operation ``after``;
    ``turned``: the scores are [..., S, L].
    """
    length, source = reversed(shape[-2:]) if turned else shape[-2:]
    positions = arange(max(most, first + length, source), dtype=T.int32)
    rows, columns = narrow(positions, 0, first, length), narrow(positions, 0, 0, source)
    if token is not None:
        rows = apply("after", rows, cast(token, T.int32))
    columns, rows = (unsqueeze(columns, 1), rows) if turned else (columns, unsqueeze(rows, 1))
    seen = ge(expand(rows, shape), expand(columns, shape))
    return where(seen, 0.0, -math.inf)


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
