"""Tensors that register themselves with a module: what it trains, and what it keeps."""

from __future__ import annotations

from typing import Any

from graphflow.later import importer
from graphflow.tensor import Tensor


def over(cls: Any, data: Any) -> Any:
    """A tensor of class ``cls`` over the memory of ``data`` (a tensor, an array, numbers)."""
    from graphflow.functions.creation import as_tensor

    source = as_tensor(data)
    made = cls._of(source._cell, source._chain)
    made._array, made._seen = source._array, source._seen
    return made


class Parameter(Tensor):
    """A tensor that registers itself when assigned to a module; shares ``data``'s memory."""

    __slots__ = ()

    def __new__(cls, data: Any = (), requires_grad: bool = True) -> Parameter:
        """The parameter over the memory of ``data`` (a tensor, an array, numbers)."""
        made: Parameter = over(cls, data)
        if requires_grad:
            made.dtype.need_derivatives()
        made._requires_grad = requires_grad
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """A copy without the attributes that it was given, as in PyTorch."""
        return self._copy(memo)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Buffer(Tensor):
    """A tensor that registers itself as a buffer when assigned to a module."""

    __slots__ = ()
    persistent = True

    def __new__(cls, data: Any = (), *, persistent: bool = True) -> Buffer:
        """The buffer over the memory of ``data``; ``persistent`` puts it in ``state_dict``."""
        made: Buffer = over(cls if persistent else TransientBuffer, data)
        return made


class TransientBuffer(Buffer):
    """A buffer that ``state_dict`` leaves out."""

    __slots__ = ()
    persistent = False


__getattr__ = importer(
    globals(),
    {
        name: f"graphflow.nn.uninitialized:{name}"
        for name in ("UninitializedBuffer", "UninitializedParameter", "is_lazy")
    },
)
