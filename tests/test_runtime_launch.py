"""Loaded programs: results, outputs, state, scalars, host calls, failures, many callers."""

import gc
import sys
import tracemalloc

import numpy as np
import pytest
from schedules import DOUBLED, DRIVER, SCALE, Builder, chain, floats, kernel

from graphflow import flags
from graphflow.codegen.schedule import (
    Address,
    BlockAddress,
    BufferKind,
    FunctionAddress,
    Result,
    Schedule,
    Value,
)
from graphflow.errors import CompileError, GraphFlowError
from graphflow.ir.types import TensorType, float32
from graphflow.records import replace
from graphflow.runtime import threads
from graphflow.runtime.launch import LoadedProgram
from tests.threads import in_threads

N = 5000


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_chain_is_right_on_any_number_of_threads(count: int, length: int) -> None:
    schedule, reference = chain(N, length)
    program = LoadedProgram(schedule, threads=count)
    assert program.threads == count
    for seed in range(5):
        x = floats(seed, N)
        (out,) = program.run((x.address,))
        assert out is not None
        np.testing.assert_array_equal(out.array, reference(x.array))


def test_one_and_two_threads_give_the_same_bits() -> None:
    b = Builder()
    x, y, w, t, out = b.input(N), b.input(N), b.state(N), b.temporary(N), b.output(N)
    b.affine(x, y, w, t, N)
    b.affine(t, t, x, out, N)
    found = []
    for count in (1, 2):
        program = LoadedProgram(b.schedule(out), threads=count)
        state, inputs = floats(3, N), [floats(1, N), floats(2, N)]
        program.bind(0, state)
        (result,) = program.run([i.address for i in inputs])
        assert result is not None
        found.append(result.array.tobytes())
    assert found[0] == found[1]


def test_small_steps_wake_nobody() -> None:
    schedule, reference = chain(64, 5)
    small = replace(schedule, steps=tuple(replace(s, bytes=512) for s in schedule.steps))
    program = LoadedProgram(small, threads=8)
    assert program.threads == 1
    assert "barrier" not in str(program.tape)
    x = floats(0, 64)
    (out,) = program.run((x.address,))
    assert out is not None
    np.testing.assert_array_equal(out.array, reference(x.array))
    assert LoadedProgram(schedule, threads=8).threads == 8


def test_epilogues_are_called_with_their_own_block() -> None:
    b = Builder()
    x, y = b.input(30, 7), b.output(30, 7)
    block = BlockAddress((Address(x), Address(y), Value(7)))
    b.call(DRIVER, [FunctionAddress(DOUBLED), block, 30, 7], (x,), (y,))
    for count in (1, 2):
        program = LoadedProgram(b.schedule(y), threads=count)
        a = floats(4, 30, 7)
        (out,) = program.run((a.address,))
        assert out is not None
        np.testing.assert_array_equal(out.array, 2 * a.array)


# --- results ----------------------------------------------------------------


def test_results_are_fresh_and_stay_as_they_are() -> None:
    schedule, reference = chain(N, 3)
    program = LoadedProgram(schedule, threads=2)
    inputs = [floats(seed, N) for seed in range(30)]
    results = [program.run((x.address,))[0] for x in inputs]
    for x, out in zip(inputs, results):
        assert out is not None
        np.testing.assert_array_equal(out.array, reference(x.array))


def test_results_may_be_views_and_may_repeat() -> None:
    b = Builder()
    x, y = b.input(6, 4), b.output(6, 4)
    b.roll(x, y, 24)
    turned = Result(y, TensorType(float32, (3, 4)), 5, (-1, 6))
    column = Result(y, TensorType(float32, (6,)), 2, (4,))
    schedule = b.schedule(y, column, y, turned, x)
    program = LoadedProgram(schedule)
    a = floats(8, 6, 4)
    whole, strided, again, odd, given = program.run((a.address,))
    expected = (np.roll(a.array, -1) + 1).reshape(6, 4)
    assert whole is again and given is None
    assert whole is not None and strided is not None and odd is not None
    address = strided.address
    assert address == whole.address + 8
    np.testing.assert_array_equal(strided.array, expected[:, 2])
    flat = expected.reshape(-1)
    np.testing.assert_array_equal(odd.array[1], [flat[4], flat[10], flat[16], flat[22]])
    del whole, again, strided
    for _ in range(20):  # the view that is left keeps the memory
        other = program.run((floats(9, 6, 4).address,))[0]
        assert other is not None and other.address + 8 != address
    np.testing.assert_array_equal(odd.array[1], [flat[4], flat[10], flat[16], flat[22]])


def test_a_result_cannot_lie_in_the_arena() -> None:
    b = Builder()
    x, y = b.input(4), b.temporary(4)
    b.roll(x, y, 4)
    with pytest.raises(CompileError, match="arena"):
        LoadedProgram(b.schedule(y))


