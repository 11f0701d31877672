"""Nested Python data as JSON and a table of arrays, and back.

A plain mapping of names to distinct tensors needs no JSON: it is a safetensors
file that any program reads.  Anything else is described in the file's metadata
under ``graphflow``: lists, numbers and strings as they are, everything else as
``{"kind": …}``.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from graphflow.cell import Cell
from graphflow.device import Device, device
from graphflow.errors import GraphFlowError
from graphflow.ir.types import DType, dtype_named
from graphflow.nn.parameter import Parameter
from graphflow.serialization.safetensors import Array, holds
from graphflow.tensor import Size, Tensor

KEY = "graphflow"
MOST_DEPTH = 200
Json: TypeAlias = Any


def flatten(value: Any) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays by name, and the metadata that :func:`rebuild` needs (none for a state dict)."""
    writer = _Writer()
    if _is_state_dict(value):
        for name, tensor in value.items():
            writer.arrays[name] = array_of(tensor, name)
        if len({_place(a) for a in writer.arrays.values()}) == len(writer.arrays):
            return writer.arrays, {"format": "pt"}
        writer.arrays.clear()
    return writer.arrays, {KEY: writer.text(value)}


def described(value: Any) -> tuple[dict[str, Array], str]:
    """Arrays by name, and the structure in which they stand, as JSON for :func:`restored`."""
    writer = _Writer()
    text = writer.text(value)
    return writer.arrays, text


def _is_state_dict(value: Any) -> bool:
    return type(value) in (dict, OrderedDict) and all(
        isinstance(name, str)
        and name != "__metadata__"
        and isinstance(tensor, Tensor)
        and holds(tensor.dtype.numpy)
        for name, tensor in value.items()
    )


def array_of(tensor: Tensor, path: str) -> Array:
    """The memory of a tensor."""
    return tensor._concrete(f"saving {path or 'a tensor'}")


def _place(array: Array) -> tuple[Any, ...]:
    """Equal for two arrays that show the same memory the same way; unique for empty ones."""
    start = array.__array_interface__["data"][0] if array.size else id(array)
    return start, array.dtype.str, array.shape, array.strides


_MAPPINGS: dict[str, Any] = {"dict": dict, "ordered": OrderedDict, "counter": Counter}
_SEQUENCES: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset, "size": Size}


class _Writer:
    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._kept: list[Any] = []  # so that no address is used twice

    def text(self, value: Any) -> str:
        made = self.describe(value, "", 0)
        return json.dumps(made, separators=(",", ":"), ensure_ascii=False)

    def describe(self, value: Any, path: str, depth: int) -> Json:
        if depth > MOST_DEPTH:
            raise GraphFlowError(
                f"cannot save: the data are nested deeper than {MOST_DEPTH} levels "
                "(or contain themselves)"
            )
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"kind": "float", "value": repr(value)}
        if type(value) is list:
            return self.items(value, path, depth)
        if isinstance(value, Tensor):
            return self.tensor(value, path)
        if isinstance(value, (np.ndarray, np.generic)):
            return self.numpy(value, path)
        if isinstance(value, (Mapping, tuple, set, frozenset)):
            return self.container(value, path, depth)
        return leaf(value, path)

    def items(self, values: Any, path: str, depth: int) -> list[Json]:
        return [self.describe(v, f"{path}.{i}", depth + 1) for i, v in enumerate(values)]

    def container(self, value: Any, path: str, depth: int) -> Json:
        if isinstance(value, Mapping):
            pairs = [
                [self.describe(k, path, depth + 1), self.describe(v, f"{path}.{k}", depth + 1)]
                for k, v in value.items()
            ]
            kind = next((k for k, cls in _MAPPINGS.items() if cls is type(value)), "dict")
            return {"kind": kind, "items": pairs}
        if isinstance(value, Size):
            return {"kind": "size", "items": list(value)}
        kind = type(value).__name__ if isinstance(value, (set, frozenset)) else "tuple"
        return {"kind": kind, "items": self.items(value, path, depth)}

    def tensor(self, value: Tensor, path: str) -> Json:
        name, extra = self.put(array_of(value, path), path)
        made = {"kind": "tensor", "name": name, **extra}
        if isinstance(value, Parameter):
            made["kind"] = "parameter"
        if value.requires_grad and value.is_leaf:
            made["requires_grad"] = True
        return made

    def numpy(self, value: Any, path: str) -> Json:
        array = np.asarray(value)
        if array.dtype.kind not in "biufcV" or array.dtype.fields is not None:
            raise _cannot_save(value, path)
        name, extra = self.put(array, path)
        return {
            "kind": "array" if isinstance(value, np.ndarray) else "scalar",
            "name": name,
            **extra,
        }

    def put(self, array: Array, path: str) -> tuple[str, dict[str, Json]]:
        """Store an array, once for every place in memory; its name, and how it was changed."""
        extra: dict[str, Json] = {}
        place = _place(array)
        if array.dtype.name == "complex128":
            array = np.ascontiguousarray(array)[..., None].view(np.float64)
            extra["complex"] = True
        elif not holds(array.dtype):
            raise GraphFlowError(f"cannot save {path.lstrip('.')!r}: its dtype is {array.dtype}")
        name = self._names.get(place)
        if name is None:
            name = path.lstrip(".") or "value"
            while name in self.arrays or name == "__metadata__":
                name += "_"
            self._names[place] = name
            self.arrays[name] = array
            self._kept.append(array)
        return name, extra


