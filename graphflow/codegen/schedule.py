"""The schedule: an ordered list of kernel calls over buffers.

This is the second level of the compiler.  A :class:`Graph` says *what* is
computed; a :class:`Schedule` says in which order, by which kernels, and where
every value lives.  Strides exist here and nowhere above.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from graphflow.codegen.library import Padded, Routine, Seen
from graphflow.codegen.partition import Rows
from graphflow.ir.graph import Location
from graphflow.ir.op import OpDef, RoomsRule
from graphflow.ir.types import TensorType
from graphflow.records import dataclass, field

if TYPE_CHECKING:
    from graphflow.codegen.sharing import Ways

VECTOR_BYTES = 16
"""What a thread of a GPU moves at a time.  Memory that programs for one are given begins at
multiples of it, as does all that they take themselves."""


class BufferKind(enum.Enum):
    """Who owns a buffer's memory."""

    INPUT = "input"  # the caller's tensor (or a run-time scalar)
    STATE = "state"  # a captured tensor: parameter, buffer, optimiser slot, RNG
    CONSTANT = "constant"  # data of the program, written once
    OUTPUT = "output"  # fresh from the output pool at every call
    ARENA = "arena"  # planned inside the program's arena
    OWN = "own"  # planned inside the part of the arena that every thread has for itself
    ROOM = "room"  # where a host call wants its operands; asked for at every call
    KEPT = "kept"  # the program's own from call to call: what depends on state alone
    ERROR = "error"  # one int64 word: 0, or the number of the failure
    WINDOW = "window"  # part of another buffer, which moves from iteration to iteration


@dataclass(frozen=True, slots=True)
class Buffer:
    """Contiguous memory for one value."""

    id: int
    kind: BufferKind
    type: TensorType
    name: str = ""
    data: Any = None
    """A constant's array."""
    base: int = -1
    """The buffer that a window is part of."""
    offset: int = 0
    """Where a window starts in the first iteration, in bytes."""
    strides: tuple[int, ...] = ()
    """Bytes a window moves in every iteration of each open loop, outermost first."""
    dense: bool = True
    """Whether a window's elements fill it in row-major order."""


def buffer_bytes(buffer: Buffer) -> int:
    """Bytes of data in ``buffer``."""
    return buffer.type.static_bytes


@dataclass(frozen=True, slots=True)
class Address:
    """Argument: where ``buffer`` starts, plus ``offset`` bytes."""

    buffer: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """Argument: an extent, stride or count."""

    value: int


@dataclass(frozen=True, slots=True)
class FunctionAddress:
    """Argument: the entry of another kernel (an epilogue)."""

    kernel: KernelSource


@dataclass(frozen=True, slots=True)
class BlockAddress:
    """Argument: the address of a second argument block (an epilogue's)."""

    arguments: tuple[Argument, ...]


Argument: TypeAlias = Address | Value | FunctionAddress | BlockAddress


@dataclass(frozen=True, slots=True)
class Launch:
    """How a kernel is started on a GPU.

    Its parameters are pointers to ``elements`` (short names of types), then
    ``integers`` 64-bit integers.  ``block`` is the number of threads a block; work is
    handed out by the thread, or by the block where ``by_block`` says so.  ``resident``
    blocks are to fit on a multiprocessor at a time, which bounds the registers of a thread.
    Blocks of fewer threads give the same results in another order of additions, down to ``least``.
    """

    elements: tuple[str, ...]
    integers: int
    block: int
    by_block: bool = False
    resident: int = 1
    least: int = 0


