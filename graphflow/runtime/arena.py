"""The memory a loaded program owns: its arena, its constants, and what it keeps."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.codegen.schedule import Buffer, BufferKind, Schedule, buffer_bytes, readable_bytes
from graphflow.errors import CompileError
from graphflow.ir.types import TensorType
from graphflow.runtime.available import check_available
from graphflow.runtime.kept import Kept
from graphflow.runtime.storage import Array, Storage, empty

if TYPE_CHECKING:
    from graphflow.runtime.resident import Reserve


class ProgramMemory:
    """The arena that temporary buffers lie in, and the data of constants.

    The arena is touched page by page as kernels first write to it.  Constants are
    used where they are, without a copy, if they lie in row-major order.  Programs
    of one schedule for several sizes have one memory, ``beside`` being that of the
    program before: they run one at a time.  ``reserve`` is memory set aside for the arena.
    """

    def __init__(
        self,
        schedule: Schedule,
        beside: ProgramMemory | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        self.arena: Storage
        self.constants: dict[int, Storage]
        self.kept: Kept
        if beside is None:
            check_program(schedule, reserve.resident if reserve else 0)
            self.kept = Kept(schedule)
            size = schedule.arena_bytes
            self.arena = reserve.take(size) if reserve else empty((size,), np.uint8)
            self.constants = {
                buffer.id: Storage(_constant(buffer))
                for buffer in schedule.buffers
                if buffer.kind is BufferKind.CONSTANT
            }
            return
        self.arena, self.constants, self.kept = beside.arena, beside.constants, beside.kept
        if self.arena.nbytes < schedule.arena_bytes:
            check_program(schedule)  # growing sizes must not each have their own
            self.arena = empty((max(schedule.arena_bytes, 2 * self.arena.nbytes),), np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of the arena, the constants and what is kept together."""
        constants = sum(c.nbytes for c in self.constants.values())
        return self.arena.nbytes + constants + self.kept.nbytes

    def lasting(self, buffer: int) -> Storage:
        """The memory of a constant, or of what is kept between calls."""
        found = self.constants.get(buffer)
        return self.kept.storages[buffer] if found is None else found


def check_program(schedule: Schedule, held: int = 0) -> None:
    """:class:`OutOfMemoryError` if what a step needs is more than the machine has left.

    ``held`` bytes of it have been taken already.
    """
    results = sum(buffer_bytes(b) for b in schedule.buffers if b.kind is BufferKind.OUTPUT)
    check_available(
        schedule.arena_bytes + results - held,
        f"a step of the program ({readable_bytes(schedule.arena_bytes)} of temporaries at the "
        f"peak, {readable_bytes(results)} of results)",
        "; use a smaller batch, gf.utils.checkpoint, or gf.compile(memory_limit=...)",
    )


def _constant(buffer: Buffer) -> Array:
    data = getattr(buffer.data, "array", buffer.data)
    array = np.asarray(data, dtype=buffer.type.dtype.numpy, order="C")
    if array.shape != buffer.type.static_shape:
        raise CompileError(
            f"constant b{buffer.id} has shape {array.shape}, but its type is {buffer.type}"
        )
    return array


def array_at(address: int, type: TensorType) -> Array:
    """The row-major array of ``type`` at ``address``; it does not keep the memory alive."""
    dtype: np.dtype[Any] = type.dtype.numpy
    shape = type.static_shape
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if not size:
        return np.empty(shape, dtype)
    memory = memoryview((ctypes.c_ubyte * size).from_address(address))
    return np.ndarray(shape, dtype, memory)
