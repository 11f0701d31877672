"""Where a program's buffers are found: slots of addresses, and offsets from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        self.buffers: Mapping[int, Buffer] = {b.id: b for b in schedule.buffers}
        self.outputs = [b for b in schedule.buffers if b.kind is BufferKind.OUTPUT]
        lasting = (BufferKind.CONSTANT, BufferKind.KEPT)
        self.rooms = [b for b in schedule.buffers if b.kind is BufferKind.ROOM]
        self._lasting = [b for b in schedule.buffers if b.kind in lasting]
        first_output = len(schedule.inputs)
        first_state = first_output + len(self.outputs)
        self._arena = first_state + len(schedule.state)
        self._block = self._arena + 1
        self._first_lasting = self._block + 1
        first_room = self._first_lasting + len(self._lasting)
        self.count = first_room + len(self.rooms)
        codes = ["q"] * first_state
        self.places: dict[int, Operand] = {}
        for number, identity in enumerate(schedule.inputs):
            self.places[identity] = Operand(number)
            if number in scalars and identity >= 0:
                self.places[identity] = self._word(Context.SLOTS_START + number)
                codes[number] = _scalar_code(self.buffers[identity])
            elif number in scalars:
                codes[number] = "d"  # nobody reads it
        self.format = "=" + "".join(codes)
        self._place(first_output, [b.id for b in self.outputs])
        self._place(first_state, schedule.state)
        self._place(self._first_lasting, [b.id for b in self._lasting])
        self._place(first_room, [b.id for b in self.rooms])
        for buffer in schedule.buffers:
            if buffer.kind is BufferKind.ARENA:
                self.places[buffer.id] = Operand(self._arena, schedule.offsets.get(buffer.id, 0))
            elif buffer.kind is BufferKind.OWN:
                offset = schedule.offsets.get(buffer.id, 0)
                self.places[buffer.id] = Operand(self._arena, offset, (), schedule.own_bytes)
            elif buffer.kind is BufferKind.ERROR:
                self.places[buffer.id] = self._word(Context.ERROR)
        for buffer in schedule.buffers:
            if buffer.kind is BufferKind.WINDOW:
                base = self.places[buffer.base]
                self.places[buffer.id] = Operand(
                    base.slot, base.offset + buffer.offset, buffer.strides, base.thread
                )
        self.changing = first_state
        """How many words change at every call."""
        changing = [*range(first_state), *range(first_room, self.count)]
        self.dynamic = frozenset(n for n in changing if n not in scalars)

    def _word(self, word: int) -> Operand:
        return Operand(self._block, 8 * word)

    def _place(self, first: int, buffers: Sequence[int]) -> None:
        for slot, buffer in enumerate(buffers, first):
            self.places[buffer] = Operand(slot)

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
