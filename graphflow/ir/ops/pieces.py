"""Functions of many steps on long arrays: a piece at a time, which stays in the caches."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeAlias

import numpy as np

from graphflow.ir.op import Array

Function: TypeAlias = Callable[[Array], Array]

PIECE_BYTES = 96 << 10
"""Of a piece: temporaries fit the second-level cache.  For more than 128 KB the C library asks for
pages each time, and gives them back."""


def in_pieces(function: Function) -> Function:
    """``function`` of each element by itself, which keeps the dtype."""

    @wraps(function)
    def whole(x: Array) -> Array:
        if x.nbytes <= PIECE_BYTES or not x.flags.c_contiguous:
            return function(x)
        flat, step = x.reshape(-1), PIECE_BYTES // x.itemsize
        out = np.empty_like(flat)
        for begin in range(0, flat.size, step):
            out[begin : begin + step] = function(flat[begin : begin + step])
        return out.reshape(x.shape)

    return whole