def test_memory_is_flat_over_ten_thousand_runs() -> None:
    schedule, _ = chain(300, 4)
    program = LoadedProgram(schedule, threads=1)
    x = floats(0, 300)
    kept = [program.run((x.address,)) for _ in range(5)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(10_000):
        kept[number % 5] = program.run((x.address,))
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        after - before < 10_000 and peak - before < 20_000
    )  # a byte a run, and no heap of garbage
    gc.collect()
    assert program._outputs[0].made <= 7


def python_calls(program: LoadedProgram, inputs: tuple[int, ...]) -> int:
    """How many Python and C functions one run calls, as the interpreter sees it."""
    seen = []
    program.run(inputs)
    sys.setprofile(lambda frame, event, argument: seen.append(event))
    program.run(inputs)
    sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in seen)


@pytest.mark.parametrize("count", [1, 2])
def test_python_calls_do_not_grow_with_kernels_or_parameters(count: int) -> None:
    def made(length: int) -> int:
        b = Builder()
        x, out = b.input(N), b.output(N)
        weights = [b.state(N) for _ in range(length)]
        source = x
        for number, weight in enumerate(weights):
            target = out if number == length - 1 else b.temporary(N)
            b.affine(source, weight, weight, target, N)
            source = target
        program = LoadedProgram(b.schedule(out), threads=count)
        program.bind_all([floats(k, N) for k in range(length)])
        return python_calls(program, (floats(0, N).address,))

    assert made(2) == made(40) < 20


# --- state and constants ----------------------------------------------------


def test_state_is_updated_where_it_lives_and_can_be_replaced() -> None:
    b = Builder()
    g, rate, w, out = b.input(N), b.input(), b.state(N), b.output(N)
    b.call(SCALE, [*map(Address, (w, g, rate)), N], (w, g, rate), (w,))
    b.roll(w, out, N)
    schedule = b.schedule(out)
    for count in (1, 2):
        program = LoadedProgram(schedule, scalars=(1,), threads=count)
        gradient, first, second = floats(1, N), floats(2, N), floats(3, N)
        with pytest.raises(GraphFlowError, match=r"no values yet \(v2\)"):
            program.run((gradient.address, 0.5))
        expected = [first.array.copy(), second.array.copy()]
        for weight, index, value in ((first, 0, 0.5), (first, 0, 0.25), (second, 1, 2.0)):
            program.bind_all([weight])
            (result,) = program.run((gradient.address, value))
            expected[index] -= np.float32(value) * gradient.array
            np.testing.assert_allclose(weight.array, expected[index], rtol=1e-6)
            assert result is not None
            np.testing.assert_array_equal(result.array, np.roll(weight.array, -1) + 1)
        np.testing.assert_allclose(first.array, expected[0], rtol=1e-6)


def test_a_replaced_state_is_let_go() -> None:
    b = Builder()
    w, out = b.state(4), b.output(4)
    b.roll(w, out, 4)
    program = LoadedProgram(b.schedule(out))
    first = floats(0, 4)
    program.bind(0, first)
    references = sys.getrefcount(first)
    program.bind(0, floats(1, 4))
    assert sys.getrefcount(first) == references - 1


def test_unused_inputs_and_state_take_their_place() -> None:
    b = Builder()
    x, y, out = b.input(4), b.input(4), b.output(4)
    w, v = b.state(4), b.state(4)
    b.roll(y, out, 4)
    schedule = replace(b.schedule(out), inputs=(-1, y), state=(-1, -1))
    assert (x, w, v) == (0, 3, 4)
    program = LoadedProgram(schedule)
    program.bind_all([floats(1, 4), floats(2, 4)])
    a = floats(0, 4)
    (result,) = program.run((12345, a.address))
    assert result is not None
    np.testing.assert_array_equal(result.array, np.roll(a.array, -1) + 1)


def test_constants_are_data_of_the_program() -> None:
    b = Builder()
    x, out = b.input(6), b.output(6)
    data = np.arange(12, dtype=np.float32)[::2]  # with gaps: copied once
    c = b.buffer(BufferKind.CONSTANT, 6, data=data)
    d = b.buffer(BufferKind.CONSTANT, 6, data=np.full(6, 0.5, np.float32))
    b.affine(x, c, d, out, 6)
    program = LoadedProgram(b.schedule(out))
    assert program.memory.nbytes == program.memory.arena.nbytes + 48
    a = floats(0, 6)
    (result,) = program.run((a.address,))
    assert result is not None
    np.testing.assert_allclose(result.array, a.array * data + 0.5, rtol=1e-6)


def test_a_constant_must_have_its_type() -> None:
    b = Builder()
    c, out = b.buffer(BufferKind.CONSTANT, 6, data=np.zeros(5, np.float32)), b.output(6)
    b.roll(c, out, 6)
    with pytest.raises(CompileError, match=r"shape \(5,\)"):
        LoadedProgram(b.schedule(out))


