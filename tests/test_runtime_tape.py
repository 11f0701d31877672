"""Tapes: barriers where data crosses threads, loops, branches, checks, and their encoding."""

from collections.abc import Iterator

import numpy as np
import pytest
from schedules import COUNT, DOUBLED, DRIVER, ROLL, SET, Builder

from graphflow.codegen.estimate import estimate_ns, shared_ns
from graphflow.codegen.schedule import (
    Address,
    BlockAddress,
    FunctionAddress,
    KernelSource,
    Schedule,
    Value,
)
from graphflow.errors import CompileError
from graphflow.ir.types import int64
from graphflow.records import replace
from graphflow.runtime.cache import load
from graphflow.runtime.context import TapeContext
from graphflow.runtime.encoding import TapeBuilder, encode
from graphflow.runtime.executor import Context
from graphflow.runtime.storage import Storage, empty
from graphflow.runtime.tape import Jump, Op, Operand, Tape, Who
from graphflow.runtime.threads import get_num_threads, set_num_threads


def encoded(schedule: Schedule, serial: bool = False) -> Tape:
    """The tape of a schedule, each buffer in a slot of its own and kernels at made-up addresses."""
    places = {b.id: Operand(b.id) for b in schedule.buffers}
    tape = encode(schedule, places, frozenset(schedule.inputs), serial)
    return tape.linked([1000 + number for number in range(len(schedule.kernels))])


def ops(tape: Tape) -> str:
    """The instructions after the two that resolve addresses, one letter each."""
    letters = {Op.CALL: "c", Op.BARRIER: "|", Op.HOST: "h", Op.CHECK: "?", Op.END: "."}
    return "".join(letters[Op(int(row[0]))] for row in tape.code[2:])


def run(tape: Tape, *slots: int, threads: int = 1) -> int:
    """Run a tape once; the status."""
    context = TapeContext(tape, len(slots), threads)
    for slot, address in enumerate(slots):
        context.set_slot(slot, address)
    context.launch()
    return context.words[Context.STATUS]


# --- barriers ---------------------------------------------------------------


def test_independent_parallel_calls_need_no_barrier() -> None:
    b = Builder()
    x, y, z = b.input(8), b.output(8), b.output(8)
    b.roll(x, y, 8)
    b.roll(x, z, 8)
    assert ops(encoded(b.schedule(y, z))) == "cc."


def test_read_after_write_meets() -> None:
    b = Builder()
    x, y, z = b.input(8), b.temporary(8), b.output(8)
    b.roll(x, y, 8)
    b.roll(y, z, 8)
    assert ops(encoded(b.schedule(z))) == "c|c."


def test_write_after_read_and_write_after_write_meet() -> None:
    b = Builder()
    x, y, z = b.input(8), b.temporary(8), b.output(8)
    b.roll(y, z, 8)
    b.roll(x, y, 8)
    b.roll(x, y, 8)
    assert ops(encoded(b.schedule(z))) == "c|c|c."


def test_one_barrier_serves_everything_before_it() -> None:
    b = Builder()
    x, y, z, u, v = b.input(8), b.temporary(8), b.temporary(8), b.output(8), b.output(8)
    b.roll(x, y, 8)
    b.roll(x, z, 8)
    b.roll(y, u, 8)
    b.roll(z, v, 8)
    assert ops(encoded(b.schedule(u, v))) == "cc|cc."


def test_calls_on_one_thread_meet_only_with_parallel_ones() -> None:
    b = Builder()
    x, y, z, u = b.input(8), b.temporary(8), b.temporary(8), b.output(8)
    b.roll(x, y, 8, parallel=False)
    b.roll(y, z, 8, parallel=False)
    b.roll(z, u, 8, parallel=True)
    assert ops(encoded(b.schedule(u))) == "cc|c."


def test_arena_buffers_that_share_bytes_meet() -> None:
    b = Builder()
    x, y, z, out = b.input(8), b.temporary(8), b.temporary(8), b.output(8)
    b.roll(y, out, 8)
    b.roll(x, z, 8)
    assert ops(encoded(b.schedule(out))) == "cc."
    b.offsets[z] = b.offsets[y] + 16
    assert ops(encoded(b.schedule(out))) == "c|c."


def test_a_serial_tape_has_no_barriers() -> None:
    b = Builder()
    x, y, z = b.input(8), b.temporary(8), b.output(8)
    b.roll(x, y, 8)
    b.roll(y, z, 8)
    assert ops(encoded(b.schedule(z), serial=True)) == "cc."


# --- checks -----------------------------------------------------------------


