"""Tensors in memory that several processes have: ``share_memory_``.

The memory is a file without a name, mapped.  Processes that are forked have it as it is; to others
its descriptor is sent, by way of Python's ``multiprocessing``: arguments of processes, queues and
pipes.  It is given back when the last of them is done with it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from multiprocessing import reduction
from typing import Any

import numpy as np

from graphflow.cell import Cell
from graphflow.errors import GraphFlowError, TraceError
from graphflow.functions.creation import from_numpy
from graphflow.mode import mode
from graphflow.tensor import Tensor


class Memory:
    """A file without a name, of ``size`` bytes, and where it is mapped."""

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = max(size, 1)
        if descriptor is None:
            descriptor = _unnamed()
            os.ftruncate(descriptor, self.size)
        self.descriptor = descriptor
        self.bytes = mmap.mmap(descriptor, self.size)
        weakref.finalize(self, os.close, descriptor)

    def array(self, dtype: Any, shape: Any, offset: int = 0, strides: Any = None) -> Any:
        """A part of it as an array."""
        return np.ndarray(shape, dtype, self.bytes, offset, strides)


def _unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("graphflow")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_MEMORIES: weakref.WeakKeyDictionary[Cell, Memory] = weakref.WeakKeyDictionary()


def is_shared(tensor: Tensor) -> bool:
    """Whether the memory is one that :func:`share` made."""
    return mode.tracer is None and tensor._cell in _MEMORIES


def share(tensor: Tensor) -> Tensor:
    """Move a tensor of the CPU's to memory that other processes can have, too."""
    if mode.tracer is not None:
        raise TraceError("share_memory_() inside a compiled function is not possible; do it before")
    if tensor.device.type != "cpu":
        raise GraphFlowError(f"share_memory_(): a tensor on {tensor.device} cannot be shared")
    if not is_shared(tensor):
        array = tensor._concrete("share_memory_()")
        memory = Memory(array.nbytes)
        moved = memory.array(array.dtype, array.shape)
        np.copyto(moved, array)
        tensor.data = _over(memory, moved)
        _sent_by_descriptor()
    return tensor


def _over(memory: Memory, array: Any) -> Tensor:
    made = from_numpy(array)
    _MEMORIES[made._cell] = memory
    return made


def _sent_by_descriptor(kind: type[Tensor] = Tensor) -> None:
    """Have ``multiprocessing`` ask :func:`_reduced` of tensors, parameters and all others."""
    reduction.ForkingPickler.register(kind, _reduced)
    for derived in kind.__subclasses__():
        _sent_by_descriptor(derived)


def _reduced(tensor: Tensor) -> Any:
    """How ``multiprocessing`` sends a tensor: its memory, if that is shared, else a copy."""
    if not is_shared(tensor):
        return tensor.__reduce_ex__(2)
    if not tensor.is_leaf:
        raise GraphFlowError("a tensor that has a history cannot be sent; detach() it")
    memory, array = _MEMORIES[tensor._cell], tensor._concrete("sending a tensor")
    start = np.ndarray(memory.size, np.uint8, memory.bytes).ctypes.data
    place = (array.dtype, array.shape, array.ctypes.data - start, array.strides)
    sent = reduction.DupFd(memory.descriptor)
    return _received, (type(tensor), sent, memory.size, place, tensor.requires_grad)


def _received(kind: type, sent: Any, size: int, place: Any, requires_grad: bool) -> Tensor:
    memory = Memory(size, sent.detach())
    made = _over(memory, memory.array(*place))
    made.__class__ = kind
    made._requires_grad = requires_grad
    _sent_by_descriptor()
    return made
