"""Vectors laid end to end, scaled and looked at for NaN in one pass over memory; added up.

What ranks of a job send to each other is laid down for them in every step.  NumPy needs a call
for each vector and a second pass for the look.  The kernels are a program's as any other: they are
compiled beside the first program of a process that has :func:`expect`\\ ed to need them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from graphflow import flags
from graphflow.codegen.schedule import KernelSource
from graphflow.ir.ops.shared_sums import ADDING_UP
from graphflow.runtime.cache import COMPANIONS, find
from graphflow.runtime.storage import Array, address_of

_LAY_TEXT = '''\
"""args[3] vectors of f32 times one at args[1], end to end at args[0]; args[2]: all are finite

Vectors that lie there already are looked at and left alone, if the factor is 1.
"""
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
        # The highest bit is set where the exponent has all of its bits: no finite number.
        if begin == args[4 + 2 * vector] and scale == 1.0:
            for i in range(count):
                seen = u32(seen | u32(u32(bits[i] & u32(0x7FFFFFFF)) + u32(0x00800000)))
        else:
            for i in range(count):
                seen = u32(seen | u32(u32(bits[i] & u32(0x7FFFFFFF)) + u32(0x00800000)))
                out[i] = values[i] * scale
        begin += 4 * count
    pointer_at_i64(address_of(args))[2] = 1 - (i64(seen) >> 31)
'''
LAY = KernelSource("lay_end_to_end", _LAY_TEXT)
_ADD_TEXT = f'''\
"""out = (a + b) * scale over args[4] f32; args: out, a, b, where scale is, how many, all finite"""
from graphflow.codegen.prelude import (
    address_of, i64, kernel, pointer_at_i64, pointer_f32, pointer_u32, u32,
)


@kernel
def add_scaled(args, tid, nth):
    out = pointer_f32(args, 0)
    a = pointer_f32(args, 1)
    b = pointer_f32(args, 2)
    first = pointer_u32(args, 1)
    second = pointer_u32(args, 2)
    scale = pointer_f32(args, 3)[0]
    count = args[4]
{ADDING_UP}
    pointer_at_i64(address_of(args))[5] = finite
'''
ADD = KernelSource("add_scaled", _ADD_TEXT)
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class _Wanted:
    """Whether programs should bring the kernels, and how to call them."""

    expected = False
    calls: ClassVar[dict[str, ctypes._FuncPointer]] = {}


def expect() -> None:
    """This process will lay vectors end to end, and add them up."""
    _Wanted.expected = True


def companions() -> list[KernelSource]:
    """The kernels, if this process will use them."""
    return [LAY, ADD] if _Wanted.expected else []


COMPANIONS.append(companions)


def lay_end_to_end(arrays: Sequence[Array], scale: float, vector: Array) -> bool | None:
    """Lay float32 ``arrays`` end to end in ``vector``, times ``scale``; whether all are finite.

    ``None``, and nothing is done, where arrays are not row-major float32, the kernel is not in
    the cache yet, or kernels are Python functions.
    """
    if vector.dtype != np.float32 or not all(a.flags.c_contiguous for a in arrays):
        return None
    if any(a.dtype != np.float32 for a in arrays):
        return None
    call = _call(LAY)
    if call is None:
        return None
    factor = np.array(scale, np.float32)
    words = [address_of(vector), address_of(factor), 0, len(arrays)]
    for array in arrays:
        words += address_of(array), array.size
    block = (ctypes.c_int64 * len(words))(*words)
    call(block, 0, 1)
    return bool(block[2])


def add_scaled(a: Array, b: Array, scale: float, out: Array) -> bool | None:
    """Let ``out`` be ``(a + b) * scale``, vectors of float32; whether ``a`` and ``b`` are finite.

    ``None``, and nothing is done, in the cases of :func:`lay_end_to_end`.
    """
    call = _call(ADD) if out.dtype == a.dtype == b.dtype == np.float32 else None
    if call is None:
        return None
    factor = np.array(scale, np.float32)
    words = [*map(address_of, (out, a, b, factor)), out.size, 0]
    block = (ctypes.c_int64 * len(words))(*words)
    call(block, 0, 1)
    return bool(block[5])


def _call(kernel: KernelSource) -> ctypes._FuncPointer | None:
    """How to call a kernel, if it is there."""
    found = _Wanted.calls.get(kernel.name)
    if found is None and not flags.DISABLE_JIT.value:
        address = find(kernel)
        if address is not None:
            found = _Wanted.calls[kernel.name] = _CALL(address)
    return found
