"""Attention on a device as one operation, which a library may compute as a whole.

Scores are then never in memory, nor kept for the backward pass.  Where there is no library the
operation is the products and the exponentials that it is made of.
"""

from __future__ import annotations

import math
from typing import Any

from graphflow.dispatch import apply_several
from graphflow.errors import GraphFlowError
from graphflow.functions.shaping import expand, reshape
from graphflow.ir import types as T
from graphflow.ir.dims import dim_product
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.tensor import Tensor

FEATURES, WIDEST = 8, 128
"""Features of a head: a multiple of so many, and no more than so many."""


def fused(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float | None, small: bool
) -> Tensor | None:
    """Attention of a compiled step on a device by operation ``attend``; None where that does not
    fit: of other dtypes than halves, or of heads of other sizes than a library takes.

    Without a library, scores are in memory as a whole, so they have to be ``small``.
    """
    if mode.tracer is None or query.dtype not in (T.float16, T.bfloat16):
        return None
    operands = query, key, value
    if any(0 in x.shape for x in operands):
        return None
    widths = query.shape[-1], value.shape[-1]
    if any(type(n) is not int or n % FEATURES or n > WIDEST for n in widths):
        return None
    if not small and _missing(query.device.index or 0):
        return None
    lead = broadcast_shapes(*(tuple(x.shape[:-2]) for x in operands))
    factor = 1.0 / math.sqrt(widths[0]) if scale is None else float(scale)
    heads = (_in_heads(x, lead) for x in operands)
    out = apply_several("attend", *heads, scale=factor, causal=causal)[0]
    return out if len(lead) == 2 else reshape(out, (*lead, *out.shape[-2:]))


def _in_heads(x: Tensor, lead: tuple[Any, ...]) -> Tensor:
    """``x`` [..., positions, features] as [batch, heads, positions, features], repeated along
    axes ``lead`` that it lacks: heads that several queries share."""
    if tuple(x.shape[:-2]) != lead:
        x = expand(x, (*lead, *x.shape[-2:]))
    if len(lead) == 2:
        return x
    batch, *heads = lead or (1,)
    return reshape(x, (batch, dim_product(tuple(heads)), *x.shape[-2:]))


def _missing(device: int) -> bool:
    """Whether no library attends on a CUDA device."""
    from graphflow.backends import cuda
    from graphflow.runtime.cuda.routines import library

    return not cuda.cudnn_sdp_enabled() or isinstance(library(device), str)


def need_products() -> None:
    """Raise unless attention on a device may be products and a softmax."""
    from graphflow.backends import cuda

    if not cuda.math_sdp_enabled():
        raise GraphFlowError(
            "scaled_dot_product_attention: only products and a softmax can compute this attention "
            "(no library takes masks, dropout, float32, eager calls or such heads), and "
            "gf.backends.cuda.enable_math_sdp(False) rules them out"
        )
