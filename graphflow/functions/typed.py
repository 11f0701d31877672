"""Tensors by the name of their type, as older scripts make them: ``FloatTensor([1, 2])``."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.functions.creation import empty, tensor
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.ir.types import DType
from graphflow.promotion import get_default_dtype, set_default_dtype
from graphflow.tensor import Size, Tensor

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
    "HalfTensor", "IntTensor", "LongTensor", "ShortTensor",
]  # fmt: skip


def of_data_or_extents(name: str, dtype: DType | None, args: tuple[Any, ...]) -> Tensor:
    """A tensor of data (a nest, an array, a tensor), or of the extents given, not filled.

    Without ``dtype`` a tensor keeps its own, and all else has the default dtype.
    """
    first = args[0] if args else 0
    if isinstance(first, (int, np.integer, SymDim, Size)) and not isinstance(first, bool):
        return empty(*(args or (0,)), dtype=dtype)
    if len(args) > 1:
        raise TypeError(f"{name} takes data, or extents as whole numbers, not {args!r}")
    if isinstance(first, (bool, float, complex, np.generic)):
        raise TypeError(
            f"{name}: the data must be a sequence, not the number {first!r}; gf.tensor({first!r}) "
            "makes a tensor of one"
        )
    keeps = dtype is None and isinstance(first, Tensor)
    return tensor(first, dtype=None if keeps else dtype or get_default_dtype())


class _Typed(type):
    """The class of typed constructors: ``isinstance`` asks for tensors of their dtype."""

    dtype: DType

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dtype is cls.dtype


def _maker(name: str, dtype: DType) -> Any:
    def make(cls: type, *args: Any) -> Tensor:
        return of_data_or_extents(name, dtype, args)

    about = f"A {dtype.name} tensor of the data given, or of the extents, not filled."
    names = {"__new__": make, "__doc__": about, "__module__": __name__, "dtype": dtype}
    return _Typed(name, (), names)


BFloat16Tensor = _maker("BFloat16Tensor", T.bfloat16)
BoolTensor = _maker("BoolTensor", T.bool_)
ByteTensor = _maker("ByteTensor", T.uint8)
CharTensor = _maker("CharTensor", T.int8)
DoubleTensor = _maker("DoubleTensor", T.float64)
FloatTensor = _maker("FloatTensor", T.float32)
HalfTensor = _maker("HalfTensor", T.float16)
IntTensor = _maker("IntTensor", T.int32)
LongTensor = _maker("LongTensor", T.int64)
ShortTensor = _maker("ShortTensor", T.int16)

_FLOATING = {
    "BFloat16Tensor": T.bfloat16, "DoubleTensor": T.float64, "FloatTensor": T.float32,
    "HalfTensor": T.float16,
}  # fmt: skip


def set_default_tensor_type(t: Any) -> None:
    """Make floats in the dtype of a typed constructor, given or named ("torch.FloatTensor")."""
    name = str(getattr(t, "__name__", t)).rpartition(".")[2]
    if name not in _FLOATING:
        raise TypeError(f"the default type is one of {', '.join(_FLOATING)}, not {t!r}")
    set_default_dtype(_FLOATING[name])


def typename(obj: Any) -> str:
    """The name of a tensor's type, or of an object's class with its module."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    kind = obj if isinstance(obj, type) or hasattr(obj, "__qualname__") else type(obj)
    module = getattr(kind, "__module__", None)
    return kind.__qualname__ if module in (None, "builtins") else f"{module}.{kind.__qualname__}"
