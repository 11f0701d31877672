"""The names in a PyTorch checkpoint, and what they stand for here."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

from graphflow.device import CPU
from graphflow.ir.types import DTYPES, DType, dtype_named
from graphflow.records import dataclass
from graphflow.serialization.pickles import Maker, numpy_names
from graphflow.tensor import Size

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip
STORAGE_OF = {dtype: storage for storage, dtype in STORAGES.items()}


@dataclass(frozen=True)
class StorageType:
    """A class of storages; bytes when there is no dtype."""

    dtype: DType | None


def plain_names() -> dict[tuple[str, str], Any]:
    """Everything but tensors."""
    names = numpy_names()
    names["collections", "OrderedDict"] = Maker(OrderedDict)
    names["collections", "Counter"] = Maker(Counter)
    names["collections", "defaultdict"] = Maker(lambda *_: {})
    for module in ("builtins", "__builtin__"):
        names[module, "set"] = Maker(set)
        names[module, "frozenset"] = Maker(frozenset)
        names[module, "complex"] = Maker(complex)
        names[module, "bytearray"] = Maker(_bytearray)
        for inert in ("dict", "list", "int", "float"):  # factories of a defaultdict
            names[module, inert] = None
    names["torch", "Size"] = Maker(lambda items=(): Size(items))
    names["torch", "device"] = Maker(lambda *_: CPU)
    for dtype in DTYPES:
        names["torch", dtype.name] = dtype
    for name, dtype_name in STORAGES.items():
        names["torch", name] = StorageType(dtype_named(dtype_name))
    names["torch.storage", "UntypedStorage"] = StorageType(None)
    for module, name in (("torch", "Tensor"), ("torch.nn.parameter", "Parameter")):
        names[module, name] = None
    return names


def _bytearray(data: Any = b"", encoding: str = "latin1") -> bytearray:
    """From bytes or text; not from a number, which would ask for that much memory."""
    if not isinstance(data, (bytes, str)):
        raise TypeError("a bytearray is made from bytes")
    return bytearray(data.encode(encoding) if isinstance(data, str) else data)
