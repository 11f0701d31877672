"""Several neighbours at a time: loops whose innermost axis is walked in vectors of 16 bytes.

A thread reads a vector of each operand into an array of its own, computes lane by lane, and
writes a vector of each result::

    i = cuda.grid(1) * 4
    while i < ni:
        load_4(a_lanes, 0, a, i)
        for lane in range(4):
            t0 = a_lanes[lane]
            out_lanes[lane] = vm.tanh(t0)
        store_4(out, i, out_lanes, 0)
        i = ahead(i, cuda.gridsize(1) * 4)

Such arrays are registers, since all places in them are known after loops are unrolled.  What
does not lie that way (another stride, a computed place, no multiple of a vector's length) is
read and written element by element inside the loop over lanes.  Vectors are only where extents,
strides and offsets are known to be multiples of their length for all sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphflow.codegen.cuda.writer import stored_as
from graphflow.codegen.emit import Emitter
from graphflow.codegen.kernel_writer import held_as
from graphflow.codegen.loops import Held, Hold, Keep, Kernel, Load, Move, Slot, Value
from graphflow.codegen.schedule import VECTOR_BYTES
from graphflow.codegen.sizes import is_fixed, is_multiple, surely, whole
from graphflow.codegen.spaces import Axis, Survey, Target, operands_of
from graphflow.codegen.task import Task
from graphflow.ir.affine import Affine
from graphflow.records import dataclass, replace

MOST_LANES = 8
"""More neighbours of a byte each would make long kernels for little."""
NARROW = (1 << 31) - 1
"""Positions up to this are split into axes in 32 bits."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """``count`` neighbours along ``axis`` are a vector; 1: each element is by itself."""

    axis: Axis | None
    count: int
    is_aligned: Callable[[int], bool]

    def fits(self, slot: Slot, index: Affine) -> bool:
        """Whether the elements of ``slot`` at ``index`` are whole vectors in memory."""
        if self.axis is None or self.axis.coefficient(index) != 1:
            return False
        others = [step for name, step in index.terms if name not in self.axis.variables]
        steps = map(whole, (slot.offset, index.offset, *others))
        return all(is_multiple(n, self.count) for n in steps) and self.is_aligned(slot.buffer)

    def are_read(self, load: Load) -> bool:
        """Whether ``load`` reads whole vectors: where one begins is the same for all its lanes."""
        if self.axis is None or load.guard is not None or not self.fits(load.slot, load.index):
            return False
        return not any(place.varies & self.axis.mask for place in load.depends)


def choose_lanes(task: Task, axis: Axis | None, targets: Sequence[Target], found: Survey) -> Lanes:
    """How many neighbours along ``axis`` are a vector: as many of the widest type as fill one, if
    all results along the axis and most operands are whole vectors then."""
    is_aligned = task.context.is_aligned
    alone = Lanes(None, 1, is_aligned)
    if axis is None or not task.context.backend.vectors:
        return alone
    results = [(t.slot, t.index) for t in targets if axis.coefficient(t.index)]
    loads = [load for load in found.loads if axis.coefficient(load.index) == 1]
    operands = [load for load in loads if load.guard is None]
    sizes = [*(slot.dtype.itemsize for slot, _ in results), *(x.dtype.itemsize for x in operands)]
    widest = max(sizes, default=VECTOR_BYTES)
    count = min(MOST_LANES, VECTOR_BYTES // widest)
    while count > 1:
        lanes = Lanes(axis, count, is_aligned)
        fitting = sum(map(lanes.are_read, operands))
        if is_multiple(axis.extent, count) and 2 * fitting >= len(operands):
            if all(lanes.fits(*result) for result in results):
                return lanes
        count //= 2
    return alone


@dataclass(frozen=True, slots=True)
class Team:
    """``threads`` to a row, each with ``parts`` vectors of it; with 0, as many as there are."""

    threads: int = 0
    parts: int = 0


NOBODY = Team()


class CudaEmitter(Emitter):
    """Builds a kernel for a GPU, some of whose loops go in vectors of :attr:`lanes`."""

    def __init__(
        self,
        prefix: str,
        targets: Sequence[Target],
        task: Task,
        found: Survey,
        lanes: Lanes | None = None,
        team: Team = NOBODY,
    ) -> None:
        super().__init__(prefix, targets, found.uses, task.error, task.bound)
        self.lanes = lanes or Lanes(None, 1, task.context.is_aligned)
        self.team = team
        self._open = 0
        self._arrays: dict[tuple[object, ...], str] = {}
        self._passing: list[Value] = []
        self._holding: list[Value] = []
        self._moves: list[Move] = []

    def finish(self, epilogue: bool = False) -> Kernel:
        """Close every loop; the kernel."""
        return replace(super().finish(epilogue), threads=self.team.threads)

    def _digit(self, axes: Sequence[Axis], position: int) -> str:
        """In 32 bits where that is known to be enough; signed ones of 64 take far longer."""
        count = 1
        for axis in axes:
            count *= axis.extent
        if not is_fixed(count) or not surely(count, NARROW):
            return super()._digit(axes, position)
        inner = " * ".join(self.extent(a) for a in axes[position + 1 :])
        text = f"quotient(row, {inner})" if inner else "row"
        return f"remainder({text}, {self.extent(axes[position])})" if position else text

    # ---- arrays of a thread ------------------------------------------------------------

    def array(self, key: tuple[object, ...], name: str, short: str, count: int) -> str:
        """The array in registers for ``key``, made if there is none."""
        found = self._arrays.get(key)
        if found is None:
            number = sum(1 for other in self._arrays.values() if other.startswith(name))
            found = self._arrays[key] = f"{name}{number}" if number else name
            self._blocks[0].statements.insert(len(self._arrays) - 1, Hold(found, short, count))
        return found

    # ---- the loop over lanes -----------------------------------------------------------

    def open_lanes(self, roots: Sequence[Value], held: Sequence[Value] = ()) -> None:
        """Read the vectors that ``roots`` are made of, and begin the loop over their lanes.

        What is ``held`` stays in registers: from here on it is read from there.
        """
        self._holding = list(held)
        axis, count = self.lanes.axis, self.lanes.count
        if axis is not None:
            for load in self._vectors(roots):
                self._read(load)
            lane = Axis("lane", axis.variables, (count,), axis.mask)
            self.open((lane,), "lane", "0", str(count))
            self._open = self.depth
        for value in self._holding:
            self.need_named(value)
            short = held_as(value.dtype)
            array = self.array(("held", value), "kept", short, self.lanes.count * self.team.parts)
            self.add(Keep(array, self._place(), value))

    def close_lanes(self) -> None:
        """End the loop over lanes and write the vectors that it has filled."""
        for value in self._holding:
            array = self._arrays["held", value]
            self.replaced[value] = Held(value.dtype, value.varies, array, self._place(), False)
        for load in self._passing:
            del self.replaced[load]
        self._holding, self._passing = [], []
        if self._open:
            self.close()
            self._open = 0
        for move in self._moves:
            self.add(move)
        self._moves = []

    def store(self, targets: Sequence[Target], spills: Sequence[Target] = ()) -> None:
        """Store targets here; inside a loop over lanes whole vectors wait for its end."""
        if not self._open:
            super().store(targets, spills)
            return
        self.need(*[v for t in targets for v in (*t.depends, t.value)])
        for target in targets:
            slot, count = target.slot, self.lanes.count
            if not self.lanes.fits(slot, target.index):
                super().store([target])
                continue
            name = f"{self.pointer(slot)}_lanes"
            array = self.array((slot, target.index), name, stored_as(slot.dtype.short), count)
            self.add(Keep(array, "lane", target.value, slot))
            self._moves.append(Move(slot, self._base(target.index), array, "0", count, True))
            self.result(slot, target.value)

    def _place(self) -> str:
        """Where the element of now is in an array that holds all that a thread has of a row."""
        if self.lanes.axis is None:
            return "0" if self.team.parts == 1 else "part"
        return "lane" if self.team.parts == 1 else f"{self._first()} + lane"

    def _first(self) -> str:
        """Where the vector of now begins in such an array."""
        return "0" if self.team.parts == 1 else f"part * {self.lanes.count}"

    def _vectors(self, roots: Sequence[Value]) -> list[Load]:
        """The loads below ``roots`` that are whole vectors, in order."""
        found: dict[Load, None] = {}
        seen: set[Value] = set()
        stack = list(reversed(roots))
        while stack:
            value = stack.pop()
            while value in self.replaced:
                value = self.replaced[value]
            if value in seen or value in self._live:
                continue
            seen.add(value)
            if isinstance(value, Load) and self.lanes.are_read(value):
                found[value] = None
            stack += reversed(operands_of(value))
        return list(found)

    def _read(self, load: Load) -> None:
        """Read a vector into an array, which stands for ``load`` inside the loop over lanes."""
        slot, count, first, place = load.slot, self.lanes.count, "0", "lane"
        self.need(*load.depends)
        name, short = f"{self.pointer(slot)}_lanes", stored_as(slot.dtype.short)
        key: tuple[object, ...] = (slot, load.index)
        if load in self._holding:
            self._holding.remove(load)
            key, count, first = ("held", *key), count * self.team.parts, self._first()
            place = self._place()
        else:
            self._passing.append(load)
        array = self.array(key, name, short, count)
        self.read.add(slot)
        base = self._base(load.index)
        self.add(Move(slot, base, array, first, self.lanes.count, False))
        self.replaced[load] = Held(load.dtype, load.varies, array, place, True)

    def _base(self, index: Affine) -> str:
        """Where the vector at ``index`` begins."""
        inside = [self._blocks.pop()] if self._open else []
        known = self.indices.get(index) if index in self._live else None
        self._live.discard(index)
        text = self.index(index)
        self._live.discard(index)  # inside the loop over lanes it is another place
        self._blocks += inside
        if known is not None:
            self.indices[index] = known
            self._live.add(index)
        return text
