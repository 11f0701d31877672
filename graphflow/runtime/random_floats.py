"""Many random numbers at once for eager code: a kernel over ranges of elements, on all threads.

NumPy takes 40 ns for a number, and a model of images has ten million first weights.  The
kernel is a program's as any other: made once a machine, found in the cache by later processes.
A process that finds none there makes its numbers with NumPy, which are the same, and has the
kernel compiled with its first program.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from graphflow import flags
from graphflow.codegen.schedule import KernelSource
from graphflow.runtime.cache import find
from graphflow.runtime.storage import Array, address_of
from graphflow.runtime.threads import pool

_ALONE = 1 << 18  # elements that are sooner made than shared with another thread
_TEXT = '''\
"""out[i] = uniform in [0, 1): word args[3] of Philox at element i, args[4] <= i < args[5]"""
from graphflow.codegen.prelude import f32, kernel, pointer_f32, u32, vm


@kernel
def random_floats(args, tid, nth):
    out = pointer_f32(args, 0)
    seed = args[1]
    call = args[2]
    word = args[3]
    for i in range(args[4], args[5]):
        bits = vm.philox(seed, call, i, word)
        out[i] = f32(bits >> u32(8)) * f32(5.9604645e-08)
'''
KERNEL = KernelSource("random_floats", _TEXT)
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class _Wanted:
    """Whether this process has looked for the kernel in vain."""

    in_vain = False


def companions() -> list[KernelSource]:
    """The kernel, if this process would have used it."""
    return [KERNEL] if _Wanted.in_vain else []


def random_floats(seed: int, call: int, shape: Sequence[int], word: int) -> Array | None:
    """Float32 in [0, 1) of the upper 24 bits of Philox word ``word`` at each element of ``shape``.

    ``None`` where the kernel is not in the cache, or kernels are Python functions.
    """
    address = None if flags.DISABLE_JIT.value else find(KERNEL)
    if address is None:
        _Wanted.in_vain = True
        return None
    out = np.empty(shape, np.float32)
    kernel, base, count = _CALL(address), address_of(out), out.size

    def fill(begin: int, end: int) -> None:
        words = np.array([base, seed, call, word, begin, end], np.int64)
        kernel(address_of(words), 0, 1)

    parts = max(1, min(pool.budget, count // _ALONE))
    bounds = [count * i // parts for i in range(parts + 1)]
    others = [threading.Thread(target=fill, args=part) for part in pairwise(bounds[1:])]
    for thread in others:
        thread.start()
    fill(*bounds[:2])
    for thread in others:
        thread.join()
    return out
