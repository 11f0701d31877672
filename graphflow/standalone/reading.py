"""How an exported file reads its weights; its source becomes part of the file."""

import json
import struct

import numpy as np


def read_weights(path):  # type: ignore[no-untyped-def]
    """The arrays of a safetensors file by name."""
    kinds = {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
        "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "C64": "<c8",
    }  # fmt: skip
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(length)), file.read()
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[begin:end], kinds[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"]).copy()
    return arrays
