"""How operands of eager operations lie in memory, told to kernels; see :mod:`eager_kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.ir import build
from graphflow.ir.node import Node
from graphflow.ir.op import Kind, OpDef
from graphflow.ir.ops.shape import inverse_order
from graphflow.ir.types import TensorType, from_numpy_dtype
from graphflow.runtime.storage import Array, address_of


def operand(name: str, array: Array) -> tuple[Node, Node] | None:
    """An input for the memory from :func:`start_of` on, and ``array`` as a view of it.

    None where elements do not lie at whole multiples of their size.
    """
    dtype = from_numpy_dtype(array.dtype)
    if array.flags.c_contiguous:
        leaf = build.input_node(name, TensorType(dtype, array.shape))
        return leaf, leaf
    backwards = tuple(axis for axis, step in enumerate(array.strides) if step < 0)
    if backwards:
        found = operand(name, np.flip(array, backwards))
        return found and (found[0], build.emit("flip", found[1], axes=backwards))
    order = order_in_memory(array)
    if order is not None:
        leaf = build.input_node(name, TensorType(dtype, array.transpose(order).shape))
        return leaf, build.emit("permute", leaf, axes=inverse_order(order))
    steps = tuple(step // array.itemsize for step in array.strides)
    if any(step % array.itemsize for step in array.strides):
        return None
    span = 1 + sum((extent - 1) * step for extent, step in zip(array.shape, steps))
    leaf = build.input_node(name, TensorType(dtype, (span,)))
    return leaf, build.emit("strided", leaf, shape=array.shape, strides=steps, offset=0)


def order_in_memory(array: Any) -> tuple[int, ...] | None:
    """The axes by falling stride, if ``array`` (or an array on a device) is not row-major but a
    permutation of them makes it so."""
    if array.flags.c_contiguous:
        return None
    order = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return order if array.transpose(order).flags.c_contiguous else None


def start_of(array: Array) -> int:
    """The lowest address of an element."""
    address = address_of(array)
    if array.flags.c_contiguous:
        return address
    back: int = sum(min(0, (n - 1) * step) for n, step in zip(array.shape, array.strides))
    return address + back


def common_order(op: OpDef, arrays: Sequence[Array]) -> tuple[int, ...] | None:
    """The order of axes in which NumPy's result lies in memory, in which operands are to be taken;
    empty: as they are, and the result is row-major.  None where kernels can't have it."""
    if op.kind is Kind.CONTRACTION:
        return ()
    if op.kind is Kind.ELEMENTWISE:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        orders = {_order(array) for array in arrays if array.shape == shape}
        return orders.pop() if len(orders) == 1 else None
    return () if all(map(_is_in_order, arrays)) else None


def reordered(array: Array, order: tuple[int, ...]) -> Array:
    """A view of ``array`` with axes in ``order``, after axes that broadcasting adds."""
    if not order:
        return array
    return array[(None,) * (len(order) - array.ndim)].transpose(order)


def _long_axes(array: Array) -> list[int]:
    """Axes of more than one element."""
    return [axis for axis, extent in enumerate(array.shape) if extent != 1]


def _order(array: Array) -> tuple[int, ...] | None:
    """Axes by falling stride, after those of one element; None where elements are repeated."""
    long = _long_axes(array)
    if any(array.strides[axis] == 0 for axis in long):
        return None
    short = (axis for axis in range(array.ndim) if axis not in long)
    return (*short, *sorted(long, key=lambda axis: -abs(array.strides[axis])))


def _is_in_order(array: Array) -> bool:
    """Whether no axis has a longer stride than those before; all may have none."""
    steps = [abs(array.strides[axis]) for axis in _long_axes(array)]
    return not any(steps) or (0 not in steps and steps == sorted(steps, reverse=True))
