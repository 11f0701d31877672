"""Checkpoints that PyTorch loads, with ``weights_only=True`` too, written without PyTorch."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np

from graphflow.device import Device
from graphflow.errors import GraphFlowError
from graphflow.ir.types import DType
from graphflow.nn.parameter import Parameter
from graphflow.serialization.pytorch_names import STORAGE_OF
from graphflow.serialization.safetensors import Array
from graphflow.serialization.structure import MOST_DEPTH, array_of, leaf
from graphflow.tensor import Size, Tensor

_ALIGNMENT = 64  # bytes; so that PyTorch can map the file into memory
_ZIP_HEADER = 30  # bytes before the name of an entry


def write_zip(stream: IO[bytes], value: Any, root: str) -> None:
    """Write ``value`` as ``torch.save`` would; ``root`` is the folder inside the archive."""
    writer = _Writer()
    pickled = b"".join((b"\x80\x02", *writer.value(value, "", 0), b"."))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, stream, f"{root}/data.pkl", pickled)
        _add(archive, stream, f"{root}/byteorder", b"little")
        for number, array in enumerate(writer.arrays):
            little = array if np.little_endian else array.byteswap()
            data = little.reshape(-1).view(np.uint8).data if array.nbytes else b""
            _add(archive, stream, f"{root}/data/{number}", data)
        _add(archive, stream, f"{root}/version", b"3\n")


def _add(archive: zipfile.ZipFile, stream: IO[bytes], name: str, data: Any) -> None:
    """Add an entry whose data start at a multiple of the alignment."""
    info = zipfile.ZipInfo(name)
    padding = -(stream.tell() + _ZIP_HEADER + len(name.encode()) + 4) % _ALIGNMENT
    info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    archive.writestr(info, data)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if len(raw) < 256:
        return b"\x8a" + bytes([len(raw)]) + raw
    return b"\x8b" + struct.pack("<i", len(raw)) + raw


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_EMPTY_ORDERED = _name("collections", "OrderedDict") + b")R"


class _Writer:
    """Turns values into opcodes; arrays are collected in the order of their numbers."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._kept: list[Any] = []

    def value(self, value: Any, path: str, depth: int) -> Iterable[bytes]:
        if depth > MOST_DEPTH:
            raise GraphFlowError(f"cannot save data nested deeper than {MOST_DEPTH} levels")
        if value is None:
            yield b"N"
        elif type(value) is bool:
            yield b"\x88" if value else b"\x89"
        elif type(value) is int:
            yield _integer(value)
        elif type(value) is float:
            yield b"G" + struct.pack(">d", value)
        elif type(value) is str:
            yield _text(value)
        elif isinstance(value, Tensor):
            yield from self.tensor(value, path)
        elif isinstance(value, (Mapping, list, tuple, set, frozenset)):
            yield from self.container(value, path, depth)
        else:
            yield from self.special(value, path)

    def items(self, values: Any, path: str, depth: int) -> Iterable[bytes]:
        yield b"("
        for position, item in enumerate(values):
            yield from self.value(item, f"{path}.{position}", depth + 1)

    def container(self, value: Any, path: str, depth: int) -> Iterable[bytes]:
        if isinstance(value, Counter):
            yield _name("collections", "Counter")
            yield from self.container(dict(value), path, depth)
            yield b"\x85R"
        elif isinstance(value, Mapping):
            yield _EMPTY_ORDERED if isinstance(value, OrderedDict) else b"}"
            yield b"("
            for key, item in value.items():
                yield from self.value(key, path, depth + 1)
                yield from self.value(item, f"{path}.{key}", depth + 1)
            yield b"u"
        elif isinstance(value, list):
            yield b"]"
            yield from self.items(value, path, depth)
            yield b"e"
        elif isinstance(value, Size):
            yield _name("torch", "Size")
            yield from self.items(value, path, depth)
            yield b"t\x85R"
        elif isinstance(value, tuple):
            yield from self.items(value, path, depth)
            yield b"t"
        else:
            yield _name("__builtin__", type(value).__name__)
            yield from self.container(list(value), path, depth)
            yield b"\x85R"

    def special(self, value: Any, path: str) -> Iterable[bytes]:
        if isinstance(value, (np.ndarray, np.generic)):
            yield from self.numpy(value, path)
        elif isinstance(value, bytes):
            yield _name("_codecs", "encode") + _text(value.decode("latin-1"))
            yield _text("latin1") + b"\x86R"
        elif isinstance(value, bytearray):
            yield _name("__builtin__", "bytearray")
            yield from self.special(bytes(value), path)
            yield b"\x85R"
        elif isinstance(value, complex):
            yield _name("__builtin__", "complex")
            yield from self.value((value.real, value.imag), path, 0)
            yield b"R"
        elif isinstance(value, DType):
            yield _name("torch", value.name)
        elif isinstance(value, Device):
            yield _name("torch", "device") + _text(value.type) + b"\x85R"
        else:
            leaf(value, path)  # raises, naming the value
            raise AssertionError(f"{type(value)} has no form in a PyTorch checkpoint")

    def tensor(self, value: Tensor, path: str) -> Iterable[bytes]:
        if isinstance(value, Parameter):
            yield _name("torch._utils", "_rebuild_parameter") + b"("
            yield from self.memory(value, False, path)
            yield (b"\x88" if value.requires_grad else b"\x89") + _EMPTY_ORDERED + b"tR"
        else:
            yield from self.memory(value, value.requires_grad and value.is_leaf, path)

    def memory(self, value: Tensor, requires_grad: bool, path: str) -> Iterable[bytes]:
        """A tensor as a contiguous view of a storage of its own."""
        array = array_of(value, path)
        number = self.number(array)
        typed = STORAGE_OF.get(value.dtype.name)
        yield _name("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")
        yield b"((" + _text("storage")
        yield _name("torch", typed) if typed else _name("torch.storage", "UntypedStorage")
        yield _text(str(number)) + _text("cpu")
        yield _integer(array.size if typed else array.nbytes) + b"tQ" + _integer(0)
        yield from self.value(tuple(array.shape), path, 0)
        strides, step = [], 1
        for extent in reversed(array.shape):
            strides.append(step)
            step *= max(extent, 1)
        yield from self.value(tuple(reversed(strides)), path, 0)
        yield (b"\x88" if requires_grad else b"\x89") + _EMPTY_ORDERED
        yield (b"" if typed else _name("torch", value.dtype.name)) + b"tR"

    def number(self, array: Array) -> int:
        """The number of the array; the same memory, seen the same way, is written once."""
        start = array.__array_interface__["data"][0] if array.size else len(self.arrays)
        place = start, array.dtype.str, array.shape, array.strides
        if place not in self._numbers:
            self._numbers[place] = len(self.arrays)
            self.arrays.append(np.ascontiguousarray(array))
            self._kept.append(array)  # so that no address is used twice
        return self._numbers[place]

    def numpy(self, value: Any, path: str) -> Iterable[bytes]:
        """As NumPy pickles itself; PyTorch asks its users to allow that."""
        array = np.ascontiguousarray(value)
        if array.dtype.kind not in "biufc" or array.dtype.name == "bfloat16":
            leaf(value, path)
        little = array.astype(array.dtype.newbyteorder("<"))
        code = little.dtype.str[1:]
        order = "|" if array.dtype.itemsize == 1 else "<"
        dtype = [_name("numpy", "dtype"), *self.value((code, False, True), path, 0), b"R"]
        dtype += [*self.value((3, order, None, None, None, -1, -1, 0), path, 0), b"b"]
        raw = [*self.special(little.tobytes(), path)]
        module = "numpy._core.multiarray"
        if isinstance(value, np.generic):
            yield _name(module, "scalar") + b"".join((*dtype, *raw)) + b"\x86R"
            return
        yield _name(module, "_reconstruct") + b"(" + _name("numpy", "ndarray")
        yield b"".join((*self.value((0,), path, 0), *self.special(b"b", path))) + b"tR("
        yield b"".join((_integer(1), *self.value(tuple(np.shape(value)), path, 0), *dtype))
        yield b"\x89" + b"".join(raw) + b"tb"
