"""DLPack's records in C: a capsule that lends memory, and what a capsule says of its memory.

The layout is that of ``dlpack.h`` 1.0; a capsule is of the form before 1.0 unless its taker
knows the later one, which can say that memory is not to be written.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

from graphflow.records import dataclass

CPU_MEMORY, CUDA_MEMORY = 1, 2
VERSION = (1, 0)
_READ_ONLY, _COPIED = 1, 2
_CODES = {"i": 0, "u": 1, "f": 2, "V": 4, "c": 5, "b": 6}
"""Kinds of NumPy's dtypes; ``V`` is bfloat16 of ml_dtypes."""


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    )  # fmt: skip


_FORMS: dict[bytes, Any] = {b"dltensor": _Managed, b"dltensor_versioned": _Versioned}
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_python = ctypes.pythonapi
_new = _python.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_valid, _pointer, _rename = (
    _python.PyCapsule_IsValid, _python.PyCapsule_GetPointer, _python.PyCapsule_SetName,
)  # fmt: skip
for _function in (_valid, _pointer, _rename):
    _function.argtypes = (ctypes.py_object, ctypes.c_char_p)
_pointer.restype = ctypes.c_void_p
_lent: dict[int, Any] = {}
"""Records that are lent, by address: the capsule, and what keeps its memory alive."""
_OURS = 2
"""References to a capsule that nobody but ``_lent`` holds, as ``sys.getrefcount`` counts them."""
_USED = {name: b"used_" + name for name in _FORMS}
"""Names of capsules that were taken; a capsule does not keep its name alive."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Strided memory: where it starts, and a dtype of NumPy or ``bfloat16``; strides in elements.

    ``device`` is DLPack's type and number.
    """

    address: int
    device: tuple[int, int]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    readonly: bool = False
    copied: bool = False


def capsule(memory: Memory, owner: Any, kind: str, versioned: bool) -> Any:
    """A capsule that lends ``memory``, which ``owner`` keeps alive until the taker is done.

    ``kind`` is the kind of NumPy's dtype.
    """
    name = b"dltensor_versioned" if versioned else b"dltensor"
    rank = len(memory.shape)
    axes = (ctypes.c_int64 * (2 * max(rank, 1)))(*memory.shape, *memory.strides)
    start = ctypes.cast(axes, ctypes.POINTER(ctypes.c_int64))
    second = ctypes.cast(ctypes.byref(axes, 8 * rank), ctypes.POINTER(ctypes.c_int64))
    made = _FORMS[name]()
    bits = 8 * _bytes(memory.dtype)
    made.tensor = _Tensor(
        memory.address, *memory.device, rank, _CODES[kind], bits, 1, start, second, 0
    )
    made.deleter = ctypes.cast(_release, ctypes.c_void_p).value
    if versioned:
        made.major, made.minor = VERSION
        made.flags = _READ_ONLY * memory.readonly + _COPIED * memory.copied
    address = ctypes.addressof(made)
    _sweep()
    given = _new(address, name, None)
    _lent[address] = [given, made, axes, owner]
    return given


def _bytes(dtype: str) -> int:
    import numpy as np

    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _released(address: int) -> None:
    """What the taker calls when it is done."""
    _lent.pop(address, None)


_release = _DELETER(_released)


def _sweep() -> None:
    """Release capsules that were dropped before anybody took them.

    A destructor in Python would be called with an error pending, where the taker refused the
    memory, and would lose that error.
    """
    for address, record in list(_lent.items()):
        if sys.getrefcount(record[0]) == _OURS and any(_valid(record[0], n) for n in _FORMS):
            _lent.pop(address, None)


def take(given: Any) -> tuple[Memory, Callable[[], None]]:
    """What a capsule lends, and what to call when nobody refers to it any more.

    The capsule is taken: nobody else can.  Raises :class:`BufferError` for one that was taken
    before, or whose elements have no dtype here.
    """
    name = next((n for n in _FORMS if _valid(given, n)), None)
    if name is None:
        raise BufferError("not a capsule of DLPack, or one that was taken before")
    place = _pointer(given, name)
    record = _FORMS[name].from_address(place)
    if name == b"dltensor_versioned" and record.major > VERSION[0]:
        raise BufferError(f"a capsule of DLPack {record.major}.{record.minor}, not {VERSION[0]}")
    tensor = record.tensor
    shape = tuple(tensor.shape[n] for n in range(tensor.ndim))
    strides: Sequence[int] = _row_major(shape)
    if tensor.strides:
        strides = tuple(tensor.strides[n] for n in range(tensor.ndim))
    flags = getattr(record, "flags", 0)
    memory = Memory(
        (tensor.data or 0) + tensor.byte_offset,
        (tensor.device_type, tensor.device_id),
        shape,
        tuple(strides),
        _dtype(tensor.code, tensor.bits, tensor.lanes),
        bool(flags & _READ_ONLY),
        bool(flags & _COPIED),
    )
    _rename(given, _USED[name])
    deleter = record.deleter

    def done() -> None:
        if deleter:
            _DELETER(deleter)(place)

    return memory, done


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    steps, step = [], 1
    for extent in reversed(shape):
        steps.append(step)
        step *= extent
    return tuple(reversed(steps))


def _dtype(code: int, bits: int, lanes: int) -> str:
    for kind, number in _CODES.items():
        if number == code and lanes == 1:
            if kind == "V" and bits == 16:
                return "bfloat16"
            if kind != "V" and bits % 8 == 0:
                return f"{kind}{bits // 8}"
    raise BufferError(f"elements of DLPack's type {code} with {bits} bits and {lanes} lanes")
