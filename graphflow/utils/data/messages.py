"""Messages between a loader and its workers, through a pipe.

Arrays travel beside the pickle (protocol 5), so they are copied into the pipe
and out of it and nowhere else.  Nothing is left behind when a process dies, as
shared-memory segments would be.
"""

from __future__ import annotations

import pickle
import struct
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np

from graphflow.errors import GraphFlowError

Packed: TypeAlias = list[Any]
"""A message as blocks of bytes: the sizes of the blocks, the pickle, the arrays."""


class WorkerFailure:
    """An exception of a worker: its type, where it arose, and its traceback as text."""

    def __init__(self, error: Exception, place: str, traceback: str) -> None:
        self.type: type[Exception] = type(error)
        self.place = place
        self.traceback = traceback

    def without_type(self) -> WorkerFailure:
        """The same for a type that cannot be pickled."""
        plain = WorkerFailure(RuntimeError(), self.place, self.traceback)
        return plain

    def exception(self) -> Exception:
        """The exception to raise in the loader's process: of the same type where possible."""
        text = f"Caught {self.type.__name__} in {self.place}.\nOriginal {self.traceback}"
        if issubclass(self.type, StopIteration):  # it would end the loop over the loader
            return RuntimeError(text)
        if issubclass(self.type, KeyError):
            return self.type(_Readable(text))
        try:
            made = self.type(text)
        except Exception:  # its constructor takes something else
            return RuntimeError(text)
        return made if isinstance(made, Exception) else RuntimeError(text)


class _Readable(str):
    """Text that a KeyError shows as it is, line breaks and all."""

    def __repr__(self) -> str:
        return str(self)


def pack(message: Any) -> Packed:
    """``message`` as blocks of bytes; raises whatever pickling it raises."""
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    blocks = [body, *(array.raw() for array in arrays)]
    sizes = [len(block) for block in blocks]
    return [struct.pack(f"<{len(sizes)}q", *sizes), *blocks]


def send(connection: Connection, packed: Packed) -> None:
    """Write a packed message; blocks while the pipe is full."""
    for block in packed:
        if len(block):
            connection.send_bytes(block)


def receive(connection: Connection) -> Any:
    """The next message; raises EOFError or OSError when the other side is gone."""
    head = connection.recv_bytes()
    sizes = struct.unpack(f"<{len(head) // 8}q", head)
    blocks = [np.empty(size, np.uint8) for size in sizes]
    for block in blocks:
        if block.size and connection.recv_bytes_into(block) != block.size:
            raise GraphFlowError("a message from a loader's worker is damaged")
    return pickle.loads(blocks[0].data, buffers=blocks[1:])
