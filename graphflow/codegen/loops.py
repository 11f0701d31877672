"""Loop IR: what one kernel does, as records that every writer shares.

*Values* are scalars: an element loaded, an operation applied, a fold over the
reduced loops.  They form a DAG and compare by identity.  *Statements* order
them: loops, lets, stores, accumulations.  A :class:`Kernel` is a list of
statements plus its pointers and arguments.  Index arithmetic is spelled out
already (in Python, which is what both the CPU and the CUDA writer write); how
a value is spelled is left to the writer, since scalar templates differ.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeAlias

from graphflow.codegen.schedule import Argument
from graphflow.ir.affine import Affine
from graphflow.ir.op import OpDef
from graphflow.ir.types import DType
from graphflow.records import dataclass


@dataclass(frozen=True, eq=False, slots=True)
class Slot:
    """Memory a kernel reaches through one pointer: elements of one type from element
    ``offset`` of ``buffer`` on.

    Different slots never alias, so whatever is both read and written is one slot.
    """

    buffer: int
    offset: int
    dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A scalar.  ``varies`` has a bit for every domain variable it depends on."""

    dtype: DType
    varies: int


@dataclass(frozen=True, eq=False, slots=True)
class Literal(Value):
    """A number known when the kernel is written."""

    value: bool | int | float


@dataclass(frozen=True, eq=False, slots=True)
class Count(Value):
    """A number known now but left to run time: an extent of the domain, or one part in
    that many (a mean over 100 rows and one over 200 are the same kernel), or the number
    of a random call."""

    count: int
    reciprocal: bool


@dataclass(frozen=True, eq=False, slots=True)
class Position(Value):
    """The integer an index expression has."""

    index: Affine
    depends: tuple[Value, ...] = ()
    """Checked indices that occur in ``index``."""


@dataclass(frozen=True, eq=False, slots=True)
class Within(Value):
    """True where every index lies in its bounds: ``(index, low, high)``, half-open;
    ``None`` for a bound that always holds."""

    bounds: tuple[tuple[Affine, int | None, int | None], ...]
    depends: tuple[Value, ...] = ()
    """Checked indices that occur in the bounds."""


@dataclass(frozen=True, eq=False, slots=True)
class Load(Value):
    """The element of ``slot`` at ``index``; zero, unread, where ``guard`` is false."""

    slot: Slot
    index: Affine
    depends: tuple[Value, ...] = ()
    """Checked indices that occur in ``index``."""
    guard: Value | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Apply(Value):
    """An operation's scalar template on ``arguments``."""

    op: OpDef
    arguments: tuple[Value, ...]
    attrs: Mapping[str, Any]
    operand_dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Choose(Value):
    """``value`` where ``condition`` holds, else ``other``."""

    condition: Value
    value: Value
    other: Value


@dataclass(frozen=True, eq=False, slots=True)
class Checked(Value):
    """An index read from data; outside of ``range(extent)`` it is 0 and the kernel
    records error ``code``.  ``variable`` is its name in index expressions."""

    value: Value
    extent: int
    code: int
    variable: str


@dataclass(frozen=True, eq=False, slots=True)
class Fold(Value):
    """``operand`` folded over the reduced loops by ``op.reduction``.

    ``position`` is the index along the folded axis, for folds that yield one.
    """

    op: OpDef
    operand: Value
    position: Value | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Better(Value):
    """Whether the element named ``other`` replaces the best so far, ``best``, in ``fold``."""

    fold: Fold
    best: str
    other: str


@dataclass(frozen=True, eq=False, slots=True)
class Held(Value):
    """Element ``place`` of a thread's own ``array`` (GPU), where a value was put before.

    ``stored`` says that it lies there as in memory: half precision as its bits.
    """

    array: str
    place: str
    stored: bool


def arguments_of(value: Value) -> tuple[Value, ...]:
    """The values that must be known before ``value`` (a fold's operand is not one:
    it is known inside the loops of the fold only)."""
    if isinstance(value, Apply):
        return value.arguments
    if isinstance(value, Load):
        return value.depends if value.guard is None else (*value.depends, value.guard)
    if isinstance(value, Choose):
        return (value.condition, value.value, value.other)
    if isinstance(value, Checked):
        return (value.value,)
    if isinstance(value, (Position, Within)):
        return value.depends
    return ()


