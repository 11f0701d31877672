"""Attention on a device as one operation, which a library may compute as a whole.

Scores are then never in memory, nor kept for the backward pass.  Where there is no library the
operation is the products and the exponentials that it is made of.
"""

from __future__ import annotations

import math

from graphflow.dispatch import apply_several
from graphflow.errors import GraphFlowError
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.tensor import Tensor

FEATURES, WIDEST = 8, 128
"""Features of a head: a multiple of so many, and no more than so many."""


def fused(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float | None, small: bool
) -> Tensor | None:
    """Attention of a compiled step on a device by operation ``attend``; None where that does not
    fit: of other dtypes than halves, or of heads of unequal or odd sizes.

    Without a library, scores are in memory as a whole, so they have to be ``small``.
    """
    if mode.tracer is None or query.dtype not in (T.float16, T.bfloat16):
        return None
    if not query.ndim == key.ndim == value.ndim == 4:
        return None
    q, k, v = (tuple(x.shape) for x in (query, key, value))
    if not q[:2] == k[:2] == v[:2] or 0 in (*q, *k, *v):
        return None
    if any(type(n) is not int or n % FEATURES or n > WIDEST for n in (q[3], v[3])):
        return None
    if not small and _missing(query.device.index or 0):
        return None
    factor = 1.0 / math.sqrt(q[3]) if scale is None else float(scale)
    return apply_several("attend", query, key, value, scale=factor, causal=causal)[0]


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
