"""PyTorch's checkpoints, without PyTorch: the zip format and the one before it.

Both are a pickle in which tensors are views of storages, and the bytes of the
storages.  The pickle is read as data (:mod:`graphflow.serialization.pickles`);
sizes are held against the file before memory is taken.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from graphflow.cell import Cell
from graphflow.errors import GraphFlowError
from graphflow.ir.types import DType
from graphflow.nn.parameter import Parameter
from graphflow.records import dataclass
from graphflow.serialization.pickles import Limited, Maker, read_pickle
from graphflow.serialization.pytorch_names import StorageType, plain_names
from graphflow.serialization.safetensors import Array, damaged
from graphflow.tensor import Tensor

LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The pickle of PyTorch's magic number, with which the older format begins."""

_COPIES = 16  # how many times the file's size copies of views may take …
_FREE_COPIES = 64 << 20  # … beyond this many bytes
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Storage:
    """The memory that a tensor of the file is a view of."""

    key: str
    dtype: DType | None
    count: int
    """Elements (bytes, when there is no dtype)."""

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.count * (1 if self.dtype is None else self.dtype.itemsize)


@dataclass(frozen=True)
class View:
    """How a tensor looks at a storage, in elements."""

    storage: Storage
    dtype: DType
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Tensors:
    """Makes the tensors of a pickle; their memory comes at the end, in :meth:`fill`."""

    def __init__(self, file: str, size: int) -> None:
        self._file = file
        self._views: dict[int, tuple[Tensor, View]] = {}
        self._room = _COPIES * size + _FREE_COPIES
        self.storages: dict[str, Storage] = {}

    def names(self) -> dict[tuple[str, str], Any]:
        """The table for the pickle reader."""
        names = plain_names()
        utilities: dict[str, Callable[..., Any]] = {
            "_rebuild_tensor": self.tensor,
            "_rebuild_tensor_v2": self.tensor,
            "_rebuild_tensor_v3": self.tensor_of_bytes,
            "_rebuild_parameter": self.parameter,
            "_rebuild_parameter_with_state": self.parameter,
        }
        for name, make in utilities.items():
            names["torch._utils", name] = Maker(make)
        names["torch._tensor", "_rebuild_from_type_v2"] = Maker(self.typed)
        return names

    def storage(self, kind: Any, key: Any, count: Any) -> Storage:
        """The storage called ``key``; it must be the same each time."""
        if not isinstance(kind, StorageType) or not isinstance(key, str):
            raise TypeError("not a storage")
        made = Storage(key, kind.dtype, _size(count))
        if self.storages.setdefault(key, made) != made:
            raise ValueError(f"storage {key!r} is described in two ways")
        return made

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any,
        requires_grad: Any = False, hooks: Any = None, metadata: Any = None,
    ) -> Tensor:  # fmt: skip
        if storage.dtype is None:
            raise TypeError("a storage without a dtype")
        return self._view(storage, storage.dtype, offset, size, stride, requires_grad, metadata)

    def tensor_of_bytes(
        self, storage: Any, offset: Any, size: Any, stride: Any,
        requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None,
    ) -> Tensor:  # fmt: skip
        if not isinstance(dtype, DType):
            raise TypeError("not a dtype")
        return self._view(storage, dtype, offset, size, stride, requires_grad, metadata)

    def _view(
        self, storage: Storage, dtype: DType, offset: Any, size: Any, stride: Any,
        requires_grad: Any, metadata: Any,
    ) -> Tensor:  # fmt: skip
        if metadata and any(metadata.values()):
            raise ValueError("lazily conjugated or negated tensors are not supported")
        sizes, strides = tuple(map(_size, size)), tuple(map(_size, stride))
        view = View(storage, dtype, _size(offset), sizes, strides)
        last = view.offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        if math.prod(sizes) and (last + 1) * dtype.itemsize > storage.nbytes:
            raise ValueError(f"a tensor of shape {list(sizes)} is larger than its storage")
        made = Tensor._of(Cell(np.empty(0, dtype.numpy)))
        made._requires_grad = bool(requires_grad)
        self._views[id(made)] = made, view
        return made

    def parameter(self, data: Any, requires_grad: Any = True, *_: Any) -> Tensor:
        view = self._views[id(data)][1]
        made = Parameter._of(data._cell)
        made._requires_grad = bool(requires_grad)
        self._views[id(made)] = made, view
        return made

    def typed(self, make: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
        """A tensor with attributes of its own, which are left out."""
        if not isinstance(make, Maker):
            raise TypeError("not a tensor")
        made: Tensor = make.make(*arguments)
        return made

    def fill(self, read: Callable[[Storage], Array]) -> None:
        """Give every tensor its memory; equal views share it, as they did when saved."""
        cells: dict[View, Cell] = {}
        flats: dict[str, Array] = {}
        for made, view in self._views.values():
            if view not in cells:
                key = view.storage.key
                if key not in flats:
                    empty = not view.storage.nbytes
                    flats[key] = np.empty(0, np.uint8) if empty else read(view.storage)
                cells[view] = Cell(self._array(flats[key], view))
            made._cell = cells[view]
            made._array, made._seen = made._cell.value, made._cell.version

    def _array(self, flat: Array, view: View) -> Array:
        width = view.dtype.itemsize
        elements = flat[: len(flat) // width * width].view(view.dtype.numpy)
        count = math.prod(view.size)
        if count == 0:
            return np.empty(view.size, view.dtype.numpy)
        if view.stride == _row_major(view.size) and count == len(elements):
            return elements.reshape(view.size)
        self._room -= count * view.dtype.itemsize
        if self._room < 0:
            raise GraphFlowError(
                f"{self._file}: its tensors take far more memory than the file holds; "
                "it is damaged or made to do harm"
            )
        strides = tuple(s * view.dtype.itemsize for s in view.stride)
        window = elements[view.offset :]
        return np.array(np.lib.stride_tricks.as_strided(window, view.size, strides), order="C")


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**60:
        raise ValueError(f"{value!r} is no size")
    return value


def _row_major(size: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(size):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


# ---- the zip format -----------------------------------------------------------------------


def read_zip(stream: IO[bytes], file: str) -> Any:
    """The content of a checkpoint as ``torch.save`` writes it."""
    size = stream.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(stream) as archive:
            return _read_archive(archive, size, file)
    except GraphFlowError:
        raise
    except Exception as error:  # zipfile has many ways to stumble over damaged bytes
        text = f"{type(error).__name__}: {error}"
        raise damaged(file, f"the zip archive in it cannot be read ({text})") from None


def _read_archive(archive: zipfile.ZipFile, size: int, file: str) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise GraphFlowError(f"{file}: its entries are compressed; PyTorch's are not")
    if sum(info.file_size for info in entries.values()) > size:
        raise damaged(file, "its entries claim more bytes than the file has")
    root = next((n[: -len("data.pkl")] for n in entries if n.endswith("data.pkl")), None)
    if root is None:
        raise damaged(file, "it has no data.pkl")
    if f"{root}constants.pkl" in entries:
        raise GraphFlowError(
            f"{file}: it is a TorchScript archive, which holds code; save the state_dict()"
        )
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
    swap = (order == b"little") != np.little_endian
    tensors = _Tensors(file, size)

    def persistent(described: Any) -> Storage:
        _, kind, key, _, count = described
        return tensors.storage(kind, key, count)

    def read(storage: Storage) -> Array:
        info = entries[f"{root}data/{storage.key}"]
        if info.file_size < storage.nbytes:
            raise damaged(file, f"storage {storage.key} has {info.file_size:,} bytes")
        with archive.open(info) as source:
            return _read_storage(source, storage, swap, file)

    with archive.open(f"{root}data.pkl") as source:
        limited = Limited(source, entries[f"{root}data.pkl"].file_size)
        value = read_pickle(limited, tensors.names(), persistent, file)
    tensors.fill(read)
    return value


def _read_storage(source: IO[bytes] | Limited, storage: Storage, swap: bool, file: str) -> Array:
    flat = np.empty(storage.nbytes, np.uint8)
    done = 0
    while done < len(flat):
        chunk = source.read(min(_CHUNK, len(flat) - done))
        if not chunk:
            raise damaged(file, f"storage {storage.key} ends early")
        flat[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    if swap and storage.dtype is not None:
        width = storage.dtype.itemsize // (2 if storage.dtype.is_complex else 1)
        flat = np.ascontiguousarray(flat.reshape(-1, width)[:, ::-1]).reshape(-1)
    return flat


# ---- the format before it -----------------------------------------------------------------


def read_legacy(stream: IO[bytes], file: str) -> Any:
    """The content of a checkpoint from before PyTorch 1.6."""
    stream.seek(0, os.SEEK_END)
    size = stream.tell()
    stream.seek(0)
    limited = Limited(stream, size)
    tensors = _Tensors(file, size)
    plain = plain_names()
    read_pickle(limited, plain, None, file)  # the magic number
    read_pickle(limited, plain, None, file)  # the version
    system = read_pickle(limited, plain, None, file)
    little = system.get("little_endian", True) if isinstance(system, dict) else True

    def persistent(described: Any) -> Storage:
        what, kind, key, _, count, view = described
        if what != "storage" or view is not None:
            raise ValueError("only whole storages are supported")
        return tensors.storage(kind, key, count)

    value = read_pickle(limited, tensors.names(), persistent, file)
    keys = read_pickle(limited, plain, None, file)
    if not isinstance(keys, list):
        raise damaged(file, "it has no list of storages")
    flats: dict[str, Array] = {}
    for key in keys:
        storage = tensors.storages.get(key)
        head = limited.read(8)
        if storage is None or len(head) < 8 or storage.nbytes > limited.left:
            raise damaged(file, f"storage {key!r} is missing or ends early")
        if struct.unpack("<q" if little else ">q", head)[0] != storage.count:
            raise damaged(file, f"storage {key!r} has two sizes")
        flats[key] = _read_storage(limited, storage, little != np.little_endian, file)
    missing = tensors.storages.keys() - flats.keys()
    if missing:
        raise damaged(file, f"storages {sorted(missing)} are missing")
    tensors.fill(lambda storage: flats[storage.key])
    return value
