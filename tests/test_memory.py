"""The memory plan: no two live buffers overlap, and it is worth having."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflow.codegen.barriers import barriers
from graphflow.codegen.memory import (
    ALIGNMENT,
    MORE,
    Interval,
    aligned,
    lifetimes,
    plan,
)
from graphflow.codegen.owners import parts_of_threads
from graphflow.codegen.partition import Rows
from graphflow.codegen.schedule import (
    Buffer,
    BufferKind,
    Call,
    HostCall,
    KernelSource,
    Schedule,
    Step,
)
from graphflow.ir.types import TensorType, float32, float64
from graphflow.records import replace

intervals = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 40), st.integers(0, 12)), max_size=60
)


@given(intervals, st.integers(1, 4), st.integers(0, 3))
def test_live_buffers_never_overlap_and_the_arena_is_no_larger_than_the_sum(rows, threads, known):
    found = [Interval(i, size, first, first + length) for i, (size, first, length) in
             enumerate(rows)]  # fmt: skip
    parts = {
        i.id: tuple(tid * i.size // threads for tid in range(1, threads))
        for i in found if threads > 1 and i.id % 3 < known
    }  # fmt: skip
    memory = plan(found, parts)
    for one in found:
        start, end = memory.offsets[one.id], memory.offsets[one.id] + one.size
        assert start % ALIGNMENT == 0
        assert end <= memory.arena_bytes
        for other in found:
            if other.id != one.id and one.first <= other.last and other.first <= one.last:
                begin, stop = memory.offsets[other.id], memory.offsets[other.id] + other.size
                assert end <= begin or stop <= start, (one, other)
    assert memory.naive_bytes == sum(aligned(i.size) for i in found)
    assert memory.arena_bytes <= memory.naive_bytes


@given(intervals)
def test_the_arena_holds_what_lives_at_the_busiest_step(rows):
    found = [Interval(i, size, first, first + length) for i, (size, first, length) in
             enumerate(rows)]  # fmt: skip
    busiest = max(
        (sum(aligned(i.size) for i in found if i.first <= t <= i.last) for t in range(60)),
        default=0,
    )
    assert plan(found).arena_bytes >= busiest


def test_a_chain_needs_two_buffers():
    chain = [Interval(i, 1000, i, i + 1) for i in range(50)]
    assert plan(chain).arena_bytes == 2 * aligned(1000)
    assert str(plan(chain)) == "51.2 kB → 2.0 kB"


def test_the_plan_does_not_depend_on_the_order_of_its_input():
    seed = 7
    rng = random.Random(seed)
    found = [Interval(i, rng.randrange(4000), f := rng.randrange(30), f + rng.randrange(9))
             for i in range(40)]  # fmt: skip
    shuffled = rng.sample(found, len(found))
    assert plan(found) == plan(shuffled), f"seed {seed}"
    parts = {i.id: (i.size // 2,) for i in found}
    assert plan(found, parts) == plan(shuffled, parts), f"seed {seed}"


def test_threads_keep_their_bytes_where_buffers_follow_each_other():
    large, small = Interval(0, 4096, 0, 1), Interval(1, 2048, 2, 3)
    assert plan([large, small]).offsets[1] == 0
    memory = plan([large, small], {0: (2048,), 1: (1024,)})
    assert memory.offsets[1] + 1024 == memory.offsets[0] + 2048  # the second thread's part
    assert memory.arena_bytes == 4096


@pytest.mark.parametrize("seed", range(8))
def test_fewer_bytes_change_threads_for_little_memory(seed):
    rng = random.Random(seed)
    found = [Interval(i, 64 * rng.randrange(1, 100), f := rng.randrange(60), f + rng.randrange(9))
             for i in range(80)]  # fmt: skip
    parts = {i.id: (i.size // 2,) for i in found}
    plain, owned = plan(found), plan(found, parts)
    assert owned.arena_bytes <= plain.arena_bytes * MORE
    if owned.offsets != plain.offsets:
        assert _foreign(found, owned) < _foreign(found, plain)


def _foreign(found, memory):
    """The bytes of two buffers, in all pairs, that are the first thread's in one of them only."""
    total = 0
    for one, other in itertools.combinations(found, 2):
        a, b = memory.offsets[one.id], memory.offsets[other.id]
        both = set(range(a // 64, (a + one.size) // 64))
        both &= set(range(b // 64, (b + other.size) // 64))
        total += sum((64 * k < a + one.size // 2) != (64 * k < b + other.size // 2) for k in both)
    return total


KERNEL = KernelSource("nothing", "def nothing(args, tid, nth): pass")
F32_256 = TensorType(float32, (256,))


def call(reads: str, writes: str, parallel: bool = True) -> Call:
    return Call(KERNEL, (), frozenset(map(int, reads.split())),
                frozenset(map(int, writes.split())), parallel)  # fmt: skip


def host(reads: str, writes: str) -> HostCall:
    return HostCall("host", len, {}, (), int(writes), frozenset(map(int, reads.split())),
                    frozenset([int(writes)]))  # fmt: skip


def test_parts_of_threads_are_those_that_they_write():
    buffers = [Buffer(i, BufferKind.ARENA, F32_256) for i in range(5)]
    steps = [
        call("0", "1"),
        call("0", "2", parallel=False),
        replace(call("0", "3"), across=frozenset([3])),
        replace(call("0", "4"), partition={4: Rows(0, 64)}, across=frozenset([4])),
        host("0", "0"),
    ]
    assert parts_of_threads(buffers, steps, 4) == {1: (256, 512, 768), 4: (64, 128, 192)}
    assert parts_of_threads(buffers, [*steps, call("0", "1", parallel=False)], 4).keys() == {4}
    assert parts_of_threads(buffers, steps, 1) == {}


def scheduled(*steps: Step, planned: bool = True) -> Schedule:
    """Buffer 0 is an input, 9 an output, all between in the arena."""
    kinds = {0: BufferKind.INPUT, 9: BufferKind.OUTPUT}
    buffers = tuple(Buffer(i, kinds.get(i, BufferKind.ARENA), F32_256) for i in range(10))
    memory = plan(lifetimes(buffers, steps))
    offsets = memory.offsets if planned else {i: i * 1024 for i in range(1, 9)}
    return Schedule(buffers, steps, (0,), (), (), offsets=offsets,
                    arena_bytes=memory.arena_bytes)  # fmt: skip


def test_lifetimes_cover_first_to_last_use_of_arena_buffers_only():
    steps = scheduled(call("0", "1"), call("1", "2"), call("1 2", "9")).steps
    buffers = scheduled().buffers
    assert lifetimes(buffers, steps) == [Interval(1, 1024, 0, 2), Interval(2, 1024, 1, 2)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([call("0", "1"), call("0", "2")], [False, False]),  # independent
        ([call("0", "1"), call("1", "9")], [False, True]),  # read after write
        ([call("1", "9"), call("0", "1")], [False, True]),  # write after read
        ([call("0", "1", False), call("1", "9", False)], [False, False]),  # both on thread 0
        ([call("0", "1", False), call("1", "9")], [False, True]),
        ([call("0", "1"), call("1", "9", False)], [False, True]),
        ([call("0", "1"), call("0", "2"), call("1", "9"), call("2", "9")],
         [False, False, True, True]),
        ([call("0", "1"), call("1", "2"), call("1", "3")], [False, True, False]),
        ([call("0", "1"), host("1", "2"), call("2", "9")], [False, False, False]),
    ],
)  # fmt: skip
def test_barriers_stand_where_data_crosses_threads(steps, expected):
    assert list(barriers(scheduled(*steps, planned=False))) == expected


def test_reused_arena_bytes_need_a_barrier():
    steps = [call("0", "1"), call("1", "9"), call("0", "2")]
    shared = scheduled(*steps)
    assert shared.offsets[1] == shared.offsets[2]
    assert list(barriers(shared)) == [False, True, True]
    assert list(barriers(scheduled(*steps, planned=False))) == [False, True, False]


def test_sizes_count_the_element_type():
    buffers = (Buffer(0, BufferKind.ARENA, TensorType(float64, (3, 5))),)
    assert lifetimes(buffers, [call("", "0")]) == [Interval(0, 120, 0, 0)]
