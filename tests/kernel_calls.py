"""Call kernels by address from tests (imports no Numba)."""

from __future__ import annotations

import ctypes

import numpy as np

KERNEL_ABI = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def call(address: int, *arguments: np.ndarray | int, threads: int = 1) -> None:
    """Call a kernel on arrays (by address) and integers, for each thread number in turn."""
    words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    block = np.array(words, np.int64)
    function = KERNEL_ABI(address)
    for tid in range(threads):
        function(block.ctypes.data, tid, threads)
