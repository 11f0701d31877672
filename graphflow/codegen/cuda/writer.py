'''Loop IR to a kernel file for CUDA.

    """out = tanh(a * b)"""
    from graphflow.codegen.cuda.prelude import ahead, cuda, kernel, vm


    @kernel
    def ew_mul_tanh_3fa2c1(a, b, out, ni):
        i = cuda.grid(1)
        while i < ni:
            out[i] = vm.tanh(a[i] * b[i])
            i = ahead(i, cuda.gridsize(1))

Scalars and indices are spelled as for the CPU.  A shared loop is a grid-stride loop: over
threads, or over blocks where the threads of a block share the loops inside (rows).  Their
partial folds meet in shared memory, by halves, without warp shuffles.  Where a block takes a tile
of columns (:mod:`.columns`), every column has ``lanes`` of its threads.
'''

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

from graphflow.codegen.kernel_writer import (
    KernelWriter,
    filled,
    formula_of,
    held_as,
    mentions,
    operations_of,
)
from graphflow.codegen.loops import (
    Combine,
    Held,
    Hold,
    Keep,
    Kernel,
    Loop,
    LoopKind,
    Move,
    Report,
    Share,
    Slot,
    Statement,
    Store,
    When,
)
from graphflow.codegen.names import PLACEHOLDER, kernel_name
from graphflow.codegen.schedule import KernelSource, Launch
from graphflow.codegen.writer import Writer

BLOCK = 256
"""Threads a block: a power of two, for folds by halves."""
HALVES = ("f16", "bf16")
_NAMES = (
    "cuda", "kernel", "np", "vm", "select", "add_fast", "mul_fast", "f16", "bf16", "f32", "f64",
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "quotient", "remainder", "read", "ahead",
    *(f"{way}_{count}" for way in ("load", "store") for count in (2, 4, 8)),
)  # fmt: skip
_NUMPY = {
    "bool": "np.bool_", "f32": "np.float32", "f64": "np.float64", "u8": "np.uint8",
    **{f"{sign}{bits}": f"np.{name}{bits}" for sign, name in (("i", "int"), ("u", "uint"))
       for bits in (8, 16, 32, 64)},
}  # fmt: skip
THREAD = "cuda.threadIdx.x"
MOST_TOGETHER = 4
"""Folds whose threads meet in one go: each takes shared memory."""
UNROLLED = 4
"""Rows, at least, that a lane reads before it waits for the first of them …"""
UNROLLED_BYTES = 16
"""… and bytes of them, which are what keeps memory busy."""
SHARED = (LoopKind.TEAM, LoopKind.LANES)


def write_kernel(kernel: Kernel) -> KernelSource:
    """The kernel as a canonical Python module."""
    out = Writer()
    CudaWriter(kernel, out).function()
    widths = [_width(loop) for loop in team_loops(kernel.body)]
    block, least = kernel.threads or BLOCK, kernel.threads or 2 * max(widths, default=0)
    return finished(kernel, out.text(), bool(widths), block, least=least)


def finished(
    kernel: Kernel,
    function: str,
    by_block: bool,
    block: int = BLOCK,
    resident: int = 1,
    least: int = 0,
) -> KernelSource:
    """The source with its head, name and launch, given the text of the function."""
    elements = tuple(stored_as(slot.dtype.short) for slot in kernel.slots)
    launch = Launch(elements, len(kernel.integers), block, by_block, resident, least)
    return module(kernel.prefix, operations_of(kernel), formula_of(kernel), function, launch)


def module(
    prefix: str, operations: Iterable[str], formula: str, function: str, launch: Launch
) -> KernelSource:
    """A kernel file: formula, imports, function."""
    head = f'"""{formula}"""\n'
    constants = [name for name in ("inf", "nan") if mentions(function, name)]
    if constants:
        head += f"from math import {', '.join(constants)}\n\n"
    names = ["kernel", *(n for n in _NAMES if n != "kernel" and f"{n}" in function)]
    names = [n for n in names if n in ("kernel",) or mentions(function, n)]
    text = f"{head}{_import(names)}\n\n\n@kernel\n{function}"
    name = kernel_name(prefix, operations, text)
    return KernelSource(name, text.replace(PLACEHOLDER, name), launch=launch)


