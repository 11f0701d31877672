"""The loops of a kernel: which axes merge, in what order they nest, what is innermost.

A group's values are indexed by domain variables, one an axis.  Every access
(a load, a store, a position, a bound) is an affine expression of them.  Two
neighbouring axes become one loop when all accesses step evenly across them;
the loop with the smallest steps goes innermost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, product

from graphflow.codegen.loops import (
    Apply,
    Checked,
    Fold,
    Load,
    Position,
    Slot,
    Value,
    Within,
    arguments_of,
)
from graphflow.codegen.sizes import surely, whole
from graphflow.ir.affine import Affine
from graphflow.ir.op import OpDef
from graphflow.records import dataclass, field, replace

LOOP_VARIABLES = "ijklmqruvw"
WIDE = 16
"""How far a loop runs, at least, beside which what is the same for all of it is little."""
MOST_BOXES = 32
LEAST_BOX = 1 << 10
"""How many parts a guarded map is cut into, and how many elements a part has at least."""


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """A result: ``slot[index] = value`` over the whole domain, or the kept part of it."""

    slot: Slot
    index: Affine
    value: Value
    full: bool = False
    fold: OpDef | None = None
    """Scatters: how the value is folded into what is there."""
    depends: tuple[Value, ...] = ()
    """Scatters: the checked indices that occur in ``index``."""


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """One loop: the domain variables that merged into it, outermost first."""

    name: str
    variables: tuple[str, ...]
    extents: tuple[int, ...]
    mask: int

    @property
    def extent(self) -> int:
        """Number of iterations."""
        return _product(self.extents)

    def coefficient(self, index: Affine) -> int:
        """What one step of the loop adds to ``index``."""
        last = self.variables[-1]
        for name, coefficient in index.terms:
            if name == last:
                return whole(coefficient)
        return 0


@dataclass(slots=True)
class Survey:
    """Everything that the targets need."""

    values: list[Value] = field(default_factory=list)
    uses: dict[Value, int] = field(default_factory=dict)
    accesses: list[Affine] = field(default_factory=list)
    """Every index expression."""
    loads: list[Load] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    checks: list[Checked] = field(default_factory=list)


def operands_of(value: Value) -> tuple[Value, ...]:
    """Every value that ``value`` is made of, the operand of a fold included."""
    if isinstance(value, Fold):
        return (value.operand,) if value.position is None else (value.operand, value.position)
    return arguments_of(value)


def survey(targets: Sequence[Target], bound: Mapping[Value, Value] | None = None) -> Survey:
    """Walk from the targets; ``bound`` replaces values (folds computed before)."""
    found = Survey()
    bound = bound or {}
    indices: dict[Affine, None] = {}
    stack: list[Value] = []
    for target in targets:
        indices[target.index] = None
        stack += (target.value, *target.depends)
    while stack:
        value = stack.pop()
        value = bound.get(value, value)
        uses = found.uses.get(value, 0)
        found.uses[value] = uses + 1
        if uses:
            continue
        found.values.append(value)
        if isinstance(value, Load):
            found.loads.append(value)
            indices[value.index] = None
        elif isinstance(value, Position):
            indices[value.index] = None
        elif isinstance(value, Within):
            indices.update((index, None) for index, _, _ in value.bounds)
        elif isinstance(value, Fold):
            found.folds.append(value)
        elif isinstance(value, Checked):
            found.checks.append(value)
        stack += operands_of(value)
    found.accesses = list(indices)
    return found


@dataclass(frozen=True, slots=True)
class Space:
    """The domain of a group: extents of its kept and reduced variables, and their bits."""

    kept: tuple[str, ...]
    reduced: tuple[str, ...]
    extents: Mapping[str, int]
    bits: Mapping[str, int]

    def points(self, mask: int) -> int:
        """Number of points over the variables in ``mask``."""
        count = 1
        for name, extent in self.extents.items():
            if self.bits[name] & mask:
                count *= extent
        return count


@dataclass(frozen=True, slots=True)
class Plan:
    """Loops, outermost first.  ``column``: the innermost loop is a kept one."""

    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    column: bool

    @property
    def rows(self) -> int:
        """Number of kept points."""
        return _product(axis.extent for axis in self.kept)

    @property
    def depth(self) -> int:
        """Number of elements folded into one."""
        return _product(axis.extent for axis in self.reduced)


def plan_loops(space: Space, targets: Sequence[Target], found: Survey) -> Plan:
    """Order and merge the loops for these targets."""
    leading = max(targets, key=lambda t: (t.full, len(t.index.terms))).index
    kept = _ordered(space.kept, space, leading)
    memory = [*(t.index for t in targets), *(x.index for x in found.loads)]
    folded = sum(space.bits[name] for name in space.reduced)
    through = [a for a in memory if any(space.bits[n] & folded for n, _ in a.terms)]
    widest = max(through, key=lambda a: _along(space.reduced, a), default=leading)
    reduced = _ordered(space.reduced, space, widest)
    kept_runs = _merged(kept, space, found.accesses)
    reduced_runs = _merged(reduced, space, found.accesses)
    column = _is_column(kept_runs, reduced_runs, through, space)
    if column:
        nest = kept_runs[:-1] + reduced_runs + kept_runs[-1:]
    else:
        nest = kept_runs + reduced_runs
    axes = {run: _axis(run, i, space) for i, run in enumerate(nest)}
    return Plan(
        tuple(axes[run] for run in kept_runs), tuple(axes[run] for run in reduced_runs), column
    )


def _along(names: Sequence[str], access: Affine) -> tuple[bool, int]:
    """How much ``access`` says of the order of ``names``, to compare: whether it names one."""
    return any(name in names for name, _ in access.terms), len(access.terms)


def merged_axes(
    names: Sequence[str], space: Space, accesses: Sequence[Affine], called: Sequence[str]
) -> list[Axis]:
    """The loops over ``names`` in their own order, merged; one is called ``called[0]``,
    several have the names after that."""
    runs = _merged([n for n in names if space.extents[n] != 1], space, accesses)
    letters = called[:1] if len(runs) == 1 else called[1:]
    axes = [_axis(run, 0, space) for run in runs]
    return [replace(axis, name=letters[i]) for i, axis in enumerate(axes)]


def _axis(run: tuple[str, ...], position: int, space: Space) -> Axis:
    mask = 0
    for name in run:
        mask |= space.bits[name]
    extents = tuple(space.extents[name] for name in run)
    return Axis(LOOP_VARIABLES[position], run, extents, mask)


def _ordered(names: Sequence[str], space: Space, leading: Affine) -> list[str]:
    """Variables that loop at all, by falling step in the leading access."""
    steps = {n: abs(whole(c)) for n, c in leading.terms}
    present = [n for n in names if space.extents[n] != 1]
    # A variable the leading access does not step along keeps its place: outermost.
    return sorted(present, key=lambda n: -steps.get(n, 1 << 62))


def _merged(
    names: Sequence[str], space: Space, accesses: Sequence[Affine]
) -> list[tuple[str, ...]]:
    """Neighbours joined where every access steps evenly across both."""
    steps = [dict(a.terms) for a in accesses]
    runs: list[tuple[str, ...]] = []
    for name in names:
        if runs:
            last, extent = runs[-1][-1], space.extents[name]
            if all(s.get(last, 0) == s.get(name, 0) * extent for s in steps):
                runs[-1] = (*runs[-1], name)
                continue
        runs.append((name,))
    return runs


def _is_column(
    kept: list[tuple[str, ...]],
    reduced: list[tuple[str, ...]],
    through: list[Affine],
    space: Space,
) -> bool:
    """True when more accesses are contiguous along the last kept loop than the last reduced.

    What is the same for all of a wide last kept loop (weights of rows, positions of rows that are
    looked up) is little, and has no say.
    """
    if not kept or not reduced:
        return False
    inner = kept[-1]
    wide = surely(WIDE, _product(space.extents[name] for name in inner))
    names = set(inner) if wide else {name for run in kept for name in run}
    steps = [dict(a.terms) for a in through]
    steps = [s for s in steps if not names.isdisjoint(s)] or steps
    across = sum(1 for s in steps if s.get(kept[-1][-1]) == 1)
    along = sum(1 for s in steps if s.get(reduced[-1][-1]) == 1)
    return across > along


def _product(extents: Iterable[int]) -> int:
    count = 1
    for extent in extents:
        count *= extent
    return count


def split_boxes(
    space: Space, found: Survey, shape: tuple[int, ...]
) -> list[tuple[tuple[int, int], ...]]:
    """Parts of the domain inside which no guard changes: the pieces of a joined result.

    One box, the whole, where guards are not that simple (one guard, as padding has,
    costs little), or parts would be small.
    """
    cuts = [{0, extent} for extent in shape]
    position = {name: axis for axis, name in enumerate(space.kept)}
    whole_domain = [tuple((0, extent) for extent in shape)]
    guards = [value for value in found.values if isinstance(value, Within)]
    for value in guards if len(guards) > 1 else ():
        for index, low, high in value.bounds:
            if len(index.terms) != 1 or index.terms[0][1] != 1:
                return whole_domain
            axis = position.get(index.terms[0][0])
            if axis is None:
                return whole_domain
            cuts[axis].update(at for at in (low, high) if at is not None and 0 < at < shape[axis])
    sides = [sorted(at) for at in cuts]
    if not all(surely(a, b) for side in sides for a, b in pairwise(side)):
        return whole_domain
    count = max((len(side) - 1 for side in sides), default=1)
    if (
        sum(len(side) > 2 for side in sides) != 1
        or count > MOST_BOXES
        or _product(shape) < count * LEAST_BOX
    ):
        return whole_domain
    return list(product(*[list(pairwise(side)) for side in sides]))


def work(space: Space, found: Survey, targets: Sequence[Target]) -> tuple[int, int]:
    """Bytes moved and scalar operations done, roughly."""
    moved, operations = 0, 0.0
    masks: dict[tuple[Slot, Affine], int] = {(x.slot, x.index): x.varies for x in found.loads}
    for target in targets:
        mask = 0
        for name, _ in target.index.terms:
            mask |= space.bits.get(name, target.value.varies)
        masks[target.slot, target.index] = mask
    for (slot, _), mask in masks.items():
        moved += slot.dtype.itemsize * space.points(mask)
    for value in found.values:
        if isinstance(value, Apply):
            operations += value.op.cost * space.points(value.varies)
        elif isinstance(value, Fold):
            operations += space.points(value.operand.varies)
    return moved, int(operations)
