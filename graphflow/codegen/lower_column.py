"""Reductions across the innermost loop: blocks of columns, row after row.

Column sums accumulate in the output row itself::

    begin, end = share(blocks, tid, nth)
    for block in range(begin, end):
        low = block * width
        stop = min(low + width, nj)
        for j in range(low, stop):
            out[j] = f32(0.0)
        for i in range(ni):
            p0 = i * s0
            for j in range(low, stop):
                out[j] = add_fast(out[j], a[p0 + j])

Accumulators that are not a result themselves live in a scratch row a thread.  What comes from
memory is folded several rows at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.emit import THREAD, Emitter
from graphflow.codegen.loops import Accumulate, Apply, Fold, Load, LoopKind, Slot, Start
from graphflow.codegen.lower_map import open_rows
from graphflow.codegen.lower_row import fold_names, is_regrouped, open_block, open_blocks
from graphflow.codegen.passes_plan import plan_stages
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import example_of
from graphflow.codegen.spaces import Axis, Plan, Survey, Target, survey, work
from graphflow.codegen.task import ENOUGH_SHARES, Task, finish_call
from graphflow.ir.affine import Affine
from graphflow.ir.types import DType, int64
from graphflow.records import dataclass, field

NARROWEST, WIDEST = 64, 1024
"""Columns a block, at least (if there are so many) and at most."""
FEW_BLOCKS = 8
"""Blocks that are enough to share among the threads."""
SUMMED = 128
"""Rows that are folded one after the other; a row kernel has several lanes for that."""
TOGETHER = 8
"""Rows that are folded together where they come from memory, so that accumulators go back to a
cache less often, …"""
FAR = 1 << 23
"""… which is so where a kernel moves so many bytes …"""
LIGHT = 4.0
"""… for what takes no more scalar operations an element."""


@dataclass(slots=True)
class Columns:
    """The accumulators of a column kernel: for each fold, the load of this column's."""

    task: Task
    emitter: Emitter
    plan: Plan
    homes: dict[Fold, Load] = field(default_factory=dict)
    bests: dict[Fold, Load] = field(default_factory=dict)
    """Folds that yield a position: the best element so far (``homes``: its position)."""

    def row(self, fold: Fold) -> Load:
        """A scratch row of accumulators for each thread."""
        return self._scratch(fold, fold.dtype if fold.position is None else fold.operand.dtype)

    def positions(self, fold: Fold) -> Load:
        """A scratch row of positions for each thread."""
        return self._scratch(fold, int64)

    def _scratch(self, fold: Fold, dtype: DType) -> Load:
        inner = self.plan.kept[-1]
        slot = self.task.scratch(dtype, (self.task.context.threads, inner.extent))
        self.emitter.add_result(slot, "tmp")
        index = Affine.of({inner.variables[-1]: 1, THREAD: inner.extent})
        return Load(slot.dtype, fold.varies | inner.mask, slot, index)

    def place(self, load: Load) -> str:
        """The accumulator of this column, as text."""
        self.emitter.read.add(load.slot)
        return f"{self.emitter.slots[load.slot]}[{self.emitter.index(load.index)}]"


def lower_column(task: Task, plan: Plan, targets: Sequence[Target], found: Survey) -> Call:
    """One call over blocks of columns."""
    stages = plan_stages(targets, found, task.bound)
    emitter = Emitter("col", targets, found.uses, task.error, task.bound)
    columns = Columns(task, emitter, plan)
    in_place = _choose_homes(columns, stages.folds, stages.kept, found)
    inner, (moved, _) = plan.kept[-1], work(task.space, found, targets)
    _open_column_blocks(emitter, plan, task.is_large(found, targets))
    for number, folds in enumerate(stages.folds):
        column_pass(columns, inner, folds, stages.full[number], moved)
        for fold in folds:
            emitter.replaced[fold] = columns.homes[fold]
    for target in in_place:
        emitter.result(target.slot, target.value)
    rest = [t for t in stages.kept if t not in in_place]
    if rest:
        emitter.open_axis(inner)
        emitter.store(rest)
        emitter.close()
    return finish_call(task, emitter, targets, found)


