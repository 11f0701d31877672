"""Statements in loops: where every value of a kernel is computed and what it is called.

An :class:`Emitter` keeps the loops that are open.  ``need(values)`` makes sure
that values are known at this point: each is computed in the outermost loop it
varies in, once, under a short name, unless it is small and used once: then it
is written where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from graphflow.codegen.loops import (
    Apply,
    Check,
    Checked,
    Choose,
    Count,
    Fold,
    Kernel,
    Let,
    Literal,
    Load,
    Loop,
    LoopKind,
    Offset,
    Position,
    Report,
    Share,
    Slot,
    Statement,
    Store,
    Value,
    When,
    Within,
    arguments_of,
)
from graphflow.codegen.schedule import Address, Argument
from graphflow.codegen.schedule import Value as Integer
from graphflow.codegen.sizes import is_fixed, whole
from graphflow.codegen.spaces import Axis, Target
from graphflow.errors import CompileError
from graphflow.ir.affine import Affine
from graphflow.records import dataclass, field

SHUFFLED = (-1, 2, 3, 4)
"""Strides of the innermost loop that are written as numbers: known ones make vectors."""
LETTERS = "abcdefgh"
INLINE_IN_OPERATION = 1
INLINE_IN_STORE = 2
"""Operations that may be written inside another, and inside a store, without a name."""
THREAD = "#tid"
"""Variable of an index expression: the number of the thread (per-thread scratch)."""
SMALL_EXTENT = 8
"""Reduced extents up to this are baked in, so that LLVM unrolls the loop."""


@dataclass(slots=True)
class Block:
    """An open loop, or what runs under a condition: its header, and what has been named inside."""

    axes: tuple[Axis, ...]
    header: tuple[str, str, str, LoopKind, str, int] | tuple[Value, bool]
    statements: list[Statement] = field(default_factory=list)
    known: list[object] = field(default_factory=list)


class Emitter:
    """Builds one kernel; see the module's text."""

    def __init__(
        self,
        prefix: str,
        targets: Sequence[Target],
        uses: dict[Value, int],
        error: Slot | None = None,
        bound: Mapping[Value, Value] | None = None,
        outside: tuple[Axis, ...] = (),
    ) -> None:
        self.prefix, self.uses, self.error = prefix, uses, error
        self.bound = dict(bound or {})
        self.replaced = dict(self.bound)
        """Values that are read from memory instead of computed, and the load."""
        self.names: dict[Value, str] = {}
        self.indices: dict[Affine, str] = {}
        self.bounds: dict[tuple[str, Affine, int], str] = {}
        self.counts: dict[int, str] = {}
        self.ranges: dict[Axis, tuple[str, str]] = {}
        """Axes of which this kernel runs over a part only: where it begins and ends."""
        self.slots: dict[Slot, str] = {}
        self.written: set[Slot] = set()
        self.read: set[Slot] = set()
        self.shared = False
        self.atomic = False
        """Whether stores that fold are indivisible (GPU)."""
        self.items = 1
        """How many iterations are shared."""
        self._integers: dict[tuple[str, object], tuple[str, int]] = {}
        self._counts: dict[str, int] = {}
        self._offsets: dict[str, str] = {}
        self._live: set[object] = set()
        self._weights: dict[Value, int] = {}
        self._blocks = [Block(outside, ("", "", "", LoopKind.SERIAL, "", 0))]
        self._stores: list[tuple[str, Value]] = []
        self.fallible = False
        for target in targets:
            self.add_result(target.slot, "out")

    # ---- names and arguments ---------------------------------------------------------

    def fresh(self, prefix: str) -> str:
        """A new name: ``t0``, ``t1``, …"""
        number = self._counts.get(prefix, 0)
        self._counts[prefix] = number + 1
        return f"{prefix}{number}"

    def add_result(self, slot: Slot, prefix: str) -> None:
        """Make ``slot`` a pointer that is stored through, called after ``prefix``."""
        self.written.add(slot)
        if slot not in self.slots:
            count = sum(1 for name in self.slots.values() if name.startswith(prefix))
            self.slots[slot] = f"{prefix}{count}" if count else prefix

    def pointer(self, slot: Slot) -> str:
        """The name of the pointer to ``slot``."""
        name = self.slots.get(slot)
        if name is None:
            count = len(self.slots) - len(self.written & self.slots.keys())
            name = LETTERS[count] if count < len(LETTERS) else f"x{count}"
            self.slots[slot] = name
        return name

    def integer(self, prefix: str, key: object, value: int) -> str:
        """A run-time integer: the same name for the same key."""
        found = self._integers.get((prefix, key))
        if found is None:
            found = self._integers[prefix, key] = (self.fresh(prefix), value)
        return found[0]

    def constant(self, name: str, value: int) -> str:
        """The run-time integer ``name``, of which there is one."""
        self._integers.setdefault(("constant", name), (name, value))
        return name

    def extent(self, axis: Axis, baked: bool = False) -> str:
        """The number of iterations of ``axis``: an argument ``n_i``, or the number."""
        if baked and is_fixed(axis.extent):
            return str(axis.extent)
        key = ("extent", axis.name)
        self._integers.setdefault(key, (f"n{axis.name}", axis.extent))
        return self._integers[key][0]

    # ---- loops -----------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Number of open loops."""
        return len(self._blocks) - 1

    def open(
        self,
        axes: tuple[Axis, ...],
        variable: str,
        begin: str,
        end: str,
        kind: LoopKind = LoopKind.SERIAL,
        step: str = "",
        parts: int = 0,
    ) -> None:
        """Begin a loop in which ``axes`` vary (none: nothing that an index contains)."""
        self._blocks.append(Block(axes, (variable, begin, end, kind, step, parts)))

    def open_axis(self, axis: Axis, kind: LoopKind = LoopKind.SERIAL, baked: bool = False) -> None:
        """Begin a loop over ``axis``: all of it, or the part in ``ranges``."""
        begin, end = self.ranges.get(axis) or ("0", self.extent(axis, baked))
        self.open((axis,), axis.name, begin, end, kind)

    def open_shared(self, axes: Sequence[Axis], step: int = 1) -> None:
        """Begin a loop over this thread's part of the product of ``axes``, ``step`` points of
        the innermost one at a time."""
        for axis in axes:
            self.items *= axis.extent
        self.items = self.items // step
        by = str(step) if step > 1 else ""
        if len(axes) == 1:
            self.share(axes[0])
            self.open((axes[0],), axes[0].name, "begin", "end", LoopKind.PARALLEL, by)
            return
        self.share_count(self.count(axes))
        self.open(tuple(axes), "row", "begin", "end", LoopKind.PARALLEL, by)
        self.split("row", axes)

    def count(self, axes: Sequence[Axis]) -> str:
        """How many iterations several axes have together."""
        return " * ".join(self.extent(a) for a in axes) or "1"

    def split(self, variable: str, axes: Sequence[Axis]) -> None:
        """The position along each of ``axes``, which are one loop over ``variable``."""
        for position in range(len(axes) - 1, -1, -1):
            text = self._digit(axes, position).replace("row", variable)
            self.add(Offset(axes[position].name, text))

    def split_batch(self, axes: Sequence[Axis]) -> None:
        """Epilogues: the position along several batch axes from the number ``batch``."""
        if len(axes) > 1:
            self.split("batch", axes)

    def share(self, axis: Axis) -> None:
        """Let ``begin`` and ``end`` be this thread's part of ``axis``."""
        self.share_count(self.extent(axis))

    def share_count(self, count: str) -> None:
        """Let ``begin`` and ``end`` be this thread's part of ``range(count)``."""
        self.shared = True
        self.add(Share(count))

    def _digit(self, axes: Sequence[Axis], position: int) -> str:
        """Where ``row`` is along one of several axes that are one loop."""
        inner = " * ".join(self.extent(a) for a in axes[position + 1 :])
        text = f"row // ({inner})" if inner else "row"
        return f"{text} % {self.extent(axes[position])}" if position else text

    def open_when(self, condition: Value, holds: bool) -> None:
        """Begin what runs only where ``condition`` is what ``holds`` says."""
        self.need_named(condition)
        self.open_spelled_when(condition, holds)

    def open_spelled_when(self, condition: Value, holds: bool = True) -> None:
        """The same where the condition is about names, and needs none of its own."""
        self._blocks.append(Block((), (condition, holds)))

    def close(self, count: int = 1) -> None:
        """End the innermost ``count`` loops (or conditions)."""
        for _ in range(count):
            block = self._blocks.pop()
            self._live.difference_update(block.known)
            body = tuple(block.statements)
            closed: Statement
            if len(block.header) == 2:
                closed = When(*block.header, body)
            else:
                variable, begin, end, kind, step, parts = block.header
                closed = Loop(variable, begin, end, kind, body, step, parts)
            self._blocks[-1].statements.append(closed)

    def add(self, statement: Statement) -> None:
        """Append a statement to the innermost open loop."""
        self._blocks[-1].statements.append(statement)

    def level(self, mask: int) -> int:
        """The innermost open loop in which something that varies by ``mask`` varies."""
        for level in range(len(self._blocks) - 1, 0, -1):
            for axis in self._blocks[level].axes:
                if axis.mask & mask:
                    return level
        return 0

    def _know(self, level: int, item: object) -> None:
        self._live.add(item)
        self._blocks[level].known.append(item)

    # ---- index expressions -----------------------------------------------------------

    def index(self, affine: Affine) -> str:
        """Name the loop-invariant parts of ``affine`` where they belong; returns its text."""
        if affine in self._live:
            return self.indices[affine]
        parts = self._parts(affine)
        text, last = "", len(self._blocks) - 1
        level = parts[-1][0] if parts else 0
        for position, (at, part) in enumerate(parts):
            text = f"{text} + {part}" if text else part
            following = parts[position + 1][0] if position + 1 < len(parts) else last
            if following > at and not text.isidentifier():
                text = self.offset(at, text)
        text = text or "0"
        self.indices[affine] = text
        self._know(level, affine)
        return text

    def name_index(self, name: str, text: str) -> None:
        """Give an integer expression a name in the innermost open loop."""
        self.add(Offset(name, text))

    def vary(self, axis: Axis, text: str) -> None:
        """Let ``axis`` vary in the innermost open loop, which has it at ``text``."""
        block = self._blocks[-1]
        block.axes = (*block.axes, axis)
        self.add(Offset(axis.name, text))

    def offset(self, level: int, text: str) -> str:
        """A name for an index expression, set in the loop at ``level``."""
        name = self._offsets.get(text)
        if name is None:
            name = self._offsets[text] = self.fresh("p")
        if name not in self._live:
            self._blocks[level].statements.append(Offset(name, text))
            self._know(level, name)
        return name

    def _parts(self, affine: Affine) -> list[tuple[int, str]]:
        """The terms of ``affine`` as text, with the loop each belongs to, outermost first."""
        parts: list[tuple[int, str]] = []
        if self._is_lane(affine):
            parts.append((len(self._blocks) - 1, str(whole(affine.offset))))
        elif affine.offset:
            parts.append((0, self.integer("o", affine, whole(affine.offset))))
        for level, block in enumerate(self._blocks):
            for axis in block.axes:
                step = axis.coefficient(affine)
                if step and level == len(self._blocks) - 1 and step in SHUFFLED and is_fixed(step):
                    parts.append((level, f"{axis.name} * {step}"))
                elif step:
                    parts.append(
                        (level, self._term(axis.name, step, (affine.terms, axis.variables)))
                    )
        for name, coefficient in affine.terms:
            if name == THREAD:
                parts.append((0, self._term("tid", whole(coefficient), (affine.terms, name))))
            elif name.startswith("@"):
                variable = self._checked_name(name)
                term = self._term(variable[1], whole(coefficient), (affine.terms, name))
                parts.append((variable[0], term))
        parts.sort(key=lambda part: part[0])
        return parts

    def _is_lane(self, affine: Affine) -> bool:
        """Whether ``affine`` begins between the first two elements of a small known stride: what
        begins at other ones of them belongs to the same vectors, if the distance is known."""
        steps = [axis.coefficient(affine) for axis in self._blocks[-1].axes]
        offset = whole(affine.offset)
        return any(
            step in SHUFFLED and is_fixed(step) and is_fixed(offset) and 0 < offset < step
            for step in steps
        )

    def _term(self, variable: str, step: int, key: object) -> str:
        return variable if step == 1 else f"{variable} * {self.integer('s', key, step)}"

    def _checked_name(self, name: str) -> tuple[int, str]:
        for value, called in self.names.items():
            if isinstance(value, Checked) and value.variable == name:
                return self.level(value.varies), called
        raise CompileError(f"index {name} is used before it is loaded")

    # ---- values ----------------------------------------------------------------------

    def need(self, *roots: Value) -> None:
        """Make every root known here (or writable in place, if small and used once)."""
        here = len(self._blocks) - 1
        stack: list[tuple[Value, int, int, bool]] = [
            (root, here, INLINE_IN_STORE, False) for root in reversed(roots)
        ]
        live, uses = self._live, self.uses
        while stack:
            value, parent, room, ready = stack.pop()
            if value in live or value.__class__ is Literal:
                continue
            source = value
            while source in self.replaced:  # a bound fold may have been replaced in turn
                source = self.replaced[source]
            level = self.level(value.varies)
            if isinstance(source, Fold):
                if source not in live:
                    raise CompileError(f"{source.op.name} is used before it is complete")
                self.names[value] = self.names[source]
                continue
            if not ready:
                stack.append((value, parent, room, True))
                room = INLINE_IN_OPERATION
                if isinstance(source, Apply) and repeats(source):
                    room = -1
                for argument in reversed(arguments_of(source)):
                    stack.append((argument, level, room, False))
                continue
            self._prepare(source)
            weight = self._weight(source)
            if (
                source is not value
                or uses.get(value, 2) > 1
                or level != parent
                or weight > room
                or isinstance(source, (Within, Checked))
                or (isinstance(source, Load) and source.slot in self.written)
            ):
                self._name(value, source, level)

    def need_named(self, value: Value) -> None:
        """Make ``value`` known here under a name, however small it is."""
        self.uses[value] = self.uses.get(value, 1) + 1
        self.need(value)

    def _prepare(self, source: Value) -> None:
        """Spell the index expressions that ``source`` contains."""
        if isinstance(source, Load):
            self.pointer(source.slot)
            self.read.add(source.slot)
            self.index(source.index)
        elif isinstance(source, Position):
            self.index(source.index)
        elif isinstance(source, Count):
            self.counts[source.count] = self.integer("c", source.count, source.count)
        elif isinstance(source, Within):
            for index, low, high in source.bounds:
                self.index(index)
                for end, value in (("low", low), ("high", high)):
                    if value is not None:
                        name = self.integer(end, (index, value), value)
                        self.bounds[end, index, value] = name

    def _weight(self, source: Value) -> int:
        """Operations that would be written in place together with ``source``."""
        weight = 0
        if isinstance(source, (Apply, Choose)):
            weight = 1 + sum(
                self._weights.get(a, 0) for a in arguments_of(source) if a not in self._live
            )
        self._weights[source] = weight
        return weight

    def _name(self, value: Value, source: Value, level: int) -> None:
        name = self.names.get(value)
        if isinstance(source, Checked):
            name = name or self.fresh("at")
            extent = self.integer("m", value, source.extent)
            code = self.integer("e", value, source.code)
            self.fallible = True
            statement: Statement = Check(source, extent, code)
        else:
            name = name or self.fresh("g" if isinstance(source, Within) else "t")
            statement = Let(value, source)
        self.names[value] = name
        self._blocks[level].statements.append(statement)
        self._know(level, value)

    def bind(self, value: Value, name: str) -> None:
        """Declare that ``value`` is known under ``name`` from here on."""
        self.names[value] = name
        self._know(len(self._blocks) - 1, value)

    def store(self, targets: Sequence[Target], spills: Sequence[Target] = ()) -> None:
        """Store targets (and values kept for later, which are no results) here.

        All values are computed first, since a slot may be read and written.
        """
        both = (*targets, *spills)
        self.need(*[v for t in both for v in (*t.depends, t.value)])
        for target in both:
            text = self.index(target.index)
            self.add(Store(target.slot, text, target.value, target.fold, self.atomic))
        self._stores += [(self.slots[target.slot], target.value) for target in targets]

    def result(self, slot: Slot, value: Value) -> None:
        """Record that ``slot`` ends up holding ``value`` without a store of its own."""
        self._stores.append((self.slots[slot], value))

    # ---- the end ---------------------------------------------------------------------

    def finish(self, epilogue: bool = False) -> Kernel:
        """Close every loop; the kernel."""
        self.close(self.depth)
        if self.fallible:
            if self.error is None:
                raise CompileError("a kernel that can fail needs an error word")
            self.slots[self.error] = "error"
            self.add(Report(self.error))
        rank = {slot: slot in self.written or 2 * (slot is self.error) for slot in self.slots}
        slots = dict(sorted(self.slots.items(), key=lambda item: rank[item[0]]))
        arguments: list[Argument] = [
            Address(slot.buffer, slot.offset * slot.dtype.itemsize) for slot in slots
        ]
        integers = []
        extents = [item for key, item in self._integers.items() if key[0] == "extent"]
        others = [item for key, item in self._integers.items() if key[0] != "extent"]
        for name, value in sorted(extents) + others:
            integers.append((name, len(arguments)))
            arguments.append(Integer(value))
        return Kernel(
            self.prefix, slots, tuple(integers), tuple(arguments),
            tuple(self._blocks[0].statements), self.names, self.indices, self.bounds,
            self.counts, self.bound, tuple(self._stores), epilogue,
        )  # fmt: skip


def repeats(value: Apply) -> bool:
    """True when the operation's template mentions an operand more than once."""
    return _repeats(value.op.scalar_for(value.operand_dtype))


@cache
def _repeats(template: str) -> bool:
    return any(template.count(f"{{{k}}}") > 1 for k in range(4))
