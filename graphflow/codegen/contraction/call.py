"""From layouts to the call that multiplies them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

from graphflow.codegen.contraction.kernels import dot_kernel, plain_kernel, tiled_kernel
from graphflow.codegen.contraction.tiling import Tiling, blocks, tiling
from graphflow.codegen.layout import Layout
from graphflow.codegen.schedule import (
    Address,
    Argument,
    BlockAddress,
    Call,
    FunctionAddress,
    KernelSource,
    Value,
)
from graphflow.codegen.target import host_target
from graphflow.ir.types import DType, TensorType

Epilogue = tuple[KernelSource, tuple[Argument, ...]]

PARALLEL_FLOPS = 200_000
"""Products of fewer operations are done before a second thread has begun."""
DOT_ROWS = 4
"""Up to this many rows on one side, scalar products beat packing the other side."""
DOT_DEPTH = 8
"""Below this depth a register tile is cheaper than adding up the lanes of a vector."""
PACK_ROWS = 256
"""From this many rows on, packing a readable right operand pays (about 2 % of the time)."""
PACK_COLUMNS = 64
"""From this many columns on, packing an awkward left operand pays."""
WAY_BYTES = 4096
"""Rows this far apart (or a multiple) compete for the same set of a first-level cache."""


LINE_BYTES = 64
NO_BLOCKING: tuple[Argument, ...] = (Value(0),) * 7


class Scratch(Protocol):
    """What a call needs from the schedule being built (part of ``LowerContext``)."""

    @property
    def threads(self) -> int:
        """An upper bound on the number of threads."""

    def temporary(self, type: TensorType) -> Layout:
        """A fresh contiguous buffer in the arena."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A batch axis: its extent, and strides in elements."""

    extent: int
    a: int
    b: int
    c: int


@dataclass(frozen=True, slots=True)
class Product:
    """``c[i, j] = sum a[i, k] b[k, j]`` for every index of the batch axes.

    ``batch_rows`` rows belong to one batch as the epilogue counts batches;
    ``swapped`` says that rows and columns are exchanged.
    """

    m: int
    n: int
    k: int
    a_row: int
    a_step: int
    b_step: int
    b_column: int
    c_row: int
    c_column: int
    axes: tuple[Axis, ...]
    batch_rows: int
    swapped: bool = False

    @property
    def batches(self) -> int:
        """Number of matrices in the batch."""
        return prod(axis.extent for axis in self.axes)


def contraction_call(
    a: Layout,
    b: Layout,
    c: Layout,
    epilogue: Epilogue | None,
    context: Scratch,
    written: Collection[int] | None = None,
) -> Call:
    """The call that writes ``a @ b`` to ``c`` and runs ``epilogue`` on finished tiles.

    Operands are ``[..., M, K]`` and ``[..., K, N]`` of one dtype with any strides,
    batch axes broadcast; ``c`` is row-major.  ``written`` names the buffers that
    the epilogue writes; without it, all that it refers to count as written.
    """
    product = _product(a, b, c)
    element, itemsize = c.type.dtype.short, c.type.dtype.itemsize
    blocking = NO_BLOCKING
    scratch: frozenset[int] = frozenset()
    if element not in ("f32", "f64"):
        kernel = plain_kernel(element)
    else:
        tile = tiling(host_target(), itemsize)
        swept = _with_rows_of_a_batch(product)
        if _suits_dot(swept):
            product = _turned(product) if product.n < product.m else product
            kernel = dot_kernel(element, tile.lanes)
        else:
            turn = product.n == 1 and product.c_row == 1
            product = _turned(product) if turn else swept
            kernel = tiled_kernel(element, tile)
            blocking, scratch = _blocking(product, tile, c.type.dtype, context)
    words = _arguments((a, b, c), product, blocking, epilogue)
    touched = _buffers(epilogue[1]) if epilogue is not None else frozenset()
    changed = touched if written is None else frozenset(written)
    flops = 2 * product.batches * product.m * product.n * product.k
    return Call(
        kernel=kernel,
        arguments=words,
        reads=frozenset((a.buffer, b.buffer)) | touched,
        writes=frozenset((c.buffer,)) | scratch | changed,
        parallel=flops >= PARALLEL_FLOPS,
        flops=flops,
    )


def _product(a: Layout, b: Layout, c: Layout) -> Product:
    """Extents and strides, with batch axes merged where strides allow."""
    *batch, m, n = c.shape
    k = a.shape[-1]
    axes: list[Axis] = []
    for position, extent in enumerate(batch, start=-len(batch) - 2):
        if extent == 1:
            continue
        axis = Axis(extent, *(_batch_stride(layout, position) for layout in (a, b, c)))
        if axes and _continues(axes[-1], axis):
            axis = replace(axis, extent=axes.pop().extent * extent)
        axes.append(axis)
    return Product(
        m, n, k, a.strides[-2], a.strides[-1], b.strides[-2], b.strides[-1],
        c.strides[-2], c.strides[-1], tuple(axes), m,
    )  # fmt: skip


