"""Device memory: blocks of bytes, and arrays over them.

All that is asked of a driver is to allocate bytes and to copy them, so the simulator
serves as well as a GPU.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from graphflow.codegen.cuda.toolchain import State, is_simulated, state, toolchain
from graphflow.codegen.layout import contiguous_in, row_major
from graphflow.errors import GraphFlowError, OutOfMemoryError
from graphflow.tables import quantity

HostArray = np.ndarray[Any, Any]
LEAST = 256
"""Bytes: no block is smaller, and blocks start at multiples of it."""


class Started:
    """``here``: whether CUDA was started; ``before``: by a process this one was forked from."""

    here = before = False


def _in_child() -> None:
    Started.here, Started.before = False, Started.here or Started.before


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_in_child)


def require_device() -> State:
    """What kernels run on; an error that says what is missing if there is nothing."""
    found = state()
    if Started.before:
        raise GraphFlowError(
            "CUDA was in use before this process was forked, and a driver does not live on in "
            "a child: start it by multiprocessing.get_context('spawn'), or use CUDA in it only"
        )
    if not found.usable:
        raise GraphFlowError(
            f"CUDA cannot be used here: {found}. Kernels can be tried in the simulator: set "
            "NUMBA_ENABLE_CUDASIM=1 before Python starts"
        )
    Started.here = True
    return found


class Usage:
    """Bytes held on the device: ``now``, and the ``most`` at one time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, nbytes: int) -> None:
        """Count ``nbytes`` more, or fewer."""
        self.now += nbytes
        self.most = max(self.most, self.now)


usage = Usage()


class Block:
    """Bytes on the device, freed when nobody refers to them any more."""

    __slots__ = ("__weakref__", "_views", "handle", "nbytes")

    def __init__(self, nbytes: int) -> None:
        require_device()
        self.nbytes = nbytes
        room = max(LEAST, -(-nbytes // LEAST) * LEAST)
        self.handle: Any = _allocated(room)
        self._views: dict[tuple[int, str], Any] = {}
        usage.add(room)
        weakref.finalize(self, usage.add, -room)

    def view(self, offset: int, dtype: np.dtype[Any]) -> Any:
        """Everything from byte ``offset`` on as a kernel's argument of elements of ``dtype``."""
        key = (offset, dtype.str)
        found = self._views.get(key)
        if found is None:
            size = dtype.itemsize
            stop = offset + (len(self.handle) - offset) // size * size
            found = self._views[key] = self.handle[offset:stop].view(dtype)
        return found

    @property
    def address(self) -> int:
        """Where the block starts on the device (in the simulator: in ordinary memory)."""
        if is_simulated():
            return int(self.handle.ctypes.data)
        return int(self.handle.__cuda_array_interface__["data"][0])

    def write(self, offset: int, values: HostArray) -> None:
        """Copy row-major ``values`` from the host to byte ``offset``."""
        if values.nbytes:
            data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            self.handle[offset : offset + values.nbytes].copy_to_device(data)

    def read(self, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> HostArray:
        """A copy on the host of the row-major array at byte ``offset``; waits for it."""
        nbytes = prod(shape) * dtype.itemsize
        if not nbytes:
            return np.empty(tuple(shape), dtype)
        data: HostArray = self.handle[offset : offset + nbytes].copy_to_host()
        return data.view(dtype).reshape(tuple(shape))

    def copy(self) -> Block:
        """A block of its own with the same bytes."""
        made = Block(self.nbytes)
        made.handle.copy_to_device(self.handle)
        return made


def _allocated(room: int) -> Any:
    """Bytes from the driver, whose way to say that there are no more differs by package."""
    try:
        return toolchain().cuda.device_array(room, np.uint8)
    except Exception as error:
        if not (isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error)):
            raise
        raise OutOfMemoryError(
            f"no {quantity(room)} of device memory are free; {quantity(usage.now)} are held by "
            f"tensors and programs of this process, {quantity(usage.most)} at most so far"
        ) from None


class DeviceArray:
    """A strided array on the device: what a tensor there holds.

    It has the attributes of a NumPy array that describe memory, and
    ``__cuda_array_interface__``; arithmetic is left to tensors.
    """

    __slots__ = ("__weakref__", "block", "dtype", "offset", "shape", "strides")

    def __init__(
        self,
        block: Block,
        shape: Sequence[int],
        dtype: Any,
        offset: int = 0,
        strides: Sequence[int] | None = None,
    ) -> None:
        self.block, self.offset = block, offset
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        size = self.dtype.itemsize
        self.strides = (
            tuple(step * size for step in row_major(self.shape))
            if strides is None
            else tuple(strides)
        )

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Fresh row-major memory."""
        return cls(Block(prod(shape) * np.dtype(dtype).itemsize), shape, dtype)

    @classmethod
    def of(cls, values: HostArray) -> DeviceArray:
        """A copy of a host array."""
        made = cls.empty(values.shape, values.dtype)
        made.block.write(0, values)
        return made

    base = None
    """Memory of its own, as far as NumPy's notion of views goes."""

    @property
    def flags(self) -> SimpleNamespace:
        """``c_contiguous`` and ``writeable``, as of a NumPy array."""
        repeated = any(step == 0 and n > 1 for n, step in zip(self.shape, self.strides))
        return SimpleNamespace(c_contiguous=self.is_contiguous, writeable=not repeated)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * int(self.dtype.itemsize)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        size = self.dtype.itemsize
        return contiguous_in(self.shape, tuple(step // size for step in self.strides))

    def numpy(self) -> HostArray:
        """A copy on the host; waits for what computes it."""
        if self.is_contiguous:
            return self.block.read(self.offset, self.shape, self.dtype)
        if not self.size:
            return np.empty(self.shape, self.dtype)
        low = sum(min(0, (n - 1) * s) for n, s in zip(self.shape, self.strides))
        high = sum(max(0, (n - 1) * s) for n, s in zip(self.shape, self.strides))
        size = high - low + self.dtype.itemsize
        data = self.block.read(self.offset + low, (size,), np.dtype(np.uint8))
        return np.array(np.ndarray(self.shape, self.dtype, data, -low, self.strides))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> HostArray:
        raise TypeError("an array on a device is no NumPy array; copy it to the CPU first")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.block.address + self.offset, False),
            "strides": None if self.is_contiguous else self.strides,
            "version": 3,
        }

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}{list(self.shape)})"
