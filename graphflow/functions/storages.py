"""A tensor's memory itself: exchanged for another, shown in another shape, seen as one row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from graphflow.checks import need_tensor
from graphflow.dispatch import become
from graphflow.errors import DTypeError, GraphFlowError, TraceError
from graphflow.functions.creation import zeros
from graphflow.functions.shaping import cat, sizes_of, view
from graphflow.functions.striding import as_strided, first_element, whole_memory
from graphflow.functions.surface import UntypedStorage
from graphflow.ir.types import DType
from graphflow.mode import mode, structure
from graphflow.tensor import Tensor

__all__ = ["TypedStorage", "as_strided_", "resize_as_"]
METHODS = ("as_strided_", "resize_", "resize_as_", "set_", "storage", "storage_type")


def as_strided_(
    input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """The tensor itself as a view of its memory: see ``as_strided``."""
    return become(input, as_strided, size, stride, storage_offset)


def resize_(input: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """The tensor itself with other extents, over the elements of its memory in row-major order.

    Where these are too few it gets memory of its own, with zeros after them (PyTorch leaves open
    what is there); tensors that shared its memory keep the old one.
    """
    extents = tuple(map(int, sizes_of("resize_", sizes, None, "sizes")))
    _need_no_history("resize_", input)
    if any(n < 0 for n in extents):
        raise GraphFlowError(f"resize_: a size is negative: {list(extents)}")
    if extents == tuple(input.shape):
        return input
    strides = tuple(math.prod(extents[d + 1 :]) for d in range(len(extents)))
    whole, begin, count = whole_memory(input), first_element(input), math.prod(extents)
    if begin + count <= whole.numel():
        return become(input, as_strided, extents, strides, begin)
    old = view(whole.detach(), -1)[begin:]
    more = zeros(count - (whole.numel() - begin), dtype=input.dtype, device=input.device)
    return _move("resize_", input, cat([old, more]).reshape(extents))


def resize_as_(input: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """:func:`resize_` to the extents of another tensor."""
    return resize_(input, tuple(need_tensor("resize_as_", the_template).shape))


def set_(
    input: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None
) -> Tensor:
    """The tensor itself over the memory of ``source``, a tensor or a storage; without one, empty.

    With ``size`` (and ``stride``, else that of row-major order) it shows a part of it.
    """
    _need_no_history("set_", input)
    if source is None:
        return _move("set_", input, zeros(0, dtype=input.dtype, device=input.device))
    if isinstance(source, UntypedStorage):
        row = source.row(input.dtype)
        size = (row.numel() - storage_offset,) if size is None else size
    else:
        row = need_tensor("set_", source).detach()
        if row.dtype is not input.dtype:
            raise DTypeError(
                f"set_: the source is {row.dtype.name}, the tensor {input.dtype.name}; they share "
                "memory, so both must have one dtype"
            )
    if size is None:
        return _move("set_", input, row)
    extents = tuple(size) if isinstance(size, Sequence) else (size,)
    if not stride:
        stride = [math.prod(extents[d + 1 :]) for d in range(len(extents))]
    return _move("set_", input, as_strided(row, extents, stride, storage_offset))


def _need_no_history(name: str, input: Tensor) -> None:
    if need_tensor(name, input)._requires_grad and mode.grad:
        raise GraphFlowError(
            f"{name} of a tensor that requires grad: its history is of the memory that it has; "
            "use detach() or gf.no_grad()"
        )


def _move(name: str, tensor: Tensor, value: Tensor) -> Tensor:
    """``tensor`` over the memory of ``value``."""
    tracer = mode.tracer
    if tracer is not None and tensor._cell.tracer is not tracer:
        raise TraceError(
            f"{name} of a tensor from outside a compiled function would give it memory of the "
            "program; make a new tensor, or call it outside of the function"
        )
    tensor._cell, tensor._chain, tensor._base = value._cell, value._chain, value._base
    tensor._array, tensor._seen = value._array, value._seen
    if tracer is None:
        structure.bump()
    return tensor


class TypedStorage(UntypedStorage):
    """The memory that a tensor and its views have, as one row of elements that can be changed."""

    @property
    def dtype(self) -> DType:
        """What the elements are."""
        dtype: DType = self._tensor.dtype
        return dtype

    def size(self) -> int:
        """How many elements it has."""
        return self.nbytes() // self.dtype.itemsize

    __len__ = size

    def element_size(self) -> int:
        """Bytes an element."""
        return self.dtype.itemsize

    def untyped(self) -> UntypedStorage:
        """The same memory, as bytes."""
        return UntypedStorage(self._tensor)

    def tolist(self) -> list[Any]:
        """The elements as Python numbers."""
        found: list[Any] = self.row(self.dtype).tolist()
        return found

    def __getitem__(self, place: int) -> Any:
        return self.row(self.dtype)[place].item()

    def __setitem__(self, place: int | slice, value: Any) -> None:
        self.row(self.dtype)[place] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __repr__(self) -> str:
        lines = [f" {x}" for x in self.tolist()]
        kind = f"[TypedStorage(dtype={self.dtype!r}, device={self.device}) of size {self.size()}]"
        return "\n".join([*lines, kind])


def storage(input: Tensor) -> TypedStorage:
    """The memory of the tensor, as elements of its dtype."""
    input._concrete("storage()")
    return TypedStorage(input)


def storage_type(input: Tensor) -> type:
    """The class of :func:`storage`."""
    return TypedStorage
