"""Reductions along the innermost loop: a row at a time, in one or several passes.

Softmax of rows; the exponentials live in the output row between two passes::

    begin, end = share(ni, tid, nth)
    for i in range(begin, end):
        p0 = i * s0
        max0 = f32(-inf)
        for j in range(nj):
            max0 = vm.maximum(max0, a[p0 + j])
        sum0 = f32(0.0)
        for j in range(nj):
            t0 = vm.exp(a[p0 + j] - max0)
            sum0 = add_fast(sum0, t0)
            out[p0 + j] = t0
        for j in range(nj):
            t0 = out[p0 + j]
            out[p0 + j] = t0 / sum0

A pass whose folds are only chosen (``where``) in some rows runs in those: ``if t5:`` before its
loop.

Long rows are summed in blocks of ``BLOCK`` elements, so that rounding errors
grow with the number of blocks only.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy import iinfo

from graphflow.codegen.crossed import Squares, crossed_rows, open_turned_rows
from graphflow.codegen.emit import SMALL_EXTENT, THREAD, Emitter
from graphflow.codegen.loops import (
    Accumulate,
    Better,
    Choose,
    Fold,
    Literal,
    Load,
    LoopKind,
    Start,
    Value,
)
from graphflow.codegen.lower_map import open_rows
from graphflow.codegen.passes_plan import (
    Only,
    Spill,
    plan_skips,
    plan_spills,
    plan_stages,
    spill_load,
)
from graphflow.codegen.schedule import Call
from graphflow.codegen.spaces import Axis, Plan, Survey, Target
from graphflow.codegen.task import Task, finish_call
from graphflow.ir.affine import Affine
from graphflow.ir.ops.reduce import REDUCE_MIN
from graphflow.ir.types import bool_, int64

BLOCK = 1024
LONG = 4 * BLOCK
"""Extents above this are folded in blocks."""
FEW, SOUGHT = 64, 256
"""Elements among which a position is sought one by one, and of a block where there are more."""


def lower_row(task: Task, plan: Plan, targets: Sequence[Target], found: Survey) -> Call:
    """One call: the kept loops outside, the passes over the reduced loops inside."""
    stages = plan_stages(targets, found, task.bound)
    mask = 0
    for axis in plan.reduced:
        mask |= axis.mask
    only_where = plan_skips(stages, targets, found, plan, task.bound)
    spills = plan_spills(stages, found, mask, task.bound)
    prefix = "row" if plan.kept else "red"
    emitter = Emitter(prefix, targets, found.uses, task.error, task.bound)
    scratch = {s: _scratch(task, emitter, plan, s) for s in spills if s.home is None}
    large = task.is_large(found, targets)
    crossed = crossed_rows(plan, found) if large else None
    shared = None
    if crossed is not None:
        open_turned_rows(task, emitter, plan, crossed, found)
    else:
        shared = open_rows(emitter, plan.kept, large)
    for number in range(len(stages.folds)):
        starting = [s for s in spills if s.first == number]
        kept_back = [_spill_target(s, scratch) for s in starting if not s.stored]
        folds, full = stages.folds[number], stages.full[number]
        only = None if starting else only_where[number]
        row_pass(emitter, plan.reduced, folds, full, kept_back, only)
        for spill in starting:
            emitter.replaced[spill.value] = spill_load(spill, scratch.get(spill))
    emitter.store(stages.kept)
    return finish_call(task, emitter, targets, found, shared)


def _scratch(task: Task, emitter: Emitter, plan: Plan, spill: Spill) -> Load:
    """A row of scratch for each thread, and the load of this point's element."""
    slot = task.scratch(spill.value.dtype, (task.context.threads, plan.depth))
    emitter.add_result(slot, "tmp")
    terms, step = {}, 1
    for axis in reversed(plan.reduced):
        terms[axis.variables[-1]] = step
        step *= axis.extent
    terms[THREAD] = step
    return Load(spill.value.dtype, spill.value.varies, slot, Affine.of(terms))


def _spill_target(spill: Spill, scratch: dict[Spill, Load]) -> Target:
    load = spill_load(spill, scratch.get(spill))
    return Target(load.slot, load.index, spill.value, full=True)


def row_pass(
    emitter: Emitter,
    reduced: Sequence[Axis],
    folds: Sequence[Fold],
    stores: Sequence[Target],
    spills: Sequence[Target] = (),
    only: Only | None = None,
    squares: Squares | None = None,
) -> None:
    """One run through the reduced loops: folds into locals, and stores.

    Where the run is not needed (``only``), folds stay what they begin with.  ``squares`` are the
    blocks in which it runs, if some operand lies crosswise.
    """
    if not folds and not stores and not spills:
        return
    if only is None and len(reduced) == 1 and reduced[0].extent > FEW:
        sought = [fold for fold in folds if _has_element(fold)]
        for fold in sought:
            _seek(emitter, reduced[0], fold)
        folds = [fold for fold in folds if fold not in sought]
        if not folds and not stores and not spills:
            return
    kind = LoopKind.REDUCE if folds else LoopKind.SERIAL
    totals = {fold: fold_names(emitter, fold) for fold in folds}
    for fold, (name, position) in totals.items():
        emitter.add(Start(name, fold, position))
    regrouped = [f for f in folds if is_regrouped(f)]
    long = bool(reduced) and reduced[-1].extent > LONG and bool(regrouped)
    parts = {f: emitter.fresh("part") for f in regrouped} if long or len(reduced) > 1 else {}
    before = emitter.depth
    if only is not None:
        emitter.open_when(*only)
    inner = _open_reduced(emitter, reduced, kind, parts, long, squares)
    _fold(emitter, totals, parts, [t.value for t in (*stores, *spills)])
    emitter.store(stores, spills)
    emitter.close(emitter.depth - inner)
    for fold, name in parts.items():
        emitter.add(Accumulate(totals[fold][0], fold, name))
    emitter.close(emitter.depth - before)
    for fold, (name, position) in totals.items():
        emitter.bind(fold, position or name)


