"""A schedule made ready to run on a device.

Every call becomes a launch with its arrays and integers; control flow is walked on the
host, which waits only where a condition, an operation without a kernel, or the error word
has to be read.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from graphflow.codegen.cuda.simulator import running
from graphflow.codegen.cuda.toolchain import is_simulated
from graphflow.codegen.schedule import (
    Address,
    Branch,
    Buffer,
    BufferKind,
    Call,
    HostCall,
    LibraryCall,
    Loop,
    Schedule,
    Step,
    Value,
    plain_steps,
)
from graphflow.errors import CompileError, GraphFlowError, IndexRangeError, OutOfMemoryError
from graphflow.ir.types import TensorType
from graphflow.records import dataclass
from graphflow.runtime.cache import Loaded
from graphflow.runtime.cuda.current import current, on, require_device
from graphflow.runtime.cuda.driver import Start, direct
from graphflow.runtime.cuda.geometry import geometry
from graphflow.runtime.cuda.kernels import (
    array_words,
    current_capability,
    function_for,
    loaded,
    prepare,
)
from graphflow.runtime.cuda.library import NOTHING, Choice, Products, Wanted, started
from graphflow.runtime.cuda.memory import Block, DeviceArray, HostArray
from graphflow.runtime.cuda.replay import Replay
from graphflow.runtime.cuda.routines import Routines
from graphflow.runtime.folder import default_folder
from graphflow.runtime.references import results_of
from graphflow.tables import quantity

WORD = 8
_INT64 = np.dtype(np.int64)
_BYTE = np.dtype(np.uint8)
_ELEMENTS: dict[str, np.dtype[Any]] = {
    "bool": np.dtype(np.bool_), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64),
    **{f"{s}{n}": np.dtype(f"{t}{n}") for s, t in (("i", "int"), ("u", "uint"))
       for n in (8, 16, 32, 64)},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer lies now, and how a window of it moves in every open loop."""

    block: Block
    offset: int = 0
    strides: tuple[int, ...] = ()

    def at(self, counters: Sequence[int]) -> int:
        """The offset in the iteration that ``counters`` say."""
        return self.offset + sum(s * n for s, n in zip(self.strides, counters))


