"""Layouts and memory formats, by PyTorch's names.

Tensors are strided, in row-major order; a compiled program chooses the layouts of
its own temporaries.  So every memory format is accepted, and none changes anything.
"""

from __future__ import annotations

from typing import Any

from graphflow.device import available as as_device
from graphflow.errors import GraphFlowError


class Layout:
    """How elements lie in memory.  ``gf.strided`` is the only one that tensors have."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"graphflow.{self.name}"


class MemoryFormat(Layout):
    """An order of dimensions in memory."""


strided = Layout("strided")
sparse_coo, sparse_csr = Layout("sparse_coo"), Layout("sparse_csr")
"""Layouts to compare with, and to be refused: no tensor has them."""
contiguous_format = MemoryFormat("contiguous_format")
preserve_format = MemoryFormat("preserve_format")
channels_last = MemoryFormat("channels_last")
channels_last_3d = MemoryFormat("channels_last_3d")


def check_placement(name: str, options: dict[str, Any]) -> None:
    """Check the keywords that say where and how a new tensor lies.

    ``device`` must exist, ``layout`` be strided; ``memory_format`` changes nothing.
    Any other keyword is an error naming the function.
    """
    for key, value in options.items():
        if key == "device":
            if value is not None:
                as_device(value)
        elif key == "layout":
            if value is not None and value is not strided:
                raise GraphFlowError(f"{name}: the only layout is gf.strided, not {value!r}")
        elif key not in ("pin_memory", "memory_format", "non_blocking", "copy"):
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")


__all__ = [
    "channels_last", "channels_last_3d", "contiguous_format", "preserve_format", "sparse_coo",
    "sparse_csr", "strided",
]  # fmt: skip