# --- scalars ----------------------------------------------------------------


@pytest.mark.parametrize("value", [0.1, -3, True, float("inf"), 1e-300, 1e300])
def test_run_time_scalars_are_given_by_value(value: float) -> None:
    program = LoadedProgram(scaled(), scalars=(1,))
    w, g = floats(1, 8), floats(2, 8)
    before = w.array.copy()
    program.bind(0, w)
    program.run((g.address, value))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(w.array, before - np.float32(value) * g.array, rtol=1e-6)


def scaled() -> Schedule:
    b = Builder()
    g, rate, w = b.input(8), b.input(), b.state(8)
    b.call(SCALE, [*map(Address, (w, g, rate)), 8], (w, g, rate), (w,))
    return b.schedule()


def test_inputs_that_do_not_fit_are_errors() -> None:
    program = LoadedProgram(scaled(), scalars=(1,))
    w, g = floats(1, 8), floats(2, 8)
    program.bind(0, w)
    before = w.array.copy()
    with pytest.raises(GraphFlowError, match="takes 2 inputs, not 1"):
        program.run((g.address,))
    with pytest.raises(GraphFlowError, match="no address or number"):
        program.run((g.address, "0.1"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(w.array, before)
    with pytest.raises(CompileError, match="by value"):
        LoadedProgram(scaled(), scalars=(0,))


# --- several callers --------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_several_python_threads_share_programs(count: int) -> None:
    made = [chain(N, length) for length in (3, 4)]
    programs = [LoadedProgram(schedule, threads=count) for schedule, _ in made]

    def work(seed: int) -> None:
        for number in range(200):
            which = (seed + number) % 2
            a = floats(1000 * seed + number, N)
            (out,) = programs[which].run((a.address,))
            assert out is not None
            np.testing.assert_array_equal(out.array, made[which][1](a.array))

    in_threads(4, work)


def test_the_budget_may_change_between_steps() -> None:
    schedule, reference = chain(N, 3)
    program = LoadedProgram(schedule, threads=4)
    before = threads.get_num_threads()
    try:
        for budget in (1, 3, 2, 4, 8, 1):
            threads.set_num_threads(budget)
            a = floats(budget, N)
            (out,) = program.run((a.address,))
            assert out is not None
            np.testing.assert_array_equal(out.array, reference(a.array))
    finally:
        threads.set_num_threads(before)


# --- timing and plain Python ------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_profiles_count_and_time_every_call(count: int) -> None:
    b = Builder()
    n = 200_000
    x, t, out = b.input(n), b.temporary(n), b.output(n)
    b.roll(x, t, 16)
    b.roll(x, t, n)
    b.roll(t, out, n)
    program = LoadedProgram(b.schedule(out), threads=count)
    a = floats(0, n)
    assert program.timings() == []
    program.profile()
    for _ in range(20):
        program.run((a.address,))
    timings = program.timings()
    assert [runs for _, runs in timings] == [20, 20, 20]
    assert all(0 < seconds < 10 for seconds, _ in timings)
    program.profile(False)
    program.run((a.address,))
    assert program.timings() == []


def test_plain_python_gives_the_same_results() -> None:
    b = Builder()
    n = 40
    x, t, u, w, out = b.input(n), b.temporary(n), b.temporary(n), b.state(n), b.output(n)
    b.roll(x, t, n)
    b.host(lambda a: a * 2, [t], u)
    b.affine(u, w, x, out, n)
    a, weight = floats(0, n), floats(1, n)
    found = []
    for disabled in (False, True):
        with flags.override(disable_jit=disabled):
            program = LoadedProgram(b.schedule(out), threads=2)
            program.bind(0, weight)
            (result,) = program.run((a.address,))
            assert result is not None
            found.append(result.array.copy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    with flags.override(disable_jit=True):
        block = Builder()
        y, z = block.input(3, 5), block.output(3, 5)
        inner = BlockAddress((Address(y), Address(z), Value(5)))
        block.call(DRIVER, [FunctionAddress(DOUBLED), inner, 3, 5], (y,), (z,))
        given = floats(2, 3, 5)
        (doubled,) = LoadedProgram(block.schedule(z)).run((given.address,))
        assert doubled is not None
        np.testing.assert_array_equal(doubled.array, 2 * given.array)


def test_plain_python_shows_the_exception_of_a_kernel() -> None:
    broken = kernel(
        "rt_broken", "    out = pointer_f32(args, 0)\n    out[0] = f32(1.0) / missing\n"
    )
    b = Builder()
    out = b.output(1)
    b.call(broken, [Address(out)], (), (out,))
    with flags.override(disable_jit=True):
        program = LoadedProgram(b.schedule(out))
        with pytest.raises(NameError, match="missing"):
            program.run(())
