"""Many random numbers at once for eager code: a kernel over ranges of elements, on all threads.

NumPy takes 40 ns for a number, and a model of images has ten million first weights.  What is made
of the numbers is made a piece at a time, while they are in the caches.  The kernel is a program's
as any other: made once a machine, found in the cache by later processes.  A process that finds
none there makes its numbers with NumPy, which are the same, and has the kernel compiled with its
first program.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from graphflow import flags
from graphflow.codegen.schedule import KernelSource
from graphflow.ir.ops.pieces import PIECE_BYTES
from graphflow.runtime.cache import COMPANIONS, find
from graphflow.runtime.shared_work import share
from graphflow.runtime.storage import Array, address_of

Formula: TypeAlias = Callable[..., Array]

PIECE = PIECE_BYTES // 4
"""Elements that a formula is given at a time."""
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
_WORDS = ctypes.c_int64 * 6


class _Wanted:
    """Whether this process has looked for the kernel in vain."""

    in_vain = False


def companions() -> list[KernelSource]:
    """The kernel, if this process would have used it."""
    return [KERNEL] if _Wanted.in_vain else []


COMPANIONS.append(companions)


def random_floats(
    seed: int, call: int, words: Sequence[int], formula: Formula | None = None
) -> Callable[[Array], None] | None:
    """What fills a row-major float32 array with ``formula`` of numbers in [0, 1).

    They are the upper 24 bits of each of the Philox ``words`` at each element; without a formula
    there is one word.  A formula is given arrays of neighbouring elements, whose memory is used
    again, and returns what belongs there; several threads call it.

    None where the kernel is not in the cache, or kernels are Python functions.
    """
    address = None if flags.DISABLE_JIT.value else find(KERNEL)
    if address is None:
        _Wanted.in_vain = True
        return None
    return partial(_fill, _CALL(address), (seed, call), words, formula)


def _fill(
    kernel: Callable[..., None],
    stream: tuple[int, int],
    words: Sequence[int],
    formula: Formula | None,
    out: Array,
) -> None:
    flat, addressof = out.reshape(-1), ctypes.addressof

    def numbers(at: int, word: int, begin: int, end: int) -> None:
        # The kernel writes at out + 4 * element: it is told of the elements of a whole tensor.
        words = _WORDS(at - 4 * begin, *stream, word, begin, end)
        kernel(addressof(words), 0, 1)

    def fill(begin: int, end: int) -> None:
        if formula is None:
            numbers(address_of(flat[begin:end]), words[0], begin, end)
            return
        room = [np.empty(PIECE, np.float32) for _ in words]
        rows = [(address_of(array), word) for array, word in zip(room, words, strict=True)]
        with np.errstate(all="ignore"):
            for start in range(begin, end, PIECE):
                stop = min(start + PIECE, end)
                for at, word in rows:
                    numbers(at, word, start, stop)
                flat[start:stop] = formula(*(array[: stop - start] for array in room))

    share(fill, flat.size, _ALONE)
