"""Make tensors: from Python data, from NumPy, filled, ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.cell import Cell
from graphflow.checks import need_device, need_dtype, need_int
from graphflow.dispatch import apply, literal, scalar
from graphflow.dispatch import full as _full
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.ir import types as T
from graphflow.ir.types import DType, from_numpy_dtype
from graphflow.mode import mode
from graphflow.promotion import cast, get_default_dtype, number_dtype
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.device import Device

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_numpy", "full", "full_like",
    "is_tensor", "linspace", "ones", "ones_like", "scalar_tensor", "tensor", "zeros",
    "zeros_like",
]  # fmt: skip


def tensor(
    data: Any,
    *,
    dtype: DType | None = None,
    device: str | Device | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A new tensor with a copy of ``data`` (numbers, nested lists, arrays, tensors).

    Python floats become the default dtype, ints int64, bools bool.
    """
    need_device(device)
    need_dtype(dtype)
    if isinstance(data, Tensor):
        made = cast(data.detach(), dtype) if dtype else data.detach()
        made = made.clone()
    elif _holds_tensors(data):
        made = _stacked(data, dtype)
    else:
        made = literal(_to_array(data, dtype))
    return made.requires_grad_() if requires_grad else made


def _to_array(data: Any, dtype: DType | None) -> np.ndarray[Any, Any]:
    wanted = dtype.numpy if dtype is not None else None
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.array(data, dtype=wanted, copy=True, order="C")
        from_numpy_dtype(array.dtype)
        return array
    _check_nest(data)
    try:
        array = np.array(data, dtype=wanted)
    except (ValueError, OverflowError, TypeError) as error:
        raise GraphFlowError(f"cannot make a tensor from {type(data).__name__}: {error}") from None
    if dtype is None:
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


def _check_nest(data: Any) -> None:
    """A ragged nest is refused with the place where its lengths differ."""
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


def _holds_tensors(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, Tensor)


def _stacked(data: Any, dtype: DType | None) -> Tensor:
    from graphflow.functions.shaping import stack

    parts = [x if isinstance(x, Tensor) else _stacked(x, dtype) for x in data]
    made = stack([p.detach() for p in parts])
    return cast(made, dtype) if dtype else made


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory where it can."""
    if isinstance(data, Tensor):
        return cast(data, dtype) if dtype else data
    if isinstance(data, np.ndarray):
        made = from_numpy(data)
        return cast(made, dtype) if dtype else made
    return tensor(data, dtype=dtype, device=device)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over the array's own memory: changes show on both sides."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy expects a numpy.ndarray, got {type(array).__name__}")
    from_numpy_dtype(array.dtype)
    tracer = mode.tracer
    cell = Cell(array) if tracer is None else tracer.array_cell(array)
    made: Tensor = Tensor._of(cell)
    return made


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    extents = tuple(need_int("an extent of a shape", d) for d in size)
    if any(d < 0 for d in extents):
        raise ShapeError(f"a shape cannot have negative extents: {list(extents)}")
    return extents


def _filled(size: tuple[Any, ...], value: Any, dtype: DType | None, grad: bool) -> Tensor:
    made = _full(_shape(size), value, need_dtype(dtype) or get_default_dtype())
    return made.requires_grad_() if grad else made


def zeros(
    *size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros."""
    need_device(device)
    return _filled(size, 0, dtype, requires_grad)


def ones(
    *size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ones."""
    need_device(device)
    return _filled(size, 1, dtype, requires_grad)


def empty(
    *size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor to be written to; its contents are zeros (nothing is left undefined)."""
    need_device(device)
    return _filled(size, 0, dtype, requires_grad)


def full(
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor filled with one value (its dtype is the value's by default)."""
    need_device(device)
    if not isinstance(fill_value, (Tensor, bool, int, float, np.number, np.bool_)):
        raise TypeError(f"full: fill_value must be a number, not {fill_value!r}")
    if isinstance(fill_value, Tensor):
        made: Tensor = cast(fill_value, dtype or fill_value.dtype).expand(tuple(size)).clone()
        return made.requires_grad_() if requires_grad else made
    return _filled((tuple(size),), fill_value, dtype or number_dtype(fill_value), requires_grad)


def zeros_like(input: Tensor, *, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros in the shape and dtype of ``input``."""
    return _filled((tuple(input.shape),), 0, dtype or input.dtype, requires_grad)


def ones_like(input: Tensor, *, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Ones in the shape and dtype of ``input``."""
    return _filled((tuple(input.shape),), 1, dtype or input.dtype, requires_grad)


def empty_like(input: Tensor, *, dtype: DType | None = None) -> Tensor:
    """A tensor in the shape and dtype of ``input``, to be written to."""
    return zeros_like(input, dtype=dtype)


def full_like(input: Tensor, fill_value: Any, *, dtype: DType | None = None) -> Tensor:
    """One value in the shape and dtype of ``input``."""
    return _filled((tuple(input.shape),), fill_value, dtype or input.dtype, False)


def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: DType | None = None, device: Any = None
) -> Tensor:
    """``start, start + step, …`` up to but not including ``end``."""
    need_device(device)
    if end is None:
        start, end = 0, start
    if step == 0:
        raise ValueError("arange needs a step other than 0")
    length = max(0, int(np.ceil((end - start) / step)))
    whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    made = dtype or (T.int64 if whole else get_default_dtype())
    counter = iota((length,), 0, T.int64 if whole else T.float64)
    return cast(counter * step + start, made)


def iota(shape: tuple[int, ...], axis: int, dtype: DType) -> Tensor:
    """Every element is its own index along ``axis``."""
    from graphflow.ir.build import emit

    if mode.tracer is not None:
        node = emit("iota", shape=shape, axis=axis, dtype=dtype)
        return Tensor._of(Cell(node, mode.tracer))
    return apply("iota", shape=shape, axis=axis, dtype=dtype)


def linspace(start: float, end: float, steps: int, *, dtype: DType | None = None) -> Tensor:
    """``steps`` evenly spaced values from ``start`` to ``end`` inclusive."""
    made = dtype or get_default_dtype()
    if steps < 0:
        raise ValueError("linspace needs a non-negative number of steps")
    gap = (end - start) / (steps - 1) if steps > 1 else 0.0
    return cast(iota((steps,), 0, T.float64) * gap + start, made)


def eye(n: int, m: int | None = None, *, dtype: DType | None = None) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    shape = (n, n if m is None else m)
    return cast(iota(shape, 0, T.int64) == iota(shape, 1, T.int64), dtype or get_default_dtype())


def scalar_tensor(value: Any, *, dtype: DType | None = None) -> Tensor:
    """A 0-d tensor."""
    return scalar(value, dtype or get_default_dtype())


def is_tensor(value: object) -> bool:
    """True for tensors."""
    return isinstance(value, Tensor)
