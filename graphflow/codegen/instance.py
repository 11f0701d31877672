"""One schedule for all sizes: the same calls and kernels with other numbers.

A schedule made for example sizes holds :class:`~graphflow.codegen.sizes.Size` integers
wherever something depends on a dimension.  :func:`at_sizes` evaluates them and plans the
arena anew; no pass runs and nothing is lowered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphflow.codegen.layout import row_major
from graphflow.codegen.memory import plan_arena
from graphflow.codegen.schedule import (
    Address,
    Argument,
    BlockAddress,
    Branch,
    Buffer,
    HostCall,
    LibraryCall,
    Loop,
    Result,
    Schedule,
    Step,
    Value,
)
from graphflow.codegen.sizes import Size, is_fixed
from graphflow.errors import ShapeError
from graphflow.ir.types import TensorType
from graphflow.records import replace


def at_sizes(schedule: Schedule, sizes: Mapping[str, int]) -> Schedule:
    """``schedule``, made for an example, for other sizes: no lowering, no new kernel."""
    instance = _Instance(sizes)
    buffers = tuple(map(instance.buffer, schedule.buffers))
    steps = tuple(map(instance.step, schedule.steps))
    memory = plan_arena(buffers, steps, schedule.threads)
    return replace(
        schedule,
        buffers=buffers,
        steps=steps,
        results=tuple(map(instance.result, schedule.results)),
        offsets=memory.offsets,
        arena_bytes=memory.arena_bytes,
        naive_bytes=memory.naive_bytes,
        own_bytes=memory.own_bytes,
    )


class _Instance:
    """Evaluates what depends on sizes; everything else stays the same object."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self._known: dict[int, int] = {}  # by identity: hashing takes longer than evaluating

    def number(self, value: int) -> int:
        if not isinstance(value, Size):
            return value
        found = self._known.get(id(value.dim))
        if found is None:
            found = self._known[id(value.dim)] = value.dim.evaluate(self.sizes)
        return found

    def numbers(self, values: Sequence[int]) -> tuple[int, ...]:
        return tuple(map(self.number, values))

    def type(self, type: TensorType) -> TensorType:
        if all(map(is_fixed, type.static_shape)):
            return type
        return TensorType(type.dtype, self.numbers(type.static_shape))

    def buffer(self, buffer: Buffer) -> Buffer:
        type = self.type(buffer.type)
        if any(extent < 0 for extent in type.static_shape):
            given = ", ".join(f"{name} = {size}" for name, size in self.sizes.items())
            raise ShapeError(f"{buffer.type} has a negative extent for {given}")
        if buffer.base >= 0:
            offset, strides = self.number(buffer.offset), self.numbers(buffer.strides)
            return replace(buffer, type=type, offset=offset, strides=strides)
        return buffer if type is buffer.type else replace(buffer, type=type)

    def result(self, result: Result) -> Result:
        type = self.type(result.type)
        if 0 in type.static_shape:  # nothing is shown, from wherever
            return Result(result.buffer, type, 0, row_major(type.static_shape))
        return Result(result.buffer, type, self.number(result.offset), self.numbers(result.strides))

    def step(self, step: Step) -> Step:
        if isinstance(step, Loop):
            head, body = (tuple(map(self.step, part)) for part in step.parts)
            return replace(step, trips=self.number(step.trips), head=head, body=body)
        if isinstance(step, Branch):
            then, otherwise = (tuple(map(self.step, part)) for part in step.parts)
            return replace(step, then=then, otherwise=otherwise)
        if isinstance(step, HostCall):
            attrs = {name: self.attribute(value) for name, value in step.attrs.items()}
            inputs = tuple((buffer, self.type(type)) for buffer, type in step.inputs)
            return replace(step, attrs=attrs, inputs=inputs)
        if isinstance(step, LibraryCall):
            places = tuple(self.address(argument) for argument in step.arguments)
            routine = step.routine.at(self.numbers)
            moved, flops = self.numbers((step.bytes, step.flops))
            return replace(step, routine=routine, arguments=places, bytes=moved, flops=flops)
        moved = self.number(step.bytes)
        flops = self.number(step.flops)
        if is_fixed(step.flops) and not is_fixed(step.bytes):
            flops = step.flops * moved // max(1, int(step.bytes))  # an estimate, as it was
        arguments = tuple(map(self.argument, step.arguments))
        items = self.number(step.items)
        library = step.library
        if not isinstance(library, str):
            library = library.at(self.numbers)
        return replace(
            step, arguments=arguments, bytes=moved, flops=flops, items=items, library=library
        )

    def argument(self, argument: Argument) -> Argument:
        if isinstance(argument, Value):
            number = self.number(argument.value)
            return argument if number is argument.value else Value(number)
        if isinstance(argument, Address):
            return self.address(argument)
        if isinstance(argument, BlockAddress):
            return BlockAddress(tuple(map(self.argument, argument.arguments)))
        return argument

    def address(self, argument: Address) -> Address:
        offset = self.number(argument.offset)
        return argument if offset is argument.offset else replace(argument, offset=offset)

    def attribute(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(self.attribute, value))
        return self.number(value) if isinstance(value, Size) else value