def fallible(b: Builder, x: int, out: int, **how: bool) -> None:
    b.call(ROLL, [Address(x), Address(out), 8], (x,), (out,), fallible=True, **how)


def test_failures_are_checked_before_state_is_written() -> None:
    b = Builder()
    x, y, w = b.input(8), b.temporary(8), b.state(8)
    fallible(b, x, y)
    b.roll(x, w, 8)
    assert ops(encoded(b.schedule())) == "c|?c."
    assert ops(encoded(b.schedule(), serial=True)) == "c?c."


def test_failures_are_checked_once_before_a_host_call_and_at_the_end() -> None:
    b = Builder()
    x, y, z = b.input(8), b.temporary(8), b.output(8)
    fallible(b, x, y)
    b.host(lambda a: a, [x], z)
    b.host(lambda a: a, [x], z)
    fallible(b, x, y)
    assert ops(encoded(b.schedule(z), serial=True)) == "c?hhc?."


def test_no_thread_may_fail_while_another_still_checks() -> None:
    """Between a check and the next fallible call lies a barrier."""
    b = Builder()
    x, w, outs = b.input(8), b.state(8), [b.output(8), b.output(8)]
    fallible(b, x, outs[0])
    b.roll(x, w, 8)
    fallible(b, x, outs[1])
    text = ops(encoded(b.schedule(*outs)))
    first, second = text.index("?"), text.rindex("?")
    assert "|" in text[first : text.index("c", first + 2)], text
    assert text[second - 1] == "|"


# --- encoding ---------------------------------------------------------------


def test_only_slots_that_change_are_resolved_at_every_run() -> None:
    b = Builder()
    x, w, y = b.input(8), b.state(8), b.output(8)
    b.affine(x, w, w, y, 8)
    tape = encoded(b.schedule(y))
    once, always = tape.code[0], tape.code[1]
    assert list(once[:4]) == [Op.RESOLVE, 0, 3, 1]
    assert list(always[:4]) == [Op.RESOLVE, 3, 4, 0]
    assert {int(row[1]) for row in tape.relocations[3:4]} == {x}


def test_kernels_of_a_schedule_are_epilogues_too_each_once() -> None:
    b = Builder()
    x, y = b.input(4, 8), b.output(4, 8)
    block = BlockAddress((Address(x), Address(y), Value(8)))
    for _ in range(2):
        b.call(DRIVER, [FunctionAddress(DOUBLED), block, 4, 8], (x,), (y,))
    assert b.schedule(y).kernels == (DRIVER, DOUBLED)


def test_estimates_grow_with_traffic_and_arithmetic() -> None:
    b = Builder()
    x, y = b.input(8), b.output(8)
    b.roll(x, y, 8, bytes=0)
    small = estimate_ns(b.schedule(y).steps)
    b.roll(x, y, 8, bytes=10**7)
    assert 0 < small < 1000 < estimate_ns(b.schedule(y).steps)
    b.roll(x, y, 8, bytes=10**7, parallel=False)
    steps = b.schedule(y).steps
    assert 1000 < shared_ns(steps) < 0.6 * estimate_ns(steps)


def test_a_tape_prints_one_instruction_a_line() -> None:
    b = Builder()
    x, y = b.input(8), b.output(8)
    b.roll(x, y, 8)
    lines = str(encoded(b.schedule(y))).splitlines()
    assert [line.split()[1] for line in lines] == ["resolve", "resolve", "call", "end"]


# --- loops and branches -----------------------------------------------------


def counting(*values: int) -> Storage:
    return Storage(np.array(values, np.int64))


def count_address() -> int:
    return load([COUNT]).addresses["rt_count"]


@pytest.mark.parametrize("trips", [0, 1, 7])
@pytest.mark.parametrize("from_memory", [False, True])
def test_a_loop_runs_its_body_so_often(trips: int, from_memory: bool) -> None:
    builder, total, limit = TapeBuilder(), counting(0, 3), counting(trips)
    builder.loop(Operand(1) if from_memory else trips)
    builder.call(count_address(), [Operand(0)])
    builder.end_loop()
    builder.call(count_address(), [Operand(0)])
    tape = builder.finish()
    for repeat in (1, 2):  # counters start again at every run
        assert run(tape, total.address, limit.address) == Op.END
        assert total.array[0] == 3 * (trips + 1) * repeat


