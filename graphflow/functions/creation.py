"""Make tensors: from Python data, from NumPy, filled, ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from graphflow.cell import Cell
from graphflow.checks import need_dtype, need_int
from graphflow.device import devices
from graphflow.dispatch import apply, literal, scalar
from graphflow.dispatch import full as _full
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.formats import check_placement
from graphflow.functions.nested_data import to_array
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.ir.types import DType, from_numpy_dtype
from graphflow.mode import mode
from graphflow.promotion import cast, get_default_dtype, number_dtype, promote_types
from graphflow.tensor import Tensor
from graphflow.traced_sizes import as_plain

__all__ = [
    "arange", "as_tensor", "asarray", "empty", "empty_like", "eye", "from_dlpack", "from_numpy",
    "frombuffer", "full", "full_like", "is_tensor", "linspace", "logspace", "ones", "ones_like",
    "scalar_tensor", "tensor", "zeros", "zeros_like",
]  # fmt: skip
METHODS = "new_empty new_full new_ones new_tensor new_zeros".split()


def tensor(
    data: Any, *, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """A new tensor with a copy of ``data`` (numbers, nested lists, arrays, tensors).

    Python floats become the default dtype, ints int64, bools bool; NumPy's numbers keep theirs.
    """
    check_placement("tensor", placement)
    dtype = need_dtype(dtype)
    if isinstance(data, Tensor):
        if dtype is None and data._weak:  # a number of a compiled function's
            dtype = get_default_dtype()
        made = cast(data.detach(), dtype) if dtype else data.detach()
        made = made.clone()
    elif (borrowed := _borrowed(data)) is not None:
        made = cast(borrowed, dtype) if dtype else borrowed
        made = made.clone()
    elif _holds_tensors(data):
        made = _stacked(data, dtype)
    else:
        made = literal(to_array(data, dtype))
    made = placed(made, placement)
    return made.requires_grad_() if requires_grad else made


def placed(made: Tensor, placement: Mapping[str, Any]) -> Tensor:
    """A new tensor on the device that ``placement`` names, if it names one."""
    device, pin = placement.get("device"), placement.get("pin_memory")
    if mode.tracer is not None or not (device or pin):
        return made
    from graphflow.moves import moved

    return made.pin_memory() if pin else moved(made, device)


def _holds_tensors(data: Any) -> bool:
    if not isinstance(data, (list, tuple)):
        return isinstance(data, Tensor)
    kinds = set(map(type, data))
    nested = any(issubclass(kind, (list, tuple)) for kind in kinds)
    return any(issubclass(k, Tensor) for k in kinds) or (nested and any(map(_holds_tensors, data)))


def _stacked(data: Any, dtype: DType | None) -> Tensor:
    from graphflow.functions.shaping import stack

    parts = [tensor(part, dtype=dtype) for part in data]
    wanted = dtype or reduce(promote_types, (part.dtype for part in parts))
    return stack([cast(part, wanted) for part in parts])


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory where it can."""
    dtype = need_dtype(dtype)
    if isinstance(data, Tensor):
        return placed(cast(data, dtype) if dtype else data, {"device": device})
    if isinstance(data, np.ndarray):
        made = from_numpy(data)
        return placed(cast(made, dtype) if dtype else made, {"device": device})
    if (borrowed := _borrowed(data)) is not None:
        return placed(cast(borrowed, dtype) if dtype else borrowed, {"device": device})
    return tensor(data, dtype=dtype, device=device)


def _borrowed(data: Any) -> Tensor | None:
    """A tensor over memory on a CUDA device that ``data`` lends, if it does."""
    if getattr(data, "__cuda_array_interface__", None) is None:
        return None
    from graphflow.runtime.cuda.lending import borrowed

    return _over(borrowed(data))


def _over(array: Any) -> Tensor:
    devices.used = True
    cell = Cell(array)
    cell.shared = True
    made: Tensor = Tensor._of(cell)
    return made


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over the array's own memory: changes show on both sides."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy expects a numpy.ndarray, got {type(array).__name__}")
    from_numpy_dtype(array.dtype)
    if type(array) is not np.ndarray:  # a mapped file, for one
        array = np.asarray(array)
    tracer = mode.tracer
    cell = Cell(array) if tracer is None else tracer.array_cell(array)
    cell.shared = True
    made: Tensor = Tensor._of(cell)
    return made


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    extents = tuple(need_int("an extent of a shape", d) for d in size)
    if any(d < 0 for d in extents):
        raise ShapeError(f"a shape cannot have negative extents: {list(extents)}")
    return extents


def _filled(
    name: str, size: Any, value: Any, dtype: DType | None, grad: bool, placement: dict[str, Any]
) -> Tensor:
    """``value`` in a given shape; ``placement`` holds the keywords that change nothing."""
    check_placement(name, placement)
    made = _full(_shape(size), value, need_dtype(dtype) or get_default_dtype())
    made = placed(made, placement)
    return made.requires_grad_() if grad else made


