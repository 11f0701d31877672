"""Loops whose iterations each thread runs by itself: which they are, and that results stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_control_steps import check, leaf, loops, scan

import graphflow as gf
from graphflow.codegen import apart
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.instance import at_sizes
from graphflow.codegen.schedule import BufferKind, Loop, Schedule
from graphflow.codegen.schedule_form import from_data, to_data
from graphflow.ir.build import NODES as b
from graphflow.ir.graph import Graph
from graphflow.runtime.tape import TAKEN, Op


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is to do."""
    monkeypatch.setattr(apart, "LEAST_NS", 0)


def mapped(length: int = 4, size: int = 40) -> tuple[Any, Any]:
    """Rows of matrices, each with a loop of its own over a carry."""
    s, m, x, w = leaf("s", size), leaf("m", size, size), leaf("x", 3, size, size), leaf("w", size)
    inner = scan((s, m, w), [b.tanh(b.reduce_sum(b.matmul(m, m), axes=(0,)) * s + w)], (w, x, w),
                 length=3)  # fmt: skip
    operands = leaf("xs", length, 3, size, size), leaf("w", size)
    return operands, scan((x, w), [inner[0], b.exp(inner[0])], operands, 0, length=length)


@pytest.mark.parametrize("length", [2, 4, 7])
def test_threads_take_whole_iterations(length: int) -> None:
    schedule = check(*mapped(length))
    [loop] = loops(schedule)
    assert loop.parallel and schedule.threads == 2
    [inner] = [step for step in loop.body if isinstance(step, Loop)]
    assert not inner.parallel and not any(step.parallel for step in inner.body)
    inside = {n for step in inner.body for n in step.writes}
    kinds = {buffer.kind for buffer in schedule.buffers if buffer.id in inside}
    assert kinds <= {BufferKind.OWN, BufferKind.WINDOW}
    assert schedule.arena_bytes >= 2 * schedule.own_bytes > 0
    text = str(schedule)
    assert f"{length} times, each on one thread:" in text and "of which 2 threads have" in text


def test_what_is_made_before_and_read_after_such_a_loop_and_loops_around_it() -> None:
    x, w, c, xs = leaf("x", 9, 9), leaf("w", 9, 9), leaf("c", 6, 9, 9), leaf("xs", 6, 9, 9)
    inner = scan((x, w), [b.matmul(b.tanh(x), w)], (xs, b.reduce_sum(c, axes=(0,))), 0, length=6)
    outer = scan((c, xs), [b.tanh(inner[0] + c)], (leaf("c0", 6, 9, 9), leaf("all", 5, 6, 9, 9)))
    schedule = check((leaf("c0", 6, 9, 9), leaf("all", 5, 6, 9, 9)), [b.exp(outer[0])])
    [loop] = loops(schedule)
    assert not loop.parallel
    assert [step.parallel for step in loop.body if isinstance(step, Loop)] == [True]


def test_where_threads_share_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def parallel(length: int = 4, threads: int = 2) -> bool:
        operands, outputs = mapped(length)
        return loops(build_schedule(Graph(operands, tuple(outputs)), threads))[0].parallel

    assert parallel() and parallel(3) and parallel(3, 3) and parallel(6, 4)
    assert not parallel(threads=1) and not parallel(5, 4)  # three would wait for one
    with monkeypatch.context() as patch:
        patch.setattr(apart, "LEAST_NS", 1e9)
        assert not parallel()
    monkeypatch.setattr(apart, "SMALL_BYTES", 0)  # less than the loop works on is all right
    assert parallel()
    s, x = leaf("s", 5), leaf("x", 5)
    operands = leaf("s0", 5), leaf("xs", 4, 5)
    assert not loops(check(operands, scan((s, x), [s + x], operands, length=4)))[0].parallel


def test_memory_that_would_be_large_for_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "SMALL_BYTES", 0)
    x = leaf("x", 64)
    column, row = b.reshape(b.tanh(x), shape=(64, 1)), b.reshape(b.sin(x), shape=(1, 64))
    outer = b.matmul(column, row)
    outputs = [b.reduce_sum(b.matmul(outer, outer), axes=(0,))]
    operands = (leaf("xs", 4, 64),)
    schedule = check(operands, scan((x,), outputs, operands, 0, length=4))
    assert not loops(schedule)[0].parallel and not schedule.own_bytes
    assert not any(buffer.kind is BufferKind.OWN for buffer in schedule.buffers)


def test_failures_are_reported_in_order_and_so_shared() -> None:
    def pick(x: Any, at: Any) -> Any:
        return gf.map(lambda item: gf.exp(item[0])[item[1]], (x, at))

    program = gf.compile(pick)
    x, at = gf.ones(4, 9), gf.tensor([0, 3, 8, 1])
    assert program(x, at).shape == (4,)
    assert not any(loop.parallel for loop in loops(program.latest.program.schedule))
    with pytest.raises(IndexError):
        program(x, gf.tensor([0, 9, 8, 1]))


def test_a_forked_child_begins_with_no_iteration_taken() -> None:
    x = np.random.default_rng(3).standard_normal((4, 64, 64)).astype(np.float32)
    before = gf.get_num_threads()
    gf.set_num_threads(2)
    try:
        program = gf.compile(lambda x: gf.map(lambda m: gf.tanh(m @ m @ m).sum(0), x))
        expected = program(gf.tensor(x)).numpy().tobytes()
        loaded = program.latest.program.loaded
        [cell] = [row[TAKEN] for row in loaded.tape.code if row[0] == Op.NEXT]
        areas = loaded._context._areas
        assert areas[0, cell] == 0
        areas[0, cell] = 3  # the parent's other thread was in the middle of a step
        loaded.after_fork()
        assert program(gf.tensor(x)).numpy().tobytes() == expected
    finally:
        gf.set_num_threads(before)


def test_the_plan_for_other_sizes_and_the_form_that_is_kept() -> None:
    def run(x: Any) -> Any:
        return gf.map(lambda m: gf.tanh(m @ m).sum(0), x)

    before = gf.get_num_threads()
    gf.set_num_threads(2)
    try:
        program = gf.compile(run, dynamic={"x": {0: "n"}})
        for n in (4, 9, 1, 40):
            x = np.random.default_rng(n).standard_normal((n, 48, 48)).astype(np.float32)
            found = program(gf.tensor(x)).numpy()
            np.testing.assert_allclose(found, np.tanh(x @ x).sum(1), rtol=1e-4, atol=1e-4)
    finally:
        gf.set_num_threads(before)
    operands, outputs = mapped()
    schedule = build_schedule(Graph(operands, tuple(outputs)), 2)
    data, arrays = to_data(schedule)
    again = from_data(data, arrays)
    assert isinstance(again, Schedule) and loops(again)[0].parallel
    assert (again.own_bytes, again.threads) == (schedule.own_bytes, 2)
    assert at_sizes(again, {}).arena_bytes == schedule.arena_bytes
