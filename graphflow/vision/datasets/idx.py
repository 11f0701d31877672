"""The IDX format of the MNIST files.

Two zero bytes, a type code, the number of dimensions, each extent as a
big-endian 32-bit number, then the elements in C order, big-endian.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from graphflow.errors import GraphFlowError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DEFLATE = 1040  # no deflate stream expands further than about 1032 times
_SLACK = 64  # a gzip header and trailer


def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    """The array in an IDX file, gzip-compressed (``.gz``) or not, in native byte order.

    The header is held against the size of the file before anything is
    allocated, so that a damaged one costs neither memory nor time.
    Raises :class:`GraphFlowError` naming the file and what is wrong with it.
    """
    path = Path(path)
    compressed = path.suffix == ".gz"
    try:
        size = path.stat().st_size
        opened: Any = gzip.open(path) if compressed else open(path, "rb")
        with opened as stream:
            return _read(stream, path, size, compressed)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, f"cannot be read ({error})") from error


def _read(stream: IO[bytes], path: Path, size: int, compressed: bool) -> np.ndarray[Any, Any]:
    head = stream.read(4)
    if len(head) < 4:
        raise _damaged(path, "ends inside its header")
    if head[:2] != b"\0\0" or head[2] not in _TYPES or not head[3]:
        raise _damaged(path, f"does not start like an IDX file (first bytes {head.hex()})")
    extents_bytes = stream.read(4 * head[3])
    if len(extents_bytes) < 4 * head[3]:
        raise _damaged(path, "ends inside its header")
    extents = struct.unpack(f">{head[3]}I", extents_bytes)
    dtype = np.dtype(_TYPES[head[2]])
    expected = math.prod(extents) * dtype.itemsize
    room = size * _MAX_DEFLATE + _SLACK if compressed else size - 4 - len(extents_bytes)
    promised = f"its header promises {expected:,} bytes of data (extents {list(extents)})"
    if expected > room:
        raise _damaged(path, f"{promised}, more than the file of {size:,} bytes can hold")
    payload = stream.read(expected + 1)
    if len(payload) != expected:
        found = f"only {len(payload):,}" if len(payload) < expected else "more"
        raise _damaged(path, f"{promised}, but there are {found}")
    array = np.frombuffer(payload, dtype=dtype).reshape(extents)
    return array.astype(dtype.newbyteorder("="))


def _damaged(path: Path, what: str) -> GraphFlowError:
    return GraphFlowError(
        f"{path}: {what}; the file is damaged or not an IDX file: delete it and fetch it again"
    )