class CudaProgram:
    """A schedule with its kernels, arena and constants on a device; call :meth:`run`.

    ``scalars`` are positions of 0-d inputs that :meth:`run` takes by value.  ``beside`` is
    a program of the same kernels for other sizes, whose constants and device it shares; else
    the program is for the ``device`` given, or the current one.  ``replay`` tells whether its steps
    may be replayed as CUDA graphs; None, for a program of one operation, that this is no question.
    ``library`` tells which of its products libraries may compute.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        scalars: Collection[int] = (),
        beside: CudaProgram | None = None,
        device: int | None = None,
        replay: bool | None = None,
        library: Wanted = NOTHING,
    ) -> None:
        self.schedule = schedule
        self.device = current() if device is None else device
        if beside is not None:
            self.device = beside.device
        self.buffers: dict[int, Buffer] = {b.id: b for b in schedule.buffers}
        self._scalars = tuple(sorted(scalars))
        self._lock = threading.Lock()
        self._state: list[DeviceArray | None] = [None] * len(schedule.state)
        self._unbound = {n for n, buffer in enumerate(schedule.state) if buffer >= 0}
        self.moves = 0  # how often state has come to lie elsewhere
        self._outputs = [
            (b.id, b.type.static_shape, b.type.dtype.numpy)
            for b in schedule.buffers
            if b.kind is BufferKind.OUTPUT
        ]
        with self._room():
            self._allocate(beside)
        for word, position in enumerate(self._scalars, 1):
            if schedule.inputs[position] >= 0:
                self._places[schedule.inputs[position]] = Place(self._words, WORD * word)
        self._guarded = frozenset(
            {*schedule.committed, *(b for b in schedule.inputs if b >= 0)}
            | {b for b in schedule.state if b >= 0}
        )
        self.products = Products(schedule, self.device, library)
        self.routines = Routines(schedule, self.device)
        if direct() is not None:
            self._compile()
        self.replay = None if replay is None else Replay(self, replay)

    def _compile(self) -> None:
        """Have the kernels compiled, those of products that a library computes aside."""
        calls = [c for c in plain_steps(self.schedule.steps) if isinstance(c, Call) and c.items]
        own = [c.kernel for c in calls if c.kernel.launch and self.products.chosen(c) is None]
        with on(self.device):
            prepare(own, current_capability())

    def _allocate(self, beside: CudaProgram | None) -> None:
        self._arena = Block(self.schedule.arena_bytes, self.device)
        self._words = Block(WORD * (1 + len(self._scalars)), self.device)
        self._words.write(0, np.zeros(1 + len(self._scalars), _INT64))
        self._held = bytes(WORD * len(self._scalars))
        self._places: dict[int, Place] = {}
        self._constants: dict[int, Block] = {} if beside is None else beside._constants
        for buffer in self.schedule.buffers:
            self._place_fixed(buffer)

    @contextmanager
    def _room(self) -> Iterator[None]:
        """While memory is allocated: an error says what the plan needs at most."""
        try:
            yield
        except OutOfMemoryError as error:
            sizes = {BufferKind.CONSTANT: 0, BufferKind.OUTPUT: 0}
            for buffer in self.schedule.buffers:
                if buffer.kind in sizes:
                    elements = prod(buffer.type.static_shape)
                    sizes[buffer.kind] += elements * buffer.type.dtype.itemsize
            constants, results = (quantity(size) for size in sizes.values())
            raise OutOfMemoryError(
                f"the program needs {quantity(self.schedule.arena_bytes)} for temporaries, "
                f"{constants} for constants and {results} for results; {error}. Its state is "
                "unchanged; a smaller batch, or memory_limit=, needs less"
            ) from None

    def _place_fixed(self, buffer: Buffer) -> None:
        kind, number = buffer.kind, buffer.id
        if kind is BufferKind.ARENA:
            self._places[number] = Place(self._arena, self.schedule.offsets.get(number, 0))
        elif kind is BufferKind.ERROR:
            self._places[number] = Place(self._words)
        elif kind is BufferKind.CONSTANT:
            if number not in self._constants:
                data = getattr(buffer.data, "array", buffer.data)
                array = np.asarray(data, dtype=buffer.type.dtype.numpy, order="C")
                self._constants[number] = Block(array.nbytes, self.device)
                self._constants[number].write(0, array)
            self._places[number] = Place(self._constants[number])

    threads = 1
    """On the host."""

    @property
    def loaded(self) -> Loaded:
        """No kernels of the CPU's cache."""
        return Loaded({}, 0, 0, 0.0, {}, (), default_folder())

    @property
    def nbytes(self) -> int:
        """Device bytes of the arena and the constants."""
        return self._arena.nbytes + sum(block.nbytes for block in self._constants.values())

    # --- state and inputs -------------------------------------------------------------

    def bind(self, position: int, array: DeviceArray) -> None:
        """Let state number ``position`` live in ``array``, which is ready for kernels."""
        _check(array)
        self._state[position] = array
        self._unbound.discard(position)
        buffer = self.schedule.state[position]
        if buffer >= 0:
            place = Place(array.block, array.offset)
            if self._places.get(buffer) != place:
                self._places[buffer] = place
                self.moves += 1

    def state_array(self, position: int) -> DeviceArray:
        """Where state number ``position`` lives."""
        array = self._state[position]
        assert array is not None
        return array

    @property
    def is_large(self) -> bool:
        """Whether its outputs are kept for reuse: they are not."""
        return False

    def run(self, inputs: Sequence[DeviceArray | int | float]) -> list[DeviceArray | None]:
        """Run one step and return its results in order.

        ``inputs`` are device arrays ready for kernels, or the values of run-time scalars.  A
        result is fresh memory; it is None when it lies in an input or a state.

        Raises :class:`GraphFlowError` when the step fails; state is then unchanged.
        """
        expected = len(self.schedule.inputs)
        if len(inputs) != expected:
            raise GraphFlowError(f"the program takes {expected} inputs, not {len(inputs)}")
        require_device()
        with self._lock:
            given = self._take(inputs)
            with self._room():
                outputs = self._fresh()
            with running() if is_simulated() else on(self.device):
                recording = self.replay and self.replay.recording()
                if self.replay and recording:
                    self.replay.run(recording, given, outputs)
                else:
                    Walk(self, self.placed(given, outputs)).whole()
            return [self._result(result.buffer, n, outputs)
                    for n, result in enumerate(self.schedule.results)]  # fmt: skip

    def _take(self, inputs: Sequence[Any]) -> dict[int, Place]:
        """Where inputs lie; the values of run-time scalars are copied to the device."""
        if self._unbound:
            number = self.schedule.state[min(self._unbound)]
            name = self.buffers[number].name or f"state {number}"
            raise GraphFlowError(f"the program's state has no values yet ({name})")
        values = np.zeros(len(self._scalars), _INT64)
        for word, position in enumerate(self._scalars):
            buffer = self.schedule.inputs[position]
            if buffer >= 0:
                dtype = self.buffers[buffer].type.dtype.numpy
                values[word : word + 1].view(dtype)[0] = inputs[position]
        if (held := values.tobytes()) != self._held:
            self._words.write(WORD, values)
            self._held = held
        for position, buffer in enumerate(self.schedule.inputs):
            if position not in self._scalars and buffer >= 0:
                _check(inputs[position])
        return {
            buffer: Place(inputs[position].block, inputs[position].offset)
            for position, buffer in enumerate(self.schedule.inputs)
            if position not in self._scalars and buffer >= 0
        }

    def placed(
        self, given: Mapping[int, Place], outputs: Mapping[int, DeviceArray]
    ) -> dict[int, Place]:
        """Where every buffer lies, the windows of loops in the buffers that they look into."""
        places = {**self._places, **given}
        places |= {number: Place(array.block) for number, array in outputs.items()}
        for buffer in self.schedule.buffers:
            if buffer.kind is BufferKind.WINDOW:
                base = places[buffer.base]
                offset = base.offset + buffer.offset
                places[buffer.id] = Place(base.block, offset, buffer.strides)
        return places

    def _fresh(self) -> dict[int, DeviceArray]:
        return {
            number: DeviceArray.empty(shape, dtype, self.device)
            for number, shape, dtype in self._outputs
        }

    def _result(
        self, number: int, position: int, outputs: dict[int, DeviceArray]
    ) -> DeviceArray | None:
        whole = outputs.get(number)
        if whole is None:
            if self.buffers[number].kind not in (BufferKind.INPUT, BufferKind.STATE):
                raise CompileError(f"a result lies in memory of the program, b{number}")
            return None
        result = self.schedule.results[position]
        dtype = result.type.dtype.numpy
        size = dtype.itemsize
        strides = tuple(step * size for step in result.strides)
        return DeviceArray(
            whole.block, result.type.static_shape, dtype, result.offset * size, strides
        )


