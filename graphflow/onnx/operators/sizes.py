"""Arithmetic on known arrays that hold symbolic sizes: what models do with shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.ir.dims import greatest, least
from graphflow.onnx.operators.table import ints
from graphflow.traced_sizes import as_traced

Array = np.ndarray[Any, Any]
_max = np.frompyfunc(lambda a, b: as_traced(greatest(a, b)), 2, 1)
_min = np.frompyfunc(lambda a, b: as_traced(least(a, b)), 2, 1)


def _gather(data: Array, indices: Array, *, axis: int = 0) -> Any:
    return np.take(data, np.asarray(indices, np.int64), axis)


def _concat(*inputs: Array, axis: int) -> Any:
    return np.concatenate(inputs, axis)


def _slice(data: Array, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    first = ints(starts)
    chosen = ints(axes) if axes is not None else range(len(first))
    strides = ints(steps) if steps is not None else [1] * len(first)
    where = [slice(None)] * data.ndim
    for axis, begin, end, step in zip(chosen, first, ints(ends), strides):
        where[axis] = slice(begin, None if step < 0 and end < -data.shape[axis] else end, step)
    return data[tuple(where)]


def _unsqueeze(data: Array, axes: Any) -> Any:
    return np.expand_dims(data, ints(axes))


def _squeeze(data: Array, axes: Any = None) -> Any:
    return np.squeeze(data, None if axes is None else ints(axes))


def _reshape(data: Array, shape: Array, *, allowzero: int = 0) -> Any:
    return data.reshape(ints(shape))


def _product(data: Array, axes: Any = None, *, keepdims: int = 1, **_: Any) -> Any:
    chosen: Any = None if axes is None else ints(axes)
    multiply: Any = np.multiply
    found = multiply.reduce(data, chosen, keepdims=bool(keepdims))
    return np.asarray(found, object)


def _cast(data: Array, *, to: int, **_: Any) -> Any:
    return data if to in (6, 7) else None


def _split(data: Array, split: Any = None, *, axis: int = 0, outputs: int = 1, **_: Any) -> Any:
    places = outputs if split is None else np.cumsum(ints(split))[:-1]
    return tuple(np.array_split(data, places, axis))


def _expand(data: Array, shape: Array) -> Any:
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, ints(shape)))


def _where(condition: Array, x: Array, y: Array) -> Any:
    return np.where(np.asarray(condition, bool), x, y)


def _div(a: Array, b: Array) -> Any:
    return a // b


def _equal(a: Array, b: Array) -> Any:
    same = [x is y or bool(x == y) for x, y in np.broadcast(a, b)]
    return np.array(same).reshape(np.broadcast_shapes(a.shape, b.shape))


_ON_SIZES: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _div, "Max": _max, "Min": _min,
    "Neg": np.negative, "Gather": _gather, "Concat": _concat, "Slice": _slice,
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Reshape": _reshape, "ReduceProd": _product,
    "Cast": _cast, "Split": _split, "Identity": lambda data: data, "Where": _where,
    "Equal": _equal, "Expand": _expand,
}  # fmt: skip

_BY_NUMBERS = {
    "Expand", "Gather", "ReduceProd", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze",
}  # fmt: skip
"""Those whose operands beside the first must be numbers."""


def _symbolic(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object


def on_sizes(name: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The result of an operator on arrays that hold sizes; None where it is not for these."""
    function = _ON_SIZES.get(name)
    known = all(value is None or isinstance(value, np.ndarray) for value in inputs)
    if function is None or not known or (name in _BY_NUMBERS and any(map(_symbolic, inputs[1:]))):
        return None
    options = {k: v for k, v in options.items() if k not in ("opset", "scope")}
    if name != "Split":
        options.pop("outputs", None)
    found = function(*inputs, **options)
    if found is None or isinstance(found, tuple):
        return found
    return np.asarray(found, None if isinstance(found, np.ndarray) else object)
