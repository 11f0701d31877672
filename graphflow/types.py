"""Names for annotations, at PyTorch's address."""

from __future__ import annotations

import os
from typing import IO, TypeAlias

from graphflow.device import Device as _device
from graphflow.formats import Layout
from graphflow.ir.types import DType
from graphflow.tensor import Size, Tensor

__all__ = ["Device", "FileLike", "Number", "Size", "Tensor"]

_dtype, _layout = DType, Layout
_int, _float, _bool, _complex, _str, _bytes = int, float, bool, complex, str, bytes
Device: TypeAlias = _device | str | int | None
FileLike: TypeAlias = str | os.PathLike[str] | IO[bytes]
Number: TypeAlias = int | float | bool
_size: TypeAlias = Size | list[int] | tuple[int, ...]
_TensorOrTensors: TypeAlias = Tensor | tuple[Tensor, ...] | list[Tensor]
