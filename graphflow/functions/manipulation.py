"""What tensors are and do beside arithmetic: copies, fills, conversions, sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphflow.checks import need_dtype, need_index, need_tensor
from graphflow.device import beside_operands, is_placed
from graphflow.dispatch import apply, assign
from graphflow.errors import IndexRangeError, ShapeError
from graphflow.formats import channels_last, channels_last_3d, check_placement
from graphflow.functions import reductions
from graphflow.functions.creation import arange, as_tensor
from graphflow.functions.elementwise import eq
from graphflow.functions.shaping import (
    expand,
    flip,
    permute,
    reshape,
    transpose,
    unbind,
    unsqueeze,
    view,
)
from graphflow.functions.traced_order import traced_layout
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.moves import moved
from graphflow.promotion import as_operand, cast
from graphflow.tensor import Tensor

__all__ = [
    "clone", "contiguous", "equal", "is_contiguous", "is_floating_point", "numel", "one_hot",
]  # fmt: skip
METHODS = """
clone contiguous copy_ cpu dim element_size equal fill_ is_contiguous is_floating_point
nelement numel reshape_as size stride to type_as view_as zero_
""".split()
PROPERTIES = ("T", "mT", "H")
CONVERSIONS: dict[str, DType] = {
    "bool": T.bool_, "byte": T.uint8, "char": T.int8, "short": T.int16, "int": T.int32,
    "long": T.int64, "half": T.float16, "bfloat16": T.bfloat16, "float": T.float32,
    "double": T.float64, "cfloat": T.complex64, "cdouble": T.complex128,
}  # fmt: skip
"""``x.float()`` and its siblings: the method's name, and the dtype it converts to."""


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with its own memory; gradients flow through it."""
    return apply("copy", need_tensor("clone", input))


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor with its elements in row-major order in memory (itself if they are)."""
    if mode.tracer is not None:
        layout = traced_layout(input)
        in_order = layout is not None and layout.is_contiguous
        return input if in_order else apply("reshape", input, shape=tuple(input.shape))
    if input._eager().flags.c_contiguous:
        return input
    out = clone(input)  # in the order of the input's own strides, as in PyTorch
    if not is_placed(out._array):
        out._array = out._cell.value = np.ascontiguousarray(out._array)
    return out


def is_contiguous(input: Tensor, memory_format: Any = None) -> bool:
    """True when the elements lie in order in memory: row-major, or with channels last."""
    last = memory_format in (channels_last, channels_last_3d)
    if mode.tracer is not None:
        return not last
    array = input._eager()
    if last:
        fits = array.ndim == (4 if memory_format is channels_last else 5)
        return fits and bool(array.transpose(0, *range(2, array.ndim), 1).flags.c_contiguous)
    return bool(array.flags.c_contiguous)


