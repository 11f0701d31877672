"""Views by memory, and memory in an order that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphflow.checks import need_int
from graphflow.dispatch import apply_view
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.functions.creation import empty
from graphflow.functions.shaping import permute, view
from graphflow.functions.traced_order import traced_layout
from graphflow.mode import mode

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = ["as_strided", "as_strided_scatter", "empty_permuted", "empty_strided"]
METHODS = ("as_strided", "as_strided_scatter", "new_empty_strided")


def as_strided(
    input: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: int | None = None,
) -> Tensor:
    """The elements of the input's memory at ``storage_offset`` + sum of stride times index.

    A view.  Without ``storage_offset``, it begins where the input begins.
    """
    extents = tuple(need_int("as_strided: a size", n, 0) for n in size)
    steps = tuple(need_int("as_strided: a stride", n, 0) for n in stride)
    if len(extents) != len(steps):
        raise ShapeError(f"as_strided: {len(extents)} sizes and {len(steps)} strides")
    begin = first_element(input) if storage_offset is None else storage_offset
    row = view(whole_memory(input), -1)
    return apply_view("strided", row, shape=extents, strides=steps, offset=int(begin))


def empty_strided(size: Sequence[int], stride: Sequence[int], **options: Any) -> Tensor:
    """A tensor of zeros with these strides, over as few elements as they reach."""
    length = 1 + sum((n - 1) * step for n, step in zip(size, stride))
    return as_strided(empty(length if 0 not in size else 0, **options), size, stride, 0)


def new_empty_strided(
    input: Tensor, size: Sequence[int], stride: Sequence[int], **options: Any
) -> Tensor:
    """:func:`empty_strided` of the dtype and device of ``input``."""
    options = {"dtype": input.dtype, "device": input.device, **options}
    return empty_strided(size, stride, **options)


def as_strided_scatter(
    input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int],
    storage_offset: int | None = None,
) -> Tensor:  # fmt: skip
    """``input`` with the elements that :func:`as_strided` gives replaced by ``src``."""
    made: Tensor = input.clone()
    as_strided(made, size, stride, storage_offset).copy_(src)
    return made


def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **options: Any) -> Tensor:
    """A tensor of zeros whose dimensions lie in memory in the order ``physical_layout``."""
    if sorted(physical_layout) != [*range(len(size))]:
        raise ShapeError(
            f"empty_permuted: {tuple(physical_layout)} is no order of {len(size)} dimensions"
        )
    dense = empty([size[d] for d in physical_layout], **options)
    return permute(dense, [physical_layout.index(d) for d in range(len(size))])


def whole_memory(input: Tensor) -> Tensor:
    """All of the memory that the input is a view of, with its history."""
    root = input._base if input._base is not None else input
    if not root._chain:
        return root
    if root._requires_grad:
        raise GraphFlowError(
            "as_strided of a view that has a history of its own, not its memory's; clone() it first"
        )
    whole: Tensor = type(input)._of(root._cell)
    return whole


def first_element(input: Tensor) -> int:
    """How many elements of its memory lie before the first of the tensor, traced or not."""
    if mode.tracer is None:
        array, whole = input._eager(), input._cell.value
        first = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        return int(first) // array.itemsize
    layout = traced_layout(input)
    if layout is None:
        raise GraphFlowError("the tensor has no single offset in its memory; clone() it first")
    return layout.offset