class LoopKind(enum.Enum):
    """What may be done with the iterations of a loop."""

    PARALLEL = "parallel"  # independent, shared among the threads
    SERIAL = "serial"  # independent, or ordered for determinism; one thread
    REDUCE = "reduce"  # carries accumulators
    TEAM = "team"  # independent or folding, shared among the threads of a block (GPU)
    LANES = "lanes"  # the same, shared among the threads that a block has for a column


@dataclass(frozen=True, slots=True)
class Let:
    """Give ``value`` its name; ``source`` is where it comes from (mostly itself)."""

    value: Value
    source: Value


@dataclass(frozen=True, slots=True)
class Offset:
    """Give an index expression a name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """Make an index that is out of its range 0, and remember its error code."""

    value: Checked
    extent: str
    code: str


@dataclass(frozen=True, slots=True)
class Store:
    """``slot[index] = value``; with ``fold``, folded into what is there (``atomic``: in one
    indivisible step, in any order)."""

    slot: Slot
    index: str
    value: Value
    fold: OpDef | None = None
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Give the thread an array of ``count`` elements in its registers (GPU)."""

    array: str
    short: str
    count: int


@dataclass(frozen=True, slots=True)
class Keep:
    """``array[place] = value``, as it lies in ``slot`` if one is given (GPU)."""

    array: str
    place: str
    value: Value
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Move ``lanes`` neighbours at once between ``slot`` from ``index`` on and ``array`` from
    ``place`` on: into the array, or out of it if the slot is ``written`` (GPU)."""

    slot: Slot
    index: str
    array: str
    place: str
    lanes: int
    written: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """``goal[place + k * width + r] = source[index + r * row + k]`` for ``r < count`` and
    ``k < depth``: rows of neighbours, transposed in registers (CPU).

    Places of ``goal`` with ``r`` from ``count`` to ``width`` may be overwritten."""

    goal: Slot
    place: str
    width: str
    source: Slot
    index: str
    row: str
    count: str
    depth: str


@dataclass(frozen=True, slots=True)
class Start:
    """Set an accumulator (a local, or an element of a slot) to the fold's identity."""

    target: str
    fold: Fold
    position: str = ""


@dataclass(frozen=True, slots=True)
class Accumulate:
    """Fold ``operand`` (a value, or the name of another accumulator) into a target."""

    target: str
    fold: Fold
    operand: Value | str
    position: str = ""


@dataclass(frozen=True, slots=True)
class Combine:
    """Fold the accumulators that the threads of a block have, or those it has for a column, so that
    all have the total (GPU)."""

    target: str
    fold: Fold
    position: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """``begin, end`` become this thread's part of ``range(extent)``."""

    extent: str


@dataclass(frozen=True, slots=True)
class Loop:
    """``for variable in range(begin, end)``, by ``step`` (LANES: a block has so many columns).

    A ``TEAM`` loop of a known number of ``parts`` has them one after the other: each thread of
    the block takes ``step`` neighbours in each, where there are so many.
    """

    variable: str
    begin: str
    end: str
    kind: LoopKind
    body: tuple[Statement, ...]
    step: str = ""
    parts: int = 0


@dataclass(frozen=True, slots=True)
class When:
    """``body`` where ``condition`` is what ``holds`` says; elsewhere nothing."""

    condition: Value
    holds: bool
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Store the error code, if one was remembered, in the error word."""

    slot: Slot


Statement: TypeAlias = (
    Let | Offset | Check | Store | Hold | Keep | Move | Turn | Start | Accumulate | Combine | Share
    | Loop | When | Report
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: pointers, run-time integers, statements.

    ``names`` and ``indices`` say what the values and index expressions that
    occur are called; a value without a name is written where it is used.
    """

    prefix: str
    slots: Mapping[Slot, str]
    """Pointers and their names, in the order of the argument block."""
    integers: tuple[tuple[str, int], ...]
    """Run-time integers: their name and position in the argument block."""
    arguments: tuple[Argument, ...]
    body: tuple[Statement, ...]
    names: Mapping[Value, str]
    indices: Mapping[Affine, str]
    bounds: Mapping[tuple[str, Affine, int], str]
    """Names of the bounds in :class:`Within`: ``("low", index, value)``."""
    counts: Mapping[int, str]
    """Names of the integers in :class:`Count`."""
    bound: Mapping[Value, Value]
    """Values that calls before left in memory, and what they are here."""
    stores: tuple[tuple[str, Value], ...]
    """What is computed, for the name and the formula: result name and value."""
    epilogue: bool = False
    threads: int = 0
    """How many a block has, if that matters (GPU)."""
