"""Tensors that share their memory with other libraries' arrays, by DLPack's capsules."""

from __future__ import annotations

from typing import Any

from graphflow.functions import creation
from graphflow.tensor import Tensor

__all__ = ["from_dlpack", "to_dlpack"]


class _Lender:
    """An object whose memory, the CPU's, a capsule describes."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor over the memory of an object with ``__dlpack__``, or of a capsule of the CPU's."""
    lends = hasattr(ext_tensor, "__dlpack__")
    return creation.from_dlpack(ext_tensor if lends else _Lender(ext_tensor))


def to_dlpack(tensor: Tensor) -> Any:
    """The memory of ``tensor`` as a capsule, shared; :func:`from_dlpack` takes it."""
    return tensor.__dlpack__()