def _choose_homes(
    columns: Columns, passes: Sequence[Sequence[Fold]], kept: Sequence[Target], found: Survey
) -> list[Target]:
    """Give every fold its accumulators: in a result if possible, which is then complete."""
    read = {load.slot for load in found.loads}
    bound = columns.task.bound
    in_place: list[Target] = []
    for fold in (f for folds in passes for f in folds):
        if fold.position is not None:
            columns.bests[fold] = columns.row(fold)
        for target in kept:
            whole = bound.get(target.value, target.value) is fold
            if whole and target.slot not in read and target.slot.dtype.itemsize != 2:
                if target.slot.dtype is fold.dtype:
                    columns.homes[fold] = Load(fold.dtype, fold.varies, target.slot, target.index)
                    in_place.append(target)
                    break
        else:
            columns.homes[fold] = (
                columns.positions(fold) if fold.position is not None else columns.row(fold)
            )
    return in_place


def _open_column_blocks(emitter: Emitter, plan: Plan, large: bool) -> None:
    """Open the kept loops but the innermost, which is left to be run in blocks."""
    outer, inner = plan.kept[:-1], plan.kept[-1]
    rows = 1
    for axis in outer:
        rows *= axis.extent
    width = block_width(example_of(inner.extent), example_of(rows))
    if width >= inner.extent or not large:
        open_rows(emitter, outer, large)
        return
    if rows >= ENOUGH_SHARES:
        open_rows(emitter, outer)
        emitter.open((), "low", "0", emitter.extent(inner), step=emitter.constant("width", width))
    else:
        blocks = -(-inner.extent // width)
        if outer:
            emitter.open_shared((*outer, Axis("block", ("block",), (blocks,), 0)))
        else:
            emitter.share_count(emitter.constant("blocks", blocks))
            emitter.open((), "block", "begin", "end", LoopKind.PARALLEL)
        emitter.name_index("low", f"block * {emitter.constant('width', width)}")
    end = f"low + {emitter.constant('width', width)}"
    emitter.name_index("high", f"min({end}, {emitter.extent(inner)})")
    emitter.ranges[inner] = ("low", "high")


def block_width(columns: int, rows: int) -> int:
    """How many columns one block has where there are ``rows`` rows of them to share.

    Depends on the shape only.  A block is no narrower than sharing needs: reading a piece of
    every row here and there takes several times as long as reading whole rows.
    """
    width = -(-columns * rows // (FEW_BLOCKS * NARROWEST)) * NARROWEST
    return min(width, WIDEST)


def column_pass(
    columns: Columns,
    inner: Axis,
    folds: Sequence[Fold],
    stores: Sequence[Target],
    moved: int,
) -> None:
    """One run over the rows: fold each into its column's accumulator, and store.

    ``moved`` is how many bytes the kernel moves.
    """
    if not folds and not stores:
        return
    emitter, reduced = columns.emitter, columns.plan.reduced
    homes = _start(columns, inner, {f: columns.homes[f] for f in folds})
    regrouped = [f for f in folds if is_regrouped(f)]
    long = bool(reduced) and reduced[-1].extent > 4 * SUMMED and bool(regrouped)
    parts = {f: columns.row(f) for f in regrouped} if long else {}
    before = emitter.depth
    for axis in reduced[:-1]:
        emitter.open_axis(axis, LoopKind.REDUCE)
    if long:
        open_blocks(emitter, reduced[-1], SUMMED)
        homes |= _start(columns, inner, parts)
    depth = emitter.depth
    if (
        moved >= FAR
        and not stores
        and reduced[-1].extent >= 2 * TOGETHER
        and _is_light(emitter, folds)
    ):
        _fold_several(columns, inner, homes, long)
    else:
        if long:
            open_block(emitter, reduced[-1])
        elif reduced:
            emitter.open_axis(reduced[-1], LoopKind.REDUCE)
        emitter.open_axis(inner)
        _fold_columns(columns, folds, parts, stores)
    emitter.close(emitter.depth - depth)
    if parts:
        emitter.open_axis(inner)
        for fold, part in parts.items():
            emitter.add(Accumulate(columns.place(columns.homes[fold]), fold, columns.place(part)))
        emitter.close()
    emitter.close(emitter.depth - before)


def _start(columns: Columns, inner: Axis, homes: dict[Fold, Load]) -> dict[Fold, tuple[str, str]]:
    """A loop that sets accumulators to the identities of their folds; how each is written, and
    its position."""
    if not homes:
        return {}
    columns.emitter.open_axis(inner)
    places = {}
    for fold, home in homes.items():
        position = columns.place(home) if fold.position is not None else ""
        places[fold] = columns.place(columns.bests[fold] if position else home), position
        columns.emitter.add(Start(places[fold][0], fold, position))
    columns.emitter.close()
    return places


def _is_light(emitter: Emitter, folds: Sequence[Fold]) -> bool:
    """Whether what is folded is little beside reading it, so that rows may be written out."""
    operands = [Target(Slot(0, 0, f.dtype), Affine(), f.operand) for f in folds]
    found = survey(operands, emitter.replaced)
    return sum(value.op.cost for value in found.values if isinstance(value, Apply)) <= LIGHT


def _fold_several(
    columns: Columns, inner: Axis, homes: dict[Fold, tuple[str, str]], long: bool
) -> None:
    """Fold ``TOGETHER`` rows into accumulators that are read and written once, then the rest.

    Indices are written in the same way in both, as those of the innermost loop.
    """
    emitter, axis = columns.emitter, columns.plan.reduced[-1]
    whole_axis = emitter.ranges.get(axis) or ("0", emitter.extent(axis))
    begin, end = ("block", "stop") if long else whole_axis
    low, high = emitter.ranges.get(inner) or ("0", emitter.extent(inner))
    emitter.name_index("rest", f"{end} - ({end} - {begin}) % {TOGETHER}")
    emitter.open((), "several", begin, "rest", LoopKind.REDUCE, str(TOGETHER))
    emitter.open((), inner.name, low, high)
    here = {fold: fold_names(emitter, fold) for fold in homes}
    for fold, names in here.items():
        for name, home in zip(names, homes[fold]):
            if home:
                emitter.name_index(name, home)
    emitter.open((axis, inner), axis.name, "several", f"several + {TOGETHER}", LoopKind.REDUCE)
    _fold_into(emitter, here)
    emitter.close()
    for fold, names in here.items():
        for name, home in zip(names, homes[fold]):
            if home:
                emitter.name_index(home, name)
    emitter.close(2)
    emitter.open((), axis.name, "rest", end, LoopKind.REDUCE)
    emitter.open((axis, inner), inner.name, low, high)
    _fold_into(emitter, homes)


def _fold_into(emitter: Emitter, places: Mapping[Fold, tuple[str, str]]) -> None:
    """Fold this point's operands into accumulators, which have positions or not."""
    for fold in places:
        if fold.position is not None:
            emitter.need_named(fold.operand)
            emitter.need(fold.position)
    emitter.need(*[fold.operand for fold in places])
    for fold, (place, position) in places.items():
        emitter.add(Accumulate(place, fold, fold.operand, position))


def _fold_columns(
    columns: Columns,
    folds: Sequence[Fold],
    parts: dict[Fold, Load],
    stores: Sequence[Target],
) -> None:
    """The innermost statements of a pass."""
    emitter = columns.emitter
    for fold in folds:
        if fold.position is not None:
            emitter.need_named(fold.operand)
            emitter.need(fold.position)
    emitter.need(*[f.operand for f in folds], *[t.value for t in stores])
    for fold in folds:
        home = columns.place(parts.get(fold, columns.homes[fold]))
        if fold.position is None:
            emitter.add(Accumulate(home, fold, fold.operand))
        else:
            best = columns.place(columns.bests[fold])
            emitter.add(Accumulate(best, fold, fold.operand, home))
    emitter.store(stores)