def test_addresses_move_with_every_open_loop() -> None:
    """x[i, j] += x[i, j + 1] over i < 3, j < 4, and x[i, 0] += x[i, 1] once more a row."""
    rng = np.random.default_rng(3)
    x = Storage(rng.integers(0, 100, (3, 6)))
    expected = x.array.copy()
    for i in range(3):
        for j in range(4):
            expected[i, j] += expected[i, j + 1]
        expected[i, 0] += expected[i, 1]
    builder = TapeBuilder(dynamic=frozenset((0,)))
    builder.loop(3)
    builder.loop(4)
    builder.call(count_address(), [Operand(0, 0, (48, 8))])
    builder.end_loop()
    builder.call(count_address(), [Operand(0, 0, (48,))])
    builder.end_loop()
    assert run(builder.finish(), x.address) == Op.END
    np.testing.assert_array_equal(x.array, expected)


def test_loops_nest_four_deep_and_no_deeper() -> None:
    builder, total = TapeBuilder(), counting(0, 1)
    for _ in range(4):
        builder.loop(3)
    with pytest.raises(CompileError, match="nest deeper than 4"):
        builder.loop(3)
    builder.call(count_address(), [Operand(0)])
    with pytest.raises(CompileError, match="not closed"):
        builder.finish()
    for _ in range(4):
        builder.end_loop()
    assert run(builder.finish(), total.address) == Op.END
    assert total.array[0] == 81


def test_an_address_cannot_move_with_a_closed_loop() -> None:
    builder = TapeBuilder()
    with pytest.raises(CompileError, match="not open"):
        builder.call(1, [Operand(0, 0, (8,))])


@pytest.mark.parametrize("condition", [0, 1, 255])
def test_a_branch_chooses(condition: int) -> None:
    builder, chosen = TapeBuilder(), counting(0, 1, 0, 1)
    flag = Storage(np.array([condition], np.uint8))
    otherwise = builder.branch(Jump.IF_FALSE, Operand(1))
    builder.call(count_address(), [Operand(0)])
    end = builder.branch(Jump.ALWAYS)
    builder.target(otherwise)
    builder.call(count_address(), [Operand(0, 16)])
    builder.target(end)
    assert run(builder.finish(), chosen.address, flag.address) == Op.END
    assert list(chosen.array[::2]) == ([1, 0] if condition else [0, 1])


def test_a_branch_leaves_an_inner_loop_which_then_starts_anew() -> None:
    """Row i of the flags says at which inner iteration to leave."""
    flags = Storage(np.zeros((3, 5), np.uint8))
    stops = [2, 0, 4]
    for row, stop in enumerate(stops):
        flags.array[row, stop] = 1
    builder, total = TapeBuilder(), counting(0, 1)
    builder.loop(3)
    builder.loop(1000)
    leave = builder.branch(Jump.IF_TRUE, Operand(1, 0, (5, 1)))
    builder.call(count_address(), [Operand(0)])
    builder.end_loop()
    builder.target(leave)
    builder.end_loop()
    assert run(builder.finish(), total.address, flags.address) == Op.END
    assert total.array[0] == sum(stops)


@pytest.fixture
def three_threads() -> Iterator[None]:
    """More threads than cores here: some sleep at every barrier."""
    before = get_num_threads()
    set_num_threads(3)
    yield
    set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("threads", "rounds"), [(2, 50_000), (3, 2_000)])
def test_a_hundred_thousand_barriers(threads: int, rounds: int) -> None:
    """Each of 100,000 rolls needs a neighbour's share of the one before it."""
    n = 24
    x, y = empty((n,), np.float32), empty((n,), np.float32)
    x.array[:] = np.arange(n)
    y.array[:] = -1
    roll = load([ROLL]).addresses["rt_roll"]
    builder = TapeBuilder()
    builder.loop(rounds)
    builder.call(roll, [Operand(0), Operand(1), n], Who.ALL)
    builder.barrier()
    builder.call(roll, [Operand(1), Operand(0), n], Who.ALL)
    builder.barrier()
    builder.end_loop()
    assert run(builder.finish(), x.address, y.address, threads=threads) == Op.END
    np.testing.assert_array_equal(x.array, np.roll(np.arange(n), -2 * rounds) + 2.0 * rounds)


