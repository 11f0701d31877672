"""Page-locked host memory: copies between it and a device can run while the host goes on."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

import numpy as np

from graphflow.codegen.cuda.toolchain import is_simulated, toolchain
from graphflow.runtime.cuda.current import current, on, require_device

HostArray = np.ndarray[Any, Any]
_lock = threading.Lock()
_ranges: dict[int, int] = {}
"""Where page-locked memory starts and ends."""
_under_way: deque[tuple[Any, HostArray]] = deque()
"""Copies that were asked for, by the event after each, with the memory that they read."""


def pinned(values: HostArray) -> HostArray:
    """A row-major copy of ``values`` in page-locked memory; needs a device."""
    require_device()
    with on(current()):
        made: HostArray = toolchain().cuda.pinned_array(max(values.size, 1), values.dtype)
    start = made.__array_interface__["data"][0]
    with _lock:
        _ranges[start] = start + made.nbytes
    weakref.finalize(made, _ranges.pop, start, None)
    held = made[: values.size].reshape(values.shape)
    np.copyto(held, values)
    return held


def is_pinned(values: HostArray) -> bool:
    """Whether all of an array lies in memory that :func:`pinned` made."""
    if not _ranges:
        return False
    low, high = np.lib.array_utils.byte_bounds(values)
    with _lock:
        return any(start <= low and high <= stop for start, stop in _ranges.items())


def copy_without_waiting(target: Any, values: HostArray) -> None:
    """Copy page-locked, row-major ``values`` to a part of a block, in the order of its work.

    The driver's current device is the block's.  The memory lives until the copy is done; who
    writes to it before that changes what is copied, as in PyTorch.
    """
    if is_simulated():
        target.copy_to_device(values)
        return
    cuda = toolchain().cuda
    target.copy_to_device(values, stream=cuda.default_stream())
    event = cuda.event(timing=False)
    event.record()
    _under_way.append((event, values))
    while _under_way and _under_way[0][0].query():
        _under_way.popleft()
