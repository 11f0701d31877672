"""Sums over two halves of a product's depth, one for each of two threads, and their sum.

Where the depth is the outer axis of both operands in memory, threads that have half of it each
read what they wrote themselves; what crosses from one to the other is half of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

from graphflow.codegen.contraction.tiling import tiling
from graphflow.codegen.epilogue import Epilogue, epilogue_words, with_epilogue
from graphflow.codegen.layout import Layout, contiguous_in, row_major
from graphflow.codegen.partition import Partition, certain, rows_of, together
from graphflow.codegen.schedule import Address, Call, KernelSource, Value
from graphflow.codegen.sizes import is_fixed
from graphflow.codegen.target import chosen_target
from graphflow.ir.op import Labels
from graphflow.ir.types import TensorType
from graphflow.records import dataclass

HALVES = 2
"""However many threads there are: sums must not depend on that."""
LEAST_DEPTH = 64
"""Of a half: a tile's sums are written once more for so many products."""
LEAST_FLOPS = 15_000_000
"""Fewer operations take as long as what a second call costs."""
AXES = 4
_EACH = 4096
_MATRICES: Labels = ((0, 1), (1, 2), (0, 2))

_ADDED = '''\
"""c[outer, batch, row, column] = the sums over both halves, added"""
from graphflow.codegen.contraction.micro_kernels import pack
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share

LANES = {lanes}
EACH = {each}  # elements that are added before what follows, while they are in cache


@kernel
def {name}(args, tid, nth):
    halves = pointer_at_{element}(args[0])
    c = pointer_at_{element}(args[1])
    outer, batches, rows, columns = args[2], args[3], args[4], args[5]
    c_outer, c_batch, c_row, c_column = args[6], args[7], args[8], args[9]
    epilogue, block = args[10], args[11]
    half, most = outer * batches * rows * columns, max(1, EACH // max(1, columns))
    unit, last_unit = share(outer * batches * rows, tid, nth)
    while unit < last_unit:
        batch, first = unit // rows, unit % rows
        last = min(rows, first + min(most, last_unit - unit))
        goal = c + (batch // batches * c_outer + batch % batches * c_batch)
        for row in range(first, last):
            one, to = halves + (batch * rows + row) * columns, goal + row * c_row
            two = one + half
            if c_column == 1:
                for column in range(columns):
                    to[column] = one[column] + two[column]
            else:
                for column in range(columns):
                    one[column] += two[column]
                pack(LANES, c_column, 1, to, one, 1, 1, 1, columns)
        if epilogue:
            call_epilogue(epilogue, block, batch, first, last, 0, columns)
        unit += last - first
'''


@cache
def _kernel(element: str, lanes: int) -> KernelSource:
    name = f"halves_{element}_{lanes}"
    return KernelSource(name, _ADDED.format(name=name, element=element, lanes=lanes, each=_EACH))


def matrices_in_halves(a: Layout, b: Layout, c: Layout) -> Halved | None:
    """:func:`in_halves` of matrices, before which are axes of one element only."""
    if any(extent != 1 for p in (a, b, c) for extent in p.shape[:-2]) or c.strides[-1] != 1:
        return None
    matrices = [_view(p, p.shape[-2:], p.strides[-2:]) for p in (a, b, c)]
    return in_halves(_MATRICES, matrices)


@dataclass(frozen=True, slots=True)
class Halved:
    """A product whose first axis, in operands and result, are the halves of its depth.

    ``shape`` is that of the result in the order of memory; ``c`` are its rows, as they lie.
    """

    labels: Labels
    a: Layout
    b: Layout
    shape: tuple[int, ...]
    c: Layout


