"""A schedule made ready to run, and its run: a few Python calls a step, however long it is.

A step writes the addresses of inputs and outputs (and the values of run-time
scalars) into the context block with one ``struct`` call, and makes one native
call.  The executor does the rest.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from graphflow import flags
from graphflow.codegen.layout import contiguous_in
from graphflow.codegen.schedule import (
    Buffer,
    BufferKind,
    HostCall,
    Result,
    Schedule,
    plain_steps,
)
from graphflow.errors import CompileError, GraphFlowError, IndexRangeError
from graphflow.ir.types import TensorType
from graphflow.runtime.arena import ProgramMemory, array_at
from graphflow.runtime.cache import Loaded, load
from graphflow.runtime.context import TapeContext
from graphflow.runtime.executor import Context
from graphflow.runtime.fork import renew_after_fork
from graphflow.runtime.kept import Holder
from graphflow.runtime.preparation import Preparation, companions
from graphflow.runtime.references import results_of
from graphflow.runtime.resident import Reserve
from graphflow.runtime.rooms import Rooms
from graphflow.runtime.slots import Slots
from graphflow.runtime.storage import COUNTS_ARE_EXACT, Array, Blocks, OutputPool, Storage
from graphflow.runtime.tape import Op
from graphflow.runtime.threads import pool
from graphflow.runtime.walk import Walk, walk_of

_KEPT_ARRAYS = 256
"""Arrays of operands of host calls that are kept, each at one of the addresses it had."""

_STATUS, _SLOTS = int(Context.STATUS), int(Context.SLOTS_START)  # enums are slow to look up


class Turns:
    """Programs that share memory run one at a time: the lock, who holds it during host calls,
    and the memory of the largest."""

    __slots__ = ("__weakref__", "lock", "memory", "owner")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner = 0
        self.memory: ProgramMemory | None = None
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A fresh lock in a forked child: the parent's may have been held by another thread."""
        self.lock = threading.Lock()


