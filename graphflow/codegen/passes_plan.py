"""Which pass over the reduced loops computes what.

A fold can be used only after the pass that completes it, so softmax takes
three passes: the maximum, the sum of exponentials, the quotient.  Values that
a later pass needs again are computed anew when that is cheap (the row is still
in cache) and kept in memory when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from graphflow.codegen.loops import Apply, Fold, Load, Slot, Value
from graphflow.codegen.spaces import Plan, Survey, Target, operands_of
from graphflow.records import dataclass

EXPENSIVE = 6.0
"""Scalar operations from which a value is kept for the next pass, not computed again."""


Only: TypeAlias = "tuple[Value, bool]"
"""Where a condition holds, or where it does not."""


@dataclass(slots=True)
class Stages:
    """Folds and full targets by pass; kept targets come after the last."""

    folds: list[list[Fold]]
    full: list[list[Target]]
    kept: list[Target]
    ready: dict[Value, int]
    """The first pass in which a value can be computed."""


@dataclass(slots=True, eq=False)
class Spill:
    """A value computed in pass ``first`` and read from memory until pass ``last``.

    ``home`` is the full target whose row holds it, ``None`` for scratch;
    ``stored`` says that the home's own store already puts it there.
    """

    value: Value
    first: int
    last: int
    home: Target | None = None
    stored: bool = False


def plan_stages(targets: Sequence[Target], found: Survey, bound: Mapping[Value, Value]) -> Stages:
    """Assign folds and stores to passes."""
    order = _in_order(targets, bound)
    ready: dict[Value, int] = {}
    for value in order:
        ready[value] = max((ready[bound.get(v, v)] for v in operands_of(value)), default=0)
        if isinstance(value, Fold):
            ready[value] += 1
    full = [t for t in targets if t.full]
    count = max([ready[f] for f in found.folds], default=0)
    count = max([count, *(ready[bound.get(t.value, t.value)] + 1 for t in full)])
    stages = Stages([[] for _ in range(count)], [[] for _ in range(count)], [], ready)
    for fold in order:
        if isinstance(fold, Fold):
            stages.folds[ready[fold] - 1].append(fold)
    read = {load.slot for load in found.loads}
    for target in targets:
        if not target.full:
            stages.kept.append(target)
        else:
            # What is overwritten in place must have been read for the last time.
            at = count - 1 if target.slot in read else ready[bound.get(target.value, target.value)]
            stages.full[at].append(target)
    return stages


def _in_order(targets: Sequence[Target], bound: Mapping[Value, Value]) -> list[Value]:
    """Every value below the targets, operands first."""
    order: list[Value] = []
    done: set[Value] = set()
    stack = [(bound.get(t.value, t.value), False) for t in reversed(targets)]
    while stack:
        value, complete = stack.pop()
        if complete:
            order.append(value)
        elif value not in done:
            done.add(value)
            stack.append((value, True))
            stack += [(bound.get(v, v), False) for v in reversed(operands_of(value))]
    return order


def plan_skips(
    stages: Stages,
    targets: Sequence[Target],
    found: Survey,
    plan: Plan,
    bound: Mapping[Value, Value],
    apart: bool = False,
) -> list[Only | None]:
    """Where each pass is needed, ``None`` for everywhere: only where what it folds is chosen.

    Such a pass stores nothing: stores wait for the next one.  Nor does it check indices, which
    are wrong whether their element is chosen or not.  Where neighbouring lines are folded side
    by side (columns), some would need the pass and some not: all get it, unless each is folded
    by threads of its own (``apart``).
    """
    reduced_mask = sum(axis.mask for axis in plan.reduced)
    if (plan.column and not apart) or any(check.varies & reduced_mask for check in found.checks):
        return [None for _ in stages.folds]
    needed = _needed(stages, targets, bound)
    only_where: list[Only | None] = []
    for number, folds in enumerate(stages.folds):
        places = {needed[fold] for fold in folds}
        only = places.pop() if len(places) == 1 else None
        if only is not None:
            condition = bound.get(only[0], only[0])
            known = stages.ready[condition] <= number and not condition.varies & reduced_mask
            only = only if known and _postpone(stages, number) else None
        only_where.append(only)
    return only_where


def _postpone(stages: Stages, number: int) -> bool:
    """Leave what pass ``number`` would store to the next; false if it is the last."""
    full = stages.full
    if full[number] and number + 1 < len(full):
        full[number + 1] = [*full[number], *full[number + 1]]
        full[number] = []
    return not full[number]


def _needed(
    stages: Stages, targets: Sequence[Target], bound: Mapping[Value, Value]
) -> dict[Value, Only | None]:
    """Where each value is needed, by what it is chosen for; ``None``: everywhere."""
    needed: dict[Value, Only | None] = {bound.get(t.value, t.value): None for t in targets}
    for value in reversed(stages.ready):  # operands come first, so users do now
        here = needed[value]
        for place, operand in enumerate(operands_of(value)):
            operand, only = bound.get(operand, operand), here
            if isinstance(value, Apply) and value.op.chooses and place:
                only = value.arguments[0], place == 1
            needed[operand] = only if needed.get(operand, only) == only else None
    return needed


def plan_spills(
    stages: Stages, found: Survey, reduced_mask: int, bound: Mapping[Value, Value]
) -> list[Spill]:
    """The values to keep from one pass to the next, and where."""
    cost = costs(stages, reduced_mask, bound)
    computed: dict[Value, int] = {}
    spills: dict[Value, Spill] = {}
    for number, (folds, full) in enumerate(zip(stages.folds, stages.full)):
        visited: set[Value] = set()
        stack = [f.operand for f in folds] + [t.value for t in full]
        while stack:
            value = bound.get(stack[-1], stack.pop())
            if value in visited or not value.varies & reduced_mask:
                continue
            visited.add(value)
            first = computed.get(value)
            if first is not None and first < number and cost.get(value, 0.0) >= EXPENSIVE:
                spill = spills.setdefault(value, Spill(value, first, number))
                spill.last = number
                continue
            if not isinstance(value, Fold):
                stack += operands_of(value)
        for value in visited:
            computed.setdefault(value, number)
    _find_homes(list(spills.values()), stages, {load.slot for load in found.loads}, bound)
    return list(spills.values())


def costs(stages: Stages, reduced_mask: int, bound: Mapping[Value, Value]) -> dict[Value, float]:
    """Operations to compute a value anew inside the reduced loops."""
    cost: dict[Value, float] = {}
    for value in stages.ready:  # operands come first
        total = value.op.cost if isinstance(value, Apply) else 0.0
        if not isinstance(value, Fold):
            total += sum(cost[bound.get(v, v)] for v in operands_of(value))
        cost[value] = min(total, 1e9) if value.varies & reduced_mask else 0.0
    return cost


def _find_homes(
    spills: Sequence[Spill], stages: Stages, read: set[Slot], bound: Mapping[Value, Value]
) -> None:
    """Let spills live in rows that are stored anyway, where nothing else is read."""
    taken: set[Slot] = set()
    at = {t: number for number, full in enumerate(stages.full) for t in full}
    for spill in spills:
        for target, number in at.items():
            if bound.get(target.value, target.value) is spill.value and number == spill.first:
                if target.slot not in taken:
                    spill.home, spill.stored = target, True
                    taken.add(target.slot)
                    break
    for spill in spills:
        if spill.home is not None:
            continue
        for target, number in at.items():
            if (
                number >= spill.last
                and target.slot not in taken
                and target.slot not in read
                and target.slot.dtype is spill.value.dtype
                and target.slot.dtype.itemsize != 2  # half precision would be rounded
            ):
                spill.home = target
                taken.add(target.slot)
                break


def spill_load(spill: Spill, scratch: Load | None) -> Load:
    """How later passes read the value."""
    if spill.home is None:
        assert scratch is not None
        return scratch
    value = spill.value
    return Load(value.dtype, value.varies, spill.home.slot, spill.home.index)
