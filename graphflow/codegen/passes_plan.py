"""Which pass over the reduced loops computes what.

A fold can be used only after the pass that completes it, so softmax takes
three passes: the maximum, the sum of exponentials, the quotient.  Values that
a later pass needs again are computed anew when that is cheap (the row is still
in cache) and kept in memory when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.loops import Apply, Fold, Load, Slot, Value
from graphflow.codegen.spaces import Survey, Target, operands_of
from graphflow.records import dataclass

EXPENSIVE = 6.0
"""Scalar operations from which a value is kept for the next pass, not computed again."""


@dataclass(slots=True)
class Stages:
    """Folds and full targets by pass; kept targets come after the last."""

    folds: list[list[Fold]]
    full: list[list[Target]]
    kept: list[Target]
    ready: Mapping[Value, int]
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


def plan_spills(
    stages: Stages, found: Survey, reduced_mask: int, bound: Mapping[Value, Value]
) -> list[Spill]:
    """The values to keep from one pass to the next, and where."""
    cost = _costs(stages, found, reduced_mask, bound)
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


def _costs(
    stages: Stages, found: Survey, reduced_mask: int, bound: Mapping[Value, Value]
) -> dict[Value, float]:
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
