"""From layouts to the call that multiplies them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

from graphflow.codegen.contraction.choice import USUAL, Choice, advised, choose
from graphflow.codegen.contraction.halves import HALVES, added_halves, matrices_in_halves
from graphflow.codegen.contraction.kernels import (
    FAVOUR_AT,
    PACKING,
    READING,
    TILED,
    dot_kernel,
    plain_kernel,
    row_kernel,
    tiled_kernel,
)
from graphflow.codegen.contraction.tiling import Tiling, blocks, tiling, time_of_rows
from graphflow.codegen.epilogue import Epilogue, epilogue_words, with_epilogue
from graphflow.codegen.layout import Layout
from graphflow.codegen.partition import Partition, Rows, certain, rows_of, together
from graphflow.codegen.schedule import Address, Argument, Call, KernelSource, Value
from graphflow.codegen.sharing import Split, Ways
from graphflow.codegen.sizes import greatest, is_fixed, least
from graphflow.codegen.target import LINE_BYTES, chosen_target
from graphflow.ir.types import DType, TensorType
from graphflow.records import dataclass, replace

PARALLEL_FLOPS = 200_000
"""Products of fewer operations are done before a second thread has begun."""
DOT_ROWS = 4
"""Up to this many rows on one side, scalar products beat packing the other side."""
DOT_DEPTH = 8
"""Below this depth a register tile is cheaper than adding up the lanes of a vector."""
ROW_LENGTH = 32
"""Shorter rows are left to the tiles, which are compiled already."""
PACK_ROWS = 48
"""From this many rows on, packing a readable right operand pays: its rows share few cache sets."""
PACK_COLUMNS = 64
"""From this many columns on, packing an awkward left operand pays."""
WAY_BYTES = 4096
"""Places this far apart (or a multiple) compete for the same set of a first-level cache."""
DEEP = 64
"""So many of them spill from the second level too, depending on the pages they are in."""
APART_LINES = 33
"""Lines between what two threads pack, which would else lie whole pages apart, or nearly."""


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


@dataclass(frozen=True, slots=True)
class Blocking:
    """How a kernel cuts a product, what it packs, and the elements of scratch a thread needs."""

    depth: int = 0
    columns: int = 0
    rows: int = 0
    pack_a: bool = False
    pack_b: bool = False
    items: int = 0
    strip_at: int = 0
    """Where in a thread's scratch the strip of the left operand lies."""
    product: str = ""
    """What it is called where blocks are chosen by measuring."""

    def reserve(self, dtype: DType, context: Scratch) -> tuple[Layout, ...]:
        """The scratch buffer, if one is needed."""
        if not self.items:
            return ()
        return (context.temporary(TensorType(dtype, (context.threads, self.items))),)

    def partition(self, dtype: DType, scratch: Sequence[Layout]) -> dict[int, Rows]:
        """Each thread has its own part of the scratch buffer."""
        fixed = is_fixed(self.items)
        return {s.buffer: Rows(0, self.items * dtype.itemsize) for s in scratch if fixed}


def contraction_calls(
    a: Layout,
    b: Layout,
    c: Layout,
    epilogue: Epilogue | None,
    context: Scratch,
    onto: bool = False,
) -> list[Call]:
    """:func:`contraction_call`, or two calls where threads better have half of the depth each."""
    halved = None if onto else matrices_in_halves(a, b, c)
    if halved is None:
        return [contraction_call(a, b, c, epilogue, context, onto)]
    room = context.temporary(TensorType(c.type.dtype, (HALVES, *halved.shape)))
    sums = contraction_call(halved.a, halved.b, room, None, context)
    return [sums, added_halves(room, halved.c, epilogue, sums.parallel)]


def contraction_call(
    a: Layout,
    b: Layout,
    c: Layout,
    epilogue: Epilogue | None,
    context: Scratch,
    onto: bool = False,
) -> Call:
    """The call that writes ``a @ b`` to ``c`` and runs ``epilogue`` on finished tiles.

    ``onto``: it is added to what is there, where :func:`adds_onto` says that this can be.

    Operands are ``[..., M, K]`` and ``[..., K, N]`` of one dtype with any strides,
    batch axes broadcast; rows or, without an epilogue, columns of ``c`` lie together.
    What an epilogue refers to counts
    as read and as written: only the caller knows what it merely reads.
    """
    dtype, result = a.type.dtype, c.type.dtype
    product = _product(a, b, c)
    flops = 2 * product.batches * product.m * product.n * product.k
    parallel = flops >= PARALLEL_FLOPS
    threads = context.threads if parallel else 1
    product, kernel, blocking = _choose(product, dtype, result, threads)
    if advised() and blocking.depth:
        follows = epilogue.kernel.name if epilogue else ""
        name = f"{kernel.name} {follows} {context.threads} {product}"
        blocking = _advised_blocking(name, product, blocking, result, threads)
    scratch = blocking.reserve(result, context)
    words = _arguments((a, b, c), product, blocking, scratch, epilogue, onto)
    call = Call(
        kernel=kernel,
        arguments=words,
        reads=frozenset((a.buffer, b.buffer, *([c.buffer] if onto else []))),
        writes=frozenset((c.buffer, *(s.buffer for s in scratch))),
        parallel=parallel,
        flops=flops,
        product=blocking.product,
        ways=_ways(product, blocking, (a, b, c), epilogue, threads),
        partition=blocking.partition(result, scratch),
    )
    return with_epilogue(call, epilogue)