class LoadedProgram:
    """A schedule with its kernels, memory and tape; call :meth:`run`.

    ``scalars`` are positions of 0-d inputs that :meth:`run` takes by value (a
    learning rate as a float) instead of by address.  ``threads`` is the largest
    number of threads, the one its kernels were lowered for; by default the budget of
    :func:`graphflow.runtime.threads.get_num_threads`.  ``beside`` is a program of
    the same kernels for other sizes: they share kernels and memory, and take turns.
    ``alone`` says that no program will be beside this one, ``prepared`` is what was made ready
    while it was scheduled, ``known`` the walk through the schedule if there is one already.

    A program that is ``brief`` (:attr:`is_brief`) holds the interpreter's lock while it
    runs, so it needs no other.

    State must be bound (:meth:`bind`) before the first run.  Several Python
    threads may call one program: they take turns.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        scalars: Collection[int] = (),
        threads: int | None = None,
        beside: LoadedProgram | None = None,
        alone: bool = False,
        prepared: Preparation | None = None,
        known: Walk | None = None,
    ) -> None:
        self.schedule = schedule
        reserve = batch = None
        if prepared is not None:
            reserve, batch = prepared.reserve, prepared.batch
            reserve.settle(schedule.arena_bytes)
        elif beside is None:  # the size is known: touched while kernels load
            reserve = Reserve(schedule.arena_bytes, exact=True)
        self.loaded: Loaded = (
            load(schedule.kernels, companions, batch) if beside is None else beside.loaded
        )
        self._turns: Turns = Turns() if beside is None else beside._turns
        self.memory = self._turns.memory = ProgramMemory(schedule, self._turns.memory, reserve)
        self._slots = Slots(schedule, frozenset(scalars))
        most = max(1, threads or pool.budget)
        if known is None or not known.fits(self._slots.scalars, most):
            known = walk_of(schedule, self._slots, most)
        self.walk = known
        self.threads = 1 if known.serial else most
        addresses = self.loaded.addresses
        self.tape = known.tape.linked([addresses[kernel.name] for kernel in schedule.kernels])
        self._outputs = [OutputPool(b.type.static_shape, b.type.dtype.numpy)
                         for b in self._slots.outputs]  # fmt: skip
        self.is_large = any(output.is_large for output in self._outputs)
        self._results = _result_plan(schedule, self._slots.outputs)
        self._state: list[Holder | None] = [None] * len(schedule.state)
        self._watched: list[Holder] = []
        self._missing = sum(buffer >= 0 for buffer in schedule.state)
        self._plain = flags.DISABLE_JIT.value
        steps = plain_steps(schedule.steps) if known.hosts else ()
        self._hosts = [step for step in steps if isinstance(step, HostCall)]
        self._arrays: dict[tuple[int, int], tuple[TensorType, Array]] = {}
        self.is_brief = alone and self._is_brief()
        self._context = TapeContext(self.tape, self._slots.count, self.threads, self.is_brief)
        for slot, address in self._slots.fixed(self._context.address, self.memory).items():
            self._context.set_slot(slot, address)
        self._rooms = Rooms(self._hosts, self._slots, self._context.words)
        self._prepare_calls()

    def _prepare_calls(self) -> None:
        """What :meth:`run` needs, as attributes."""
        self._words = self._context.words
        form = self._slots.format
        self.pack = struct.Struct(f"@qq{form[1:]}").pack
        self.head = (self._context.address, self._slots.changing)
        """What is packed before inputs and outputs: see ``tape_run``."""
        self.native, self._launch = self._context.entry, self._context.launch
        self.takes: list[Callable[[], Storage]] = [output.take for output in self._outputs]
        renew_after_fork(self)

    def after_fork(self) -> None:
        """No step is under way in a forked child (its lock is the business of the turns)."""
        if self._turns.owner != threading.get_ident():
            self._words[Context.PC] = 0
            self._context.forget_taken()

    def release_outputs(self) -> None:
        """Let go of large outputs that nobody holds: another size is being run now."""
        with self._turns.lock:
            for output in self._outputs:
                output.release()

    def draw_outputs_from(self, blocks: Blocks) -> None:
        """Make outputs in memory of ``blocks`` from now on, instead of the program's own."""
        with self._turns.lock:
            self._outputs.clear()
            self.takes[:] = [
                partial(blocks.take, b.type.static_shape, b.type.dtype.numpy)
                for b in self._slots.outputs
            ]

    # --- state ------------------------------------------------------------------

    def bind(self, position: int, holder: Holder) -> None:
        """Let state number ``position`` live in ``holder``'s memory from the next run on.

        The memory must be row-major; ``holder`` is kept alive.  Call this again
        whenever a state's memory is replaced.
        """
        with self._turns.lock:
            buffer = self.schedule.state[position]
            if self._state[position] is None and buffer >= 0:
                self._missing -= 1
            self._state[position] = holder
            if buffer in self.schedule.watched:
                state = dict(zip(self.schedule.state, self._state, strict=True))
                watched = map(state.get, self.schedule.watched)
                self._watched = [found for found in watched if found is not None]
            if buffer >= 0:
                self._context.set_slot(self._slots.state + position, holder.address)

    def bind_all(self, holders: Sequence[Holder]) -> None:
        """:meth:`bind` for every state in order."""
        for position, holder in enumerate(holders):
            if self._state[position] is not holder:
                self.bind(position, holder)

    # --- running ----------------------------------------------------------------

    def run(self, inputs: Sequence[int | float]) -> Sequence[Storage | None]:
        """Run one step and return its results in order.

        ``inputs`` has the address of every graph input (row-major memory that
        the caller keeps alive during the call), or the value of a run-time scalar.
        A result is fresh memory; it is None when it lies in an input or a
        state, which the caller holds (``schedule.results`` says how).

        Raises :class:`GraphFlowError` when the step fails; state is then unchanged.
        """
        return self.launcher()(inputs)

    def launcher(self) -> Callable[[Sequence[int | float]], Sequence[Storage | None]]:
        """:meth:`run` as a closure with everything at hand.

        What a step touches in Python is most of its time when the caches are cold:
        see :mod:`graphflow.quick`, which keeps the closure for the next calls.
        """
        self._context.check_machine()
        takes, head, pack, words = self.takes, self.head, self.pack, self._words
        start, plain = (self._launch if self.threads > 1 else self.native), self._plain
        simple, turns = self._results is None, self._turns
        kept = self.memory.kept if self.schedule.stale >= 0 else None
        prepare = self._preparing()

        def launch(inputs: Sequence[int | float]) -> Sequence[Storage | None]:
            if self._missing:
                raise GraphFlowError(self._unbound())
            if turns.owner:
                self._refuse_itself()
            with turns.lock:  # Ctrl-C cannot come between an acquire() and its try
                try:
                    outputs: list[Storage] = []
                    values = [*head, *inputs]
                    for take in takes:
                        storage = take()
                        outputs.append(storage)
                        values.append(storage.address)
                    try:
                        packed = pack(*values)
                    except (struct.error, OverflowError) as error:
                        packed = self._pack_again(inputs, values, error)
                    if prepare is not None:
                        prepare()
                    start(packed)
                    if words[_STATUS] or plain:
                        self._resolve(outputs)
                    if kept is not None:
                        kept.done()
                    return outputs if simple else self._arrange(outputs)
                except BaseException:  # Ctrl-C may come after any line: never go on from there
                    words[Context.PC] = 0
                    raise

        return launch

    def _preparing(self) -> Callable[[], None] | None:
        """What is to be done before each run, if anything."""
        kept = self.memory.kept if self.schedule.stale >= 0 else None
        settle = self._rooms.settle if self._slots.rooms else None
        if kept is None:
            return settle

        def prepare() -> None:
            kept.look(self._watched)
            if settle is not None:
                settle()

        return prepare

    def _is_brief(self) -> bool:
        """Whether a run is over before others would notice, and can neither fail nor stop."""
        certain = not (self.schedule.failures or self._hosts or self._plain)
        short = self.threads == 1 and self.walk.is_short
        return (
            certain and short and self.walk.straight and self._results is None and COUNTS_ARE_EXACT
        )

    def _refuse_itself(self) -> None:
        """Raise if the program is called from inside one of its own host calls."""
        if self._turns.owner == threading.get_ident():
            raise GraphFlowError(
                "a compiled program was called from inside one of its own host operations"
            )

    def _raise_plain_failure(self) -> None:
        """What went wrong in a kernel that ran as plain Python."""
        if self._plain:
            from graphflow.codegen.plain import raise_failure

            raise_failure()

    def _resolve(self, outputs: list[Storage]) -> None:
        """Run host calls and go on after them; raise if the step failed."""
        words = self._words
        try:
            self._raise_plain_failure()
            while words[Context.STATUS] == Op.HOST:
                self._turns.owner = threading.get_ident()
                self._call_host(self._hosts[words[Context.DETAIL]])
                self._launch()
                self._raise_plain_failure()
        finally:
            self._turns.owner = 0
        if words[Context.STATUS] == Op.CHECK:
            code = words[Context.DETAIL]
            failures = self.schedule.failures
            message = failures[code - 1] if 0 < code <= len(failures) else f"failure {code}"
            raise IndexRangeError(message)  # the only failures kernels report

    def _call_host(self, call: HostCall) -> None:
        """Run an operation that has no kernel by its NumPy reference."""
        operands = [self._array(buffer, type) for buffer, type in call.inputs]
        into = self._buffer(call.output) if call.fills else None
        for output, value in results_of(call, operands, into):
            self._store(call, output, value)

    def _store(self, call: HostCall, output: int, value: Array) -> None:
        """Put a result of a host call into its buffer."""
        buffer = self._slots.buffers[output]
        result = self._buffer(output)
        if value.shape != result.shape or value.dtype != result.dtype:
            raise GraphFlowError(
                f"{call.name} made {value.dtype}{list(value.shape)} where its type is {buffer.type}"
            )
        result[...] = value

    def _buffer(self, buffer: int) -> Array:
        return self._array(buffer, self._slots.buffers[buffer].type)

    def _array(self, buffer: int, type: TensorType) -> Array:
        place = self._slots.places[buffer]
        address = self._words[_SLOTS + place.slot] + place.offset
        if place.strides:
            address += sum(step * n for step, n in zip(place.strides, self._context.counters()))
        known = self._arrays.get((buffer, address))  # caches are cold here: making one is 15 µs
        if known is None or known[0] is not type:
            if len(self._arrays) >= _KEPT_ARRAYS:
                self._arrays.clear()
            known = self._arrays[buffer, address] = type, array_at(address, type)
        return known[1]

    def _arrange(self, outputs: list[Storage]) -> list[Storage | None]:
        """Results out of output buffers, where they are not simply the same."""
        assert self._results is not None
        arranged: list[Storage | None] = []
        for position, result in self._results:
            whole = outputs[position] if position >= 0 else None
            arranged.append(whole if whole is None or result is None else _view(whole, result))
        return arranged

    def _pack_again(
        self, inputs: Sequence[int | float], words: list[int | float], error: Exception
    ) -> bytes:
        """Explain what could not be packed; floats beyond float32 become infinite."""
        expected = len(self.schedule.inputs)
        if len(inputs) != expected:
            raise GraphFlowError(f"the program takes {expected} inputs, not {len(inputs)}")
        if isinstance(error, struct.error):
            raise GraphFlowError(f"an input is no address or number: {error}") from error
        with np.errstate(over="ignore"):
            rounded = [float(np.float32(x)) if isinstance(x, float) else x for x in words]
        return self.pack(*rounded)

    def _unbound(self) -> str:
        names = [
            self._slots.buffers[buffer].name or f"state {position}"
            for position, (buffer, holder) in enumerate(zip(self.schedule.state, self._state))
            if holder is None and buffer >= 0
        ]
        return f"the program's state has no values yet ({', '.join(names)}); load or bind it first"

    # --- timing -----------------------------------------------------------------

    def profile(self, on: bool = True) -> None:
        """Start timing every call from zero, or stop."""
        with self._turns.lock:
            self._context.profile(on)

    def timings(self) -> list[tuple[float, int]]:
        """Seconds and runs of each kernel call since :meth:`profile`, in schedule order.

        Times are thread 0's, up to the next call: waiting for slower threads is
        part of the call that made it wait.
        """
        return self._context.timings()


