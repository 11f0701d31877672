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
from graphflow.ir.dims import dim_product
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.tensor import Tensor


def fused(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float | None, small: bool
) -> Tensor | None:
    """Attention of a compiled step on a device by operation ``attend``; None where that is not
    possible.

    Where no library takes it, scores are in memory as a whole, so they have to be ``small``.
    """
    operands, widths = (query, key, value), (query.shape[-1], value.shape[-1])
    if mode.tracer is None or any(0 in x.shape for x in operands):
        return None
    if not small and _in_parts(query, widths):
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


def _in_parts(query: Tensor, widths: tuple[int, int]) -> bool:
    """Whether no library takes heads of so many features on the device of ``query``."""
    from graphflow.on_device import attention_switches
    from graphflow.runtime.cuda.attention import unfit
    from graphflow.runtime.cuda.routines import library

    off = attention_switches()[0] or unfit(query.dtype.short, widths)
    return bool(off) or isinstance(library(query.device.index or 0), str)


def need_products() -> None:
    """Raise unless attention on a device may be products and a softmax."""
    from graphflow.on_device import attention_switches

    if whole := attention_switches()[1]:
        raise GraphFlowError(
            "scaled_dot_product_attention: no library takes masks, dropout or eager calls; "
            f"{whole} rules out products and a softmax"
        )