def _import(names: Sequence[str]) -> str:
    line = f"from graphflow.codegen.cuda.prelude import {', '.join(names)}"
    if len(line) <= 100:
        return line
    rows = "".join(f"    {name},\n" for name in names)
    return f"from graphflow.codegen.cuda.prelude import (\n{rows})"


def stored_as(short: str) -> str:
    """The element type of a parameter: half precision is passed as its bits."""
    return "u16" if short in HALVES else short


def numpy_name(short: str) -> str:
    """How a kernel spells the type of a shared array."""
    return _NUMPY[short]


def team_loops(body: Sequence[Statement]) -> Iterable[Loop]:
    """The loops that the threads of a block share."""
    for statement in body:
        if isinstance(statement, Loop):
            if statement.kind in SHARED:
                yield statement
            else:
                yield from team_loops(statement.body)
        elif isinstance(statement, When):
            yield from team_loops(statement.body)


def _width(loop: Loop) -> int:
    """How many columns a block has side by side; none where its threads share a row."""
    return int(loop.step) if loop.kind is LoopKind.LANES else 0


def rounds(body: Sequence[Statement]) -> Iterable[list[Statement]]:
    """The statements one by one, but folds across a block that follow each other together: their
    threads meet as often as for one.  Folds that yield positions are by themselves."""
    together: list[Statement] = []
    for statement in body:
        joins = isinstance(statement, Combine) and not statement.position
        if together and not (joins and len(together) < MOST_TOGETHER):
            yield together
            together = []
        if joins:
            together.append(statement)
        else:
            yield [statement]
    if together:
        yield together


def meetings(body: Sequence[Statement]) -> Iterable[list[Combine]]:
    """The folds across the threads of a block, those of one round together."""
    for group in rounds(body):
        folds = [statement for statement in group if isinstance(statement, Combine)]
        if folds:
            yield folds
        elif isinstance(group[0], (Loop, When)):
            yield from meetings(group[0].body)


def _held(combine: Combine) -> str:
    fold = combine.fold
    return held_as(fold.operand.dtype if combine.position else fold.dtype)


def shared_by(folds: Sequence[Combine]) -> dict[str, Combine]:
    """The folds of a round by the names of the shared arrays that they take."""
    found: dict[str, Combine] = {}
    for fold in folds:
        name = f"shared_{_held(fold)}"
        number = sum(1 for other in found.values() if _held(other) == _held(fold))
        found[f"{name}_{number}" if number else name] = fold
    return found


