"""What tensors are and do beside arithmetic: copies, fills, conversions, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphflow.checks import need_index, need_tensor
from graphflow.device import available as as_device
from graphflow.dispatch import apply, assign
from graphflow.errors import IndexRangeError, ShapeError
from graphflow.functions import reductions
from graphflow.functions.creation import arange, as_tensor, full, ones, tensor, zeros
from graphflow.functions.elementwise import eq
from graphflow.functions.shaping import expand, permute, reshape, transpose, unbind, unsqueeze, view
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast
from graphflow.tensor import Tensor

__all__ = [
    "allclose", "clone", "contiguous", "equal", "is_contiguous", "is_floating_point",
    "numel", "one_hot",
]  # fmt: skip
METHODS = """
clone contiguous copy_ cpu dim element_size fill_ is_contiguous is_floating_point
nelement new_full new_ones new_tensor new_zeros numel reshape_as size stride to type_as
view_as zero_
""".split()
PROPERTIES = ("T", "mT", "H")
CONVERSIONS: dict[str, DType] = {
    "bool": T.bool_, "byte": T.uint8, "char": T.int8, "short": T.int16, "int": T.int32,
    "long": T.int64, "half": T.float16, "bfloat16": T.bfloat16, "float": T.float32,
    "double": T.float64,
}  # fmt: skip
"""``x.float()`` and its siblings: the method's name, and the dtype it converts to."""


def clone(input: Tensor) -> Tensor:
    """A copy with its own memory; gradients flow through it."""
    return apply("copy", input)


def contiguous(input: Tensor) -> Tensor:
    """The tensor with its elements in order in memory (itself if they are)."""
    if mode.tracer is not None or input._eager().flags.c_contiguous:
        return input
    return clone(input)


def is_contiguous(input: Tensor) -> bool:
    """True when the elements lie in order in memory."""
    return mode.tracer is not None or bool(input._eager().flags.c_contiguous)


def stride(input: Tensor, dim: int | None = None) -> Any:
    """Elements between neighbours along every dimension (or along ``dim``)."""
    array = input._concrete("stride()")
    steps = tuple(s // array.itemsize for s in array.strides)
    return steps if dim is None else steps[dim]


def fill_(input: Tensor, value: Any) -> Tensor:
    """Set every element to ``value``."""
    return assign(input, expand(as_operand(value, input.dtype), tuple(input.shape)))


def zero_(input: Tensor) -> Tensor:
    """Set every element to 0."""
    return fill_(input, 0)


def copy_(input: Tensor, src: Any) -> Tensor:
    """Copy ``src`` (broadcast, cast) into the tensor."""
    source = cast(as_tensor(src), input.dtype)
    return assign(input, source if source.shape == input.shape else expand(source, input.shape))


def to(
    input: Tensor, *args: Any, dtype: DType | None = None, device: Any = None, **_: Any
) -> Tensor:
    """In another dtype and/or on another device (itself if nothing changes)."""
    for arg in args:
        if isinstance(arg, DType):
            dtype = arg
        elif isinstance(arg, Tensor):
            dtype = arg.dtype
        elif not isinstance(arg, bool):
            device = arg
    if device is not None:
        as_device(device)
    return cast(input, dtype) if dtype is not None else input


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """In the dtype of ``other``."""
    return cast(input, other.dtype)


def cpu(input: Tensor) -> Tensor:
    """On the CPU."""
    return input


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


def contains(input: Tensor, element: Any) -> Any:
    """True when some element equals ``element``."""
    return reductions.any(eq(input, element)).item()


def new_tensor(input: Tensor, data: Any) -> Tensor:
    """A new tensor of ``data`` in the dtype of ``input``."""
    return tensor(data, dtype=input.dtype)


def new_zeros(input: Tensor, *size: Any) -> Tensor:
    """Zeros in the dtype of ``input``."""
    return zeros(*size, dtype=input.dtype)


def new_ones(input: Tensor, *size: Any) -> Tensor:
    """Ones in the dtype of ``input``."""
    return ones(*size, dtype=input.dtype)


def new_full(input: Tensor, size: Any, fill_value: Any) -> Tensor:
    """One value in the dtype of ``input``."""
    return full(size, fill_value, dtype=input.dtype)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """A view in the shape of ``other``."""
    return view(input, tuple(other.shape))


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """Reshaped to the shape of ``other``."""
    return reshape(input, tuple(other.shape))


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
    values = input._eager()
    if values.size and not 0 <= values.min() <= values.max() < num_classes:
        raise IndexRangeError(
            f"one_hot: a class is out of range: the values go from {values.min()} to "
            f"{values.max()}, the classes from 0 to {num_classes - 1}"
        )


def equal(input: Tensor, other: Tensor) -> Any:
    """True when shape and every element are equal."""
    return input.shape == other.shape and reductions.all(eq(input, other)).item()


def allclose(
    input: Tensor, other: Tensor, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: Any = False
) -> Any:
    """True when every element is within ``atol + rtol * |other|``."""
    import numpy as np

    a, b = input._concrete("allclose()"), other._concrete("allclose()")
    return np.allclose(a, b, rtol, atol, equal_nan)


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