def _batch_stride(layout: Layout, position: int) -> int:
    """The stride of batch axis ``position`` (from the right); 0 where it is broadcast."""
    if -position > len(layout.shape) or layout.shape[position] == 1:
        return 0
    return layout.strides[position]


def _continues(outer: Axis, inner: Axis) -> bool:
    """True when one axis over both visits the same elements in the same order."""
    return all(
        getattr(outer, name) == getattr(inner, name) * inner.extent for name in ("a", "b", "c")
    )


def _with_rows_of_a_batch(product: Product) -> Product:
    """Make the last batch axis part of the rows when all its matrices share ``b``."""
    if not product.axes or product.m == 0:
        return product
    *outer, axis = product.axes
    m = product.m
    whole = axis.a == m * product.a_row and axis.c == m * product.c_row
    if axis.b != 0 or not (whole or m == 1):
        return product
    a_row, c_row = (axis.a, axis.c) if m == 1 else (product.a_row, product.c_row)
    return replace(product, m=m * axis.extent, a_row=a_row, c_row=c_row, axes=tuple(outer))


def _turned(product: Product) -> Product:
    """The transposed product: ``c.T = b.T @ a.T``."""
    p = product
    axes = tuple(Axis(axis.extent, axis.b, axis.a, axis.c) for axis in p.axes)
    return Product(
        p.n, p.m, p.k, p.b_column, p.b_step, p.a_step, p.a_row, p.c_column, p.c_row, axes, p.n,
        swapped=not p.swapped,
    )  # fmt: skip


def _suits_dot(product: Product) -> bool:
    """True when rows of both sides are contiguous and one side has very few of them."""
    return (
        product.a_step == product.b_step == 1
        and product.k >= DOT_DEPTH
        and min(product.m, product.n) <= DOT_ROWS
    )


def _blocking(
    product: Product, tile: Tiling, dtype: DType, context: Scratch
) -> tuple[tuple[Argument, ...], frozenset[int]]:
    """The words that only the tiled kernel reads, and its scratch buffer."""
    p, size = product, dtype.itemsize
    depth, columns = blocks(tile, size, p.k)
    far = p.a_row * size % WAY_BYTES == 0 or p.a_step not in (0, 1)
    pack_a = p.a_row != 1 and p.m > 1 and far and p.n >= PACK_COLUMNS
    pack_b = p.b_column != 1 or p.m >= PACK_ROWS
    panels = min(columns, _up(p.n, tile.width)) if pack_b else tile.width
    if not pack_b and p.n % tile.width == 0:
        panels = 0
    strip_at = panels * depth
    items = _up(strip_at + tile.strip * depth * pack_a, LINE_BYTES // size)
    values = (depth, columns, int(pack_a), int(pack_b))
    words: tuple[Argument, ...] = tuple(map(Value, values))
    if not items:
        return (*words, Value(0), Value(0), Value(0)), frozenset()
    scratch = context.temporary(TensorType(dtype, (context.threads, items)))
    address = Address(scratch.buffer, scratch.offset * size)
    return (*words, address, Value(items), Value(strip_at)), frozenset((scratch.buffer,))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _arguments(
    places: Sequence[Layout],
    product: Product,
    blocking: tuple[Argument, ...],
    epilogue: Epilogue | None,
) -> tuple[Argument, ...]:
    """The words every kernel has; see the table in this folder's README."""
    p = product
    first, second = (1, 0) if p.swapped else (0, 1)
    a, b, c = places[first], places[second], places[2]
    addresses = [Address(x.buffer, x.offset * x.type.dtype.itemsize) for x in (a, b, c)]
    entry: tuple[Argument, ...] = (Value(0), Value(0))
    if epilogue is not None:
        entry = (FunctionAddress(epilogue[0]), BlockAddress(epilogue[1]))
    axes = [word for axis in p.axes for word in (axis.extent, axis.a, axis.b, axis.c)]
    extents = (p.m, p.n, p.k, p.a_row, p.a_step, p.b_step, p.b_column, p.c_row, p.c_column)
    return (
        *addresses,
        *map(Value, extents),
        Value(len(p.axes)),
        Value(p.batches),
        *entry,
        Value(p.batch_rows),
        Value(int(p.swapped)),
        *blocking,
        *map(Value, axes),
    )


def _buffers(arguments: Sequence[Argument]) -> frozenset[int]:
    """Every buffer that ``arguments`` refer to."""
    found: set[int] = set()
    for argument in arguments:
        if isinstance(argument, Address):
            found.add(argument.buffer)
        elif isinstance(argument, BlockAddress):
            found |= _buffers(argument.arguments)
    return frozenset(found)
