"""Where a program's buffers are found: slots of addresses, and offsets from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from graphflow.codegen.schedule import Buffer, BufferKind, Schedule
from graphflow.errors import CompileError
from graphflow.runtime.arena import ProgramMemory
from graphflow.runtime.executor import Context
from graphflow.runtime.tape import Operand

_CODES = {
    "float64": "d", "float32": "f4x", "float16": "e6x", "int64": "q", "int32": "i4x",
    "int16": "h6x", "int8": "b7x", "uint64": "Q", "uint32": "I4x", "uint8": "B7x", "bool": "?7x",
}  # fmt: skip


class Slots:
    """Which slot of the context block holds the address of each buffer.

    First come the words that change at every call, in one row: inputs, then
    outputs.  A run-time scalar's word is its value, and its buffer is that word.
    The arena is one slot, and so is the block itself.  Rooms come last.
    """

    def __init__(self, schedule: Schedule, scalars: frozenset[int]) -> None:
        self._schedule = schedule
        self.scalars = scalars
        self.buffers: Mapping[int, Buffer] = {b.id: b for b in schedule.buffers}
        self.outputs = [b for b in schedule.buffers if b.kind is BufferKind.OUTPUT]
        lasting = (BufferKind.CONSTANT, BufferKind.KEPT)
        self.rooms = [b for b in schedule.buffers if b.kind is BufferKind.ROOM]
        self._lasting = [b for b in schedule.buffers if b.kind in lasting]
        self._first_output = len(schedule.inputs)
        self.state = self._first_output + len(self.outputs)
        """The slot of the first state."""
        self._arena = self.state + len(schedule.state)
        self._block = self._arena + 1
        self._first_lasting = self._block + 1
        self._first_room = self._first_lasting + len(self._lasting)
        self.count = self._first_room + len(self.rooms)
        codes = ["q"] * self.state
        for number in scalars:
            identity = schedule.inputs[number]
            # "d": nobody reads it
            codes[number] = _scalar_code(self.buffers[identity]) if identity >= 0 else "d"
        self.format = "=" + "".join(codes)
        self.changing = self.state
        """How many words change at every call."""
        changing = [*range(self.state), *range(self._first_room, self.count)]
        self.dynamic = frozenset(n for n in changing if n not in scalars)

    @cached_property
    def places(self) -> Mapping[int, Operand]:
        """Where each buffer lies."""
        schedule, places = self._schedule, dict[int, Operand]()
        for first, buffers in (
            (0, schedule.inputs),
            (self._first_output, [b.id for b in self.outputs]),
            (self.state, schedule.state),
            (self._first_lasting, [b.id for b in self._lasting]),
            (self._first_room, [b.id for b in self.rooms]),
        ):
            places.update((buffer, Operand(slot)) for slot, buffer in enumerate(buffers, first))
        for number in self.scalars:
            places[schedule.inputs[number]] = self._word(Context.SLOTS_START + number)
        for buffer in schedule.buffers:
            if buffer.kind is BufferKind.ARENA:
                places[buffer.id] = Operand(self._arena, schedule.offsets.get(buffer.id, 0))
            elif buffer.kind is BufferKind.OWN:
                offset = schedule.offsets.get(buffer.id, 0)
                places[buffer.id] = Operand(self._arena, offset, (), schedule.own_bytes)
            elif buffer.kind is BufferKind.ERROR:
                places[buffer.id] = self._word(Context.ERROR)
        for buffer in schedule.buffers:
            if buffer.kind is BufferKind.WINDOW:
                base = places[buffer.base]
                places[buffer.id] = Operand(
                    base.slot, base.offset + buffer.offset, buffer.strides, base.thread
                )
        return places

    def _word(self, word: int) -> Operand:
        return Operand(self._block, 8 * word)

    def fixed(self, context: int, memory: ProgramMemory) -> dict[int, int]:
        """The address in every slot that never changes, given that of the context block."""
        found = {self._arena: memory.arena.address, self._block: context}
        for slot, buffer in enumerate(self._lasting, self._first_lasting):
            found[slot] = memory.lasting(buffer.id).address
        return found


def _scalar_code(buffer: Buffer) -> str:
    """How ``struct`` packs the value of a run-time scalar into its word."""
    code = _CODES.get(buffer.type.dtype.name)
    if code is None or buffer.type.shape != ():
        raise CompileError(f"input b{buffer.id} of type {buffer.type} cannot be given by value")
    return code
