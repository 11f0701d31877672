"""What stands for an argument where a function is traced: a type, or a value that is a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.checks import need_device, need_dtype, need_int
from graphflow.ir.dims import Dim, symbol
from graphflow.ir.types import DType, TensorType, float32
from graphflow.records import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """What ``gf.trace`` needs to know of an argument: extents (ints or names), dtype, a name."""

    shape: Sequence[int | str]
    dtype: DType = float32
    device: Any = None
    name: str | None = None

    def __post_init__(self) -> None:
        need_dtype(self.dtype)
        need_device(self.device)
        for d in self.shape:
            if not (isinstance(d, str) and d.isidentifier()):
                need_int("an extent of a TensorSpec (or its name)", d, 0)

    @property
    def type(self) -> TensorType:
        """The IR type; a named extent is a symbolic dimension."""
        dims: tuple[Dim, ...] = tuple(symbol(d) if isinstance(d, str) else d for d in self.shape)
        return TensorType(self.dtype, dims)


@dataclass(frozen=True)
class Static:
    """A float that is part of the signature instead of a run-time scalar (``gf.static``)."""

    value: Any


def static(value: Any) -> Static:
    """Keep ``value`` a plain Python value in a compiled call: a new one is a new trace."""
    return Static(value)
