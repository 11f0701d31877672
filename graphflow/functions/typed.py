"""Tensors by the name of their type, as older scripts make them: ``FloatTensor([1, 2])``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.functions.creation import empty, tensor
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.promotion import set_default_dtype
from graphflow.tensor import Tensor

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
    "HalfTensor", "IntTensor", "LongTensor", "ShortTensor",
]  # fmt: skip


def _maker(name: str, dtype: DType) -> Callable[..., Tensor]:
    def make(*args: Any) -> Tensor:
        if len(args) == 1 and not isinstance(args[0], int):
            return tensor(args[0], dtype=dtype)
        return empty(*args, dtype=dtype) if args else empty(0, dtype=dtype)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"A {dtype.name} tensor of the data given, or of the extents, not filled."
    return make


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