def _has_element(fold: Fold) -> bool:
    """Whether the element whose position is sought is a reduction of its own, of numbers."""
    reduction = fold.op.reduction
    number = fold.operand.dtype.kind != "bool"
    return number and reduction is not None and reduction.element is not None


def _seek(emitter: Emitter, axis: Axis, fold: Fold) -> None:
    """A position: looked for in those blocks only whose best is better than all before.

    What is best of a block is found in vectors, and so is where; after the first few blocks hardly
    one is better.
    """
    assert fold.op.reduction is not None and fold.op.reduction.element is not None
    assert fold.position is not None
    operand, varies = fold.operand, fold.varies
    best = Fold(operand.dtype, varies, fold.op.reduction.element, operand)
    name, position = fold_names(emitter, fold)
    part, first = emitter.fresh("part"), emitter.fresh("first")
    emitter.add(Start(name, fold, position))
    open_blocks(emitter, axis, SOUGHT)
    emitter.add(Start(part, best))
    open_block(emitter, axis)
    emitter.need(operand)
    emitter.add(Accumulate(part, best, operand))
    emitter.close()
    emitter.open_spelled_when(Better(bool_, varies, fold, name, part))
    least = Fold(int64, varies, REDUCE_MIN, operand)
    emitter.add(Start(first, least))
    open_block(emitter, axis)
    emitter.need_named(operand)
    emitter.need(fold.position)
    worse = Better(bool_, varies, fold, emitter.names[operand], part)
    nowhere = Literal(int64, 0, iinfo(int64.numpy).max)
    emitter.add(Accumulate(first, least, Choose(int64, varies, worse, nowhere, fold.position)))
    emitter.close()
    emitter.name_index(name, part)
    emitter.name_index(position, first)
    emitter.close(2)
    emitter.bind(fold, position)


def _open_reduced(
    emitter: Emitter,
    reduced: Sequence[Axis],
    kind: LoopKind,
    parts: dict[Fold, str],
    long: bool,
    squares: Squares | None,
) -> int:
    """Begin the reduced loops, ``parts`` where one begins; the depth around the innermost."""
    nested = emitter.depth > 0
    for axis in reduced[:-1]:
        if squares is None or axis is not squares.crossed:
            emitter.open_axis(axis, kind)
    if squares is not None:
        squares.open(emitter)
        emitter.open_axis(squares.crossed, kind)
    if long:
        open_blocks(emitter, reduced[-1])
    for fold, name in parts.items():
        emitter.add(Start(name, fold))
    inner = emitter.depth
    if long:
        open_block(emitter, reduced[-1])
    elif reduced:
        baked = reduced[-1].extent <= SMALL_EXTENT and len(reduced) == 1 and nested
        emitter.open_axis(reduced[-1], kind, baked)
    return inner


def _fold(
    emitter: Emitter,
    totals: dict[Fold, tuple[str, str]],
    parts: dict[Fold, str],
    others: Sequence[Value],
) -> None:
    """Fold this point's operands; ``others`` is what will be stored here after that."""
    for fold in totals:
        if fold.position is not None:
            emitter.need_named(fold.operand)
            emitter.need(fold.position)
    emitter.need(*[f.operand for f in totals], *others)
    for fold, (name, position) in totals.items():
        emitter.add(Accumulate(parts.get(fold, name), fold, fold.operand, position))


def fold_names(emitter: Emitter, fold: Fold) -> tuple[str, str]:
    """Names of a fold's accumulator and, for folds that yield one, of its position."""
    name = fold.op.name.removeprefix("reduce_")
    if fold.position is None:
        return emitter.fresh(name), ""
    return emitter.fresh("best"), emitter.fresh(name)


def is_regrouped(fold: Fold) -> bool:
    """True when the fold may be cut into parts."""
    reduction = fold.op.reduction
    return reduction is not None and reduction.reassociate and fold.position is None


def open_blocks(emitter: Emitter, axis: Axis, size: int = BLOCK) -> None:
    """Begin a loop over blocks of ``axis``; inside, ``stop`` is where the block ends."""
    begin, end = emitter.ranges.get(axis) or ("0", emitter.extent(axis))
    emitter.open((), "block", begin, end, LoopKind.REDUCE, str(size))
    emitter.name_index("stop", f"min(block + {size}, {end})")


def open_block(emitter: Emitter, axis: Axis) -> None:
    """Begin the loop over one block of ``axis``."""
    emitter.open((axis,), axis.name, "block", "stop", LoopKind.REDUCE)
