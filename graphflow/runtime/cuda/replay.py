"""Replay of a step: its straight parts as CUDA graphs, over memory that stays where it is.

A graph has the addresses of its kernels' arguments in it.  So inputs are copied to memory that
is kept before it runs, and results out of it after; state is where it is, and a step whose
state has moved is recorded anew.  Run-time scalars and what may fail are read from and written
to the device's memory by kernels anyway.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from graphflow.codegen.schedule import BufferKind, Call, LibraryCall, Loop, Schedule, Step
from graphflow.records import dataclass
from graphflow.runtime.cuda import graphs
from graphflow.runtime.cuda.driver import missing
from graphflow.runtime.cuda.memory import Block, DeviceArray
from graphflow.tables import quantity

if TYPE_CHECKING:
    from graphflow.runtime.cuda.launch import CudaProgram, Place

MOST_GRAPHS = 4
"""Places of state for which a program keeps graphs; the one used longest ago goes."""
MOST_LAUNCHES = 4096
"""A loop that would be more launches, rolled out, is walked."""
LEAST_LAUNCHES = 3
"""Fewer are started as quickly one by one."""
MOST_COPIED = 64 * 2**20
"""Bytes of inputs and results above which copying them costs more than launches do."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring steps: ``straight`` ones can be one graph.

    Before a ``checked`` piece the error word has to be read: it writes what a step that failed
    must not.  A ``fallible`` one may write the error word.
    """

    steps: tuple[Step, ...]
    straight: bool
    checked: bool = False
    fallible: bool = False


def launches(step: Step) -> int:
    """How many launches a step is; 0 if that is not known before it runs."""
    if isinstance(step, (Call, LibraryCall)):
        return 1
    if not isinstance(step, Loop) or step.test is not None or step.fallible:
        return 0
    inside = [launches(inner) for inner in step.body]
    return 0 if step.head or 0 in inside else step.trips * sum(inside)


def pieces_of(steps: Sequence[Step], guarded: frozenset[int]) -> tuple[Piece, ...]:
    """The pieces of a schedule.  ``guarded`` are the buffers that a failed step must not write."""
    made: list[Piece] = []
    fallible = False
    for step in steps:
        checked = fallible and not guarded.isdisjoint(step.writes)
        straight = 0 < launches(step) <= MOST_LAUNCHES
        if made and straight and made[-1].straight and not checked:
            made[-1] = Piece((*made[-1].steps, step), True, made[-1].checked)
        else:
            made.append(Piece((step,), straight, checked))
        fallible = (fallible and not checked) or getattr(step, "fallible", False)
    return tuple(
        Piece(
            p.steps,
            p.straight and sum(map(launches, p.steps)) >= LEAST_LAUNCHES,
            p.checked,
            any(getattr(step, "fallible", False) for step in p.steps),
        )
        for p in made
    )


@dataclass(slots=True)
class Recording:
    """A step over memory that stays: where everything lies, and a graph for each straight piece."""

    places: dict[int, Place]
    inputs: dict[int, Block]
    outputs: dict[int, DeviceArray]
    graphs: list[Callable[[], None] | None]


class Replay:
    """Whether and how the steps of a program are replayed.

    The first step of a program is walked, which loads its kernels; the second is recorded.
    ``why`` tells why nothing is, if so.
    """

    def __init__(self, program: CudaProgram, wanted: bool) -> None:
        self._program = program
        schedule = program.schedule
        self.pieces = pieces_of(schedule.steps, program._guarded)
        self.why = "" if wanted else "gf.backends.cuda.replay is off"
        self.why = self.why or missing() or _unfit(schedule, self.pieces)
        self._walked = False
        self._kept: OrderedDict[tuple[tuple[int, int], ...], Recording] = OrderedDict()
        self._last: Recording | None = None
        self._at = 0  # the program's count of moves when that one was chosen

    def __str__(self) -> str:
        total = sum(launches(step) for piece in self.pieces for step in piece.steps)
        inside = [sum(map(launches, piece.steps)) for piece in self.pieces if piece.straight]
        if self.why:
            return f"kernels are launched one by one, for {self.why}"
        shape = f"{sum(inside)} of {total} launches in {len(inside)} CUDA graphs"
        return f"{shape}, {'replayed' if self._kept else 'to be recorded at the second call'}"

    def recording(self) -> Recording | None:
        """The step as it was recorded for state that lies where it does now, or is recorded now.

        None if it is to be walked: at the first call, and where recording failed, which a
        warning and :meth:`__str__` tell.
        """
        if self.why:
            return None
        if not self._walked:
            self._walked = True
            return None
        program = self._program
        if self._last is not None and self._at == program.moves:
            return self._last
        places = [program._places[b] for b in program.schedule.state if b >= 0]
        key = tuple((place.block.address, place.offset) for place in places)
        found = self._kept.get(key)
        if found is None:
            try:
                found = self._recorded()
            except Exception as error:  # whatever it is, nothing has run yet
                self.why = f"recording them as a CUDA graph failed ({error})"
                warnings.warn(f"a step on cuda:{self._program.device}: {self}", stacklevel=2)
                return None
            self._kept[key] = found
            if len(self._kept) > MOST_GRAPHS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        self._last, self._at = found, program.moves
        return found

    def _recorded(self) -> Recording:
        from graphflow.runtime.cuda.launch import Place, Walk

        program = self._program
        given = _given(program.schedule, program._scalars)
        inputs = {b: Block(_bytes(program.schedule, b), program.device) for b in given}
        outputs = program._fresh()
        kept = program.placed({n: Place(block) for n, block in inputs.items()}, outputs)
        walk = Walk(program, kept)
        recorder = graphs.recorder(program.device)
        made = [
            recorder.record(list(walk.starts(piece.steps))) if piece.straight else None
            for piece in self.pieces
        ]
        return Recording(kept, inputs, outputs, made)

    def run(
        self, recording: Recording, given: Mapping[int, Place], outputs: dict[int, DeviceArray]
    ) -> None:
        """Replay a step on the inputs that are ``given``, and copy its results to ``outputs``."""
        from graphflow.runtime.cuda.launch import Walk

        for number, block in recording.inputs.items():
            block.copy_from(given[number].block, given[number].offset)
        walk = Walk(self._program, recording.places)
        for piece, graph in zip(self.pieces, recording.graphs, strict=True):
            if graph is None:
                walk.steps(piece.steps, ())
                continue
            if piece.checked:
                walk.check()
            graph()
            walk.fallible |= piece.fallible
        walk.finish()
        for number, array in outputs.items():
            array.block.copy_from(recording.outputs[number].block)


def _given(schedule: Schedule, scalars: Sequence[int]) -> Iterator[int]:
    """The buffers of inputs that a step is given memory for."""
    for position, buffer in enumerate(schedule.inputs):
        if buffer >= 0 and position not in scalars:
            yield buffer


def _bytes(schedule: Schedule, number: int) -> int:
    buffer = next(b for b in schedule.buffers if b.id == number)
    count = 1
    for extent in buffer.type.static_shape:
        count *= extent
    return count * buffer.type.dtype.itemsize


def _unfit(schedule: Schedule, pieces: Sequence[Piece]) -> str:
    """Why the steps of a schedule are better not replayed, if so."""
    if not any(piece.straight for piece in pieces):
        return f"no {LEAST_LAUNCHES} of them follow each other"
    inputs = {buffer for buffer in schedule.inputs if buffer >= 0}
    if any(not inputs.isdisjoint(step.writes) for step in schedule.steps):
        return "they write to what they are given"
    outputs = {b.id for b in schedule.buffers if b.kind is BufferKind.OUTPUT}
    copied = sum(_bytes(schedule, b) for b in inputs | outputs)
    if copied > MOST_COPIED:
        return f"{quantity(copied)} of inputs and results would have to be copied"
    return ""
