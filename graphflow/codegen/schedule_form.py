"""Schedules as plain data and back: what the cache and frozen programs keep.

:func:`to_data` gives dictionaries, lists, numbers and strings, with the arrays of constants
beside them; :func:`to_bytes` both in one, for this version of Python, with the steps apart:
they are most of it, and a program whose tape is known runs without them.  Tables come first
(types, kernels with their sources), rows refer to them by number.  What a step is for (IR text,
the user's lines) is left out.  A size of symbolic dimensions is ``{"size": [value, "2*batch"]}``.

Kernels trust the numbers of their calls, so only data from a trusted place may be read back.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphflow.codegen.partition import Rows
from graphflow.codegen.schedule import (
    Address,
    Argument,
    BlockAddress,
    Branch,
    Buffer,
    BufferKind,
    Call,
    FunctionAddress,
    HostCall,
    KernelSource,
    LibraryCall,
    Loop,
    Result,
    Schedule,
    Step,
    Value,
    attempt_of,
)
from graphflow.codegen.sizes import Size
from graphflow.errors import CompileError
from graphflow.ir.dims import SymDim, parse_dim
from graphflow.ir.node import ArrayValue
from graphflow.ir.op import lookup
from graphflow.ir.types import TensorType, dtype_named

Array: TypeAlias = "np.ndarray[Any, Any]"
Row: TypeAlias = "list[Any]"

_KINDS = {kind.value: kind for kind in BufferKind}


def to_data(schedule: Schedule) -> tuple[dict[str, Any], list[Array]]:
    """The schedule as plain data, and the arrays of its constants.

    Raises TypeError for a host operation whose attributes have no form as data, and for what
    a library of a device computes.
    """
    writer = _Writer(schedule.kernels)
    body = {
        "buffers": [writer.buffer(b) for b in schedule.buffers],
        "steps": [writer.step(s) for s in schedule.steps],
        "inputs": list(schedule.inputs),
        "state": list(schedule.state),
        "results": [
            [r.buffer, writer.type(r.type), _number(r.offset), [_number(s) for s in r.strides]]
            for r in schedule.results
        ],
        "committed": list(schedule.committed),
        "failures": list(schedule.failures),
        "offsets": [[k, _number(v)] for k, v in schedule.offsets.items()],
        "bytes": [_number(schedule.arena_bytes), _number(schedule.naive_bytes)],
        "kept": [schedule.stale, list(schedule.watched)],
        "own": [_number(schedule.own_bytes), schedule.threads],
    }
    tables = {
        "types": [
            [dtype, [_number(d) for d in shape]] for dtype, shape in map(_taken, writer.types)
        ],
        "kernels": [[k.name, k.source, k.epilogue] for k in writer.kernels],
    }
    return tables | body, writer.arrays


def from_data(data: Any, arrays: Sequence[Array]) -> Schedule:
    """The schedule that :func:`to_data` took apart; :class:`CompileError` if it is none."""
    return _read(data, lambda reader: arrays)[0]


def to_bytes(schedule: Schedule) -> bytes:
    """:func:`to_data` in one piece, for :func:`from_bytes`."""
    data, arrays = to_data(schedule)
    data["steps"] = marshal.dumps(data["steps"])
    return marshal.dumps((data, [array.tobytes() for array in arrays]))


def from_bytes(payload: bytes) -> Schedule:
    """The schedule that :func:`to_bytes` wrote, in the same version of Python.

    Its steps are read when somebody asks for them.
    """
    data, raw = marshal.loads(payload)
    steps, data["steps"] = data["steps"], ()
    made, reader = _read(data, lambda reader: _arrays(raw, data["buffers"], reader.types))
    return made.put_off(lambda: reader.steps(marshal.loads(steps)), tuple(reader.kernels))


def _read(data: Any, arrays: Callable[[_Reader], Sequence[Array]]) -> tuple[Schedule, _Reader]:
    try:
        reader = _Reader(data)
        reader.arrays = arrays(reader)
        return reader.schedule(data), reader
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CompileError(f"the data are no schedule: {error!r}") from None


def _arrays(
    raw: Sequence[bytes], buffers: Sequence[Row], types: Sequence[TensorType]
) -> list[Array]:
    """The arrays of constants, whose bytes are ``raw``."""
    constants = [types[row[1]] for row in buffers if row[3] >= 0]
    return [
        np.frombuffer(data, type.dtype.numpy).reshape(type.static_shape)
        for data, type in zip(raw, constants, strict=True)
    ]


class _Writer:
    """Fills the tables while rows are written."""

    def __init__(self, kernels: Sequence[KernelSource]) -> None:
        self.types: dict[TensorType, int] = {}
        self.kernels = {kernel: number for number, kernel in enumerate(kernels)}
        self.arrays: list[Array] = []

    def type(self, type: TensorType) -> int:
        return self.types.setdefault(type, len(self.types))

    def buffer(self, buffer: Buffer) -> Row:
        data = -1
        if buffer.kind is BufferKind.CONSTANT:
            data = len(self.arrays)
            value = getattr(buffer.data, "array", buffer.data)
            self.arrays.append(np.asarray(value, buffer.type.dtype.numpy, order="C"))
        return [
            buffer.kind.value, self.type(buffer.type), buffer.name, data, buffer.base,
            _number(buffer.offset), [_number(s) for s in buffer.strides], buffer.dense,
        ]  # fmt: skip

    def steps(self, steps: Sequence[Step]) -> list[Row]:
        return [self.step(step) for step in steps]

    def step(self, step: Step) -> Row:
        touched = [sorted(step.reads), sorted(step.writes)]
        if isinstance(step, Call):
            arguments = [self.argument(a) for a in step.arguments]
            facts = [step.parallel, step.fallible, _number(step.bytes), _number(step.flops)]
            own = [[b, rows.count, rows.bytes] for b, rows in step.partition.items()]
            return ["call", *touched, self.kernels[step.kernel], arguments, *facts, own]
        if isinstance(step, HostCall):
            from graphflow.ir.json_form import write_value

            arrays: dict[str, ArrayValue] = {}
            attrs = {name: write_value(value, arrays) for name, value in step.attrs.items()}
            if arrays:
                raise TypeError(f"an array among the attributes of {step.name}")
            inputs = [[buffer, self.type(type)] for buffer, type in step.inputs]
            outputs = [step.output, list(step.more), [self.type(type) for type in step.parts]]
            return ["host", *touched, step.name, attrs, inputs, *outputs]
        if isinstance(step, Loop):
            test = None if step.test is None else self.argument(step.test)
            parts = [self.steps(step.head), self.steps(step.body)]
            facts = [step.fallible, step.parallel]
            return ["loop", *touched, step.name, _number(step.trips), test, *parts, *facts]
        if isinstance(step, LibraryCall):
            raise TypeError(f"{step.routine.name} is computed by a library of a device")
        parts = [self.steps(step.then), self.steps(step.otherwise)]
        return ["branch", *touched, step.name, self.argument(step.test), *parts, step.fallible]

    def argument(self, argument: Argument) -> Any:
        if isinstance(argument, Address):
            return [argument.buffer, _number(argument.offset)]
        if isinstance(argument, Value):
            return _number(argument.value)
        if isinstance(argument, FunctionAddress):
            return {"kernel": self.kernels[argument.kernel]}
        return {"block": [self.argument(a) for a in argument.arguments]}


def _taken(type: TensorType) -> tuple[str, Sequence[Any]]:
    return type.dtype.short, type.shape


def _number(value: Any) -> Any:
    if isinstance(value, Size):
        return {"size": [int(value), str(value.dim)]}
    return int(value)


def _read_number(value: Any) -> int:
    if value.__class__ is int:
        return int(value)
    number, text = value["size"]
    dim = parse_dim(text)
    if not isinstance(dim, SymDim):
        raise ValueError(f"{text} is no symbolic dimension")
    return Size(number, dim)


class _Reader:
    """Builds records from rows, over the tables of ``data``."""

    def __init__(self, data: Any) -> None:
        self.arrays: Sequence[Array] = ()
        self.types = [
            TensorType(dtype_named(dtype), tuple(map(_read_number, shape)))
            for dtype, shape in data["types"]
        ]
        self.kernels = [KernelSource(*row) for row in data["kernels"]]
        self._addresses: dict[tuple[int, int], Address] = {}
        self._values: dict[int, Value] = {}
        self._sets: dict[tuple[int, ...], frozenset[int]] = {}

    def schedule(self, data: Any) -> Schedule:
        arena, naive = map(_read_number, data["bytes"])
        stale, watched = data.get("kept", (-1, ()))
        own, threads = data.get("own", (0, 1))
        return Schedule(
            buffers=tuple(self.buffer(i, row) for i, row in enumerate(data["buffers"])),
            steps=self.steps(data["steps"]),
            inputs=tuple(data["inputs"]),
            state=tuple(data["state"]),
            results=tuple(
                Result(
                    buffer, self.types[type], _read_number(offset),
                    tuple(map(_read_number, strides)),
                )
                for buffer, type, offset, strides in data["results"]
            ),
            committed=tuple(data["committed"]),
            failures=tuple(data["failures"]),
            offsets={buffer: _read_number(offset) for buffer, offset in data["offsets"]},
            arena_bytes=arena,
            naive_bytes=naive,
            stale=stale,
            watched=tuple(watched),
            own_bytes=_read_number(own),
            threads=threads,
        )  # fmt: skip

    def buffer(self, number: int, row: Row) -> Buffer:
        kind, type, name, data, base, offset, strides, dense = row
        return Buffer(
            number, _KINDS[kind], self.types[type], name,
            None if data < 0 else self.arrays[data], base, _read_number(offset),
            tuple(map(_read_number, strides)), dense,
        )  # fmt: skip

    def steps(self, rows: Sequence[Row]) -> tuple[Step, ...]:
        return tuple(map(self.step, rows))

    def step(self, row: Row) -> Step:
        kind, reads, writes, *rest = row
        make: dict[str, Callable[..., Step]] = {
            "call": self.call, "host": self.host, "loop": self.loop, "branch": self.branch,
        }  # fmt: skip
        return make[kind](self.buffers(reads), self.buffers(writes), *rest)

    def buffers(self, numbers: Sequence[int]) -> frozenset[int]:
        key = tuple(numbers)
        found = self._sets.get(key)
        if found is None:
            found = self._sets[key] = frozenset(key)
        return found

    def call(
        self, reads: frozenset[int], writes: frozenset[int], kernel: int, arguments: Row,
        parallel: bool, fallible: bool, moved: Any, work: Any, own: Sequence[Row] = (),
    ) -> Call:  # fmt: skip
        return Call(
            self.kernels[kernel], tuple(map(self.argument, arguments)), reads, writes,
            parallel, fallible, _read_number(moved), _read_number(work),
            partition={buffer: Rows(count, size) for buffer, count, size in own},
        )  # fmt: skip

    def host(
        self, reads: frozenset[int], writes: frozenset[int], name: str, attrs: Any, inputs: Row,
        output: int, more: Row, parts: Sequence[int] = (),
    ) -> HostCall:  # fmt: skip
        from graphflow.ir.json_form import read_value  # most programs have no such step

        op = lookup(name)
        return HostCall(
            name, op.reference, {k: read_value(v, name) for k, v in attrs.items()},
            tuple((buffer, self.types[type]) for buffer, type in inputs), output, reads, writes,
            more=tuple(more), fills=op.fills, rooms=op.rooms if parts else None,
            parts=tuple(self.types[type] for type in parts), attempt=attempt_of(op, bool(parts)),
        )  # fmt: skip

    def loop(
        self, reads: frozenset[int], writes: frozenset[int], name: str, trips: Any, test: Any,
        head: Row, body: Row, fallible: bool, parallel: bool = False,
    ) -> Loop:  # fmt: skip
        return Loop(
            name, _read_number(trips), self.steps(body), reads, writes, self.steps(head),
            None if test is None else self.address(*test), fallible=fallible, parallel=parallel,
        )  # fmt: skip

    def branch(
        self, reads: frozenset[int], writes: frozenset[int], name: str, test: Any, then: Row,
        otherwise: Row, fallible: bool,
    ) -> Branch:  # fmt: skip
        return Branch(
            name, self.address(*test), self.steps(then), self.steps(otherwise), reads, writes,
            fallible=fallible,
        )  # fmt: skip

    def argument(self, value: Any) -> Argument:
        if value.__class__ is list:
            return self.address(*value)
        if value.__class__ is int:
            found = self._values.get(value)
            if found is None:
                found = self._values[value] = Value(value)
            return found
        if "kernel" in value:
            return FunctionAddress(self.kernels[value["kernel"]])
        if "block" in value:
            return BlockAddress(tuple(map(self.argument, value["block"])))
        return Value(_read_number(value))

    def address(self, buffer: int, offset: Any) -> Address:
        if offset.__class__ is not int:
            return Address(buffer, _read_number(offset))
        found = self._addresses.get((buffer, offset))
        if found is None:
            found = self._addresses[buffer, offset] = Address(buffer, offset)
        return found
