"""Operands that lie crosswise: their neighbours are along another loop than the innermost.

Element by element, each read of them would bring a line of a cache.  A map with such operands runs
in square blocks, and a block is transposed in registers, into scratch, before it is computed with::

    begin, end = share(nblock * nstrip, tid, nth)
    for row in range(begin, end):
        block = row // nstrip
        strip = row % nstrip
        top = block * 64
        low = strip * 64
        bottom = min(top + 64, ni)
        high = min(low + 64, nj)
        turn(16, 64, tmp + p0, a + p1, s1, high - low, bottom - top)
        for i in range(top, bottom):
            for j in range(low, high):
                out[i * s0 + j] = b[i * s0 + j] + tmp[p2 + j]

A reduction of rows that lie so runs in blocks of rows, all of each transposed before any is folded;
one along both loops runs in squares as a map does.

Elements of one or two bytes, or that are read from data or under a guard, are read where they lie:
in a square, the lines that they bring stay in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod

from graphflow.codegen.contraction.kernels import TILED
from graphflow.codegen.emit import THREAD, Emitter
from graphflow.codegen.loops import Load, LoopKind, Slot, Turn
from graphflow.codegen.sizes import example_of, surely, whole
from graphflow.codegen.spaces import Axis, Plan, Survey
from graphflow.codegen.task import ENOUGH_SHARES, Task
from graphflow.ir.affine import Affine
from graphflow.records import dataclass

LEAST = 16
"""Fewer neighbours, along either loop, do not fill a line of a cache."""
HEIGHT, WIDTH = 64, 64
"""Elements of a block along the loop of the neighbours, and along the innermost."""
MARGIN = 16
"""Rows of scratch before a block: a last one of fewer rows begins early enough to fill vectors."""
ROOM = 1 << 16
"""Elements of the rows that are turned together, unless these are few …"""
LONGEST = 1 << 14
"""… and of a row at most: so many rows as fill a line stay in a second-level cache."""
TOP = Axis("top", ("#top",), (1,), 0)
LOW = Axis("low", ("#low",), (1,), 0)
"""Where a block begins along both loops."""


@dataclass(frozen=True, slots=True)
class Block:
    """What is transposed together.

    ``height`` steps along ``crossed``, and along ``inner``, from ``low`` (if not from 0) on,
    ``count`` steps.  ``steps`` says how far apart they are in scratch, and those of the loops in
    which this is done over and over.
    """

    crossed: Axis
    inner: Axis
    height: int
    count: str
    steps: Mapping[Axis, int]
    low: Axis | None = None


def _square(crossed: Axis, inner: Axis) -> Block:
    """A block of both loops, which begins at ``top`` and ``low``."""
    return Block(crossed, inner, HEIGHT, "high - low", {crossed: WIDTH, inner: 1}, LOW)


def crossed_axis(axes: Sequence[Axis], inner: Axis, found: Survey) -> Axis | None:
    """The loop of ``axes`` along which most operands are contiguous that ``inner`` strides over."""
    votes: Counter[Axis] = Counter()
    for load in found.loads if inner.extent >= LEAST else ():
        for axis in axes:
            if _is_crossed(load, axis, inner) and axis.extent >= LEAST:
                votes[axis] += 1
    return max(votes, key=votes.__getitem__, default=None)


def crossed_rows(plan: Plan, found: Survey) -> Axis | None:
    """The kept loop of a reduction along which rows are turned together, if some lie so."""
    if not plan.kept or not plan.reduced or plan.depth > LONGEST:
        return None
    return crossed_axis(plan.kept, plan.reduced[-1], found)


def open_squares(
    task: Task, emitter: Emitter, axes: Sequence[Axis], crossed: Axis, found: Survey
) -> None:
    """Open all loops of a map, in blocks along ``crossed`` and the innermost."""
    inner = axes[-1]
    block = _square(crossed, inner)
    loads = _turned(emitter, block, found)
    blocks = (_blocks("block", crossed, HEIGHT), _blocks("strip", inner, WIDTH))
    inside = _open_outer(
        emitter, [axis for axis in axes[:-1] if axis is not crossed], blocks, loads
    )
    emitter.vary(TOP, f"block * {HEIGHT}")
    emitter.vary(LOW, f"strip * {WIDTH}")
    emitter.name_index("bottom", f"min(top + {HEIGHT}, {emitter.extent(crossed)})")
    emitter.name_index("high", f"min(low + {WIDTH}, {emitter.extent(inner)})")
    for load in loads:
        emitter.replaced[load] = _turn(task, emitter, block, load)
    for axis in inside:
        emitter.open_axis(axis)
    emitter.open((crossed,), crossed.name, "top", "bottom")
    emitter.open((inner,), inner.name, "low", "high")


def open_turned_rows(
    task: Task, emitter: Emitter, plan: Plan, crossed: Axis, found: Survey
) -> None:
    """Open the kept loops of a reduction, in blocks of rows along ``crossed``."""
    *around, inner = plan.reduced
    height = min(HEIGHT, max(LEAST, ROOM // example_of(plan.depth) // LEAST * LEAST))
    steps, step = {inner: 1}, -(-inner.extent // LEAST) * LEAST  # whole vectors
    for axis in reversed(around):
        steps[axis] = step
        step *= axis.extent
    steps[crossed] = step
    block = Block(crossed, inner, height, emitter.extent(inner), steps)
    loads = _turned(emitter, block, found)
    outer = [axis for axis in plan.kept if axis is not crossed]
    inside = _open_outer(emitter, outer, (_blocks("block", crossed, height),), loads)
    rows = emitter.constant("height", height)
    emitter.vary(TOP, f"block * {rows}")
    emitter.name_index("bottom", f"min(top + {rows}, {emitter.extent(crossed)})")
    for axis in around:
        emitter.open_axis(axis)
    turned = {load: _turn(task, emitter, block, load) for load in loads}
    emitter.close(len(around))
    for load, there in turned.items():
        emitter.replaced[load] = there
    for axis in inside:
        emitter.open_axis(axis)
    emitter.open((crossed,), crossed.name, "top", "bottom")


def _open_outer(
    emitter: Emitter, outer: Sequence[Axis], blocks: Sequence[Axis], loads: Sequence[Load]
) -> list[Axis]:
    """Share blocks, and loops around them, among the threads.

    The loops that are left run inside of a block, for which what is turned is the same; there are
    some if the others are enough to share.
    """
    inside = [axis for axis in outer if not any(axis.coefficient(x.index) for x in loads)]
    shared = [axis for axis in outer if axis not in inside]
    if not loads or prod(axis.extent for axis in (*shared, *blocks)) < ENOUGH_SHARES:
        inside, shared = [], list(outer)
    emitter.open_shared((*shared, *blocks))
    return inside


@dataclass(frozen=True, slots=True)
class Squares:
    """How a reduction along both loops runs in blocks: what :func:`open_squares` is for maps."""

    task: Task
    crossed: Axis
    inner: Axis
    found: Survey

    def open(self, emitter: Emitter) -> None:
        """Begin the loops over blocks, of the ranges that both axes have; those of a block are
        their ranges from here on."""
        block = _square(self.crossed, self.inner)
        for axis, begin, end, size in (
            (self.crossed, TOP, "bottom", HEIGHT),
            (self.inner, LOW, "high", WIDTH),
        ):
            start, stop = emitter.ranges.get(axis) or ("0", emitter.extent(axis))
            emitter.open((begin,), begin.name, start, stop, LoopKind.REDUCE, str(size))
            emitter.name_index(end, f"min({begin.name} + {size}, {stop})")
            emitter.ranges[axis] = begin.name, end
        for load in _turned(emitter, block, self.found):
            emitter.replaced[load] = _turn(self.task, emitter, block, load)


def _blocks(name: str, axis: Axis, size: int) -> Axis:
    """The loop over blocks of ``axis``."""
    return Axis(name, (f"#{name}",), (-(-axis.extent // size),), 0)


def _is_crossed(load: Load, axis: Axis, inner: Axis) -> bool:
    """Whether neighbours of ``load`` are along ``axis``, and ``inner`` strides over them."""
    return abs(inner.coefficient(load.index)) > 1 and axis.coefficient(load.index) == 1


def _turned(emitter: Emitter, block: Block, found: Survey) -> list[Load]:
    """The operands of which a block may be read as a whole, before anything is written.

    Where there may be fewer than ``MARGIN`` of its rows at all, those before a short block that are
    read with it need not be there.
    """
    if not surely(MARGIN, block.crossed.extent):
        return []
    return [
        load
        for load in found.loads
        if _is_crossed(load, block.crossed, block.inner)
        and load.guard is None
        and not load.depends
        and load.slot.dtype.short in TILED
        and load.slot not in emitter.written
    ]


def _turn(task: Task, emitter: Emitter, block: Block, load: Load) -> Load:
    """Transpose the block of ``load`` into scratch; how it is read there."""
    crossed, inner, pitch = block.crossed, block.inner, block.steps[block.crossed]
    room = task.scratch(load.dtype, (task.context.threads, MARGIN + block.height, pitch))
    slot = Slot(room.buffer, room.offset + MARGIN * pitch, room.dtype)
    emitter.add_result(slot, "tmp")
    emitter.pointer(load.slot)
    emitter.read.add(load.slot)
    begins = {crossed.variables[-1]: TOP} | (
        {inner.variables[-1]: block.low} if block.low is not None else {}
    )
    source = {
        begins[name].variables[0] if name in begins else name: whole(step)
        for name, step in load.index.terms
        if name in begins or name not in inner.variables
    }
    place = {axis.variables[-1]: step for axis, step in block.steps.items()}
    here = {THREAD: (MARGIN + block.height) * pitch, **place}
    start = {
        name: step
        for name, step in here.items()
        if name not in (crossed.variables[-1], inner.variables[-1])
    }
    here |= {begin.variables[0]: -place[name] for name, begin in begins.items()}
    key = (load.index.terms, inner.variables)
    emitter.add(
        Turn(
            slot, emitter.index(Affine.of(start)), emitter.integer("s", (slot, crossed), pitch),
            load.slot, emitter.index(Affine.of(source, whole(load.index.offset))),
            emitter.integer("s", key, inner.coefficient(load.index)), block.count, "bottom - top",
        )
    )  # fmt: skip
    return Load(load.dtype, load.varies, slot, Affine.of(here))