def zeros(
    *size: Any, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """A tensor of zeros."""
    return _filled("zeros", _given(size, placement), 0, dtype, requires_grad, placement)


def ones(
    *size: Any, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """A tensor of ones."""
    return _filled("ones", _given(size, placement), 1, dtype, requires_grad, placement)


def empty(
    *size: Any, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """A tensor to be written to; its contents are zeros (nothing is left undefined)."""
    return _filled("empty", _given(size, placement), 0, dtype, requires_grad, placement)


def _given(size: Any, keywords: dict[str, Any]) -> Any:
    """The shape, which may also come as the keyword ``size``."""
    return (keywords.pop("size"),) if "size" in keywords and not size else size


def full(
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    **placement: Any,
) -> Tensor:
    """A tensor filled with one value (its dtype is the value's by default)."""
    if isinstance(fill_value, SymDim):
        fill_value = scalar(fill_value, dtype or T.int64)
    if not isinstance(fill_value, (Tensor, bool, int, float, complex, np.number, np.bool_)):
        raise TypeError(f"full: fill_value must be a number, not {fill_value!r}")
    if isinstance(fill_value, Tensor):
        return _spread("full", size, fill_value, dtype, requires_grad, placement)
    made = dtype or number_dtype(fill_value)
    return _filled("full", (tuple(size),), fill_value, made, requires_grad, placement)


def _spread(
    name: str, size: Any, value: Tensor, dtype: DType | None, grad: bool, placement: dict[str, Any]
) -> Tensor:
    """The value of a 0-d tensor everywhere."""
    check_placement(name, placement)
    made: Tensor = cast(value.detach(), dtype or value.dtype).expand(_shape((size,))).clone()
    return made.requires_grad_() if grad else made


def zeros_like(
    input: Tensor, *, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """Zeros in the shape and dtype of ``input``."""
    return _filled_like("zeros_like", input, 0, dtype, requires_grad, placement)


def ones_like(
    input: Tensor, *, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """Ones in the shape and dtype of ``input``."""
    return _filled_like("ones_like", input, 1, dtype, requires_grad, placement)


def empty_like(
    input: Tensor, *, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """A tensor in the shape and dtype of ``input``, to be written to; it holds zeros."""
    return _filled_like("empty_like", input, 0, dtype, requires_grad, placement)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    **placement: Any,
) -> Tensor:
    """One value in the shape and dtype of ``input``."""
    return _filled_like("full_like", input, fill_value, dtype, requires_grad, placement)


def _filled_like(
    name: str, input: Any, value: Any, dtype: DType | None, grad: bool, placement: dict[str, Any]
) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: input must be a tensor, not {type(input).__name__}")
    made, shape = dtype or input.dtype, tuple(input.shape)
    placement = {**placement, "device": placement.get("device") or input.device}
    if isinstance(value, Tensor):
        return _spread(name, shape, value, made, grad, placement)
    return _filled(name, (shape,), value, made, grad, placement)


def new_zeros(input: Tensor, *size: Any, **options: Any) -> Tensor:
    """Zeros in the dtype of ``input``, unless ``dtype`` is given."""
    return zeros(*size, **_like(input, options))


def new_ones(input: Tensor, *size: Any, **options: Any) -> Tensor:
    """Ones in the dtype of ``input``, unless ``dtype`` is given."""
    return ones(*size, **_like(input, options))


def new_empty(input: Tensor, *size: Any, **options: Any) -> Tensor:
    """A tensor to be written to, in the dtype of ``input``, unless ``dtype`` is given."""
    return empty(*size, **_like(input, options))


def new_full(input: Tensor, size: Any, fill_value: Any, **options: Any) -> Tensor:
    """One value in the dtype of ``input``, unless ``dtype`` is given."""
    return full(size, fill_value, **_like(input, options))


def new_tensor(input: Tensor, data: Any, **options: Any) -> Tensor:
    """A new tensor of ``data`` in the dtype of ``input``, unless ``dtype`` is given."""
    return tensor(data, **_like(input, options))


def _like(input: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    device = options.get("device") or input.device
    return {**options, "dtype": options.get("dtype") or input.dtype, "device": device}


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    **placement: Any,
) -> Tensor:
    """``start, start + step, …`` up to but not including ``end``.

    Whole numbers give int64, others the default dtype.
    """
    check_placement("arange", placement)
    start, end = (0, start) if end is None else (start, end)
    start, end, step = (_plain("arange", v) for v in (start, end, step))
    if step == 0:
        raise GraphFlowError("arange needs a step other than 0")
    whole = all(isinstance(v, (int, SymDim)) for v in (start, end, step))
    if not whole and not (math.isfinite(start) and math.isfinite(end)):
        raise GraphFlowError(f"arange needs finite bounds, not {start} and {end}")
    if (end - start) * step < 0:
        raise GraphFlowError(f"arange: a step of {step} does not lead from {start} to {end}")
    made = need_dtype(dtype) or (T.int64 if whole else get_default_dtype())
    if whole:
        length = -((start - end) // step)
    else:
        length = math.ceil((end - start) / step)
    counter = iota((length,), 0, T.int64 if whole else T.float64)
    out = placed(cast(counter * step + start, made), placement)
    return out.requires_grad_() if requires_grad else out


def _plain(name: str, value: Any) -> Any:
    """A Python number from a number or a tensor of one element."""
    if isinstance(value, (Tensor, np.generic)):
        return value.item()
    if not isinstance(value, (bool, int, float, complex, SymDim)):
        raise TypeError(f"{name} takes numbers, not {type(value).__name__}")
    return value


def iota(shape: tuple[int, ...], axis: int, dtype: DType) -> Tensor:
    """Every element is its own index along ``axis``."""
    from graphflow.ir.build import emit

    if mode.tracer is not None:
        node = emit("iota", shape=as_plain(shape), axis=axis, dtype=dtype)
        return Tensor._of(Cell(node, mode.tracer))
    return apply("iota", shape=shape, axis=axis, dtype=dtype)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    **placement: Any,
) -> Tensor:
    """``steps`` evenly spaced values from ``start`` to ``end`` inclusive."""
    made = need_dtype(dtype) or get_default_dtype()
    out = cast(_evenly("linspace", start, end, steps, placement), made)
    out = placed(out, placement)
    return out.requires_grad_() if requires_grad else out


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    **placement: Any,
) -> Tensor:
    """``steps`` values from ``base ** start`` to ``base ** end``, evenly spaced logarithms."""
    exponents = _evenly("logspace", start, end, steps, placement)
    made = need_dtype(dtype) or get_default_dtype()
    out = cast(apply("pow", scalar(base, T.float64), exponents), made)
    return out.requires_grad_() if requires_grad else out


def _evenly(name: str, start: Any, end: Any, steps: int, placement: dict[str, Any]) -> Tensor:
    """Evenly spaced float64 values, counted from the nearer end."""
    check_placement(name, placement)
    if isinstance(steps, bool) or not hasattr(steps, "__index__"):
        raise TypeError(f"{name}: steps must be a whole number, not {steps!r}")
    if steps < 0:
        raise GraphFlowError(f"{name} needs steps >= 0, not {steps}")
    first, last = (_end(name, v) for v in (start, end))
    place = iota((steps,), 0, T.float64)
    gap = (last - first) / max(steps - 1, 1)
    up, down = place * gap + first, (place - (steps - 1)) * gap + last
    return apply("where", place * 2 < steps, up, down)


def _end(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.ndim:
            raise GraphFlowError(
                f"{name}: start and end must be numbers or 0-d tensors, not of shape "
                f"{list(value.shape)}"
            )
        return cast(value.detach(), T.float64) if mode.tracer is not None else float(value.item())
    return float(_plain(name, value))


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    **placement: Any,
) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    check_placement("eye", placement)
    shape = _shape((n, n if m is None else m))
    same = iota(shape, 0, T.int64) == iota(shape, 1, T.int64)
    out = placed(cast(same, need_dtype(dtype) or get_default_dtype()), placement)
    return out.requires_grad_() if requires_grad else out


def scalar_tensor(
    value: Any, *, dtype: DType | None = None, requires_grad: bool = False, **placement: Any
) -> Tensor:
    """A 0-d tensor."""
    check_placement("scalar_tensor", placement)
    out = scalar(value, need_dtype(dtype) or get_default_dtype())
    return out.requires_grad_() if requires_grad else out


def asarray(obj: Any, *, dtype: DType | None = None, copy: bool | None = None) -> Tensor:
    """``obj`` as a tensor; shares memory with arrays and tensors unless ``copy``."""
    made = from_dlpack(obj) if _lends_memory(obj) else as_tensor(obj, dtype)
    made = cast(made, dtype) if dtype else made
    return made.clone() if copy else made


def _lends_memory(obj: Any) -> bool:
    return hasattr(obj, "__dlpack__") and not isinstance(obj, (Tensor, np.ndarray, np.generic))


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor over the memory of any object with ``__dlpack__``: nothing is copied."""
    if isinstance(ext_tensor, Tensor):
        return ext_tensor.detach()
    from graphflow.runtime.dlpack import CUDA_MEMORY  # its records are of ctypes, and rare

    if getattr(ext_tensor, "__dlpack_device__", lambda: (1, 0))()[0] == CUDA_MEMORY:
        from graphflow.runtime.cuda.lending import taken

        return _over(taken(ext_tensor))
    return from_numpy(np.from_dlpack(ext_tensor))


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0) -> Tensor:
    """A vector over the memory of an object with the buffer protocol."""
    return from_numpy(np.frombuffer(buffer, dtype.numpy, count, offset))


def is_tensor(value: object) -> bool:
    """True for tensors."""
    return isinstance(value, Tensor)
