"""Tensors on a CUDA device by the name of their type: ``cuda.FloatTensor([1, 2])``."""

from __future__ import annotations

from typing import Any

from graphflow.functions import typed
from graphflow.moves import moved
from graphflow.tensor import Tensor

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
    "HalfTensor", "IntTensor", "LongTensor", "ShortTensor",
]  # fmt: skip


class _Placed(type):
    """The class of these constructors: ``isinstance`` asks for tensors there, of their dtype."""

    dtype: Any
    place = "cuda"

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dtype is cls.dtype and value.is_cuda


def _placed(name: str) -> Any:
    plain = getattr(typed, name)

    def make(cls: type, *args: Any) -> Tensor:
        return moved(plain(*args), "cuda")

    names = {"__new__": make, "__doc__": plain.__doc__, "__module__": __name__}
    return _Placed(name, (), {**names, "dtype": plain.dtype})


BFloat16Tensor = _placed("BFloat16Tensor")
BoolTensor = _placed("BoolTensor")
ByteTensor = _placed("ByteTensor")
CharTensor = _placed("CharTensor")
DoubleTensor = _placed("DoubleTensor")
FloatTensor = _placed("FloatTensor")
HalfTensor = _placed("HalfTensor")
IntTensor = _placed("IntTensor")
LongTensor = _placed("LongTensor")
ShortTensor = _placed("ShortTensor")
