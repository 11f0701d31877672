"""Operands that lie crosswise: their neighbours are along another loop than the innermost.

Element by element, each read of them would bring a line of a cache.  Loops over such operands run
in square blocks, and a block is transposed in registers, into scratch, before it is computed with::

    begin, end = share(nblock * nstrip, tid, nth)
    for row in range(begin, end):
        block = row // nstrip
        strip = row % nstrip
        first = block * 64
        low = strip * 64
        last = min(first + 64, ni)
        high = min(low + 64, nj)
        turn(16, 64, tmp + p0, a + p1, s1, high - low, last - first)
        for i in range(first, last):
            for j in range(low, high):
                out[i * s0 + j] = b[i * s0 + j] + tmp[p2 + j]

Elements of one or two bytes, or that are read from data or under a guard, are read where they lie:
in a block, the lines that they bring stay in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from graphflow.codegen.contraction.kernels import TILED
from graphflow.codegen.emit import THREAD, Emitter
from graphflow.codegen.loops import Load, Slot, Turn
from graphflow.codegen.sizes import whole
from graphflow.codegen.spaces import Axis, Survey
from graphflow.codegen.task import Task
from graphflow.ir.affine import Affine

LEAST = 16
"""Fewer neighbours, along either loop, do not fill a line of a cache."""
HEIGHT, WIDTH = 64, 64
"""Elements of a block along the loop of the neighbours, and along the innermost."""
MARGIN = 16
"""Rows of scratch before a block: a last one of fewer rows begins early enough to fill vectors."""
FIRST = Axis("first", ("#first",), (1,), 0)
LOW = Axis("low", ("#low",), (1,), 0)
"""Where the block begins along both."""


def crossed_axis(axes: Sequence[Axis], found: Survey) -> Axis | None:
    """The loop along which most operands are contiguous that the innermost strides over."""
    votes: Counter[Axis] = Counter()
    for load in found.loads if len(axes) > 1 and axes[-1].extent >= LEAST else ():
        for axis in axes[:-1]:
            if is_crossed(load, axis, axes[-1]) and axis.extent >= LEAST:
                votes[axis] += 1
    return max(votes, key=votes.__getitem__, default=None)


def is_crossed(load: Load, axis: Axis, inner: Axis) -> bool:
    """Whether neighbours of ``load`` are along ``axis``, and ``inner`` strides over them."""
    return abs(inner.coefficient(load.index)) > 1 and axis.coefficient(load.index) == 1


def open_squares(
    task: Task, emitter: Emitter, axes: Sequence[Axis], crossed: Axis, found: Survey
) -> None:
    """Open all loops of a map, in blocks along ``crossed`` and the innermost."""
    inner, outer = axes[-1], [axis for axis in axes[:-1] if axis is not crossed]
    sides = ((crossed, HEIGHT, "block"), (inner, WIDTH, "strip"))
    counts = [
        Axis(name, (f"#{name}",), (-(-axis.extent // size),), 0) for axis, size, name in sides
    ]
    emitter.open_shared((*outer, *counts))
    emitter.vary(FIRST, f"block * {HEIGHT}")
    emitter.vary(LOW, f"strip * {WIDTH}")
    emitter.name_index("last", f"min(first + {HEIGHT}, {emitter.extent(crossed)})")
    emitter.name_index("high", f"min(low + {WIDTH}, {emitter.extent(inner)})")
    for load in found.loads:
        if is_crossed(load, crossed, inner) and _is_plain(load, emitter):
            _turn(task, emitter, load, crossed, inner)
    emitter.open((crossed,), crossed.name, "first", "last")
    emitter.open((inner,), inner.name, "low", "high")


def _is_plain(load: Load, emitter: Emitter) -> bool:
    """Whether a block of ``load`` may be read as a whole, before anything is written."""
    always = load.guard is None and not load.depends
    return always and load.slot.dtype.short in TILED and load.slot not in emitter.written


def _turn(task: Task, emitter: Emitter, load: Load, crossed: Axis, inner: Axis) -> None:
    """Transpose the block of ``load`` into scratch, which is read in its place from here on."""
    i, j = crossed.variables[-1], inner.variables[-1]
    room = task.scratch(load.dtype, (task.context.threads, MARGIN + HEIGHT, WIDTH))
    slot = Slot(room.buffer, room.offset + MARGIN * WIDTH, room.dtype)
    emitter.add_result(slot, "tmp")
    emitter.pointer(load.slot)
    emitter.read.add(load.slot)
    begins = {i: FIRST.variables[0], j: LOW.variables[0]}
    terms = {begins.get(name, name): whole(step) for name, step in load.index.terms}
    source = emitter.index(Affine.of(terms, whole(load.index.offset)))
    own = {THREAD: (MARGIN + HEIGHT) * WIDTH}
    row = emitter.integer("s", (load.index.terms, inner.variables), inner.coefficient(load.index))
    start, count, depth = emitter.index(Affine.of(own)), "high - low", "last - first"
    emitter.add(Turn(slot, start, WIDTH, load.slot, source, row, count, depth))
    here = {**own, FIRST.variables[0]: -WIDTH, LOW.variables[0]: -1, i: WIDTH, j: 1}
    emitter.replaced[load] = Load(load.dtype, load.varies, slot, Affine.of(here))