def stride(input: Tensor, dim: int | None = None) -> Any:
    """Elements between neighbours along every dimension (or along ``dim``).

    In a compiled function, where memory has no layout yet, those of row-major order.
    """
    if mode.tracer is not None:
        shape = tuple(input.shape)
        steps = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    else:
        array = input._eager()
        steps = tuple(s // array.dtype.itemsize for s in array.strides)
    return steps if dim is None else steps[dim]


def fill_(input: Tensor, value: Any) -> Tensor:
    """Set every element to ``value``."""
    return assign(input, expand(as_operand(value, input.dtype), tuple(input.shape)))


def zero_(input: Tensor) -> Tensor:
    """Set every element to 0."""
    return fill_(input, 0)


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Copy ``src`` (broadcast, cast) into the tensor; between devices it is waited for."""
    source = cast(as_tensor(src), input.dtype)
    return assign(input, source if source.shape == input.shape else expand(source, input.shape))


def to(
    input: Tensor, *args: Any, dtype: DType | None = None, copy: bool = False, **placement: Any
) -> Tensor:
    """In another dtype and/or on another device (itself if nothing changes, unless ``copy``)."""
    check_placement("to", placement)
    device = placement.get("device")
    switches = [arg for arg in args if isinstance(arg, bool)]  # non_blocking, copy
    for arg in args:
        if isinstance(arg, (DType, type)):
            dtype = need_dtype(arg)
        elif isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif not isinstance(arg, bool) and arg is not None:
            device = arg
    wait = not (placement.get("non_blocking") or switches[:1] == [True])
    made = moved(cast(input, need_dtype(dtype) or input.dtype), device, wait)
    return clone(made) if made is input and (copy or switches[1:] == [True]) else made


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """In the dtype of ``other``."""
    return cast(input, other.dtype)


def cpu(input: Tensor, memory_format: Any = None) -> Tensor:
    """On the CPU."""
    return moved(input, "cpu")


def dim(input: Tensor) -> Any:
    """Number of dimensions."""
    return input.ndim


def size(input: Tensor, dim: Any = None) -> Any:
    """The shape, or one extent of it."""
    return input.shape if dim is None else input.shape[dim]


def numel(input: Tensor) -> Any:
    """Number of elements."""
    return input.shape.numel()


nelement = numel


def element_size(input: Tensor) -> Any:
    """Bytes an element."""
    return input.dtype.itemsize


def is_floating_point(input: Tensor) -> Any:
    """True for floating dtypes."""
    return input.dtype.is_floating_point


def length(input: Tensor) -> Any:
    """Extent of the first dimension."""
    if input.ndim == 0:
        raise TypeError("len() of a 0-d tensor")
    return input.shape[0]


def iterate(input: Tensor) -> Iterator[Tensor]:
    """Every entry of the first dimension."""
    if input.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(input, 0))


def backwards(input: Tensor) -> Tensor:
    """``reversed(x)``: a tensor with the order along every dimension turned round."""
    return flip(input, tuple(range(input.ndim)))


def contains(input: Tensor, element: Any) -> Any:
    """True when some element equals ``element``."""
    return reductions.any(eq(input, element)).item()


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """A view in the shape of ``other``."""
    return view(input, tuple(other.shape))


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """Reshaped to the shape of ``other``."""
    return reshape(input, tuple(other.shape))


@beside_operands
def one_hot(input: Tensor, num_classes: Any = -1) -> Tensor:
    """1 at the class each element names, else 0; a new last dimension of ``num_classes``."""
    need_index("one_hot", need_tensor("one_hot", input))
    if num_classes == -1:
        num_classes = reductions.max(input).item() + 1
    elif mode.tracer is None:
        _check_classes(input, num_classes)
    classes = arange(num_classes)
    return cast(eq(unsqueeze(input, -1), classes), T.int64)


def _check_classes(input: Tensor, num_classes: int) -> None:
    values = input._host()
    if values.size and not 0 <= values.min() <= values.max() < num_classes:
        raise IndexRangeError(
            f"one_hot: a class is out of range: the values go from {values.min()} to "
            f"{values.max()}, the classes from 0 to {num_classes - 1}"
        )


def equal(input: Tensor, other: Tensor) -> bool:
    """True when shape and every element are equal; a run-time number in compiled functions."""
    a, b = need_tensor("equal", input), need_tensor("equal", other, "other")
    return a.shape == b.shape and truth(reductions.all(eq(a, b)))


def truth(condition: Tensor) -> Any:
    """A 0-d bool tensor as a Python bool; in a trace it becomes one when the program returns."""
    if mode.tracer is None:
        return bool(condition)
    condition._weak = True
    return condition


def property_T(input: Tensor) -> Tensor:
    """Dimensions in reverse order."""
    return permute(input, tuple(reversed(range(input.ndim))))


def property_mT(input: Tensor) -> Tensor:
    """The last two dimensions exchanged."""
    if input.ndim == 1:
        raise ShapeError("mT: needs matrices, not a tensor of 1 dimension")
    return transpose(input, -2, -1) if input.ndim else input


def property_H(input: Tensor) -> Tensor:
    """The conjugate transpose of a matrix."""
    if input.ndim not in (0, 2):
        raise ShapeError(f"H: needs a matrix, not a tensor of {input.ndim} dimensions; use mH")
    if not input.dtype.is_complex:
        return property_mT(input)
    from graphflow.functions.complex_numbers import conj

    return conj(property_mT(input))