def _view(storage: Storage, result: Result) -> Storage:
    """A result that shows part of an output buffer, or all of it in another order."""
    dtype = result.type.dtype.numpy
    size = dtype.itemsize
    offset = result.offset * size
    strides = tuple(stride * size for stride in result.strides)
    array = np.ndarray(result.type.static_shape, dtype, storage.array, offset, strides)
    return Storage.view(array, storage.address + offset)


def copied_out(result: Result, base: Array | float) -> Array:
    """A result that lies in ``base``, which is row-major or a number, in memory of its own."""
    dtype = result.type.dtype.numpy  # not the base's where a view shows parts of numbers
    size = dtype.itemsize
    strides = [s * size for s in result.strides]
    shape, offset = result.type.static_shape, result.offset * size
    return np.array(np.ndarray(shape, dtype, np.ravel(base), offset, strides))


def aliased_results(schedule: Schedule) -> dict[int, tuple[Result, str, int]]:
    """Results that lie in an input or a state: by position, which, and its number."""
    found = {}
    for position, result in enumerate(schedule.results):
        for kind, buffers in (("input", schedule.inputs), ("state", schedule.state)):
            if result.buffer in buffers:
                found[position] = (result, kind, buffers.index(result.buffer))
    return found


def _result_plan(
    schedule: Schedule, outputs: Sequence[Buffer]
) -> list[tuple[int, Result | None]] | None:
    """For each result its output's position and its view of it; None if nothing is to be done."""
    kinds = {buffer.id: buffer for buffer in schedule.buffers}
    position = {buffer.id: number for number, buffer in enumerate(outputs)}
    plan: list[tuple[int, Result | None]] = []
    for result in schedule.results:
        buffer = kinds[result.buffer]
        if buffer.kind in (BufferKind.INPUT, BufferKind.STATE):
            plan.append((-1, None))
        elif buffer.kind is not BufferKind.OUTPUT:
            raise CompileError(f"a result lies in {buffer.kind.value} memory, b{buffer.id}")
        else:
            whole = (
                result.type == buffer.type
                and result.offset == 0
                and contiguous_in(buffer.type.static_shape, result.strides)
            )
            plan.append((position[buffer.id], None if whole else result))
    simple = [(number, None) for number in range(len(outputs))]
    return None if plan == simple else plan
