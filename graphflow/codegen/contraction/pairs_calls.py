"""From a product of small integers whose second operand lasts to the call of ``mm_pairs``.

The second operand is weights: its columns are packed in panels, once, by copies between
layouts.  A run that is not of whole groups leaves places of each panel unwritten, which meet
zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphflow.codegen.contraction.call import PARALLEL_FLOPS, Scratch, address, rounded_up
from graphflow.codegen.contraction.pairs_kernel import pairs_kernel
from graphflow.codegen.contraction.tiling import (
    HEAD,
    cache_sizes,
    neighbours,
    pairs_tile,
)
from graphflow.codegen.contraction.walk import Axes, Axis
from graphflow.codegen.epilogue import Epilogue, epilogue_words, with_epilogue
from graphflow.codegen.layout import Layout, row_major
from graphflow.codegen.schedule import Call, Value
from graphflow.codegen.sizes import is_fixed
from graphflow.codegen.target import LINE_BYTES, chosen_target
from graphflow.ir.types import TensorType, int64
from graphflow.records import dataclass

A, B, C = 0, 1, 2
LEAST_ROWS = 4
"""Fewer rows are multiplied by weights where those lie."""
MOST_ROWS = 48
"""Rows widened at a time, if a quarter of the second-level cache holds so many."""

LEAST_WEIGHTS = 100_000
"""So many weights are kept packed between calls, whatever else the program keeps; fewer may be
packed at each call, which as many rows as are widened at a time make up for."""

Copier = Callable[[Layout, Layout, int], list[Call]]
"""From where, where to, and what bits are flipped on the way."""


@dataclass(frozen=True, slots=True)
class Dots:
    """A product as the kernels take it: columns and the innermost depth are one axis each."""

    batch: Axes
    rows: Axes
    column: Axis
    depth: Axes
    run: int

    def count(self, kind: str) -> int:
        """How many elements the axes of one kind run over."""
        axes: Axes = getattr(self, kind)
        return prod(axis.extent for axis in axes)


def takes_pairs(found: Dots) -> bool:
    """Whether columns of the second operand may be packed: for many rows of fixed depth."""
    n, m = found.column.extent, found.count("rows")
    weights = n * found.run * found.count("depth")
    sizes = (n, found.run, m, *(axis.extent for axis in (*found.depth, *found.rows)))
    return (
        all(map(is_fixed, sizes))
        and m >= (LEAST_ROWS if weights >= LEAST_WEIGHTS else MOST_ROWS)
        and min(n, found.run) > 1
        and found.column.strides[C] == 1
        and all(axis.strides[B] == 0 for axis in found.batch)
    )


def pairs_calls(
    found: Dots, places: Sequence[Layout], epilogue: Epilogue | None, context: Scratch,
    copied: Copier,
) -> list[Call]:  # fmt: skip
    """Copies of the second operand in panels, then the product."""
    a, b, c = places
    height, width = pairs_tile(chosen_target())
    group = neighbours(chosen_target(), a.type.dtype.short)
    flips = -128 if group == 4 else 0
    m, n, pieces = found.count("rows"), found.column.extent, found.count("depth")
    outer = tuple(axis.extent for axis in found.depth)
    words = -(-found.run // group)
    shape = (-(-n // width), *outer, words, width, group)
    panels = context.temporary(TensorType(b.type.dtype, shape))
    calls: list[Call] = []
    for source, target in _packing(found, b, panels, width):
        calls += copied(source, target, flips)
    row_bytes = 4 * words * pieces + HEAD  # four numbers of 8 bits a word, or two of 16
    block = max(height, min(MOST_ROWS, cache_sizes()[1] // 4 // row_bytes) // height * height)
    items = rounded_up(pieces + 2 * block + -(-block * row_bytes // 8), LINE_BYTES // 8)
    scratch = context.temporary(TensorType(int64, (context.threads, items)))
    batches, row = found.count("batch"), found.rows[-1]
    tables = (*found.batch, *found.rows, *found.depth)
    flops = 2 * batches * m * n * pieces * found.run
    call = Call(
        kernel=pairs_kernel(a.type.dtype.short, group, height, width),
        arguments=(
            address(a), address(panels), address(c),
            *map(Value, (m, n, batches, len(found.batch), len(found.rows), len(found.depth))),
            *map(Value, (pieces, found.run, row.extent, row.strides[A], row.strides[C])),
            *epilogue_words(epilogue),
            Value(c.shape[-2] if len(c.shape) > 1 else 1),
            address(scratch),
            *map(Value, (items, block)),
            *(Value(word) for axis in tables for word in (axis.extent, *axis.strides)),
        ),
        reads=frozenset((a.buffer, panels.buffer)),
        writes=frozenset((c.buffer, scratch.buffer)),
        parallel=flops >= PARALLEL_FLOPS,
        flops=flops,
    )  # fmt: skip
    return [*calls, with_epilogue(call, epilogue)]


def _packing(found: Dots, b: Layout, panels: Layout, width: int) -> list[tuple[Layout, Layout]]:
    """Places in the second operand, and where they go: whole panels and the last one, each
    in whole groups and what is left of a run."""
    n, run, across = found.column.extent, found.run, found.column.strides[B]
    outer = tuple(axis.extent for axis in found.depth)
    far = tuple(axis.strides[B] for axis in found.depth)
    there, group = row_major(panels.shape), panels.shape[-1]
    made: list[tuple[Layout, Layout]] = []
    for first, count, columns in ((0, n // width, width), (n // width, 1, n % width)):
        for start, groups, length in ((0, run // group, group), (run // group, 1, run % group)):
            shape = (count, *outer, groups, columns, length)
            if 0 in shape:
                continue
            kind = TensorType(b.type.dtype, shape)
            offset = b.offset + first * width * across + group * start
            source = Layout(b.buffer, kind, offset, (width * across, *far, group, across, 1))
            offset = panels.offset + first * there[0] + start * there[-3]
            made.append((source, Layout(panels.buffer, kind, offset, there)))
    return made