def _check(array: DeviceArray) -> None:
    """Kernels read vectors: where those cannot begin, a GPU gives up for good."""
    if not array.is_ready:
        raise GraphFlowError(
            f"{array} at {array.block.address + array.offset:#x} is not ready for kernels; "
            "copy it to row-major memory at a multiple of 16 bytes"
        )


class Walk:
    """One walk through the steps of a schedule, whose buffers lie at ``places``."""

    def __init__(self, program: CudaProgram, places: dict[int, Place]) -> None:
        self.program, self.places = program, places
        self.schedule, self.buffers = program.schedule, program.buffers
        self.fallible = False

    def whole(self) -> None:
        """Run everything."""
        self.steps(self.schedule.steps, ())
        self.finish()

    def finish(self) -> None:
        """After the last step: raise what went wrong, if anything did."""
        if self.fallible:
            self.check()

    def steps(self, steps: Sequence[Step], counters: tuple[int, ...]) -> None:
        """Run ``steps`` inside loops that are at ``counters``."""
        for step in steps:
            if self.fallible and not self.program._guarded.isdisjoint(step.writes):
                self.check()
            if isinstance(step, Call):
                self.launch(step, counters)
                self.fallible = self.fallible or step.fallible
            elif isinstance(step, HostCall):
                self.host(step, counters)
            elif isinstance(step, LibraryCall):
                self.by_routine(step, counters)(0)
            elif isinstance(step, Branch):
                self.steps(step.then if self.holds(step.test, counters) else step.otherwise,
                           counters)  # fmt: skip
            else:
                self.loop(step, counters)

    def loop(self, loop: Loop, counters: tuple[int, ...]) -> None:
        """Run a loop to its end."""
        for trip in range(loop.trips):
            inside = (*counters, trip)
            self.steps(loop.head, inside)
            if loop.test is not None and not self.holds(loop.test, inside):
                break
            self.steps(loop.body, inside)

    def holds(self, test: Address, counters: tuple[int, ...]) -> bool:
        """Read a condition, which waits for it."""
        place = self.places[test.buffer]
        return bool(place.block.read(place.at(counters) + test.offset, (1,), _BYTE)[0])

    def launch(self, call: Call, counters: tuple[int, ...]) -> None:
        """Start a kernel, if it has anything to do."""
        if call.items:
            self.start(call, counters)(0)

    def starts(self, steps: Sequence[Step], counters: tuple[int, ...] = ()) -> Iterator[Start]:
        """What starts the kernels of straight steps, whose loops are rolled out."""
        for step in steps:
            if isinstance(step, Loop):
                for trip in range(step.trips):
                    yield from self.starts(step.body, (*counters, trip))
            elif isinstance(step, LibraryCall):
                yield self.by_routine(step, counters)
            elif isinstance(step, Call) and step.items:
                yield self.start(step, counters)

    def start(self, call: Call, counters: tuple[int, ...]) -> Start:
        """What starts a kernel with its arguments on the stream that it is given."""
        launch = call.kernel.launch
        if launch is None:
            raise CompileError(f"kernel {call.kernel.name} is not one for a GPU")
        started = self.otherwise(call, counters)
        if started is not None:
            return started
        grid, block = geometry(launch, call.items)
        calls = direct()
        if calls is not None:
            words: list[int] = []
            for argument in self.arguments(call, launch.elements, counters):
                if isinstance(argument, int):
                    words.append(argument)
                else:
                    memory, at, dtype = argument
                    nbytes = memory.nbytes - at
                    words += array_words(memory.address + at, nbytes, dtype.itemsize)
            return loaded(call.kernel, self.program.device, calls).starter(grid, block, words)
        function = function_for(call.kernel)
        arguments = [
            argument if isinstance(argument, int) else argument[0].view(*argument[1:])
            for argument in self.arguments(call, launch.elements, counters)
        ]

        def start(stream: Any) -> None:
            function[grid, block, stream](*arguments)

        return start

    def arguments(
        self, call: Call, elements: Sequence[str], counters: tuple[int, ...]
    ) -> Iterator[int | tuple[Block, int, np.dtype[Any]]]:
        """The arguments of a kernel: integers, and blocks from a byte on as arrays of a dtype."""
        kinds = iter(elements)
        for argument in call.arguments:
            if isinstance(argument, Address):
                place = self.places[argument.buffer]
                yield place.block, place.at(counters) + argument.offset, _ELEMENTS[next(kinds)]
            elif isinstance(argument, Value):
                yield int(argument.value)
            else:
                raise CompileError(f"kernel {call.kernel.name} calls another by address")

    def otherwise(self, call: Call, counters: tuple[int, ...]) -> Start | None:
        """What starts instead of a kernel what a library does; None if it is the kernel."""
        products = self.program.products
        readers = products.readers(call)
        if readers:
            try:
                for reader in readers:
                    self.by_library(products.chosen(reader), counters)
                return lambda stream: None
            except GraphFlowError:  # then it is made, and they read it
                products.made(call)
        chosen = products.chosen(call)
        if chosen is not None:
            try:
                return self.by_library(chosen, counters)
            except GraphFlowError as error:  # of memory that is not aligned well enough
                products.refused(call, str(error))
        return None

    def by_library(self, chosen: Choice | None, counters: tuple[int, ...]) -> Start:
        """What starts a product by the library that was chosen for it."""
        assert chosen is not None
        addresses = []
        for argument in chosen.places:
            at = 0
            if argument is not None:
                place = self.places[argument.buffer]
                at = place.block.address + place.at(counters) + argument.offset
            addresses.append(at)
        return started(chosen, addresses)

    def by_routine(self, call: LibraryCall, counters: tuple[int, ...]) -> Start:
        """What starts an operation that a library computes as a whole."""
        addresses = []
        for argument in call.arguments:
            place = self.places[argument.buffer]
            addresses.append(place.block.address + place.at(counters) + argument.offset)
        launch = self.program.routines.launch(call)

        def start(stream: Any) -> None:
            launch(addresses, stream)

        return start

    def check(self) -> None:
        """Read the error word, which waits for everything before; raise what it says."""
        self.fallible = False
        words = self.program._words
        code = int(words.read(0, (1,), _INT64)[0])
        if code:
            words.write(0, np.zeros(1, _INT64))
            failures = self.schedule.failures
            known = 0 < code <= len(failures)
            raise IndexRangeError(failures[code - 1] if known else f"failure {code}")

    def host(self, call: HostCall, counters: tuple[int, ...]) -> None:
        """Run an operation that has no kernel by its NumPy reference."""
        operands = [self.read(buffer, type, counters) for buffer, type in call.inputs]
        for output, value in results_of(call, operands):
            place = self.places[output]
            type = self.buffers[output].type
            array = value.astype(type.dtype.numpy, copy=False)
            place.block.write(place.at(counters), array.reshape(type.static_shape))

    def read(self, buffer: int, type: TensorType, counters: tuple[int, ...]) -> HostArray:
        """A buffer as an array on the host."""
        place = self.places[buffer]
        return place.block.read(place.at(counters), type.static_shape, type.dtype.numpy)


__all__ = ["CudaProgram", "Place", "Walk"]
