"""Parameters and buffers of lazy modules, whose shapes the first input will say."""

from __future__ import annotations

from typing import Any

from graphflow.errors import GraphFlowError
from graphflow.functions.creation import empty
from graphflow.ir.types import DType
from graphflow.nn.parameter import Buffer, Parameter, over
from graphflow.tensor import Tensor

__all__ = ["UninitializedBuffer", "UninitializedParameter", "is_lazy"]


class _Uninitialized(Tensor):
    """Memory that is yet to come: a dtype and a device, but no shape."""

    __slots__ = ()
    _becomes: Any = Tensor

    @property
    def shape(self) -> Any:
        """Raises: there is none yet."""
        raise GraphFlowError(
            f"an {type(self).__name__} has no shape before the first call of its lazy module"
        )

    def materialize(self, shape: Any, device: Any = None, dtype: DType | None = None) -> None:
        """Become an ordinary one of this shape, not filled."""
        dtype, device = dtype or self.dtype, device or self.device
        self.__class__ = self._becomes
        self.data = empty(tuple(shape), dtype=dtype, device=device)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter of a lazy module, whose shape its first input will say."""

    __slots__ = ()
    _becomes = Parameter

    def __new__(
        cls, requires_grad: bool = True, device: Any = None, dtype: DType | None = None
    ) -> UninitializedParameter:
        """Of the default dtype unless one is given."""
        made: UninitializedParameter = _without_shape(cls, device, dtype)
        made._requires_grad = requires_grad
        return made


class UninitializedBuffer(_Uninitialized, Buffer):
    """A buffer of a lazy module, whose shape its first input will say."""

    __slots__ = ()
    _becomes = Buffer

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: DType | None = None,
        *, persistent: bool = True,
    ) -> UninitializedBuffer:  # fmt: skip
        """Of the default dtype unless one is given."""
        made: UninitializedBuffer = _without_shape(cls, device, dtype)
        return made


def _without_shape(cls: Any, device: Any, dtype: DType | None) -> Any:
    return over(cls, empty(0, device=device, dtype=dtype))


def is_lazy(param: Any) -> bool:
    """Whether it is a parameter or buffer that has no shape yet."""
    return isinstance(param, _Uninitialized)