def test_threads_loop_over_areas_of_their_own() -> None:
    """Without a barrier threads are at different iterations; shares must still be right."""
    n, rounds = 1000, 300
    x = Storage(np.zeros((rounds + 1, n), np.float32))
    source = Storage(np.arange(n, dtype=np.float32))
    builder = TapeBuilder()
    builder.loop(rounds)
    roll = load([ROLL]).addresses["rt_roll"]
    builder.call(roll, [Operand(1), Operand(0, 0, (4 * n,)), n], Who.ALL)
    builder.end_loop()
    assert run(builder.finish(), x.address, source.address, threads=2) == Op.END
    np.testing.assert_array_equal(
        x.array[:rounds], np.tile(np.roll(source.array, -1) + 1, (rounds, 1))
    )
    assert not x.array[rounds].any()


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("trips", [0, 1, 2, 37])
def test_every_iteration_is_run_once_by_whoever_takes_it(threads: int, trips: int) -> None:
    """Round after round, over memory of the thread's own: rows begin where the last round left."""
    n, rounds = 24, 400
    x = Storage(np.zeros((trips + 1, n), np.float32))
    own = Storage(np.zeros((threads, n), np.float32))
    roll = load([ROLL]).addresses["rt_roll"]
    row, mine = Operand(0, 0, (0, 4 * n)), Operand(1, 0, (), 4 * n)
    builder = TapeBuilder()
    builder.loop(rounds)
    builder.barrier()
    builder.loop(trips, parallel=True)
    builder.call(roll, [row, mine, n], Who.EACH)
    builder.call(roll, [mine, row, n], Who.EACH)
    builder.end_loop()
    builder.end_loop()
    tape = builder.finish()
    assert run(tape, x.address, own.address, threads=threads) == Op.END
    assert (x.array[:trips] == 2 * rounds).all() and not x.array[trips].any()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("code", [0, 5])
def test_the_error_word_stops_every_thread(threads: int, code: int) -> None:
    builder, total = TapeBuilder(), counting(0, 1)
    builder.call(load([SET]).addresses["rt_set"], [Operand(1), code])
    builder.barrier()
    builder.check()
    builder.call(count_address(), [Operand(0)])
    context = TapeContext(builder.finish(), 2, threads)
    context.set_slot(0, total.address)
    context.set_slot(1, context.address + 8 * Context.ERROR)
    for repeat in (1, 2):
        context.launch()
        assert context.words[Context.STATUS] == (Op.CHECK if code else Op.END)
        assert total.array[0] == (0 if code else repeat)
        assert context.words[Context.PC] == 0
        if code:
            assert context.words[Context.DETAIL] == code


def test_a_host_instruction_returns_and_goes_on_inside_loops() -> None:
    builder, total = TapeBuilder(), counting(0, 1)
    builder.loop(3)
    builder.host(4)
    builder.loop(2)
    builder.host(9)
    builder.call(count_address(), [Operand(0)])
    builder.end_loop()
    builder.end_loop()
    context = TapeContext(builder.finish(), 1, 2)
    context.set_slot(0, total.address)
    visits = []
    context.launch()
    while context.words[Context.STATUS] == Op.HOST:
        visits.append((context.words[Context.DETAIL], int(total.array[0])))
        context.launch()
    assert visits == [(4, 0), (9, 0), (9, 1), (4, 2), (9, 2), (9, 3), (4, 4), (9, 4), (9, 5)]
    assert total.array[0] == 6


HALVE = KernelSource(
    "rt_halve",
    """\
from graphflow.codegen.prelude import address_of, kernel, pointer_at_i64, pointer_i64


@kernel
def rt_halve(args, tid, nth):
    x = pointer_i64(args, 1)
    out = pointer_i64(args, 2)
    even = x[0] % 2 == 0
    if even:
        out[0] = x[0] // 2
    pointer_at_i64(address_of(args))[0] = 1 if even else 0
""",
)


@pytest.mark.parametrize("serial", [True, False])
def test_a_host_call_is_tried_by_its_kernel_first(serial: bool) -> None:
    """Of the numbers from 5 on, odd ones are Python's to halve, and all where threads walk."""
    b = Builder()
    x, half = b.input(1, dtype=int64), b.output(1, dtype=int64)
    b.host(lambda a: a, [x], half)
    b.steps[-1] = replace(b.steps[-1], attempt=HALVE)
    schedule = b.schedule(half)
    assert schedule.kernels == (HALVE,)
    tape = encode(schedule, {x: Operand(0), half: Operand(1)}, frozenset({0, 1}), serial)
    assert not tape.calls, "attempts are not calls of the schedule"
    tape = tape.linked([load([HALVE]).addresses["rt_halve"]])
    found, value = counting(0, 0), counting(0, 0)
    context = TapeContext(tape, 2, 1)
    context.set_slot(0, value.address)
    context.set_slot(1, found.address)
    for number in range(5, 11):
        value.array[0] = number
        found.array[0] = -1
        context.launch()
        by_kernel = serial and number % 2 == 0
        assert context.words[Context.STATUS] == (Op.END if by_kernel else Op.HOST)
        assert found.array[0] == (number // 2 if by_kernel else -1)
        if not by_kernel:
            context.launch()
            assert context.words[Context.STATUS] == Op.END
