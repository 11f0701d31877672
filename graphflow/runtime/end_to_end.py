"""Vectors laid end to end, scaled and looked at for NaN in one pass over memory.

What ranks of a job send to each other is laid down for them in every step.  NumPy needs a call
for each vector and a second pass for the look.  The kernel is a program's as any other: it is
compiled beside the first program of a process that has :func:`expect`\\ ed to need it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from graphflow import flags
from graphflow.codegen.schedule import KernelSource
from graphflow.runtime.cache import find
from graphflow.runtime.storage import Array, address_of

_TEXT = '''\
"""args[3] vectors of f32 times one at args[1], end to end at args[0]; args[2]: all are finite"""
from graphflow.codegen.prelude import (
    address_of, i64, kernel, pointer_at_f32, pointer_at_i64, pointer_at_u32, pointer_f32, u32,
)


@kernel
def lay_end_to_end(args, tid, nth):
    scale = pointer_f32(args, 1)[0]
    seen = u32(0)
    begin = args[0]
    for vector in range(args[3]):
        values = pointer_at_f32(args[4 + 2 * vector])
        bits = pointer_at_u32(args[4 + 2 * vector])
        count = args[5 + 2 * vector]
        out = pointer_at_f32(begin)
        for i in range(count):
            # The highest bit is set where the exponent has all of its bits: no finite number.
            seen = u32(seen | u32(u32(bits[i] & u32(0x7FFFFFFF)) + u32(0x00800000)))
            out[i] = values[i] * scale
        begin += 4 * count
    pointer_at_i64(address_of(args))[2] = 1 - (i64(seen) >> 31)
'''
KERNEL = KernelSource("lay_end_to_end", _TEXT)
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class _Wanted:
    """Whether programs should bring the kernel, and how to call it."""

    expected = False
    call: ctypes._FuncPointer | None = None


def expect() -> None:
    """This process will lay vectors end to end."""
    _Wanted.expected = True


def companions() -> list[KernelSource]:
    """The kernel, if this process will use it."""
    return [KERNEL] if _Wanted.expected else []


def lay_end_to_end(arrays: Sequence[Array], scale: float, vector: Array) -> bool | None:
    """Lay float32 ``arrays`` end to end in ``vector``, times ``scale``; whether all are finite.

    ``None``, and nothing is done, where arrays are not row-major float32, the kernel is not in
    the cache yet, or kernels are Python functions.
    """
    if vector.dtype != np.float32 or not all(a.flags.c_contiguous for a in arrays):
        return None
    if any(a.dtype != np.float32 for a in arrays):
        return None
    call = _Wanted.call or _found()
    if call is None:
        return None
    factor = np.array(scale, np.float32)
    words = [address_of(vector), address_of(factor), 0, len(arrays)]
    for array in arrays:
        words += address_of(array), array.size
    block = (ctypes.c_int64 * len(words))(*words)
    call(block, 0, 1)
    return bool(block[2])


def _found() -> ctypes._FuncPointer | None:
    address = None if flags.DISABLE_JIT.value else find(KERNEL)
    if address is not None:
        _Wanted.call = _CALL(address)
    return _Wanted.call
