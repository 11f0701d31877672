"""Numbers, strings and array data as text, in both directions, to the last bit.

A floating-point number is its shortest decimal; where decimals lose something
(the payload of a NaN) it is its bit pattern, ``0x7fc00001``.  A hexadecimal
number therefore always means the bits of a float.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.node import ArrayValue
from graphflow.ir.types import DTYPES, DType, TensorType

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9.]*")
RESERVED = frozenset(
    ["true", "false", "none", "nan", "inf", "tuple", "dim", "array", "const", "complex"]
    + [d.short for d in DTYPES]
)
_BITS: dict[int, Any] = {2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
_DATA_COLUMNS = 88
_NAN = struct.pack("<d", math.nan)


def spell_string(text: str) -> str:
    """``text`` as a JSON string, on one line whatever it holds."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def read_string(text: str) -> str:
    """The inverse of :func:`spell_string`; :class:`GraphError` if it is none."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise GraphError(f"{text} is no string: {error}") from None
    return str(value)


def spell_name(name: str) -> str:
    """A name as it is if it is an identifier (dots allowed), else in quotes."""
    return name if IDENTIFIER.fullmatch(name) else spell_string(name)


def spell_float(value: float) -> str:
    """A Python float: ``0.5``, ``-0.0``, ``inf``, ``nan`` or the bits of another NaN."""
    if value == value or struct.pack("<d", value) == _NAN:
        return repr(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}"


def read_float(text: str) -> float:
    """The inverse of :func:`spell_float`."""
    if text.startswith("0x"):
        return float(_from_bits(text, np.dtype("<f8")))
    return float(text)


def spell_element(value: Any, dtype: DType) -> str:
    """One array element of ``dtype``."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.kind in ("int", "uint"):
        return str(int(value))
    if dtype.kind == "complex":
        return f"complex({_spell_real(value.real)}, {_spell_real(value.imag)})"
    return _spell_real(value)


def _spell_real(value: Any) -> str:
    text = str(value)
    if text.lstrip("-").isdigit():
        text += ".0"  # as ml_dtypes' bfloat16 does not
    array = np.asarray(value)
    if np.asarray(float(text), array.dtype).tobytes() == array.tobytes():
        return text
    size = array.dtype.itemsize
    return f"0x{int(array.reshape(1).view(_BITS[size])[0]):0{2 * size}x}"


def read_element(text: str, dtype: DType) -> Any:
    """The element that :func:`spell_element` wrote (complex numbers come in halves)."""
    if dtype.kind == "bool":
        if text not in ("true", "false"):
            raise GraphError(f"expected true or false, found {text!r}")
        return text == "true"
    try:
        if dtype.kind in ("int", "uint"):
            value = int(text)
            return np.array(value, dtype.numpy)  # raises when out of range
        if text.startswith("0x"):
            return _from_bits(text, dtype.numpy)
        return np.array(float(text), dtype.numpy)
    except (ValueError, OverflowError):
        raise GraphError(f"expected a number of type {dtype.short}, found {text!r}") from None


def _from_bits(text: str, dtype: np.dtype[Any]) -> Any:
    if len(text) != 2 + 2 * dtype.itemsize:
        raise ValueError(f"the bits of {dtype} are {2 * dtype.itemsize} hexadecimal digits")
    return np.array(int(text, 16), _BITS[dtype.itemsize]).view(dtype)


def array_of(elements: Iterable[Any], type: TensorType) -> ArrayValue:
    """Array data of ``type`` from its elements in C order."""
    flat = list(elements)
    if len(flat) != type.numel:
        raise GraphError(f"{type} has {type.numel} elements, but {len(flat)} are given")
    array = np.empty(len(flat), type.dtype.numpy)
    for i, element in enumerate(flat):
        array[i] = element
    return ArrayValue(array.reshape(type.static_shape))


def encode(data: ArrayValue) -> list[str]:
    """The bytes of an array (little-endian, C order) as lines of base64."""
    array = data.array
    raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    text = base64.b64encode(raw).decode()
    return [text[i : i + _DATA_COLUMNS] for i in range(0, len(text), _DATA_COLUMNS)]


def decode(lines: Iterable[str], type: TensorType) -> ArrayValue:
    """The inverse of :func:`encode`."""
    try:
        raw = base64.b64decode("".join(lines), validate=True)
    except ValueError as error:
        raise GraphError(f"the data is no base64: {error}") from None
    expected = type.static_bytes
    if len(raw) != expected:
        raise GraphError(f"{type} takes {expected} bytes, but the data has {len(raw)}")
    little = type.dtype.numpy.newbyteorder("<")
    array = np.frombuffer(raw, little).astype(type.dtype.numpy)
    return ArrayValue(array.reshape(type.static_shape))