@dataclass(frozen=True, slots=True)
class KernelSource:
    """A kernel as text: the canonical body that names, caches and identifies it.

    ``source`` is a whole module defining function ``name``; ``epilogue`` tells
    which of the two kernel signatures it has.  Equal sources are one kernel.
    Kernels for a GPU have a ``launch``.
    """

    name: str
    source: str
    epilogue: bool = False
    launch: Launch | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a call computes, for people: IR text, the user's lines, and the position of the
    operation among the nodes of the scheduled graph (-1: a copy the schedule adds)."""

    ir: str
    locations: tuple[Location, ...] = ()
    node: int = -1


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel call.  ``parallel``: all threads take a share, else thread 0 alone."""

    kernel: KernelSource
    arguments: tuple[Argument, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    parallel: bool
    fallible: bool = False
    bytes: int = 0
    flops: int = 0
    provenance: Provenance = Provenance("")
    items: int = 1
    """How much work there is to hand out on a GPU, in threads' or blocks' portions."""
    product: str = ""
    """Which product it computes, where blocks are chosen by measuring."""
    library: Seen | Padded | str = ""
    """A product's call for a GPU: what a library could be asked for instead, or why none can.
    That of a copy which a product reads: what it pads, which a library may do by itself."""
    ways: Ways | None = None
    """How threads may share it, until that is decided (:mod:`graphflow.codegen.sharing`)."""
    partition: Mapping[int, Rows] = field(default_factory=dict)
    """Buffers of which each thread touches rows of its own."""
    across: frozenset[int] = frozenset()
    """Buffers of which threads probably write a part of each row, and not some of the rows."""


@dataclass(frozen=True, slots=True)
class HostCall:
    """An operation without a kernel: its NumPy reference, run by Python between kernels.

    Inputs and outputs fill their buffers in row-major order.  A reference that
    returns a tuple fills ``output`` with its first item and ``more`` with the rest.
    """

    name: str
    function: Callable[..., Any]
    attrs: Mapping[str, Any]
    inputs: tuple[tuple[int, TensorType], ...]
    output: int
    reads: frozenset[int]
    writes: frozenset[int]
    provenance: Provenance = Provenance("")
    more: tuple[int, ...] = ()
    fills: bool = False
    """Whether ``function`` takes ``into``, the memory of its result."""
    rooms: RoomsRule | None = None
    """Where the second input is to be, in which operands lie end to end; see
    :class:`~graphflow.ir.op.OpDef`."""
    parts: tuple[TensorType, ...] = ()
    """Their types."""
    attempt: KernelSource | None = None
    """What is tried first where one thread walks the tape; see :class:`~graphflow.ir.op.OpDef`."""


@dataclass(frozen=True, slots=True)
class LibraryCall:
    """An operation that a library of the device computes as a whole.

    ``arguments`` are where its operands and then its results begin.
    """

    routine: Routine
    arguments: tuple[Address, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    bytes: int = 0
    flops: int = 0
    provenance: Provenance = Provenance("")


def attempt_of(op: OpDef, in_room: bool) -> KernelSource | None:
    """The kernel that a host call of ``op``, whose operands may lie in a room, tries first."""
    if op.attempt is None or (op.rooms is not None and not in_room):
        return None
    return KernelSource(*op.attempt)


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that run ``trips`` times, or as long as a condition holds.

    ``parallel``: iterations know nothing of each other, and every thread runs whole ones by
    itself, whichever is next, over buffers of its own; else all threads share every step.
    A loop with a ``test`` runs ``head`` and then reads the condition (one byte) at
    ``test``: where it is 0 the loop ends, else ``body`` follows.  ``reads`` and
    ``writes`` are those of all steps inside, with buffers in place of their windows.
    """

    name: str
    trips: int
    body: tuple[Step, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    head: tuple[Step, ...] = ()
    test: Address | None = None
    provenance: Provenance = Provenance("")
    fallible: bool = False
    parallel: bool = False

    @property
    def parts(self) -> tuple[tuple[Step, ...], ...]:
        """The steps inside, part by part, in order."""
        return self.head, self.body


@dataclass(frozen=True, slots=True)
class Branch:
    """The steps ``then`` if the byte at ``test`` is not 0, else ``otherwise``."""

    name: str
    test: Address
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    provenance: Provenance = Provenance("")
    fallible: bool = False

    @property
    def parts(self) -> tuple[tuple[Step, ...], ...]:
        """The steps inside, part by part, in order."""
        return self.then, self.otherwise


PlainStep: TypeAlias = Call | HostCall | LibraryCall
Step: TypeAlias = PlainStep | Loop | Branch

MAX_LEVELS = 4
"""Loops may nest this deep."""
UNKNOWN_TRIPS = 1 << 62
"""Trips of a loop that ends by its condition."""


def plain_steps(steps: Sequence[Step]) -> Iterator[PlainStep]:
    """The calls, those of the host and of a library too, among ``steps`` and inside them, in
    order."""
    for step in steps:
        if isinstance(step, (Loop, Branch)):
            for part in step.parts:
                yield from plain_steps(part)
        else:
            yield step


def kernels_in(steps: Sequence[Step]) -> Iterator[KernelSource]:
    """The kernels that ``steps`` call or try, epilogues included, some of them more than once."""
    for step in plain_steps(steps):
        if isinstance(step, Call):
            yield step.kernel
            yield from _functions(step.arguments)
        elif isinstance(step, HostCall) and step.attempt is not None:
            yield step.attempt


def _functions(arguments: Sequence[Argument]) -> Iterator[KernelSource]:
    for argument in arguments:
        if isinstance(argument, FunctionAddress):
            yield argument.kernel
        elif isinstance(argument, BlockAddress):
            yield from _functions(argument.arguments)


@dataclass(frozen=True, slots=True)
class Result:
    """A graph output: the buffer that holds it and how it is laid out there."""

    buffer: int
    type: TensorType
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """Calls in order, the buffers they use, and how inputs, state and outputs map to them.

    ``inputs``/``state`` give the buffer id of each graph input / state node in
    order (-1 when it is never read or written); ``committed`` lists the state
    buffers that the step writes.  ``failures`` are the messages of error codes
    1, 2, …  ``offsets`` is the memory plan: byte offset of every ARENA buffer, and of every
    OWN buffer of the first thread, ``own_bytes`` before that of the next of ``threads``.
    ``stale`` is the buffer of a byte that asks for what is kept between calls to be made
    anew (-1: nothing is), as is due when one of the state buffers ``watched`` has changed.
    """

    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    state: tuple[int, ...]
    results: tuple[Result, ...]
    committed: tuple[int, ...] = ()
    failures: tuple[str, ...] = ()
    offsets: Mapping[int, int] = field(default_factory=dict)
    arena_bytes: int = 0
    naive_bytes: int = 0
    stale: int = -1
    watched: tuple[int, ...] = ()
    own_bytes: int = 0
    threads: int = 1

    @cached_property
    def kernels(self) -> tuple[KernelSource, ...]:
        """Every kernel that is called, epilogues included, each once."""
        return tuple(dict.fromkeys(kernels_in(self.steps)))

    def put_off(
        self, read: Callable[[], tuple[Step, ...]], kernels: tuple[KernelSource, ...]
    ) -> Schedule:
        """This schedule, made without steps: ``read`` gives them when somebody asks."""
        del self.__dict__["steps"]
        self.__dict__.update(kernels=kernels, _read=read)
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "steps" or "_read" not in self.__dict__:
                raise AttributeError(f"a schedule has no {name!r}")
            steps = self.__dict__["steps"] = self.__dict__["_read"]()
            return steps

    def __str__(self) -> str:
        return "\n".join(_describe(self))

    def at(self, sizes: Mapping[str, int]) -> Schedule:
        """The schedule for these sizes of its symbolic dimensions, if it has any."""
        if not sizes:
            return self
        from graphflow.codegen.instance import at_sizes  # stands above the records

        return at_sizes(self, sizes)


def _describe(schedule: Schedule) -> list[str]:
    """The text of a schedule: memory, buffers, then the steps in order."""
    plain = list(plain_steps(schedule.steps))
    hosts = sum(isinstance(s, HostCall) for s in plain)
    head = f"schedule: {len(plain) - hosts} calls"
    if hosts:
        head += f", {hosts} on the host"
    naive, planned = readable_bytes(schedule.naive_bytes), readable_bytes(schedule.arena_bytes)
    lines = [
        head,
        f"memory: {naive} → {planned} arena" + _own_part(schedule),
        "buffers:",
    ]
    for buffer in schedule.buffers:
        place = f" at {schedule.offsets[buffer.id]}" if buffer.id in schedule.offsets else ""
        if buffer.kind is BufferKind.WINDOW:
            place = f" of b{buffer.base} from {buffer.offset} by {list(buffer.strides)}"
        name = f" {buffer.name}" if buffer.name else ""
        written = " (written)" if buffer.id in schedule.committed else ""
        lines.append(f"  b{buffer.id}: {buffer.type} {buffer.kind.value}{place}{name}{written}")
    lines.append("steps:")
    for number, step in enumerate(schedule.steps):
        lines += _describe_step(str(number), step, "  ")
    for number, result in enumerate(schedule.results):
        view = f" from {result.offset} by {list(result.strides)}"
        lines.append(f"result {number}: {result.type} in b{result.buffer}{view}")
    for number, message in enumerate(schedule.failures, 1):
        lines.append(f"failure {number}: {message}")
    return lines


def _own_part(schedule: Schedule) -> str:
    """How much of the arena threads have for themselves."""
    if not schedule.own_bytes:
        return ""
    return f", of which {schedule.threads} threads have {readable_bytes(schedule.own_bytes)} each"


def _describe_step(number: str, step: Step, indent: str) -> list[str]:
    """A step's lines; steps inside others are numbered ``2.0``, ``2.1``, …"""
    effect = f"reads {_names(step.reads)} writes {_names(step.writes)}"
    if isinstance(step, (Loop, Branch)):
        return _describe_nested(number, step, indent, effect)
    if isinstance(step, HostCall):
        lines = [f"{number}: host {step.name}", f"   {effect}"]
    elif isinstance(step, LibraryCall):
        arguments = ", ".join(map(_spell, step.arguments))
        work = f"{readable_bytes(step.bytes)}, {step.flops} flop"
        lines = [f"{number}: library {step.routine.name}({arguments})", f"   {effect}; {work}"]
    else:
        arguments = ", ".join(map(_spell, step.arguments))
        threads = "all threads" if step.parallel else "one thread"
        fallible = ", may fail" if step.fallible else ""
        lines = [
            f"{number}: {step.kernel.name}({arguments})",
            f"   {effect}; {readable_bytes(step.bytes)}, {step.flops} flop, {threads}{fallible}",
        ]
    lines += [f"   | {line}" for line in step.provenance.ir.splitlines()]
    places = dict.fromkeys(str(location) for location in step.provenance.locations)
    lines += [f"   # {place}" for place in places if place]
    return [indent + line for line in lines]


def _describe_nested(number: str, step: Loop | Branch, indent: str, effect: str) -> list[str]:
    if isinstance(step, Branch):
        heads = [f"if {_spell(step.test)}:", "else:"]
    elif step.test is None:
        heads = ["", f"{step.trips} times" + (", each on one thread:" if step.parallel else ":")]
    else:
        heads = ["before every iteration:", f"as long as {_spell(step.test)}:"]
    lines, count = [f"{indent}{number}: {step.name}; {effect}"], 0
    for head, part in zip(heads, step.parts, strict=True):
        if head:
            lines.append(f"{indent}   {head}")
        for inner in part:
            lines += _describe_step(f"{number}.{count}", inner, indent + "     ")
            count += 1
    return lines


def _names(buffers: frozenset[int]) -> str:
    return " ".join(f"b{b}" for b in sorted(buffers)) or "nothing"


def _spell(argument: Argument) -> str:
    if isinstance(argument, Address):
        return f"b{argument.buffer}" + (f"+{argument.offset}" if argument.offset else "")
    if isinstance(argument, Value):
        return str(argument.value)
    if isinstance(argument, FunctionAddress):
        return f"&{argument.kernel.name}"
    return "[" + ", ".join(map(_spell, argument.arguments)) + "]"


def readable_bytes(size: int) -> str:
    """``size`` bytes for people: ``1.5 MB``."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB"):
        amount /= 1000
        if amount < 1000:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.2f} GB"
