"""Memory on a CUDA device, shared with other libraries: nothing is copied.

``__cuda_array_interface__`` and DLPack say where memory is and on which stream it is worked
on.  Our work is on the default stream; where the other's is not that, events order the two.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.codegen.cuda.toolchain import is_simulated, toolchain
from graphflow.codegen.layout import row_major
from graphflow.errors import GraphFlowError
from graphflow.ir.types import bfloat16, from_numpy_dtype
from graphflow.runtime.cuda.allocator import ANY, LEGACY, stream_numbered
from graphflow.runtime.cuda.current import current, on
from graphflow.runtime.cuda.driver import direct, missing
from graphflow.runtime.cuda.memory import Block, DeviceArray
from graphflow.runtime.dlpack import CPU_MEMORY, CUDA_MEMORY, Memory, capsule, take

UNORDERED = ANY
"""In both protocols this asks for no order at all."""


def lent(
    array: DeviceArray,
    *,
    stream: int | None = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """``__dlpack__`` of an array on a device.

    Raises :class:`BufferError` when it is asked for on another device without a copy.
    """
    here = (CUDA_MEMORY, array.block.device)
    if dl_device is not None and tuple(dl_device) != here:
        if dl_device[0] != CPU_MEMORY or copy is False:
            raise BufferError(
                f"memory on cuda:{here[1]} is not lent to DLPack's device {tuple(dl_device)}; "
                "move it with .to(device)"
            )
        return array.numpy().__dlpack__(max_version=max_version)
    if copy:
        array = _copied(array)
    if stream != UNORDERED:
        order(None, stream, array.block.device)
    if stream not in (None, LEGACY):
        array.block.streams.add(stream)
    size = array.dtype.itemsize
    memory = Memory(
        array.block.address + array.offset if array.size else 0, here, array.shape,
        tuple(step // size for step in array.strides), _name(array.dtype),
        array.block.readonly, bool(copy),
    )  # fmt: skip
    versioned = max_version is not None and max_version[0] >= 1
    if array.block.readonly and not versioned:
        raise BufferError("read-only memory is lent to takers of DLPack 1.0 only; clone() it")
    return capsule(memory, array, array.dtype.kind, versioned)


def _copied(array: DeviceArray) -> DeviceArray:
    made = DeviceArray.of(array.numpy(), array.block.device)
    return made


def _name(dtype: np.dtype[Any]) -> str:
    return "bfloat16" if dtype.kind == "V" else dtype.str


def taken(lender: Any) -> DeviceArray:
    """The memory that an object's ``__dlpack__`` lends, which is on a CUDA device."""
    try:
        given = lender.__dlpack__(stream=LEGACY, max_version=(1, 0))
    except TypeError:  # a lender of the protocol before 1.0 knows no versions
        given = lender.__dlpack__(stream=LEGACY)
    memory, done = take(given)
    if memory.device[0] != CUDA_MEMORY:
        done()
        raise BufferError(f"a capsule for DLPack's device {memory.device}, not for CUDA")
    dtype = bfloat16.numpy if memory.dtype == "bfloat16" else np.dtype(memory.dtype)
    strides = tuple(step * dtype.itemsize for step in memory.strides)
    try:
        made = _over(memory.address, memory.shape, strides, dtype, memory.device[1], given)
    except BaseException:
        done()
        raise
    made.block.readonly = memory.readonly
    weakref.finalize(made.block, done)
    return made


def borrowed(lender: Any) -> DeviceArray:
    """The memory that an object's ``__cuda_array_interface__`` describes.

    Raises :class:`GraphFlowError` for masked arrays and dtypes that tensors do not have.
    """
    found = lender.__cuda_array_interface__
    if found.get("mask") is not None:
        raise GraphFlowError("a masked array on a CUDA device cannot become a tensor")
    dtype = np.dtype(found["typestr"])
    if dtype.byteorder == ">":
        raise GraphFlowError("an array of big-endian elements cannot become a tensor")
    shape = tuple(found["shape"])
    address, readonly = found["data"]
    strides = found.get("strides") or [s * dtype.itemsize for s in row_major(shape)]
    device = _device_of(address)
    order(found.get("stream"), None, device)
    made = _over(address, shape, strides, dtype, device, lender)
    made.block.readonly = bool(readonly)
    return made


def _over(
    address: int,
    shape: Sequence[int],
    strides: Sequence[int],
    dtype: np.dtype[Any],
    device: int,
    owner: Any,
) -> DeviceArray:
    """An array over memory of another library, which ``owner`` keeps alive."""
    from_numpy_dtype(dtype)
    if 0 in shape:
        return DeviceArray.empty(shape, dtype, device)
    low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides))
    high = sum(max(0, (n - 1) * s) for n, s in zip(shape, strides)) + dtype.itemsize
    start = address + low
    if start % dtype.itemsize or any(s % dtype.itemsize for s in strides):
        raise GraphFlowError(f"elements at {address:#x} by {list(strides)} bytes are not aligned")
    block = Block(high - low, device, _handle(start, high - low, device, owner))
    return DeviceArray(block, shape, dtype, -low, strides)


def _handle(address: int, nbytes: int, device: int, owner: Any) -> Any:
    """Bytes at an address as an array of Numba's."""
    if is_simulated():
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        fake = toolchain().module("simulator.cudadrv.devicearray").FakeCUDAArray
        made = fake(np.ctypeslib.as_array(memory))
        made.__dict__["owner"] = owner
        return made
    described = {
        "shape": (nbytes,), "strides": None, "typestr": "|u1", "data": (address, False),
        "version": 3,
    }  # fmt: skip
    with on(device):
        return toolchain().cuda.from_cuda_array_interface(described, owner=owner, sync=False)


def _device_of(address: int) -> int:
    """The device on which an address is, as the driver says."""
    if is_simulated() or not address:
        return current()
    driver = direct()
    if driver is None:
        raise GraphFlowError(f"the device of {address:#x} cannot be asked for: {missing()}")
    what = driver.calls.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    try:
        return int(driver.asked("cuPointerGetAttribute", what, address))
    except GraphFlowError as error:
        raise GraphFlowError(f"{address:#x} is no address on a CUDA device ({error})") from None


def order(before: int | None, after: int | None, device: int) -> None:
    """Let work that stream ``after`` is given from now on wait for that of stream ``before``.

    None is the stream of our own work: the default stream.
    """
    if before == 0 or after == 0:
        raise ValueError("stream 0 could be either default stream; say 1 (legacy) or 2")
    if is_simulated() or {before, after} <= {None, LEGACY}:
        return
    with on(device):
        first, second = stream_numbered(before), stream_numbered(after)
        event = toolchain().cuda.event(timing=False)
        event.record(first)
        event.wait(second)
