"""Where operands of host operations lie in the run that begins: theirs to say, or the program's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.codegen.memory import buffer_bytes
from graphflow.codegen.schedule import HostCall
from graphflow.ir.op import RoomsRule
from graphflow.ir.types import TensorType
from graphflow.runtime.executor import Context
from graphflow.runtime.slots import Slots
from graphflow.runtime.storage import Storage, empty

_Wanted = tuple[list[int], list[tuple[TensorType, Mapping[str, Any]]]]


class Rooms:
    """The rooms of a program whose host calls are ``hosts``; ``words`` is its context block."""

    def __init__(self, hosts: Sequence[HostCall], slots: Slots, words: Any) -> None:
        self._slots, self._words = slots, words
        self._own: dict[int, Storage] = {}
        self._wanted: dict[RoomsRule, _Wanted] = {}
        for call in hosts:
            if call.rooms is not None:
                room, type = call.inputs[1]
                rooms, vectors = self._wanted.setdefault(call.rooms, ([], []))
                rooms.append(room)
                vectors.append((type, call.attrs))

    def settle(self) -> None:
        """Ask where they are to be, and let the run find them there."""
        for rule, (rooms, vectors) in self._wanted.items():
            found = rule(vectors)
            for number, room in enumerate(rooms):
                word = Context.SLOTS_START + self._slots.places[room].slot
                self._words[word] = self._memory(room) if found is None else found[number]

    def _memory(self, room: int) -> int:
        """The address of the program's own memory for ``room``."""
        if room not in self._own:
            size = buffer_bytes(self._slots.buffers[room])
            self._own[room] = empty((size,), np.uint8)
        return self._own[room].address