class CudaWriter(KernelWriter):
    """Kernels whose parameters are one-dimensional arrays, then integers."""

    def __init__(self, kernel: Kernel, out: Writer) -> None:
        super().__init__(kernel, out)
        loops = list(team_loops(kernel.body))
        self.by_block, self.width = bool(loops), max(map(_width, loops), default=0)
        self.written = {name for name, _ in kernel.stores}
        self.inside = False  # a loop that the threads of a block share
        self.extent = "1"

    def parameters(self) -> str:
        """The names of the parameters."""
        return ", ".join([*self.kernel.slots.values(), *(name for name, _ in self.kernel.integers)])

    def function(self) -> None:
        """The whole function."""
        with self.out.block(f"def {PLACEHOLDER}({self.parameters()}):"):
            self.begin()
            self.statements(self.kernel.body)

    def begin(self) -> None:
        """Shared memory, and the error code of this thread."""
        held: dict[str, str] = {}
        for folds in meetings(self.kernel.body):
            held |= {name: _held(fold) for name, fold in shared_by(folds).items()}
            if folds[0].position:
                held["shared_places"] = "i64"
        block = self.kernel.threads or BLOCK
        for name, short in held.items():
            self.out.line(f"{name} = cuda.shared.array({block}, {numpy_name(short)})")
        if self.kernel.body and isinstance(self.kernel.body[-1], Report):
            self.out.line("failed = 0")
        if self.width:
            self.out.line(f"width = {self.width}")
            self.out.line(f"lane, lanes = {THREAD} // width, cuda.blockDim.x // width")
            self.out.line(f"column = {THREAD} - lane * width")

    # ---- memory ----------------------------------------------------------------------

    def element(self, slot: Slot, index: str) -> str:
        """The element as it is computed with: half precision as f32."""
        text = super().element(slot, index)
        if self.width and self.kernel.slots[slot] not in self.written:
            text = f"read({self.kernel.slots[slot]}, {index})"
        return f"vm.{slot.dtype.short}_to_f32({text})" if slot.dtype.short in HALVES else text

    def put(self, slot: Slot, index: str, text: str) -> str:
        """A store; what is narrower than a word is converted first."""
        return super().put(slot, index, self._to_store(slot, text))

    def _to_store(self, slot: Slot, text: str) -> str:
        """A value as it lies in ``slot``."""
        short = slot.dtype.short
        if short in HALVES:
            return f"vm.f32_to_{short}({text})"
        if short != "i64" and slot.dtype.kind in ("int", "uint"):
            return f"{short}({text})"
        return text

    def store(self, statement: Store) -> None:
        """A store; what all threads of a block agree on is stored by the first."""
        if statement.atomic:
            name, text = self.kernel.slots[statement.slot], self.text(statement.value)
            self.out.line(f"cuda.atomic.add({name}, {statement.index}, {text})")
            return
        if self.by_block and not self.inside:
            first = "lane == 0 and there" if self.width else f"{THREAD} == 0"
            with self.out.block(f"if {first}:"):
                super().store(statement)
            return
        super().store(statement)

    # ---- a thread's own arrays ---------------------------------------------------------

    def hold(self, statement: Hold) -> None:
        """An array whose elements are registers."""
        kind = numpy_name(statement.short)
        self.out.line(f"{statement.array} = cuda.local.array({statement.count}, {kind})")

    def keep(self, statement: Keep) -> None:
        """An element of it, as memory has it if it goes there."""
        text, slot = self.text(statement.value), statement.slot
        text = text if slot is None else self._to_store(slot, text)
        self.out.line(f"{statement.array}[{statement.place}] = {text}")

    def move(self, statement: Move) -> None:
        """A vector between memory and the array."""
        there = f"{self.kernel.slots[statement.slot]}, {statement.index}"
        here = f"{statement.array}, {statement.place}"
        way, ends = ("store", f"{there}, {here}") if statement.written else (
            "load", f"{here}, {there}"
        )  # fmt: skip
        self.out.line(f"{way}_{statement.lanes}({ends})")

    def spell_held(self, value: Held) -> str:
        """An element of an array in registers, as it is computed with."""
        text = super().spell_held(value)
        if value.stored and value.dtype.short in HALVES:
            return f"vm.{value.dtype.short}_to_f32({text})"
        return text

    # ---- loops -----------------------------------------------------------------------

    def share(self, statement: Share) -> None:
        """Remember how much there is to share: the loop itself does the rest."""
        self.extent = statement.extent

    def loop(self, statement: Loop) -> None:
        """A loop; shared ones go in strides of the grid or of the block."""
        if statement.parts:
            self._in_parts(statement)
            return
        if statement.kind not in (LoopKind.PARALLEL, LoopKind.TEAM):
            (self._by_lanes if statement.kind is LoopKind.LANES else super().loop)(statement)
            return
        by = f" * {statement.step}" if statement.step else ""
        if statement.kind is LoopKind.PARALLEL:
            self._by_grid(statement, by)
            return
        first = f"{THREAD}{by}"
        first = first if statement.begin == "0" else f"{statement.begin} + {first}"
        bounds = f"{first}, {statement.end}, cuda.blockDim.x{by}"
        with self.out.block(f"for {statement.variable} in range({bounds}):"):
            self._body(statement)

    def _by_grid(self, loop: Loop, by: str) -> None:
        """What few threads go through more than once, so that nobody counts how often: that would
        be a division."""
        blocks = "cuda.blockIdx.x", "cuda.gridDim.x"
        threads = f"cuda.grid(1){by}", f"cuda.gridsize(1){by}"
        first, stride = blocks if self.by_block else threads
        self.out.line(f"{loop.variable} = {first}")
        with self.out.block(f"while {loop.variable} < {self.extent}:"):
            self._body(loop)
            self.out.line(f"{loop.variable} = ahead({loop.variable}, {stride})")

    def _body(self, loop: Loop) -> None:
        before, self.inside = self.inside, self.inside or loop.kind in SHARED
        self.statements(loop.body)
        self.inside = before

    def _in_parts(self, loop: Loop) -> None:
        """A known number of trips, so that places in arrays are known."""
        first = f"({THREAD} + part * cuda.blockDim.x)" if loop.parts > 1 else THREAD
        first = f"{first} * {loop.step}" if loop.step else first.strip("()")
        with ExitStack() as blocks:
            if loop.parts > 1:
                blocks.enter_context(self.out.block(f"for part in range({loop.parts}):"))
            self.out.line(f"{loop.variable} = {first}")
            blocks.enter_context(self.out.block(f"if {loop.variable} < {loop.end}:"))
            self._body(loop)

    def _by_lanes(self, loop: Loop) -> None:
        """Several rows at a time as long as there are so many, whose loads wait for nothing."""
        out, row = self.out, loop.variable
        size = sum(s.dtype.itemsize for s, name in self.kernel.slots.items()
                   if name not in self.written)  # fmt: skip
        rows = max(UNROLLED, UNROLLED_BYTES // max(1, size))
        out.line(f"{row} = {f'{loop.begin} + ' if loop.begin != '0' else ''}lane")
        with (
            out.block(f"while {row} + {rows - 1} * lanes < {loop.end}:"),
            out.block(f"for _ in range({rows}):"),
        ):
            self._body(loop)
            out.line(f"{row} += lanes")
        with out.block(f"while {row} < {loop.end}:"):
            self._body(loop)
            out.line(f"{row} += lanes")

    def report(self, statement: Report) -> None:
        """The error code, if there is one; of several the largest."""
        with self.out.block("if failed != 0:"):
            self.out.line(f"cuda.atomic.max({self.kernel.slots[statement.slot]}, 0, failed)")

    # ---- folds across a block --------------------------------------------------------

    def statements(self, body: Sequence[Statement]) -> None:
        """Statements in order; folds across the block that follow each other in one go."""
        for group in rounds(body):
            folds = [statement for statement in group if isinstance(statement, Combine)]
            if folds:
                self._meet(shared_by(folds))
            else:
                super().statements(group)

    def _meet(self, folds: Mapping[str, Combine]) -> None:
        """Fold by halves; afterwards every thread has the totals (of its column: its threads are
        ``width`` apart)."""
        out = self.out
        position = next(iter(folds.values())).position
        for shared, fold in folds.items():
            out.line(f"{shared}[{THREAD}] = {fold.target}")
        if position:
            out.line(f"shared_places[{THREAD}] = {position}")
        out.line("cuda.syncthreads()")
        out.line("half = cuda.blockDim.x // 2")
        with out.block(f"while half {'>= width' if self.width else '> 0'}:"):
            with out.block(f"if {THREAD} < half:"):
                for shared, fold in folds.items():
                    self._fold_pair(fold, shared)
            out.line("cuda.syncthreads()")
            out.line("half //= 2")
        first = "column" if self.width else "0"
        for shared, fold in folds.items():
            out.line(f"{fold.target} = {shared}[{first}]")
        if position:
            out.line(f"{position} = shared_places[{first}]")
        out.line("cuda.syncthreads()")

    def _fold_pair(self, statement: Combine, shared: str) -> None:
        reduction = statement.fold.op.reduction
        assert reduction is not None
        mine, other = f"{shared}[{THREAD}]", f"{shared}[{THREAD} + half]"
        if not statement.position:
            self.out.line(f"{mine} = {filled(reduction.combine, [mine, other], {})}")
            return
        self.out.line(f"x, y = {mine}, {other}")
        self.out.line(f"here, there = shared_places[{THREAD}], shared_places[{THREAD} + half]")
        self.out.line(f"better = {filled(reduction.combine, ['x', 'y'], {})}")
        self.out.line(f"worse = {filled(reduction.combine, ['y', 'x'], {})}")
        # Of equal elements the first counts.
        with self.out.block("if better or (there < here and not worse):"):
            self.out.line(f"{mine} = y")
            self.out.line(f"shared_places[{THREAD}] = there")
