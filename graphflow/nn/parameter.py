"""Parameters: tensors that a module trains."""

from __future__ import annotations

from typing import Any

from graphflow.tensor import Tensor


class Parameter(Tensor):
    """A tensor that registers itself when assigned to a module; shares ``data``'s memory."""

    __slots__ = ()

    def __new__(cls, data: Any = (), requires_grad: bool = True) -> Parameter:
        """The parameter over the memory of ``data`` (a tensor, an array, numbers)."""
        from graphflow.functions.creation import as_tensor

        source = as_tensor(data)
        made: Parameter = cls._of(source._cell, source._chain)
        made._array, made._seen = source._array, source._seen
        made._requires_grad = requires_grad
        return made

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
