"""What Numba's CUDA simulator needs to be quick and right.

Its threads are Python's, and the one that waits for them polls.  With Python's usual 5 ms
between switches most of the time would go to polling.  With shorter ones two threads of a
block may meet in the allocation of a shared array and get one each, so that takes a lock.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from graphflow.codegen.cuda.toolchain import toolchain

SWITCH_SECONDS = 1e-5
SIMULATED_THREADS = 4
"""Of a block: every thread of the simulator is one of Python's."""


@cache
def prepare() -> None:
    """Make the allocation of shared memory one step: an array for each line that asks for it."""
    lock = threading.Lock()

    def array(self: Any, shape: Any, dtype: Any) -> Any:
        frame = sys._getframe(1)
        line = (frame.f_code.co_filename, frame.f_lineno)
        with lock:
            found = self._allocations.get(line)
            if found is None:
                found = self._allocations[line] = np.empty(shape, dtype)
            return found

    toolchain().module("simulator.kernelapi").FakeCUDAShared.array = array


@contextmanager
def running() -> Iterator[None]:
    """While kernels run in the simulator."""
    prepare()
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with warnings.catch_warnings():  # the threads of a block have no errstate of ours
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        sys.setswitchinterval(before)
