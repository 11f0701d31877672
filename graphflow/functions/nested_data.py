"""Numbers and nests of lists as arrays: their dtype, and what is wrong with them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.ir.types import DType, from_numpy_dtype
from graphflow.promotion import get_default_dtype, number_dtype, promote_types


def to_array(data: Any, dtype: DType | None) -> np.ndarray[Any, Any]:
    """An array of ``data`` (a number, a nest of lists, an array: always a copy)."""
    wanted = dtype.numpy if dtype is not None else None
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.array(data, dtype=wanted, copy=True, order="C")
        from_numpy_dtype(array.dtype)
        return array
    kinds = _kinds(data)
    try:
        array = np.array(data, dtype=wanted)
    except (ValueError, OverflowError, TypeError) as error:
        raise GraphFlowError(f"cannot make a tensor from {type(data).__name__}: {error}") from None
    if dtype is None:
        if any(issubclass(kind, (np.generic, np.ndarray)) for kind in kinds):
            return array.astype(_dtype_of_all(data).numpy)
        if array.dtype.kind == "f" or array.size == 0:
            array = array.astype(get_default_dtype().numpy)
        elif array.dtype.kind in "iu":
            array = array.astype(np.int64)
        elif array.dtype.kind == "c":
            array = array.astype(np.complex64)
        elif array.dtype.kind != "b":
            raise DTypeError(
                f"cannot make a tensor from {_culprit(data)}; give numbers, nested lists of "
                "numbers, NumPy arrays or tensors"
            )
    return array


def _culprit(data: Any) -> str:
    """What in a nest is no number, for a message."""
    while isinstance(data, (list, tuple)):
        strange = [x for x in data if not isinstance(x, (bool, int, float, complex))]
        if not strange:
            return "whole numbers beyond 64 bits"
        data = strange[0]
    return f"{data!r} of type {type(data).__name__}"


def _kinds(data: Any) -> set[type]:
    """The types of what a nest of lists holds.

    A ragged nest is refused with the place where its lengths differ.
    """
    level, depth = [data], 0
    while level and isinstance(level[0], (list, tuple)):
        lengths = {len(item) if isinstance(item, (list, tuple)) else -1 for item in level}
        if len(lengths) > 1:
            raise ShapeError(
                f"a nested list must be rectangular; at depth {depth} the lengths are "
                f"{sorted(n for n in lengths if n >= 0)}"
            )
        level = [inner for item in level for inner in item]
        depth += 1
    if any(isinstance(item, (list, tuple)) for item in level):
        raise ShapeError(
            f"a nested list must be rectangular; depth {depth} mixes lists and numbers"
        )
    return set(map(type, level))


def _dtype_of_all(data: Any) -> DType:
    """What all numbers and arrays in a nest fit into; NumPy's have the dtype they have."""
    if isinstance(data, (list, tuple)):
        return reduce(promote_types, map(_dtype_of_all, data))
    if isinstance(data, (np.generic, np.ndarray)):
        return from_numpy_dtype(data.dtype)
    return number_dtype(data)
