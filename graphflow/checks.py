"""Checks of what users pass in: each failure says what was given and what to give instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.device import available as as_device
from graphflow.errors import DTypeError, ShapeError
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.ir.types import DType
from graphflow.tensor import Tensor


def need_tensor(name: str, value: Any, what: str = "input") -> Tensor:
    """``value`` if it is a tensor; ``name`` is the operation, ``what`` the argument."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: {what} must be a tensor, not {type(value).__name__}; "
            "make it one with gf.tensor(...)"
        )
    return value


def need_one_tensor(name: str, *values: Any) -> None:
    """Refuse operands that are Python numbers all."""
    if all(isinstance(v, (bool, int, float, complex)) for v in values):
        need_tensor(name, values[0])


def need_tensors(name: str, values: Any) -> list[Tensor]:
    """A non-empty list or tuple of tensors."""
    if isinstance(values, Tensor) or not isinstance(values, Iterable):
        raise TypeError(f"{name} takes a list or tuple of tensors, not one {type(values).__name__}")
    found = [need_tensor(name, v, f"entry {i}") for i, v in enumerate(values)]
    if not found:
        raise ShapeError(f"{name} needs at least one tensor")
    return found


def need_floating(name: str, value: Tensor, what: str = "input") -> None:
    """Refuse integer and bool tensors where an operation is about real numbers."""
    if not (value.dtype.is_floating_point or value.dtype.is_complex):
        raise DTypeError(
            f"{name}: {what} must be floating-point, not {value.dtype.name}; "
            "convert it, for example with .float()"
        )


def need_index(name: str, value: Tensor) -> None:
    """Refuse index tensors that are not integers."""
    if value.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: the index must be an integer tensor, not {value.dtype.name}")


PYTHON_TYPES = {bool: T.bool_, int: T.int64, float: T.float64, complex: T.complex128}
"""What Python's own types mean as dtypes: those of their numbers, as in NumPy."""


def need_dtype(dtype: Any) -> DType | None:
    """``dtype`` if it is one of GraphFlow's (or None), or what one of Python's types means."""
    if dtype is None or isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, type) and dtype in PYTHON_TYPES:
        return PYTHON_TYPES[dtype]
    raise TypeError(f"dtype must be a GraphFlow dtype such as gf.float32, not {dtype!r}")


def need_device(device: Any) -> None:
    """Refuse a device that is not there."""
    if device is not None:
        as_device(device)


def need_int(name: str, value: Any, low: int | None = None) -> int:
    """A whole number (or a symbolic dimension of a trace), at least ``low``."""
    if isinstance(value, SymDim):
        return value  # type: ignore[return-value]
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = int(value.__index__())
    if low is not None and number < low:
        raise ValueError(f"{name} must be at least {low}, not {number}")
    return number


def as_whole(value: Any) -> int:
    """``int(value)``; a symbolic dimension of a trace stays what it is."""
    return value if isinstance(value, SymDim) else int(value)  # type: ignore[return-value]


def slice_bounds(part: slice, extent: int) -> tuple[int, int, int]:
    """``part.indices(extent)``, also where a bound or the extent is a symbolic dimension."""
    step = 1 if part.step is None else part.step
    given = (part.start, part.stop, extent)
    if step < 0 or not any(isinstance(value, SymDim) for value in given):
        return part.indices(extent)
    ends = []
    for value, default in ((part.start, 0), (part.stop, extent)):
        place = default if value is None else value
        if place < 0:
            place = place + extent
            place = place if place >= 0 else 0
        ends.append(place if place <= extent else extent)
    return ends[0], ends[1], step


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` for a misspelt name, or nothing."""
    import difflib

    close = difflib.get_close_matches(str(name), [str(k) for k in known], 1)
    return f"; did you mean {close[0]!r}?" if close else ""
