"""Constants, shapes as values, ranges, random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir import types as T
from graphflow.onnx.operators.table import dtype_of, gf, ints, number, operator
from graphflow.tensor import Tensor


@operator("Constant")
def constant(
    *, value: Any = None, value_float: float | None = None, value_floats: Any = None,
    value_int: int | None = None, value_ints: Any = None,
) -> Any:  # fmt: skip
    """A value that the node holds."""
    if value is not None:
        return value
    floats = value_float if value_float is not None else value_floats
    if floats is not None:
        return np.array(floats, np.float32)
    whole = value_int if value_int is not None else value_ints
    if whole is None:
        raise GraphError("its value is of a kind that is not supported")
    return np.array(whole, np.int64)


@operator("Shape", raw=True, folds=False)
def shape(data: Any, *, start: int = 0, end: int | None = None) -> Any:
    """The extents, as a known value."""
    return _known_sizes(tuple(data.shape)[start:end])


def _known_sizes(sizes: Any) -> Any:
    if all(isinstance(n, int) for n in sizes):
        return np.array(sizes, np.int64)
    made = np.empty(len(sizes), object)
    made[:] = sizes
    return made


@operator("Size", raw=True, folds=False)
def size(data: Any) -> Any:
    """The number of elements, as a known value."""
    total: Any = 1
    for extent in data.shape:
        total = total * extent
    return _known_sizes((total,)).reshape(())


@operator("ConstantOfShape", known=("input",))
def constant_of_shape(input: Any, *, value: Any = None) -> Any:
    """A tensor filled with one value."""
    fill = np.zeros(1, np.float32) if value is None else value
    filler = gf.tensor(np.array(fill.reshape(())))
    return gf.broadcast_to(filler, ints(input)).clone()


@operator("Range", known=("start", "limit", "delta"))
def span(start: Any, limit: Any, delta: Any) -> Any:
    """Numbers from ``start`` to before ``limit``."""
    first, last, step = number(start), number(limit), number(delta)
    if any(np.asarray(x).dtype == object for x in (start, limit, delta)):
        return gf.arange(first, last, step)
    count = max(int(np.ceil((last - first) / step)), 0)
    dtype = np.asarray(start).dtype
    return gf.tensor((first + np.arange(count) * step).astype(dtype))


@operator("EyeLike")
def eye_like(input: Tensor, *, dtype: int | None = None, k: int = 0) -> Any:
    """1 on a diagonal of a matrix of this shape."""
    rows, columns = input.shape
    on = gf.eq(gf.arange(rows).reshape(-1, 1) + k, gf.arange(columns).reshape(1, -1))
    return on.to(input.dtype if dtype is None else dtype_of(dtype))


@operator("OneHot", known=("depth",))
def one_hot(indices: Tensor, depth: Any, values: Tensor, *, axis: int = -1) -> Any:
    """The second of two values at the index along a new axis, the first elsewhere."""
    count = int(number(depth))
    places = gf.remainder(indices.to(T.int64), count)
    inside = gf.logical_and(gf.ge(indices, -count), gf.lt(indices, count))
    at = axis % (indices.ndim + 1)
    row = gf.arange(count).reshape([-1 if k == at else 1 for k in range(indices.ndim + 1)])
    chosen = gf.logical_and(gf.eq(places.unsqueeze(at), row), inside.unsqueeze(at))
    return gf.where(chosen, values[1], values[0])


def _uniform(shape: Any, dtype: T.DType, low: float, high: float) -> Any:
    return gf.add(gf.mul(gf.rand(shape), high - low), low).to(dtype)


def _normal(shape: Any, dtype: T.DType, mean: float, scale: float) -> Any:
    return gf.add(gf.mul(gf.randn(shape), scale), mean).to(dtype)


@operator("RandomUniform", folds=False)
def random_uniform(
    *, shape: Any, dtype: int = 1, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Any:
    """Uniform random numbers (from the default generator: the seed is not used)."""
    return _uniform(tuple(shape), dtype_of(dtype), low, high)


@operator("RandomUniformLike", folds=False)
def random_uniform_like(
    input: Tensor, *, dtype: int | None = None, low: float = 0.0, high: float = 1.0,
    seed: float | None = None,
) -> Any:  # fmt: skip
    """Uniform random numbers in the shape of the operand."""
    kind = input.dtype if dtype is None else dtype_of(dtype)
    return _uniform(tuple(input.shape), kind, low, high)


@operator("RandomNormal", folds=False)
def random_normal(
    *, shape: Any, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    """Normal random numbers."""
    return _normal(tuple(shape), dtype_of(dtype), mean, scale)


@operator("RandomNormalLike", folds=False)
def random_normal_like(
    input: Tensor, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0,
    seed: float | None = None,
) -> Any:  # fmt: skip
    """Normal random numbers in the shape of the operand."""
    kind = input.dtype if dtype is None else dtype_of(dtype)
    return _normal(tuple(input.shape), kind, mean, scale)


@operator("Bernoulli", folds=False)
def bernoulli(input: Tensor, *, dtype: int | None = None, seed: float | None = None) -> Any:
    """1 with the probability given, else 0."""
    kind = input.dtype if dtype is None else dtype_of(dtype)
    return gf.lt(gf.rand(tuple(input.shape)).to(input.dtype), input).to(kind)