def adds_onto(a: Layout, b: Layout, c: Layout) -> bool:
    """Whether a call can add ``a @ b`` to ``c``: register tiles begin with what is there."""
    return _choose(_product(a, b, c), a.type.dtype, c.type.dtype)[2].depth > 0


def has_tiles(dtype: DType, result: DType, terms: int) -> bool:
    """Whether register tiles add up so many products of ``dtype`` as ``result``.

    Few products of integers are left to the loop, which is compiled in a fifth of the time.
    """
    return (
        dtype.short in TILED
        and result is dtype
        and (dtype.is_floating_point or 2 * terms >= PARALLEL_FLOPS)
    )


def _choose(
    product: Product, dtype: DType, result: DType, threads: int = 1
) -> tuple[Product, KernelSource, Blocking]:
    """The kernel for a product, and the form of the product that it computes."""
    element = dtype.short
    if not has_tiles(dtype, result, product.batches * product.m * product.n * product.k):
        return product, plain_kernel(element, result.short), Blocking()
    if product.c_column != 1 and product.c_row == 1 and product.n > 1:
        product = _turned(product)
    tile = tiling(chosen_target(), dtype.itemsize)
    tall = _with_rows_of_a_batch(product)
    for form, rows in ((product, tall.m), (_turned(product), product.n)):
        if rows <= DOT_ROWS and form.b_step == 1 and form.k >= DOT_DEPTH:
            items = form.m * form.k if form.a_step != 1 else 0
            return form, dot_kernel(element, tile.lanes), Blocking(items=items)
        if rows == 1 and form.b_column == form.c_column == 1 and form.n >= ROW_LENGTH:
            return form, row_kernel(element, tile.lanes), Blocking()
    return tall, tiled_kernel(element, tile), _blocking(tall, tile, dtype.itemsize, threads)


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


