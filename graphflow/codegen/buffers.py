"""The buffers of a schedule while it is being built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphflow.codegen.layout import Layout, contiguous, contiguous_in
from graphflow.codegen.schedule import VECTOR_BYTES, Buffer, BufferKind
from graphflow.codegen.sizes import is_multiple
from graphflow.codegen.task import Backend
from graphflow.ir.types import TensorType, from_numpy_dtype, int64
from graphflow.records import dataclass, field


@dataclass(slots=True)
class BufferTable:
    """Buffers and failures; what lowering asks for (:class:`LowerContext`)."""

    threads: int
    backend: Backend
    buffers: list[Buffer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    error: int = -1
    own: bool = False
    """Whether steps of a loop are made whose iterations each thread runs by itself."""
    _windows: dict[tuple[object, ...], int] = field(default_factory=dict)
    _constants: dict[tuple[object, ...], int] = field(default_factory=dict)

    def buffer(
        self, kind: BufferKind, type: TensorType, name: str = "", data: object = None
    ) -> int:
        """A new buffer's id.  Temporary memory is the thread's where each runs by itself."""
        if self.own and kind is BufferKind.ARENA:
            kind = BufferKind.OWN
        self.buffers.append(Buffer(len(self.buffers), kind, type, name, data))
        return len(self.buffers) - 1

    def part(self, whole: int, type: TensorType, offset: int) -> int:
        """A buffer that is part of ``whole``, from byte ``offset`` on."""
        number = len(self.buffers)
        self.buffers.append(Buffer(number, BufferKind.WINDOW, type, base=whole, offset=offset))
        return number

    def begun(self) -> Callable[[], None]:
        """A function that forgets all buffers made from now on."""
        buffers, windows, failures = len(self.buffers), dict(self._windows), len(self.failures)
        error = self.error

        def forget() -> None:
            del self.buffers[buffers:], self.failures[failures:]
            self._windows, self.error = windows, error

        return forget

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Meanwhile, every thread runs by itself, over memory of its own."""
        threads, self.threads, self.own = self.threads, 1, True
        try:
            yield
        finally:
            self.threads, self.own = threads, False

    def temporary(self, type: TensorType) -> Layout:
        """A fresh contiguous arena buffer."""
        return contiguous(self.buffer(BufferKind.ARENA, type), type)

    def constant(self, array: np.ndarray[Any, Any]) -> Layout:
        """Where ``array`` lies as data of the program; equal ones lie in one place."""
        type = TensorType(from_numpy_dtype(array.dtype), array.shape)
        key = type, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self.buffer(BufferKind.CONSTANT, type, data=array)
        return contiguous(self._constants[key], type)

    def failure(self, message: str) -> int:
        """The code (from 1) of a failure with ``message``."""
        if message not in self.failures:
            self.failures.append(message)
        return self.failures.index(message) + 1

    def error_buffer(self) -> int:
        """The buffer of the error word."""
        if self.error < 0:
            self.error = self.buffer(BufferKind.ERROR, TensorType(int64, ()), "error")
        return self.error

    def window(self, whole: Layout, row: int, step: int, level: int) -> Layout:
        """Item ``row`` of ``whole``, along its first axis, in the first iteration of loop
        ``level``, then ``step`` items further in each; a window of its buffer.

        Rows that lie at the same place in every iteration are one window.
        """
        parent = self.buffers[whole.buffer]
        size = whole.type.dtype.itemsize
        type = TensorType(whole.type.dtype, whole.type.shape[1:])
        item = whole.strides[0]
        offset = parent.offset + (whole.offset + row * item) * size
        strides = (*parent.strides, *[0] * (level - len(parent.strides)), step * item * size)
        base = parent.base if parent.kind is BufferKind.WINDOW else whole.buffer
        dense = parent.dense and contiguous_in(type.static_shape, whole.strides[1:])
        key = (base, offset, strides, type, dense)
        if key not in self._windows:
            self._windows[key] = len(self.buffers)
            made = Buffer(
                len(self.buffers), BufferKind.WINDOW, type, base=base, offset=offset,
                strides=strides, dense=dense,
            )  # fmt: skip
            self.buffers.append(made)
        return Layout(self._windows[key], type, 0, whole.strides[1:])

    def is_aligned(self, buffer: int) -> bool:
        """Whether ``buffer`` begins at a multiple of ``VECTOR_BYTES``, in every iteration."""
        found = self.buffers[buffer]
        if found.kind is not BufferKind.WINDOW:
            return True
        moves = (found.offset, *found.strides)
        return self.is_aligned(found.base) and all(is_multiple(n, VECTOR_BYTES) for n in moves)

    def root(self, buffer: int) -> int:
        """The buffer that ``buffer`` is a window of, or itself."""
        found = self.buffers[buffer]
        return found.base if found.kind is BufferKind.WINDOW else buffer