def in_halves(labels: Labels, places: Sequence[Layout]) -> Halved | None:
    """A product with its depth in halves, where less goes from thread to thread then.

    By rows or columns a thread reads half of the depth of a half of one operand and of all of the
    other from another thread; by halves of the depth, half of the sums.
    """
    (left, right, out), (a, b, c) = labels, places
    if not c.type.dtype.is_floating_point or not all(map(is_fixed, (*a.shape, *b.shape))):
        return None
    summed = {label: n for label, n in zip(left, a.shape, strict=True) if label not in out}
    label = max(summed, key=lambda one: a.strides[left.index(one)], default=None)
    if label is None or not _is_outermost(a, left.index(label)) or label not in right:
        return None
    depth, extent = prod(summed.values()), summed[label]
    order = sorted(range(len(out)), key=lambda axis: -c.strides[axis])
    shape, steps = (tuple(of[axis] for axis in order) for of in (c.shape, c.strides))
    if (
        extent % HALVES
        or depth < HALVES * LEAST_DEPTH
        or 2 * prod(shape) * depth < LEAST_FLOPS
        or not _is_outermost(b, right.index(label))
        or not contiguous_in(shape, steps)
        or HALVES**2 * prod(shape) > min(_span(a) + 2 * _span(b), 2 * _span(a) + _span(b))
    ):
        return None
    columns = shape[-1]
    made = (prod(shape[:-1]), columns)
    half = max(max(side, default=0) for side in labels) + 1
    return Halved(
        ((half, *left), (half, *right), (half, *(out[axis] for axis in order))),
        _cut(a, left.index(label)),
        _cut(b, right.index(label)),
        shape,
        _view(c, made, row_major(made)),
    )


def _is_outermost(place: Layout, axis: int) -> bool:
    steps = [abs(s) for s, extent in zip(place.strides, place.shape, strict=True) if extent > 1]
    return place.strides[axis] == max(steps, default=0)


def _span(place: Layout) -> int:
    """How many elements there are from the first to the last one."""
    return 1 + sum((n - 1) * abs(s) for n, s in zip(place.shape, place.strides, strict=True))


def _cut(place: Layout, axis: int) -> Layout:
    """``place`` with the halves of ``axis`` as its first axis."""
    shape, step = list(place.shape), place.strides[axis]
    shape[axis] //= HALVES
    return _view(place, (HALVES, *shape), (shape[axis] * step, *place.strides))


def _view(place: Layout, shape: Sequence[int], strides: Sequence[int]) -> Layout:
    type = TensorType(place.type.dtype, tuple(shape))
    return Layout(place.buffer, type, place.offset, tuple(strides))


def added_halves(halves: Layout, c: Layout, epilogue: Epilogue | None, parallel: bool) -> Call:
    """The call that adds ``halves[0]`` and ``halves[1]``, of the shape of ``c``, up to four axes.

    ``epilogue`` counts all axes but the last two as batches.
    """
    lead = AXES - len(c.shape)
    shape, strides = (1,) * lead + tuple(c.shape), (0,) * lead + tuple(c.strides)
    item = c.type.dtype.itemsize
    call = Call(
        kernel=_kernel(c.type.dtype.short, tiling(chosen_target(), item).lanes),
        arguments=(
            *(Address(p.buffer, p.offset * item) for p in (halves, c)),
            *map(Value, (*shape, *strides)),
            *epilogue_words(epilogue),
        ),
        reads=frozenset((halves.buffer,)),
        writes=frozenset((c.buffer, halves.buffer)),
        parallel=parallel,
        flops=prod(shape),
        partition=certain(_own(shape, strides, c, epilogue)),
    )
    return with_epilogue(call, epilogue)


def _own(
    shape: Sequence[int], strides: Sequence[int], c: Layout, epilogue: Epilogue | None
) -> Partition:
    """What threads that share the rows of ``c`` have for themselves, if it is one matrix."""
    outer, batches, rows, columns = shape
    if outer * batches != 1:
        return {}
    inner = [(columns, strides[-1])]
    own = {c.buffer: rows_of(rows, strides[-2], c.offset, inner, c.type.dtype.itemsize)}
    return together(own, epilogue.partition(by_columns=False) if epilogue is not None else {})
