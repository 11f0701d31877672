"""Where operands of host operations lie in the run that begins: theirs to say, or the program's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.codegen.schedule import HostCall, buffer_bytes
from graphflow.ir.op import ROOM_HEAD, RoomOf, RoomsRule, RoomsWanted
from graphflow.runtime.executor import Context
from graphflow.runtime.slots import Slots
from graphflow.runtime.storage import Storage, empty


class Rooms:
    """The rooms of a program whose host calls are ``hosts``; ``words`` is its context block."""

    def __init__(self, hosts: Sequence[HostCall], slots: Slots, words: Any) -> None:
        self._slots, self._words = slots, words
        self._own: dict[int, Storage] = {}
        asked: dict[RoomsRule, tuple[list[int], list[RoomOf]]] = {}
        for call in hosts:
            if call.rooms is not None:
                room, type = call.inputs[1]
                rooms, vectors = asked.setdefault(call.rooms, ([], []))
                rooms.append(room)
                vectors.append((type, call.attrs, call.parts))
        self._asked = [
            (rule, RoomsWanted(vectors), [(room, self._word(room)) for room in rooms])
            for rule, (rooms, vectors) in asked.items()
        ]

    def settle(self) -> None:
        """Ask where they are to be, and let the run find them there."""
        words = self._words
        for rule, wanted, rooms in self._asked:
            found = rule(wanted)
            for number, (room, word) in enumerate(rooms):
                words[word] = self._memory(room) if found is None else found[number]

    def _word(self, room: int) -> int:
        """The word of the context block that says where ``room`` is."""
        return Context.SLOTS_START + self._slots.places[room].slot

    def _memory(self, room: int) -> int:
        """The address of the program's own memory for ``room``."""
        if room not in self._own:
            size = buffer_bytes(self._slots.buffers[room])
            self._own[room] = empty((ROOM_HEAD + size,), np.uint8)
            self._own[room].array[:ROOM_HEAD] = 0
        return self._own[room].address + ROOM_HEAD