def leaf(value: Any, path: str) -> Json:
    """A value without parts."""
    if isinstance(value, complex):
        return {"kind": "complex", "value": [repr(value.real), repr(value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        text = base64.b64encode(value).decode("ascii")
        return {"kind": type(value).__name__, "value": text}
    if isinstance(value, DType):
        return {"kind": "dtype", "value": value.name}
    if isinstance(value, Device):
        return {"kind": "device", "value": str(value)}
    raise _cannot_save(value, path)


def _cannot_save(value: Any, path: str) -> GraphFlowError:
    where = f"{path.lstrip('.')!r}, a {type(value).__name__}" if path else type(value).__name__
    return GraphFlowError(
        f"cannot save {where}: a file holds tensors, NumPy arrays, numbers, strings, bytes, and "
        "dicts, lists, tuples and sets of them; of modules and optimisers save the state_dict()"
    )


def rebuild(arrays: dict[str, Array], metadata: Mapping[str, str], file: str) -> Any:
    """The data that :func:`flatten` took apart."""
    text = metadata.get(KEY)
    if text is None:
        return {name: Tensor._of(Cell(array)) for name, array in arrays.items()}
    return restored(arrays, text, file)


def restored(arrays: dict[str, Array], text: str, file: str) -> Any:
    """The data that :func:`described` took apart."""
    try:
        return _Reader(arrays).value(json.loads(text))
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise GraphFlowError(
            f"{file}: the description of its structure is damaged ({type(error).__name__}: {error})"
        ) from None


class _Reader:
    def __init__(self, arrays: dict[str, Array]) -> None:
        self._arrays = arrays
        self._cells: dict[str, Cell] = {}

    def value(self, described: Json) -> Any:
        if described is None or isinstance(described, (bool, int, float, str)):
            return described
        if isinstance(described, list):
            return [self.value(item) for item in described]
        kind = described["kind"]
        if kind in ("tensor", "parameter", "array", "scalar"):
            return self.memory(kind, described)
        if "items" in described:
            return self.container(kind, described["items"])
        return _leaf(kind, described["value"])

    def container(self, kind: str, items: list[Json]) -> Any:
        if kind in _MAPPINGS:
            return _MAPPINGS[kind]({self.value(key): self.value(value) for key, value in items})
        return _SEQUENCES[kind](self.value(item) for item in items)

    def memory(self, kind: str, described: Json) -> Any:
        name = described["name"]
        array = self._arrays[name]
        if described.get("complex"):
            array = array.view(np.complex128)[..., 0]
        if kind == "scalar":
            return array[()]
        if kind == "array":
            return array
        cell = self._cells.setdefault(name, Cell(array))
        cls = Parameter if kind == "parameter" else Tensor
        made = cls._of(cell)
        made._requires_grad = bool(described.get("requires_grad"))
        return made


def _leaf(kind: str, value: Any) -> Any:
    if kind == "float":
        return float(value)
    if kind == "complex":
        return complex(float(value[0]), float(value[1]))
    if kind == "dtype":
        return dtype_named(value)
    if kind == "device":
        return device(value)
    raw = base64.b64decode(value, validate=True)
    return {"bytes": bytes, "bytearray": bytearray}[kind](raw)
