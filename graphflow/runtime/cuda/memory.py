"""Device memory: blocks of bytes, and arrays over them.

All that is asked of a driver is to allocate bytes and to copy them, so the simulator
serves as well as a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from graphflow.codegen.cuda.toolchain import is_simulated
from graphflow.codegen.layout import contiguous_in, row_major
from graphflow.codegen.schedule import VECTOR_BYTES
from graphflow.runtime.cuda.allocator import ANY, allocator
from graphflow.runtime.cuda.current import current, on, require_device
from graphflow.runtime.cuda.driver import direct
from graphflow.runtime.cuda.pinned import copy_without_waiting, is_pinned

HostArray = np.ndarray[Any, Any]


class Block:
    """Bytes on a device (the current one, unless given), freed when nobody refers to them.

    ``handle`` is memory of another library, which stays its own; ``readonly`` says that it is
    not to be written; ``streams`` are those of other libraries that the block was lent to.
    """

    __slots__ = (
        "__weakref__", "_address", "_views", "device", "handle", "nbytes", "readonly", "streams",
    )  # fmt: skip

    def __init__(self, nbytes: int, device: int | None = None, handle: Any = None) -> None:
        require_device()
        self.nbytes, self.readonly, self._address = nbytes, False, 0
        self.device = current() if device is None else device
        self._views: dict[tuple[int, str], Any] = {}
        self.handle = handle
        self.streams: set[int] = set()
        if handle is None:
            memory = allocator(self.device)
            self.handle = memory.take(nbytes)
            back = weakref.finalize(self, memory.give, self.handle, nbytes, self.streams)
            back.atexit = False

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
        if not self._address:
            simulated = is_simulated()
            data = self.handle.ctypes.data if simulated else self.handle.device_ctypes_pointer.value
            self._address = int(data)
        return self._address

    def copy_from(self, source: Block, offset: int = 0) -> None:
        """Fill the block with what begins at byte ``offset`` of another on the same device,
        which is the driver's current one."""
        if not self.nbytes:
            return
        if (calls := direct()) is not None:
            calls.copy(self.address, source.address + offset, self.nbytes)
        else:
            part = source.handle[offset : offset + self.nbytes]
            self.handle[: self.nbytes].copy_to_device(part)

    def write(self, offset: int, values: HostArray, wait: bool = True) -> None:
        """Copy ``values`` from the host to byte ``offset``, in row-major order.

        Without ``wait`` a copy from page-locked memory may go on after the return.
        """
        if values.nbytes:
            data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            locked = is_pinned(data)
            with on(self.device):
                if (calls := direct()) is not None and (wait or not locked):
                    calls.fill(self.address + offset, _place(data), data.nbytes, locked)
                    return
                target = self.handle[offset : offset + values.nbytes]
                if locked and not wait:
                    copy_without_waiting(target, data)
                else:
                    target.copy_to_device(data)

    def read(self, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> HostArray:
        """A copy on the host of the row-major array at byte ``offset``; waits for it."""
        nbytes = prod(shape) * dtype.itemsize
        if not nbytes:
            return np.empty(tuple(shape), dtype)
        with on(self.device):
            if (calls := direct()) is not None:
                data: HostArray = np.empty(nbytes, np.uint8)
                calls.fetch(_place(data), self.address + offset, nbytes)
            else:
                data = self.handle[offset : offset + nbytes].copy_to_host()
        return data.view(dtype).reshape(tuple(shape))


def _place(data: HostArray) -> int:
    """Where an array of the host starts."""
    return int(data.__array_interface__["data"][0])


class DeviceArray:
    """A strided array on the device: what a tensor there holds.

    It has the attributes of a NumPy array that describe memory, and
    ``__cuda_array_interface__``; arithmetic is left to tensors.
    """

    __slots__ = ("__weakref__", "_ready", "block", "dtype", "offset", "shape", "strides")

    def __init__(
        self,
        block: Block,
        shape: Sequence[int],
        dtype: Any,
        offset: int = 0,
        strides: Sequence[int] | None = None,
    ) -> None:
        self.block, self.offset = block, offset
        self._ready: bool | None = None  # not known yet
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        size = self.dtype.itemsize
        self.strides = (
            tuple(step * size for step in row_major(self.shape))
            if strides is None
            else tuple(strides)
        )

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: Any, device: int | None = None) -> DeviceArray:
        """Fresh row-major memory, on the current device unless one is given."""
        return cls(Block(prod(shape) * np.dtype(dtype).itemsize, device), shape, dtype)

    @classmethod
    def of(cls, values: HostArray, device: int | None = None, wait: bool = True) -> DeviceArray:
        """A copy of a host array; for ``wait`` see :meth:`Block.write`."""
        made = cls.empty(values.shape, values.dtype, device)
        made.block.write(0, values, wait)
        return made

    base = None
    """Memory of its own, as far as NumPy's notion of views goes."""

    @property
    def flags(self) -> SimpleNamespace:
        """``c_contiguous`` and ``writeable``, as of a NumPy array."""
        repeated = any(step == 0 and n > 1 for n, step in zip(self.shape, self.strides))
        writeable = not (repeated or self.block.readonly)
        return SimpleNamespace(c_contiguous=self.is_contiguous, writeable=writeable)

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

    @property
    def is_ready(self) -> bool:
        """Whether kernels can take it: row-major, from where a vector may begin."""
        if self._ready is None:
            aligned = self.size <= 1 or not (self.block.address + self.offset) % VECTOR_BYTES
            self._ready = aligned and self.is_contiguous
        return self._ready

    def transpose(self, order: Sequence[int]) -> DeviceArray:
        """The same memory with the axes in another order."""
        shape, strides = [self.shape[k] for k in order], [self.strides[k] for k in order]
        return DeviceArray(self.block, shape, self.dtype, self.offset, strides)

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
        """Version 3; work on the memory is in the order of the legacy default stream, 1."""
        if self.dtype.kind == "V":
            raise AttributeError(f"{self.dtype} has no typestr; DLPack lends such memory")
        self.block.streams.add(ANY)
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.block.address + self.offset if self.size else 0, self.block.readonly),
            "strides": None if self.is_contiguous else self.strides,
            "version": 3,
            "stream": 1,
        }

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}{list(self.shape)})"