def _advised_blocking(
    name: str, p: Product, usual: Blocking, dtype: DType, threads: int
) -> Blocking:
    """The blocks that whoever is asked chooses for a product of fixed size."""
    if not all(map(is_fixed, (p.m, p.n, p.k, p.batches))):
        return usual
    tile = tiling(chosen_target(), dtype.itemsize)
    columns, rows, packs = usual.columns, usual.rows, int(usual.pack_b)
    most = _most_columns(p, tile, threads, usual.pack_a, usual.pack_b)
    parts = [min(most, rounded_up(part, tile.width)) for part in (256, 512, 2 * columns)]
    others = [Choice(columns, max(1, rows // tile.height // 2) * tile.height, packs)]
    others += [Choice(columns, factor * rows, packs) for factor in (2, 4) if rows < p.m]
    others += [Choice(part, rows, packs) for part in parts if part != columns]
    if p.b_column == 1:
        others.append(Choice(columns, rows, 1 - packs))
    choice = choose(name, Choice(columns, rows, packs), others)
    return replace(_blocking(p, tile, dtype.itemsize, threads, choice), product=name)


def _blocking(
    p: Product, tile: Tiling, itemsize: int, threads: int, choice: Choice = USUAL
) -> Blocking:
    """How the tiled kernel cuts and packs a product."""

    def collides(stride: int) -> bool:
        return p.k >= DEEP and stride * itemsize % WAY_BYTES == 0

    depth, columns, rows = blocks(tile, itemsize, p.k)
    columns, rows = choice.columns or columns, choice.rows or rows
    rows = least(rows, rounded_up(p.m, tile.height))
    awkward = p.m > 1 and (p.a_step not in (0, 1) or collides(p.a_row))
    pack_a = awkward and p.n >= PACK_COLUMNS
    pack_b = p.b_column != 1 or (p.m >= PACK_ROWS if choice.pack_b < 0 else choice.pack_b > 0)
    columns = least(columns, _most_columns(p, tile, threads, pack_a, pack_b))
    width = columns if pack_b else tile.width
    panels = depth * width if pack_b or p.n % tile.width else 0
    strips = rows // tile.height * tile.strip * depth * pack_a
    line = LINE_BYTES // itemsize
    items = rounded_up(panels + strips, line)
    items += APART_LINES * line if pack_b else 0
    return Blocking(depth, columns, rows, pack_a, pack_b, items, panels)


def _most_columns(p: Product, tile: Tiling, threads: int, pack_a: bool, pack_b: bool) -> int:
    """Columns of whole panels that one thread has, as the tiled kernel shares a product.

    A thread packs no more than its own, so that no scratch lies idle.
    """
    whole = greatest(tile.width, rounded_up(p.n, tile.width))
    if not all(map(is_fixed, (p.m, p.n, p.batches))):
        return whole
    columns = -(-p.batches * whole // (tile.width * threads)) * tile.width
    by_columns, by_rows = _costs(p, tile, threads, pack_a, pack_b)
    return min(columns, whole) if by_columns <= by_rows else whole


def _costs(p: Product, tile: Tiling, threads: int, pack_a: bool, pack_b: bool) -> tuple[int, int]:
    """What a thread has to do if threads share columns, and if they share rows, as the tiled
    kernel has it."""
    columns = -(-p.batches * -(-p.n // tile.width) // threads) * tile.width
    rows = time_of_rows(-(-p.batches * p.m // threads), tile.height)
    times = -(-p.batches // threads)
    b_price, a_price = PACKING * pack_b, PACKING if pack_a else READING
    by_columns = columns * (time_of_rows(p.m, tile.height) + b_price) + times * p.m * a_price
    return by_columns, rows * (p.n + a_price) + times * p.n * b_price


def _ways(
    p: Product,
    cut: Blocking,
    places: Sequence[Layout],
    epilogue: Epilogue | None,
    threads: int,
) -> Ways | None:
    """How threads may share a product by register tiles, if they do not have whole matrices."""
    if threads < 2 or not cut.depth or p.batches != 1 or not all(map(is_fixed, (p.m, p.n, p.k))):
        return None

    def by(outer: int, inner: int) -> Split:
        return "outer" if outer >= inner else "inner"

    item = places[0].type.dtype.itemsize
    tile = tiling(chosen_target(), item)
    by_columns, by_rows = _costs(p, tile, threads, cut.pack_a, cut.pack_b)
    splits: list[tuple[Split, Split]] = [
        ("whole", by(p.a_row, p.a_step)),
        (by(p.b_column, p.b_step), "whole"),
        (by(p.c_column, p.c_row), by(p.c_row, p.c_column)),
    ]
    own = certain(_own_by_rows(p, places, epilogue))
    return Ways(int(by_columns), int(by_rows), int(p.k), item, splits, FAVOUR_AT, own)


def _own_by_rows(p: Product, places: Sequence[Layout], epilogue: Epilogue | None) -> Partition:
    """What threads that share the rows of a product have for themselves."""
    a, b, c = (places[1], places[0], places[2]) if p.swapped else places
    rows = (
        (a, p.a_row, (p.k, p.a_step)),
        (b, 0, (p.k, p.b_step)),
        (c, p.c_row, (p.n, p.c_column)),
    )
    own: list[Partition] = [
        {place.buffer: rows_of(p.m, step, place.offset, [inner], place.type.dtype.itemsize)}
        for place, step, inner in rows
    ]
    if epilogue is not None:
        own.append(epilogue.partition(by_columns=p.swapped))
    return together(*own)


def rounded_up(value: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


def _arguments(
    places: Sequence[Layout],
    product: Product,
    blocking: Blocking,
    scratch: Sequence[Layout],
    epilogue: Epilogue | None,
    onto: bool,
) -> tuple[Argument, ...]:
    """The words of a call, in the order in which every kernel names them."""
    p, cut = product, blocking
    a, b, c = (places[1], places[0], places[2]) if p.swapped else places
    extents = (p.m, p.n, p.k, p.a_row, p.a_step, p.b_step, p.b_column, p.c_row, p.c_column)
    axes = [word for axis in p.axes for word in (axis.extent, axis.a, axis.b, axis.c)]
    return (
        *(address(place) for place in (a, b, c)),
        *map(Value, (*extents, len(p.axes), p.batches)),
        *epilogue_words(epilogue),
        *map(Value, (p.batch_rows, p.swapped, cut.depth, cut.columns, cut.rows)),
        *map(Value, (cut.pack_a, cut.pack_b)),
        address(scratch[0]) if scratch else Value(0),
        *map(Value, (cut.items, cut.strip_at, onto, 0, *axes)),
    )


def address(place: Layout) -> Address:
    """Where ``place`` begins."""
    return Address(place.buffer, place.offset * place.type.dtype.itemsize)
