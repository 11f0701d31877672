"""Every operation on tensors in one namespace: what ``gf.<name>`` and ``x.<name>()`` mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graphflow.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    is_tensor,
    linspace,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    zeros,
    zeros_like,
)
from graphflow.device import device as as_device
from graphflow.dispatch import apply, assign
from graphflow.elementwise import (
    abs,
    add,
    addcdiv,
    addcmul,
    atan2,
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clamp,
    cos,
    div,
    eq,
    erf,
    exp,
    expm1,
    floor,
    floor_divide,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    lerp,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    reciprocal,
    relu,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from graphflow.indexing import (
    get_item,
    set_item,
)
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast
from graphflow.reductions import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    softmax,
    std,
    sum,
    var,
)
from graphflow.rng import (
    bernoulli,
    bernoulli_,
    exponential_,
    normal,
    normal_,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    uniform_,
)
from graphflow.shaping import (
    broadcast_to,
    cat,
    chunk,
    expand,
    expand_as,
    flatten,
    flip,
    gather,
    index_select,
    matmul,
    movedim,
    narrow,
    permute,
    reshape,
    scatter_add,
    select,
    split,
    squeeze,
    stack,
    t,
    transpose,
    unbind,
    unflatten,
    unsqueeze,
    view,
)
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    pass

absolute, subtract, multiply, divide, true_divide, negative = abs, sub, mul, div, div, neg
clip, swapaxes, swapdims, concat, concatenate, moveaxis = (
    clamp,
    transpose,
    transpose,
    cat,
    cat,
    movedim,
)
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne


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


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` where ``mask`` holds, else ``input``."""
    return apply("where", mask, as_operand(value, input.dtype), input)


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


def _in(dtype: DType) -> Any:
    def convert(input: Tensor) -> Tensor:
        return cast(input, dtype)

    convert.__doc__ = f"In {dtype.name}."
    return convert


bool, byte, char, short, int, long = (
    _in(d) for d in (T.bool_, T.uint8, T.int8, T.int16, T.int32, T.int64)
)
half, bfloat16, float, double = (_in(d) for d in (T.float16, T.bfloat16, T.float32, T.float64))


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
    return any(eq(input, element)).item()


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


mm = bmm = dot = mv = matmul


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Every product of an element of one vector with one of the other."""
    return mul(unsqueeze(input, 1), unsqueeze(vec2, 0))


def one_hot(input: Tensor, num_classes: Any = -1) -> Tensor:
    """1 at the class each element names, else 0; a new last dimension of ``num_classes``."""
    if num_classes == -1:
        num_classes = max(input).item() + 1
    classes = arange(num_classes)
    return cast(eq(unsqueeze(input, -1), classes), T.int64)


def equal(input: Tensor, other: Tensor) -> Any:
    """True when shape and every element are equal."""
    return input.shape == other.shape and all(eq(input, other)).item()


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
    return transpose(input, -2, -1)


property_H = property_mT

# What only a tensor has (``gf.float`` is a dtype, ``x.float()`` a conversion).
_METHODS_ONLY = frozenset(
    "bool byte char short int long half bfloat16 float double cpu to dim size length iterate "
    "contains type_as view new_tensor new_zeros new_ones new_full get_item set_item stride "
    "property_T property_mT property_H as_device as_operand cast apply assign "
    "annotations TYPE_CHECKING Iterator Any DType Device T mode Tensor".split()
)

__all__ = [name for name in dir() if not name.startswith("_") and name not in _METHODS_ONLY]
