"""Collating: a list of samples becomes one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.functions.creation import from_numpy, tensor
from graphflow.functions.shaping import stack
from graphflow.ir.types import float64
from graphflow.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack samples into a batch, keeping their structure.

    Tensors, NumPy arrays and numbers become one tensor with a new leading
    dimension; mappings, tuples and lists are collated field by field (a tuple
    becomes a list, as in PyTorch); strings and bytes stay a list.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        _same_shape([tuple(t.shape) for t in batch])
        return stack(list(batch))
    if isinstance(first, (np.ndarray, np.generic)):
        return _collate_arrays(batch)
    if isinstance(first, (bool, int)):
        return tensor(list(batch))
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        fields = {key: default_collate([sample[key] for sample in batch]) for key in first}
        return _rebuilt_mapping(first, fields)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(part) for part in _transposed(batch)))
    if isinstance(first, Sequence):
        return [default_collate(part) for part in _transposed(batch)]
    raise TypeError(
        f"cannot collate samples of type {type(first).__name__}: a sample holds tensors, NumPy "
        "arrays, numbers, strings, dicts, tuples or lists; for anything else pass collate_fn="
    )


def default_convert(data: Any) -> Any:
    """NumPy arrays inside ``data`` as tensors, everything else as it is."""
    if isinstance(data, np.ndarray) and data.dtype.kind in "biufc":
        return from_numpy(data)
    if isinstance(data, np.generic) and data.dtype.kind in "biufc":
        return from_numpy(np.asarray(data))
    if isinstance(data, Mapping):
        return _rebuilt_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(part) for part in data))
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return [default_convert(part) for part in data]
    return data


def _collate_arrays(batch: Sequence[Any]) -> Any:
    arrays = [np.asarray(sample) for sample in batch]
    if arrays[0].dtype.kind not in "biufc":
        raise TypeError(f"cannot collate NumPy arrays of dtype {arrays[0].dtype}: not numbers")
    _same_shape([a.shape for a in arrays])
    return from_numpy(np.stack(arrays))


def _rebuilt_mapping(original: Mapping[Any, Any], fields: dict[Any, Any]) -> Any:
    try:
        return type(original)(fields)  # type: ignore[call-arg]
    except TypeError:  # such as a defaultdict-like class with other arguments
        return fields


def _transposed(batch: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    sizes = {len(sample) for sample in batch}
    if len(sizes) > 1:
        raise ShapeError(
            f"cannot collate samples with different numbers of fields: {sorted(sizes)}; "
            "make them equal or pass collate_fn="
        )
    return list(zip(*batch, strict=True))


def _same_shape(shapes: list[tuple[int, ...]]) -> None:
    for position, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ShapeError(
                f"cannot stack samples of different shapes: {list(shapes[0])} at entry 0 and "
                f"{list(shape)} at entry {position} of the batch; pad them or pass collate_fn="
            )
