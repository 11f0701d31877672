"""Layouts: how a tensor lies in a buffer, and what a view makes of that.

A value that a kernel wrote lies in row-major order.  A view of it (a slice, a
transpose, a broadcast) needs no copy as long as one stride an axis can say
where its elements are; :func:`viewed` tells whether it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphflow.codegen.sizes import is_fixed, whole
from graphflow.codegen.target import LINE_BYTES
from graphflow.ir.affine import Affine
from graphflow.ir.node import Node, of_form
from graphflow.ir.op import Kind, OpDef
from graphflow.ir.types import TensorType
from graphflow.records import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a tensor of ``type`` lies: element ``i`` of ``buffer`` is at
    ``offset + sum(i[k] * strides[k])``, counted in elements."""

    buffer: int
    type: TensorType
    offset: int
    strides: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape, as integers."""
        return self.type.static_shape

    @property
    def is_contiguous(self) -> bool:
        """True when the elements lie in row-major order without gaps."""
        return contiguous_in(self.shape, self.strides)

    def same_place(self, other: Layout) -> bool:
        """True when every element of both lies at the same address."""
        return (
            self.buffer == other.buffer
            and self.offset == other.offset
            and self.shape == other.shape
            and all(
                a == b or n <= 1
                for a, b, n in zip(self.strides, other.strides, self.shape, strict=True)
            )
        )


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a row-major tensor, in elements."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1) if is_fixed(extent) else extent
    return tuple(reversed(strides))


def contiguous(buffer: int, type: TensorType) -> Layout:
    """The row-major layout at the start of ``buffer``."""
    return Layout(buffer, type, 0, row_major(type.static_shape))


def contiguous_in(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """True when ``strides`` are row-major for ``shape`` (axes of one element aside)."""
    if 0 in shape:
        return True
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True


def among_each_other(starts: Sequence[Sequence[int]], layout: Layout) -> bool:
    """Whether parts of ``layout`` that begin at ``starts`` share lines of a cache all along."""
    flat = [sum(a * b for a, b in zip(start, layout.strides, strict=True)) for start in starts]
    return (max(flat) - min(flat)) * layout.type.dtype.itemsize < LINE_BYTES


def viewed(
    op: OpDef, attrs: Mapping[str, Any], operand: Layout, result: TensorType
) -> Layout | None:
    """The layout of view ``op`` of ``operand``, or ``None`` if no strides express it.

    A view with an index map takes its strides from the map's coefficients; a
    view without one shows its operand's elements in row-major order (reshape).
    """
    if op.kind is not Kind.VIEW:
        return None
    if operand.type.dtype is not result.dtype:
        return _reinterpreted(operand, result)
    names = [f"i{axis}" for axis in range(result.rank)]
    pieces = None
    if op.index is not None:
        variables = tuple(Affine.variable(name) for name in names)
        pieces = op.index([operand.type], attrs, variables)
    if not pieces:
        return reshaped(operand, result) if result.numel == operand.type.numel else None
    if len(pieces) != 1 or pieces[0].conditions or pieces[0].operand != 0:
        return None
    offset, strides = operand.offset, [0] * result.rank
    position = {name: axis for axis, name in enumerate(names)}
    for index, stride in zip(pieces[0].index, operand.strides, strict=True):
        offset += whole(index.offset) * stride
        for name, coefficient in index.terms:
            strides[position[name]] += whole(coefficient) * stride
    if 0 in result.shape:
        offset, strides = operand.offset, list(row_major(result.static_shape))
    return Layout(operand.buffer, result, offset, tuple(strides))


def view_of(node: Node, operand: Layout) -> Layout | None:
    """:func:`viewed` for a graph node with one operand."""
    if len(node.inputs) != 1:
        return None
    found = _place_in_view(node, operand.type, operand.offset, operand.strides)
    return None if found is None else Layout(operand.buffer, node.tensor_type, *found)


@of_form
def _place_in_view(
    node: Node, type: TensorType, offset: int, strides: tuple[int, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """Offset and strides of view ``node`` of an operand that lies so."""
    found = viewed(node.op, node.attrs, Layout(0, type, offset, strides), node.tensor_type)
    return None if found is None else (found.offset, found.strides)


def real_layout(layout: Layout) -> Layout:
    """A complex layout as real numbers with a last axis of the two parts; others as they are."""
    dtype = layout.type.dtype
    if not dtype.is_complex:
        return layout
    found = _reinterpreted(layout, TensorType(dtype.real, (*layout.type.shape, 2)))
    assert found is not None
    return found


def _reinterpreted(operand: Layout, result: TensorType) -> Layout | None:
    """Complex numbers seen as pairs of real ones, or pairs side by side as complex numbers."""
    buffer, offset, strides = operand.buffer, operand.offset, operand.strides
    if operand.type.dtype.is_complex:
        return Layout(buffer, result, offset * 2, (*(2 * s for s in strides), 1))
    if 0 in result.shape:
        return Layout(buffer, result, offset // 2, row_major(result.static_shape))
    if strides[-1] != 1 or any(n % 2 for n in (offset, *strides[:-1])):
        return None
    return Layout(buffer, result, offset // 2, tuple(s // 2 for s in strides[:-1]))


def reshaped(operand: Layout, result: TensorType) -> Layout | None:
    """``operand`` read in row-major order with another shape, if strides express it.

    Axes are matched in runs of equal size on both sides; a run whose axes lie
    evenly in memory can be cut differently, any other cannot.
    """
    old, new = operand.shape, result.static_shape
    if 0 in new:
        return Layout(operand.buffer, result, operand.offset, row_major(new))
    sizes = [(n, s) for n, s in zip(old, operand.strides, strict=True) if n != 1]
    strides = [0] * len(new)
    taken, axis = 0, 0
    while axis < len(new):
        if new[axis] == 1:
            strides[axis] = 0 if taken >= len(sizes) else sizes[taken][1] * sizes[taken][0]
            axis += 1
            continue
        first, start = axis, taken
        have, want = sizes[taken][0], new[axis]
        taken, axis = taken + 1, axis + 1
        while have != want:
            if (taken == len(sizes)) if have < want else (axis == len(new)):
                return None  # equal for an example, but not known to be so
            if have < want:
                have, taken = have * sizes[taken][0], taken + 1
            else:
                want, axis = want * new[axis], axis + 1
        for outer, inner in zip(sizes[start:taken], sizes[start + 1 : taken], strict=False):
            if outer[1] != inner[0] * inner[1]:
                return None
        step = sizes[taken - 1][1]
        for k in range(axis - 1, first - 1, -1):
            strides[k] = step
            step *= new[k]
    return Layout(operand.buffer, result, operand.offset, tuple(strides))
