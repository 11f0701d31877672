"""From layouts to the calls that multiply 8-bit integers with 32-bit sums.

Scalar products want neighbours in depth to be neighbours in memory.  An operand that lies
otherwise is copied first: of weights that is done once, for the copy depends on state alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphflow.codegen.contraction.axes import axes_of, of_kind, product_calls
from graphflow.codegen.contraction.call import PARALLEL_FLOPS, Scratch, address, rounded_up
from graphflow.codegen.contraction.dots_kernel import dots_kernel
from graphflow.codegen.contraction.pairs_calls import Copier, Dots, pairs_calls, takes_pairs
from graphflow.codegen.contraction.tiling import dots_tile
from graphflow.codegen.contraction.walk import Axis, merged
from graphflow.codegen.epilogue import Epilogue, epilogue_words, with_epilogue
from graphflow.codegen.layout import Layout
from graphflow.codegen.schedule import Call, Value
from graphflow.codegen.sizes import is_fixed
from graphflow.codegen.stored_order import Order, ordered
from graphflow.codegen.target import LINE_BYTES, chosen_target
from graphflow.ir.node import Node
from graphflow.ir.op import Labels
from graphflow.ir.types import TensorType, int8, int32, int64, uint8
from graphflow.records import replace

A, B, C = 0, 1, 2
NOWHERE = -1
LEAST_RUN = 32
"""Runs of fewer neighbours in depth are put together by a copy."""
ROWS = 48
"""Rows that are multiplied by all columns before the next ones: they stay in the first cache."""


def is_small(product: Node) -> bool:
    """True for products of 8-bit integers with 32-bit sums."""
    return product.inputs[0].dtype in (int8, uint8) and product.dtype is int32


def takes_small_epilogue(labels: Labels) -> bool:
    """Whether what follows can run on blocks of rows: a column is last in the result, and
    the rest is batches, then rows."""
    left, right, out = labels
    if len(out) < 2 or out[-1] in left or out[-2] in right:
        return False
    kinds = [label in right for label in out[:-1]]
    return all(label in left for label in out[:-1]) and kinds == sorted(kinds, reverse=True)


def small_calls(
    labels: Labels,
    places: Sequence[Layout],
    epilogue: Epilogue | None,
    context: Scratch,
    copied: Copier,
    lasting: bool,
) -> list[Call]:
    """The calls that write the product of ``places[0]`` and ``places[1]`` to ``places[2]``.

    ``copied`` makes the calls of a copy; ``lasting`` says that ``places[1]`` seldom changes, so
    that it may be packed.  An epilogue is run by products that take one.
    """
    for which in ((), (B,), (A,), (A, B)):
        dense = [
            _dense(labels, places, operand) if operand in which else place
            for operand, place in enumerate(places)
        ]
        found = _dots(labels, dense)
        if found is None:
            continue
        if found.run >= LEAST_RUN or not found.depth or which == (A, B):
            calls: list[Call] = []
            for operand in which:
                kept = context.temporary(_stored(labels, places, operand)[0])
                dense[operand] = replace(dense[operand], buffer=kept.buffer)
                calls += copied(places[operand], dense[operand], 0)
            if lasting and takes_pairs(found):
                return [*calls, *pairs_calls(found, dense, epilogue, context, copied)]
            return [*calls, _call(found, dense, epilogue, context)]
    return product_calls(labels, places, context)


def _kinds(labels: Labels, places: Sequence[Layout]) -> list[list[Axis]]:
    """Axes of batches, rows, columns and depth."""
    axes = axes_of(labels, places)
    return [of_kind(axes, *kind) for kind in ((1, 1, 1), (1, 0, 1), (0, 1, 1), (1, 1, 0))]


def _dots(labels: Labels, places: Sequence[Layout]) -> Dots | None:
    """The product as scalar products, if columns are one axis and depth has neighbours."""
    batch, rows, columns, depth = _kinds(labels, places)
    one = [Axis(1, (0, 0, 0))]
    column = merged(columns or one)
    best: Dots | None = None
    for which in (A, B):
        inner = merged(sorted(depth, key=lambda axis: -abs(axis.strides[which])))
        *outer, last = inner or (Axis(1, (1, 1, 0)),)
        if len(column) > 1 or last.strides[:C] != (1, 1):
            continue
        if best is None or last.extent > best.run:
            best = Dots(merged(batch), merged(rows or one), column[0], tuple(outer), last.extent)
    return best


def _stored(labels: Labels, places: Sequence[Layout], which: int) -> tuple[TensorType, Order]:
    """How a copy of an operand lies: batches, what is its own, then depth in the order of the
    other operand; the order of its axes, and the type of memory that holds them so."""
    own, other, out = labels[which], labels[1 - which], labels[C]
    steps = dict(zip(other, places[1 - which].strides, strict=True))
    front = sorted((x for x in own if x in out), key=lambda x: (x not in other, out.index(x)))
    depth = sorted((x for x in own if x not in out), key=lambda x: -abs(steps[x]))
    order = tuple(own.index(label) for label in (*front, *depth))
    place = places[which]
    return TensorType(place.type.dtype, tuple(place.shape[axis] for axis in order)), order


def _dense(labels: Labels, places: Sequence[Layout], which: int) -> Layout:
    """The layout of a copy, in a buffer that is not there yet."""
    _, order = _stored(labels, places, which)
    return ordered(NOWHERE, places[which].type, order)


def _call(
    found: Dots, places: Sequence[Layout], epilogue: Epilogue | None, context: Scratch
) -> Call:
    a, b, c = places
    m, batches, pieces = (
        prod(axis.extent for axis in axes) for axes in (found.rows, found.batch, found.depth)
    )
    n, row = found.column.extent, found.rows[-1]
    height, width = dots_tile(chosen_target(), is_fixed(m) and m == 1)
    block = rounded_up(ROWS, height)
    items = rounded_up(2 * pieces + 2 * block, LINE_BYTES // int64.itemsize)
    scratch = context.temporary(TensorType(int64, (context.threads, items)))
    tables = (*found.batch, *found.rows, *found.depth)
    words = (
        m, n, batches, len(found.batch), len(found.rows), len(found.depth), pieces, found.run,
        found.column.strides[B], found.column.strides[C],
        row.extent, row.strides[A], row.strides[C],
    )  # fmt: skip
    flops = 2 * batches * m * n * pieces * found.run
    call = Call(
        kernel=dots_kernel(a.type.dtype.short, height, width),
        arguments=(
            *map(address, places),
            *map(Value, words),
            *epilogue_words(epilogue),
            Value(c.shape[-2] if len(c.shape) > 1 else 1),
            address(scratch),
            *map(Value, (items, block)),
            *(Value(word) for axis in tables for word in (axis.extent, *axis.strides)),
        ),
        reads=frozenset((a.buffer, b.buffer)),
        writes=frozenset((c.buffer, scratch.buffer)),
        parallel=flops >= PARALLEL_FLOPS,
        flops=flops,
    )
    return with_epilogue(call, epilogue)
