"""The safetensors format: a JSON header, then the bytes of every tensor.

Eight bytes give the length of the header (little-endian); the header maps
each name to dtype, shape and place, and ``__metadata__`` to strings; the data
follow without gaps (https://github.com/huggingface/safetensors).  Nothing in a
file is ever run, and every number of the header is held against the size of
the file before memory is taken.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import IO, Any, TypeAlias

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.ir.types import bfloat16

Array: TypeAlias = "np.ndarray[Any, Any]"

MOST_HEADER = 100_000_000  # bytes, the format's own limit
_METADATA = "__metadata__"
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32",
    "uint16": "U16", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
}  # fmt: skip
_DTYPES = {code: name for name, code in _NAMES.items()}


def holds(dtype: np.dtype[Any]) -> bool:
    """Whether the format has this dtype."""
    return dtype.name in _NAMES


def write(
    stream: IO[bytes], arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``arrays`` in the format; the header keeps their order."""
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    placed, end = [], 0
    # Larger elements first, so that every array is aligned to its own element size.
    for name in sorted(arrays, key=lambda n: -arrays[n].itemsize):
        placed.append((name, end))
        end += arrays[name].nbytes
    begins = dict(placed)
    for name, array in arrays.items():
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begins[name], begins[name] + array.nbytes],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    for name, _ in placed:
        plain = np.ascontiguousarray(arrays[name])
        if plain.nbytes:
            little = plain if _is_little(plain.dtype) else plain.byteswap()
            stream.write(little.reshape(-1).view(np.uint8).data)


def _is_little(dtype: np.dtype[Any]) -> bool:
    return np.little_endian if dtype.isnative else not np.little_endian


def read(stream: IO[bytes], name: str) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays, in the order of the header, and the metadata; ``name`` is for messages."""
    start = stream.tell()
    size = stream.seek(0, os.SEEK_END) - start
    stream.seek(start)
    header, base = _header(stream, size, name)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise damaged(name, "its metadata are not strings")
    entries = {key: _entry(key, entry, name) for key, entry in header.items()}
    spans = sorted(span for _, _, span in entries.values())
    end = 0
    for begin, stop in spans:
        if begin != end:
            raise damaged(name, "its tensors overlap or leave gaps")
        end = stop
    if base + end != size:
        raise damaged(name, f"its header promises {base + end:,} bytes, there are {size:,}")
    arrays = {}
    for key, (dtype, shape, (begin, stop)) in entries.items():
        array = np.empty(shape, dtype)
        stream.seek(start + base + begin)
        if stop > begin:
            memory: Any = array.reshape(-1).view(np.uint8).data
            if stream.readinto(memory) != stop - begin:  # type: ignore[attr-defined]
                raise damaged(name, f"the data of {key!r} end early")
            if not _is_little(array.dtype):
                array.byteswap(inplace=True)
        arrays[key] = array
    return arrays, metadata


def _header(stream: IO[bytes], size: int, name: str) -> tuple[dict[str, Any], int]:
    """The header and where the data begin."""
    head = stream.read(8)
    if len(head) < 8:
        raise damaged(name, "it ends inside its header")
    (length,) = struct.unpack("<Q", head)
    if length > min(MOST_HEADER, size - 8):
        raise damaged(name, f"its header promises {length:,} bytes, the file has {size:,}")
    try:
        header = json.loads(stream.read(length), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise damaged(name, f"its header cannot be read ({error})") from None
    if not isinstance(header, dict):
        raise damaged(name, "its header is not a table")
    return header, 8 + length


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is there twice")
    return made


def _entry(key: str, entry: Any, name: str) -> tuple[np.dtype[Any], list[int], tuple[int, int]]:
    """Dtype, shape and place of a tensor, checked against each other."""
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise damaged(name, f"the entry {key!r} is incomplete") from None
    if code not in _DTYPES:
        raise GraphFlowError(f"{name}: {key!r} has the dtype {code!r}, which GraphFlow has not")
    if (
        not isinstance(shape, list)
        or len(shape) > 64
        or not all(map(_is_size, (*shape, begin, end)))
    ):
        raise damaged(name, f"the entry {key!r} has no sensible shape and place")
    wanted = _DTYPES[code]
    dtype = bfloat16.numpy if wanted == "bfloat16" else np.dtype(wanted)
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise damaged(name, f"{key!r} of shape {shape} does not fill bytes {begin} to {end}")
    return dtype, shape, (begin, end)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def damaged(name: str, what: str) -> GraphFlowError:
    """The error for a broken file."""
    return GraphFlowError(f"{name}: {what}; the file is damaged or in another format")
