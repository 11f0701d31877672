"""Rows that threads have for themselves, and the meetings that these make needless."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from captured import program_of, training

import graphflow as gf
from graphflow import nn
from graphflow.codegen import sharing
from graphflow.codegen.barriers import barriers, points
from graphflow.codegen.partition import Rows, certain, rows_of, together
from graphflow.codegen.plain import share
from graphflow.codegen.schedule import (
    Address,
    Argument,
    Buffer,
    BufferKind,
    Call,
    FunctionAddress,
    KernelSource,
    Loop,
    Schedule,
    Step,
    Value,
    buffer_bytes,
    plain_steps,
)
from graphflow.codegen.schedule_form import from_data, to_data
from graphflow.ir.types import TensorType, float32
from graphflow.records import replace
from graphflow.runtime.cache import load

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def scheduled(function: Callable[..., Any], *args: Any, threads: int = 2) -> Schedule:
    """The schedule of a function for so many threads."""
    return program_of(function, *args, threads=threads).schedule


def trained(model: nn.Module) -> Callable[[Any], Any]:
    """A step of Adam."""
    return training(model, gf.optim.Adam(model.parameters()))


def lstm() -> Schedule:
    gf.manual_seed(0)
    return scheduled(trained(nn.LSTM(24, 40)), gf.randn(9, 32, 24))


def small_lstm() -> Schedule:
    """Its copies alone would be left to one thread."""
    gf.manual_seed(0)
    return scheduled(trained(nn.LSTM(24, 56)), gf.randn(9, 20, 24))


def gru() -> Schedule:
    gf.manual_seed(1)
    return scheduled(trained(nn.GRU(24, 72, batch_first=True)), gf.randn(37, 6, 24), threads=3)


def perceptron() -> Schedule:
    gf.manual_seed(2)
    model = nn.Sequential(nn.Linear(200, 96), nn.LayerNorm(96), nn.GELU(), nn.Linear(96, 64))
    return scheduled(trained(model), gf.randn(100, 200))


def rows_and_maps() -> Schedule:
    def several(x: Any, y: Any) -> Any:
        shown = (x * y).softmax(-1)
        return shown, (shown + x.t().contiguous().t()).cumsum(0), x[3:, 8:40].exp() @ y[8:40]

    return scheduled(several, gf.randn(300, 120), gf.randn(300, 120))


MODELS = [lstm, small_lstm, gru, perceptron, rows_and_maps]


# --- what is claimed ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(300))
def test_rows_are_those_of_one_iteration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, step, first = (int(rng.integers(lo, hi)) for lo, hi in ((1, 6), (-3, 30), (-2, 12)))
    others = [(int(rng.integers(1, 4)), int(rng.integers(-4, 9))) for _ in range(rng.integers(3))]
    found = rows_of(count, step, first, others, 4)
    touched = [
        {first + i * step + sum(k * s for k, (_, s) in zip(at, others))
         for at in product(*(range(extent) for extent, _ in others))}
        for i in range(count)
    ]  # fmt: skip
    own = all(t <= set(range(i * step, (i + 1) * step)) for i, t in enumerate(touched))
    assert found is None or (own and found == Rows(count, 4 * step))
    assert found is not None or not own or step <= 0


def test_accesses_have_to_agree() -> None:
    two, three = Rows(2, 8), Rows(3, 8)
    found = together({1: two, 2: two, 3: None}, {1: two, 2: three, 3: two, 4: three})
    assert found == {1: two, 2: None, 3: None, 4: three}
    assert certain(found) == {1: two, 4: three}


class _Place:
    """Memory of a schedule's buffers, each by itself, and of one kernel's arguments."""

    def __init__(self, schedule: Schedule) -> None:
        self.buffers = schedule.buffers
        self.addresses = load(schedule.kernels).addresses
        rng = np.random.default_rng(0)
        self.bytes: dict[int, Bytes] = {}
        for b in schedule.buffers:
            if b.kind is BufferKind.WINDOW:
                continue
            size = buffer_bytes(b)
            if b.type.dtype.is_floating_point:
                words = rng.standard_normal(size // b.type.dtype.itemsize + 64)
                self.bytes[b.id] = words.astype(b.type.dtype.numpy).view(np.uint8)
            else:
                self.bytes[b.id] = np.zeros(size + 64, np.uint8)
        self._blocks: list[Any] = []

    def part(self, buffer: int) -> Bytes:
        """Memory of a buffer, from where it begins on."""
        b = self.buffers[buffer]
        return self.bytes[buffer] if b.base < 0 else self.part(b.base)[b.offset :]

    def words(self, arguments: Sequence[Argument]) -> int:
        """The address of an argument block."""
        block = np.zeros(len(arguments), np.int64)
        self._blocks.append(block)
        for i, argument in enumerate(arguments):
            if isinstance(argument, Address):
                block[i] = self.part(argument.buffer).ctypes.data + argument.offset
            elif isinstance(argument, Value):
                block[i] = argument.value
            elif isinstance(argument, FunctionAddress):
                block[i] = self.addresses[argument.kernel.name]
            else:
                block[i] = self.words(argument.arguments)
        return int(block.ctypes.data)

    def run(self, call: Call, thread: int, threads: int) -> None:
        """The part of one thread."""
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        kernel(self.addresses[call.kernel.name])(self.words(call.arguments), thread, threads)


def _own(rows: Rows, size: int, thread: int, threads: int) -> slice:
    begin, end = share(rows.count, thread, threads) if rows.count else (thread, thread + 1)
    return slice(begin * rows.bytes, min(size, end * rows.bytes))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("threads", [2, 3])
def test_kernels_keep_to_the_rows_they_say(model: Callable[[], Schedule], threads: int) -> None:
    """A thread writes to its rows only, and what lies in other rows makes no difference to it."""
    schedule = model()
    place = _Place(schedule)
    start = {number: held.copy() for number, held in place.bytes.items()}
    seen = 0
    calls = [s for s in plain_steps(schedule.steps) if isinstance(s, Call) and s.parallel]
    for call, thread in product(calls, range(threads)):
        if threads > schedule.threads or not call.partition:
            continue
        results = []
        for spoilt in (False, True):
            for number, held in start.items():
                place.bytes[number][:] = held
            for number, rows in call.partition.items():
                part, size = place.part(number), buffer_bytes(schedule.buffers[number])
                if spoilt:
                    kept = part[_own(rows, size, thread, threads)].copy()
                    part[:size] = 0x7F  # large numbers, whatever the type
                    part[_own(rows, size, thread, threads)] = kept
            before = {number: held.copy() for number, held in place.bytes.items()}
            place.run(call, thread, threads)
            for number, rows in call.partition.items():
                own = _own(rows, buffer_bytes(schedule.buffers[number]), thread, threads)
                now = place.part(number).copy()
                results.append(now[own].copy())
                root = sharing._root(number, schedule.buffers)
                changed = np.flatnonzero(place.bytes[root] != before[root])
                shift = place.part(number).ctypes.data - place.bytes[root].ctypes.data
                others = [
                    r
                    for b, r in call.partition.items()
                    if sharing._root(b, schedule.buffers) == root
                ]
                if len(others) == 1:
                    inside = (changed >= shift + own.start) & (changed < shift + own.stop)
                    assert inside.all(), (call.kernel.name, number, rows)
                seen += 1
        half = len(results) // 2
        for one, other in zip(results[:half], results[half:], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=call.kernel.name)
    assert seen or threads > schedule.threads


# --- who waits for whom ---------------------------------------------------------------


class _Ahead:
    """Goes through a schedule's steps one iteration after the other, and looks at every pair of
    steps between two meetings for bytes that two threads would touch at once."""

    def __init__(self, schedule: Schedule, threads: int) -> None:
        self.schedule, self.threads = schedule, threads
        self.met = barriers(schedule)
        self.now: list[tuple[str, list[dict[bool, list[tuple[int, int, int]]]]]] = []
        self.meetings = 0

    def walk(self, steps: Sequence[Step], point: int, counters: tuple[int, ...] = ()) -> int:
        for step in steps:
            if self.met[point]:
                self.now.clear()
                self.meetings += 1
            point += 1
            if isinstance(step, Loop):
                assert not step.parallel and step.test is None and not step.head
                for trip in range(step.trips):
                    self.walk(step.body, point, (*counters, trip))
                point += points(step.body)
            else:
                assert isinstance(step, Call)
                self.look(step, counters)
        return point

    def look(self, call: Call, counters: tuple[int, ...]) -> None:
        touched = [self.touched(call, thread, counters) for thread in range(self.threads)]
        for name, earlier in self.now:
            for thread, other in product(range(self.threads), repeat=2):
                if thread == other:
                    continue
                for one, two in ((True, True), (True, False), (False, True)):
                    pairs = product(earlier[thread][one], touched[other][two])
                    assert not any(_share(a, b) for a, b in pairs), (name, call.kernel.name)
        self.now.append((call.kernel.name, touched))

    def touched(
        self, call: Call, thread: int, counters: tuple[int, ...]
    ) -> dict[bool, list[tuple[int, int, int]]]:
        """Region, first byte and last but one of what a thread reads (False) and writes (True)."""
        found: dict[bool, list[tuple[int, int, int]]] = {False: [], True: []}
        for writes, buffers in ((False, call.reads), (True, call.writes)):
            for number in buffers if call.parallel or not thread else ():
                region, start, size = self.place(self.schedule.buffers[number], counters)
                rows = call.partition.get(number) if call.parallel else None
                part = slice(0, size) if rows is None else _own(rows, size, thread, self.threads)
                found[writes].append((region, start + part.start, start + part.stop))
        return found

    def place(self, buffer: Buffer, counters: tuple[int, ...]) -> tuple[int, int, int]:
        size = max(1, buffer_bytes(buffer))
        if buffer.kind is BufferKind.ARENA:
            return -1, self.schedule.offsets.get(buffer.id, 0), size
        if buffer.kind is not BufferKind.WINDOW:
            return buffer.id, 0, size
        region, start, whole = self.place(self.schedule.buffers[buffer.base], counters)
        if not buffer.dense:
            return region, start, whole
        moved = sum(step * n for step, n in zip(buffer.strides, counters))
        return region, start + buffer.offset + moved, size


def _share(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_between_meetings_touch_no_byte_at_once(
    model: Callable[[], Schedule], threads: int
) -> None:
    schedule = model()
    _Ahead(schedule, threads).walk(schedule.steps, 0)


def _loops(steps: Sequence[Step], point: int = 0) -> Iterator[tuple[Loop, int]]:
    for step in steps:
        if isinstance(step, Loop):
            yield step, point
        point += points([step])


@pytest.mark.parametrize("model", [lstm, small_lstm])
def test_threads_do_not_meet_within_a_recurrent_layer(model: Callable[[], Schedule]) -> None:
    schedule = model()
    met = barriers(schedule)
    loops = list(_loops(schedule.steps))
    assert len(loops) >= 2  # forward and backward
    for loop, point in loops:
        assert not any(met[point + 1 : point + points([loop])])


def test_the_same_from_data() -> None:
    schedule = lstm()
    assert barriers(from_data(*to_data(schedule))) == barriers(schedule)


def test_rows_cost_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """However products are shared, sums are added in the same order."""

    def results(threads: int) -> list[Any]:
        gf.manual_seed(3)
        held = gf.get_num_threads()
        gf.set_num_threads(threads)
        try:
            layer = nn.LSTM(300, 400)
            step = gf.compile(trained(layer))
            x = gf.randn(3, 31, 300)
            losses = [step(x).numpy() for _ in range(2)]
        finally:
            gf.set_num_threads(held)
        return [*losses, *(p.detach().numpy() for p in layer.parameters())]

    first = results(2)
    for others in (results(1), results(3)):
        for one, other in zip(first, others, strict=True):
            np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(sharing, "MEETING", -1.0)
    for one, other in zip(first, results(2), strict=True):
        np.testing.assert_array_equal(one, other)


# --- schedules made up ----------------------------------------------------------------


def _made_up(rng: np.random.Generator) -> Schedule:
    """Calls in loops, over windows that move by whole rows, by parts of them, or not at all."""
    rows, width, trips = int(rng.integers(1, 6)), 4 * int(rng.integers(1, 4)), int(rng.integers(4))
    size = rows * width
    long = TensorType(float32, (size * 8 // 4,))
    buffers = [Buffer(i, BufferKind.ARENA, long) for i in range(2)]
    buffers.append(Buffer(2, BufferKind.STATE, long))
    window = TensorType(float32, (size // 4,))
    for base in range(3):
        for _ in range(2):
            move = int(rng.choice([0, size, -size, width, 4, size + width]))
            start = int(rng.choice([0, size, 3 * size, width]))
            start += max(0, -move * max(0, trips - 1))
            kind, number = BufferKind.WINDOW, len(buffers)
            buffers.append(Buffer(number, kind, window, base=base, offset=start, strides=(move,)))

    def call(inside: bool) -> Call:
        count = len(buffers) if inside else 3
        chosen = [frozenset(rng.integers(0, count, rng.integers(1, 3)).tolist()) for _ in "rw"]
        alike = Rows(rows, width) if rng.random() < 0.8 else Rows(width, rows)
        own = {b: alike for b in frozenset.union(*chosen) if rng.random() < 0.8}
        return Call(KernelSource("k", ""), (), *chosen, bool(rng.random() < 0.9), partition=own)

    body = tuple(call(True) for _ in range(rng.integers(1, 4)))
    touched = [frozenset[int]().union(*(getattr(c, n) for c in body)) for n in ("reads", "writes")]
    loop = Loop("loop", trips, body, *touched)
    steps = (call(False), loop, call(False))
    overlap = int(rng.choice([0, 4, size * 8 - 4]))
    return Schedule(
        tuple(buffers), steps, (), (2,), (), (), offsets={0: 0, 1: size * 8 - overlap},
        arena_bytes=2 * size * 8, naive_bytes=2 * size * 8, threads=2,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(400))
def test_made_up_schedules_meet_where_they_must(seed: int) -> None:
    schedule = _made_up(np.random.default_rng(seed))
    for threads in (2, 3):
        _Ahead(schedule, threads).walk(schedule.steps, 0)


def test_made_up_schedules_would_go_wrong_with_fewer_meetings() -> None:
    """Of meetings that are left out some matter: the check above looks at something."""
    found = 0
    for seed in range(40):
        schedule = _made_up(np.random.default_rng(seed))
        walk = _Ahead(schedule, 2)
        for point in np.flatnonzero(walk.met):
            fewer = _Ahead(schedule, 2)
            fewer.met = tuple(m and i != point for i, m in enumerate(walk.met))
            try:
                fewer.walk(schedule.steps, 0)
            except AssertionError:
                found += 1
    assert found > 20


def test_rows_cut_otherwise_are_waited_for() -> None:
    steps = []
    for rows in (Rows(8, 4), Rows(4, 8), Rows(4, 8)):
        own = {0: rows}
        steps.append(
            Call(KernelSource("k", ""), (), frozenset(), frozenset({0}), True, partition=own)
        )
    buffer = Buffer(0, BufferKind.STATE, TensorType(float32, (8,)))
    schedule = Schedule(
        (buffer,), tuple(steps), (), (0,), (), (), offsets={}, arena_bytes=0, naive_bytes=0,
        threads=2,
    )  # fmt: skip
    assert barriers(schedule) == (False, True, False)
    alone = replace(schedule, steps=(*steps[:2], replace(steps[2], parallel=False)))
    assert barriers(alone) == (False, True, True)
