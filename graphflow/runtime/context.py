"""A tape made ready to run: its context block, its threads' areas, and the native call."""

from __future__ import annotations

import struct

import numpy as np

from graphflow.codegen.schedule import MAX_LEVELS
from graphflow.codegen.target import chosen_target, host_target
from graphflow.errors import CompileError, GraphFlowError
from graphflow.runtime.executor import (
    Context,
    entry,
    system_address,
    tape_addresses,
    thread_addresses,
)
from graphflow.runtime.storage import Array, address_of, aligned_empty
from graphflow.runtime.tape import COUNTERS, TAKEN, Op, Tape
from graphflow.runtime.threads import pool

_LINE = 8  # words of a cache line


def _lines(words: int) -> int:
    """``words``, rounded up to whole cache lines."""
    return -(-words // _LINE) * _LINE


class TapeContext:
    """What the executor needs to walk ``tape`` on up to ``threads`` threads.

    ``words`` are the words of the context block (:class:`Context`), followed by
    ``slots`` slots; ``entry(words)`` runs the tape on the caller's thread if
    ``threads`` is 1, :meth:`launch` on as many as the budget allows.  Both take the
    context's address, a number of slots and what is to be in them, packed.  One run at
    a time: the program's lock sees to that, or the interpreter's, if the entry is
    ``brief`` and holds it.
    """

    def __init__(self, tape: Tape, slots: int, threads: int, brief: bool = False) -> None:
        self.tape, self.threads = tape, threads
        head, code, moves, size = map(
            _lines,
            (Context.SLOTS_START + slots, tape.code.size, tape.relocations.size, tape.area.size),
        )
        # All in one piece: a small step that finds the caches cold touches few pages.
        memory = aligned_empty((head + code + moves + threads * size,), np.int64)
        memory[:] = 0
        self._block, self._code, self._moves, areas = np.split(
            memory, (head, head + code, head + code + moves)
        )
        self._code[: tape.code.size] = tape.code.ravel()
        self._moves[: tape.relocations.size] = tape.relocations.ravel()
        self._areas = areas.reshape(threads, size)
        self._areas[:, : tape.area.size] = tape.area
        self.address = address_of(self._block)
        self.words: memoryview[int] = self._block.data
        entries = tape_addresses()
        for word, value in (
            (Context.THREADS, 1),
            (Context.GENERATION, 1),
            (Context.CODE, address_of(self._code)),
            (Context.SLOTS, self.address + 8 * Context.SLOTS_START),
            (Context.AREA, address_of(self._areas)),
            (Context.AREA_BYTES, 8 * size),
            (Context.RELOCATIONS, address_of(self._moves)),
            (Context.WALK, entries["tape_walk"]),
            (Context.CLOCK, system_address("clock_gettime")),
        ):
            self.words[word] = value
        self.entry = entry(entries["tape_run"], brief)
        self._machine = chosen_target().triple
        self.again = struct.pack("=qq", self.address, 0)
        """What to launch with when no slot is new."""
        self._epoch = 0
        self._profile: Array | None = None

    def check_machine(self) -> None:
        """Raise :class:`CompileError` if the kernels are for another machine than this one."""
        if not self.words[Context.WALK]:
            raise CompileError(
                f"kernels for {self._machine} cannot run on {host_target().triple}: "
                "GRAPHFLOW_CPU_FEATURES named another machine as the program was made, "
                "which can be looked at only"
            )

    def set_slot(self, slot: int, address: int) -> None:
        """Change a slot that is not rewritten at every call."""
        self.words[Context.SLOTS_START + slot] = address
        self.words[Context.GENERATION] += 1

    def forget_taken(self) -> None:
        """Of no parallel loop any iteration is taken: a step that was under way goes on nowhere."""
        loops = self.tape.code[self.tape.code[:, 0] == Op.NEXT]
        self._areas[0, [cell for cell in loops[:, TAKEN] if cell]] = 0

    def counters(self) -> list[int]:
        """How often the open loops have run, outermost first."""
        counters: list[int] = self._areas[0, COUNTERS : COUNTERS + MAX_LEVELS].tolist()
        return counters

    def launch(self, words: bytes = b"") -> None:
        """Run the tape from its PC on until it ends, fails or wants a host call."""
        words = words or self.again
        if self.threads == 1:
            self.entry(words)
            return
        with pool.lock:
            if self._epoch != pool.epoch:
                self._attach()
            self.entry(words)

    def _attach(self) -> None:
        """Ask the pool for its control block and for threads; its lock is held."""
        words = self.words
        begun = words[Context.PC] != 0
        # A step that was begun goes on with as many threads, for their areas are resolved.
        wanted = words[Context.THREADS] if begun else min(self.threads, pool.budget)
        threads = 1
        if wanted > 1:
            words[Context.CONTROL], threads = pool.attach(wanted)
            addresses = thread_addresses()
            words[Context.WAIT] = addresses["thread_wait"]
            words[Context.BARRIER_ENTRY] = addresses["thread_barrier"]
        if begun and threads < wanted:
            raise GraphFlowError("a step could not go on: the system refused to make threads")
        words[Context.THREADS] = threads
        self._epoch = pool.epoch

    def profile(self, on: bool) -> None:
        """Start timing every call from zero, or stop."""
        if on and not self.words[Context.CLOCK]:
            raise GraphFlowError("this system has no clock_gettime, so kernels cannot be timed")
        self._profile = np.zeros(2 + 2 * self.tape.calls, np.int64) if on else None
        self.words[Context.PROFILE] = 0 if self._profile is None else address_of(self._profile)

    def timings(self) -> list[tuple[float, int]]:
        """Seconds and runs of each call since profiling started."""
        if self._profile is None:
            return []
        return [(int(ns) * 1e-9, int(n)) for ns, n in self._profile[2:].reshape(-1, 2)]
