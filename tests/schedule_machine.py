"""A machine that runs schedules in NumPy, so that they can be tested without kernels.

It stands in for lowering: a call's kernel is the body of its group, run by the
interpreter on what lies in memory *now*.  Memory is one byte array a buffer
and one for the arena, filled with rubbish, so a wrong order, offset or alias
gives wrong numbers.  Between barriers, calls run in a random order that the
threads might have run them in.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np

from graphflow.codegen import build_schedule as module
from graphflow.codegen.barriers import barriers, points
from graphflow.codegen.epilogue import Epilogue
from graphflow.codegen.layout import Layout
from graphflow.codegen.schedule import (
    Address,
    Branch,
    BufferKind,
    Call,
    HostCall,
    KernelSource,
    Loop,
    Schedule,
    buffer_bytes,
)
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.records import replace

Array = np.ndarray[Any, Any]


class Machine:
    """Lowering and execution; ``install`` puts it in the place of the real lowering."""

    def __init__(self, parallel: bool = True) -> None:
        self.kernels: dict[
            str, tuple[Graph, Sequence[Layout], Sequence[Layout], Layout | None]
        ] = {}
        self.parallel = parallel

    def install(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(module, "lower_group", self.lower_group)
        monkeypatch.setattr(module, "lower_check", self.lower_check)
        monkeypatch.setattr(module, "lower_epilogue", self.lower_epilogue)
        monkeypatch.setattr(module, "contraction_calls", self.contraction_calls)
        monkeypatch.setattr(module, "adds_onto", lambda a, b, c: False)

    # -- lowering --------------------------------------------------------------------

    def lower_group(
        self, body: Graph, operands: Sequence[Layout], results: Sequence[Layout], context: Any
    ) -> list[Call]:
        fallible = any(n.op.fallible for n in body.nodes)
        if fallible:
            context.failure("index out of range")
            context.error_buffer()
        return [self._call(body, operands, results, None, fallible)]

    def lower_check(
        self, node: Node, positions: Node, layouts: Mapping[Node, Layout], context: Any
    ) -> Call:
        context.failure("index out of range")
        context.error_buffer()
        body = Graph(tuple(layouts), (), name="body")
        return self._call(body, list(layouts.values()), [], None, True)

    def lower_epilogue(
        self, body: Graph, product: Node, tile: Layout, operands: Sequence[Layout],
        results: Sequence[Layout], context: Any,
    ) -> Epilogue:  # fmt: skip
        name = f"epilogue{len(self.kernels)}"
        self.kernels[name] = body, operands, results, tile
        return Epilogue(KernelSource(name, ""), ())

    def contraction_calls(
        self, a: Layout, b: Layout, c: Layout, epilogue: Any, context: Any, onto: bool = False
    ) -> list[Call]:
        assert not onto, "adds_onto says that nothing can be added to"
        if epilogue is not None:
            return [self._call(*self.kernels[epilogue.kernel.name], False)]
        from graphflow.ir.build import NODES, input_node

        inputs = input_node("a", a.type), input_node("b", b.type)
        body = Graph(inputs, (NODES.matmul(*inputs),), name="body")
        return [self._call(body, (a, b), (c,), c, False)]

    def _call(
        self, body: Graph, operands: Sequence[Layout], results: Sequence[Layout],
        tile: Layout | None, fallible: bool,
    ) -> Call:  # fmt: skip
        name = f"kernel{len(self.kernels)}"
        self.kernels[name] = body, operands, results, tile
        written = {r.buffer for r in results} | ({tile.buffer} if tile is not None else set())
        layouts = (*operands, *results, *([] if tile is None else [tile]))
        places = tuple(Address(layout.buffer) for layout in layouts)
        return Call(
            KernelSource(name, ""), places, frozenset(o.buffer for o in operands),
            frozenset(written), self.parallel, fallible,
        )  # fmt: skip

    # -- execution -------------------------------------------------------------------

    def run(
        self, schedule: Schedule, inputs: Sequence[Array], state: Sequence[Array], seed: int = 0
    ) -> tuple[list[Array], list[Array]]:
        """Outputs, and the state after the step."""
        memory = _Memory(schedule)
        for arrays, buffers in ((inputs, schedule.inputs), (state, schedule.state)):
            for array, buffer in zip(arrays, buffers, strict=True):
                if buffer >= 0:
                    memory.whole(buffer)[...] = array
        _Threads(self, schedule, memory, random.Random(seed)).run()
        outputs = [memory.view(r.buffer, r).copy() for r in schedule.results]
        after = [
            memory.whole(b).copy() if b >= 0 else np.array(old)
            for b, old in zip(schedule.state, state, strict=True)
        ]
        return outputs, after

    def execute(self, memory: _Memory, call: Call) -> None:
        """What the kernel was lowered for, over the buffers that the call names."""
        body, operands, results, tile = self.kernels[call.kernel.name]
        places = iter(call.arguments)
        operands, results = (
            [replace(layout, buffer=next(places).buffer) for layout in layouts]
            for layouts in (operands, results)
        )
        tile = replace(tile, buffer=next(places).buffer) if tile is not None else None
        if tile is not None:
            product = next(n for n in body.nodes if n.op.name == "matmul")
            args = [memory.view(o.buffer, o).copy() for o in operands]
            [value] = interpret(Graph(body.inputs, (product,)), args).outputs
            memory.view(tile.buffer, tile)[...] = value
        args = [memory.view(o.buffer, o).copy() for o in operands]
        self._check_in_place(body, args, operands, results)
        values = interpret(body, args).outputs
        for result, value in zip(results, values, strict=True):
            memory.view(result.buffer, result)[...] = value

    def _check_in_place(
        self, body: Graph, args: list[Array], operands: Sequence[Layout], results: Sequence[Layout]
    ) -> None:
        """An operand that a result overwrites must matter to results at its own place only."""
        for number, operand in enumerate(operands):
            for result in results:
                if result.buffer != operand.buffer or _elements(result).isdisjoint(
                    _elements(operand)
                ):
                    continue
                assert result.same_place(operand)
                if args[number].dtype.kind != "f" or not args[number].size:
                    continue
                before = interpret(body, args).outputs
                changed = list(args)
                changed[number] = args[number].copy()
                at = tuple(0 for _ in operand.shape)
                changed[number][at] += 1.0
                for one, other in zip(before, interpret(body, changed).outputs, strict=True):
                    differs = np.argwhere(one != other)
                    elsewhere = [i for i in differs if one.shape != args[number].shape or i.any()]
                    assert not elsewhere, "an in-place operand is read at other places"


def _elements(layout: Layout) -> set[int]:
    """Where in its buffer the elements of ``layout`` lie."""
    places = np.full(layout.shape, layout.offset)
    for axis, step in enumerate(layout.strides):
        shape = [-1 if k == axis else 1 for k in range(places.ndim)]
        places = places + step * np.arange(layout.shape[axis]).reshape(shape)
    return set(places.ravel().tolist())


class _Threads:
    """Runs steps in an order that threads may run them in: between barriers anything
    goes, except that thread 0 runs the calls it runs alone in program order.

    Conditions are read by every thread, each in its own time: what one reads is what
    lies there before the others have come so far, and it must be the same later.
    """

    def __init__(
        self, machine: Machine, schedule: Schedule, memory: _Memory, rng: random.Random
    ) -> None:
        self.machine, self.schedule, self.memory, self.rng = machine, schedule, memory, rng
        self.meet = barriers(schedule)
        assert len(self.meet) == points(schedule.steps)
        self.segment: list[tuple[bool, Any]] = []  # does it run on all threads; what it does

    def run(self) -> None:
        self.steps(self.schedule.steps, 0, ())
        self.flush()

    def flush(self) -> None:
        alone = iter([action for parallel, action in self.segment if not parallel])
        self.rng.shuffle(self.segment)
        for parallel, action in self.segment:
            (action if parallel else next(alone))()
        self.segment.clear()

    def steps(self, steps: Sequence[Any], point: int, counters: tuple[int, ...]) -> int:
        """Run ``steps``, the first at ``point``; returns the point after them."""
        for step in steps:
            if self.meet[point]:
                self.flush()
            point = self.step(step, point + 1, counters)
        return point

    def step(self, step: Any, point: int, counters: tuple[int, ...]) -> int:
        if isinstance(step, Loop):
            return self.loop(step, point, counters)
        if isinstance(step, Branch):
            holds = self.test(step.test, counters)
            middle = point + points(step.then)
            self.steps(*((step.then, point) if holds else (step.otherwise, middle)), counters)
            return middle + points(step.otherwise)
        if isinstance(step, HostCall):
            self.flush()
            self.host(step, counters)
        else:
            memory = self.memory.at(counters)
            self.segment.append((step.parallel, partial(self.machine.execute, memory, step)))
        return point

    def loop(self, loop: Loop, point: int, counters: tuple[int, ...]) -> int:
        middle = point + points(loop.head)
        body = middle + (loop.test is not None)
        for trip in range(min(loop.trips, 1000)):
            here = (*counters, trip)
            self.steps(loop.head, point, here)
            if loop.test is not None:
                if self.meet[middle]:
                    self.flush()
                if not self.test(loop.test, here):
                    break
            self.steps(loop.body, body, here)
        return body + points(loop.body)

    def test(self, address: Address, counters: tuple[int, ...]) -> bool:
        memory = self.memory.at(counters)

        def read() -> bool:
            return bool(memory.flat(address.buffer, np.dtype(np.uint8))[address.offset])

        value = read()

        def read_later() -> None:
            assert read() == value, "threads would take different ways"

        self.segment.append((True, read_later))
        return value

    def host(self, step: HostCall, counters: tuple[int, ...]) -> None:
        memory = self.memory.at(counters)
        arrays = [memory.whole(b).reshape(t.static_shape) for b, t in step.inputs]
        values = step.function(*arrays, **step.attrs)
        values = values if isinstance(values, tuple) else (values,)
        for buffer, value in zip((step.output, *step.more), values, strict=True):
            memory.whole(buffer)[...] = value


class _Memory:
    """Bytes of every buffer, seen from an iteration of the open loops."""

    def __init__(self, schedule: Schedule) -> None:
        arena = np.full(schedule.arena_bytes, 0xCD, np.uint8)
        self.buffers = {b.id: b for b in schedule.buffers}
        self.counters: tuple[int, ...] = ()
        self.bytes: dict[int, Array] = {}
        for buffer in schedule.buffers:
            size = buffer_bytes(buffer)
            if buffer.kind is BufferKind.ARENA:
                start = schedule.offsets.get(buffer.id, 0)
                self.bytes[buffer.id] = arena[start : start + size]
            elif buffer.kind is not BufferKind.WINDOW:
                self.bytes[buffer.id] = np.full(size, 0xCD, np.uint8)
            if buffer.kind is BufferKind.CONSTANT:
                self.whole(buffer.id)[...] = buffer.data

    def at(self, counters: tuple[int, ...]) -> _Memory:
        """The same bytes, with windows where they are then."""
        made = copy(self)
        made.counters = counters
        return made

    def flat(self, buffer: int, dtype: np.dtype[Any]) -> Array:
        """The elements from the start of ``buffer`` on (a window's: to the end of its base)."""
        found = self.buffers[buffer]
        if found.kind is not BufferKind.WINDOW:
            return self.bytes[buffer].view(dtype)
        moves = zip(found.strides, self.counters, strict=False)
        start = found.offset + sum(step * count for step, count in moves)
        assert 0 <= start <= self.bytes[found.base].size
        return self.bytes[found.base][start:].view(dtype)

    def whole(self, buffer: int) -> Array:
        type = self.buffers[buffer].type
        count = int(np.prod(type.static_shape))
        return self.flat(buffer, type.dtype.numpy)[:count].reshape(type.static_shape)

    def view(self, buffer: int, layout: Any) -> Array:
        flat = self.flat(buffer, layout.type.dtype.numpy)
        size = flat.itemsize
        shape = layout.type.static_shape
        reach = layout.offset + sum(max(0, s) * (n - 1) for n, s in zip(shape, layout.strides))
        assert 0 in shape or reach < flat.size, "outside of its buffer"
        return np.lib.stride_tricks.as_strided(
            flat[layout.offset :], shape, [s * size for s in layout.strides]
        )
