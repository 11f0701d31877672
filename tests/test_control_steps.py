"""Loops and branches of a schedule: run by kernels, held against the interpreter."""

from __future__ import annotations

import re

import numpy as np
import pytest
from graphs import Case
from running import Expected, Running

import graphflow as gf
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.schedule import Branch, Call, HostCall, Loop, Schedule, plain_steps
from graphflow.errors import IndexRangeError
from graphflow.inspection.program_data import program_data
from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, emit, input_node, splat
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, bool_, float32, int64
from graphflow.passes.autodiff import differentiate
from graphflow.passes.fuse import Fuse
from graphflow.passes.pipeline import run_pipeline


def f32(*shape: int) -> TensorType:
    return TensorType(float32, shape)


def leaf(name: str, *shape: int, dtype=float32) -> Node:
    return input_node(name, TensorType(dtype, shape))


def body(inputs, outputs) -> Graph:
    return Fuse().run(Graph(tuple(inputs), tuple(outputs), name="body"))


def scan(inputs, outputs, operands, carried=1, scanned=1, length=5, reverse=False) -> list[Node]:
    made = emit(
        "scan", *operands, body=body(inputs, outputs), carried=carried, scanned=scanned,
        length=length, reverse=reverse,
    )  # fmt: skip
    return [b.get(made, index=i) for i in range(len(outputs))]


def while_loop(inputs, condition, outputs, operands) -> list[Node]:
    made = emit(
        "while_loop", *operands, condition=body(inputs, [condition]), body=body(inputs, outputs),
        carried=len(outputs),
    )  # fmt: skip
    return [b.get(made, index=i) for i in range(len(outputs))]


def cond(inputs, then, otherwise, operands) -> list[Node]:
    sides = {"then": body(inputs, then), "otherwise": body(inputs, otherwise)}
    made = emit("cond", *operands, **sides)
    return [b.get(made, index=i) for i in range(len(then))]


def draw(node: Node, rng: np.random.Generator) -> np.ndarray:
    shape = node.tensor_type.static_shape
    if node.dtype is bool_:
        return np.asarray(rng.random(shape) < 0.5)
    if node.dtype is int64:
        return np.asarray(rng.integers(0, 3, shape))
    return np.asarray(rng.standard_normal(shape) * 0.5).astype(np.float32)


def check(inputs, outputs, args=None, seed: int = 0, hosts: int = 0) -> Schedule:
    """Run by one thread and by two, twice each, against the interpreter in double precision."""
    graph = Graph(tuple(inputs), tuple(outputs))
    rng = np.random.default_rng(seed)
    args = tuple(draw(n, rng) for n in inputs) if args is None else args
    case = Case(seed, graph, tuple(args), {})
    runs = []
    for threads in (1, 2):
        running = Running(case, threads)
        expected = Expected(case)
        for _ in range(2):
            runs.append(running.run())
            expected.check(runs[-1], {})
    for run in runs[1:]:
        for one, other in zip(runs[0], run):
            assert one.tobytes() == other.tobytes(), f"seed {seed}"
    found = [s for s in plain_steps(running.schedule.steps) if isinstance(s, HostCall)]
    assert len(found) == hosts, running.schedule
    return running.schedule


def loops(schedule: Schedule) -> list[Loop]:
    return [s for s in schedule.steps if isinstance(s, Loop)]


# ---- scan --------------------------------------------------------------------------------


def recurrent(length: int, reverse: bool, before: bool = False, size: int = 8):
    h, x, w = leaf("h", 4, size), leaf("x", 4, size), leaf("w", size, size)
    new = b.tanh(b.matmul(h, w) + x)
    operands = leaf("h0", 4, size), leaf("xs", length, 4, size), w
    outputs = [new, new, h] if before else [new, new]
    return operands, scan(
        (h, x, w), outputs, operands, length=length, reverse=reverse
    )  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 6])
def test_a_recurrence_keeps_its_states_in_one_history(length, reverse):
    schedule = check(*recurrent(length, reverse, before=True))
    [_, loop] = schedule.steps
    assert isinstance(loop, Loop) and loop.trips == length
    assert len(loop.body) == 1, "nothing is copied in a step"
    assert len({result.buffer for result in schedule.results}) == 1


def test_a_carry_that_is_not_stacked_is_updated_where_it_lies():
    s, x = leaf("s", 50), leaf("x", 50)
    operands = leaf("s0", 50), leaf("xs", 5, 50)
    schedule = check(operands, scan((s, x), [s * 0.5 + x], operands))
    [loop] = loops(schedule)
    assert len(loop.body) == 1 and loop.body[0].writes <= loop.body[0].reads


def test_carries_that_change_places_and_carries_that_stay():
    p, q, r, x = leaf("p", 3), leaf("q", 3), leaf("r", 3), leaf("x", 3)
    operands = leaf("p0", 3), leaf("q0", 3), leaf("r0", 3), leaf("xs", 4, 3)
    outputs = [q, p + x, r, p - q, r, x, x, b.exp(x)]
    check(operands, scan((p, q, r, x), outputs, operands, 3, length=4))


def test_a_carry_read_by_a_product_is_replaced_at_the_end_of_the_step():
    s, w = leaf("s", 6, 6), leaf("w", 6, 6)
    operands = leaf("s0", 6, 6), w
    check(operands, scan((s, w), [b.tanh(b.matmul(w, s))], operands, scanned=0))


def test_operands_that_lie_strided_or_transposed_are_read_there():
    s, x, w = leaf("s", 4), leaf("x", 4), leaf("w", 4)
    s0, xs, ws = leaf("s0", 4), leaf("xs", 4, 9), leaf("ws", 3, 4)
    rows = b.permute(b.slice(xs, starts=(0, 1), limits=(4, 9), steps=(1, 2)), axes=(1, 0))
    w0 = b.reshape(b.slice(ws, starts=(1, 0), limits=(2, 4), steps=(1, 1)), shape=(4,))
    outputs = scan((s, x, w), [s + x * w, b.exp(s) * x], (s0, rows, w0), length=4)
    schedule = check((s0, xs, ws), outputs)
    assert [type(s) for s in schedule.steps].count(Loop) == 1 and len(schedule.steps) == 2


def test_loops_in_loops():
    s, y, row, z = leaf("s", 3), leaf("y", 3), leaf("row", 4, 3), leaf("z", 3)
    inner = scan((s, y, z), [s * 0.5 + y * z, s - y], (s, row, z), length=4)
    operands = leaf("s0", 3), leaf("xs", 5, 4, 3), leaf("z", 3)
    outer = scan(
        (s, row, z), [b.tanh(inner[0]), inner[1], inner[0]], operands, length=5, reverse=True
    )  # fmt: skip
    schedule = check(operands, outer)
    assert any(isinstance(step, Loop) for step in loops(schedule)[0].body)


def test_the_deepest_loops_and_one_deeper_which_the_host_runs():
    for depth, hosts in ((4, 0), (5, 1)):
        x = leaf("x", 2)
        s = leaf("s", 2)
        last = s * 0.5 + x
        for _ in range(depth):
            last = scan((s, x), [last], (s, x), scanned=0, length=2)[0]
        check((s, x), [last], hosts=hosts)


def test_memory_does_not_grow_with_the_length():
    sizes = []
    for length in (3, 30):
        operands, outputs = recurrent(length, False)
        graph = run_pipeline(Graph(operands, tuple(outputs)))[-1].graph
        sizes.append(build_schedule(graph).arena_bytes)
    assert sizes[0] == sizes[1]


def test_large_bodies_share_work_and_meet_as_often_as_they_must():
    h, x = leaf("h", 300, 64), leaf("x", 300, 64)
    operands = leaf("h0", 300, 64), leaf("xs", 6, 300, 64)
    new = b.tanh(h) * 0.5 + x
    schedule = check(operands, scan((h, x), [new, new * 2.0], operands, length=6))
    assert any(s.parallel for s in plain_steps(schedule.steps) if isinstance(s, Call))
    total = b.tanh(b.reduce_sum(b.exp(x) * h, axes=(0, 1)) * 1e-3)
    check(operands, scan((h, x), [h * total, total], operands, length=6, reverse=True))


# ---- while and cond ----------------------------------------------------------------------


def counting(limit: int):
    i, s = leaf("i", dtype=int64), leaf("s", 300, 64)
    one, most = constant(np.array(1)), constant(np.array(limit))
    start = constant(np.array(0))
    s0 = leaf("s0", 300, 64)
    return (s0,), while_loop(
        (i, s), b.lt(i, most), [i + one, b.tanh(s) + b.cast(i, dtype=float32)], (start, s0)
    )  # fmt: skip


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_loop_runs_as_long_as_its_condition_holds(limit):
    inputs, outputs = counting(limit)
    [loop] = loops(check(inputs, outputs))
    assert loop.head and loop.test is not None


def test_a_condition_over_everything_ends_the_loop():
    s, w = leaf("s", 200, 80), leaf("w", 80)
    total = b.reduce_sum(b.abs(s), axes=(0, 1))
    operands = leaf("s0", 200, 80), leaf("w", 80)
    outputs = while_loop((s, w), b.gt(total, splat(20.0, f32())), [s * 0.5], operands)
    check(operands, outputs)


@pytest.mark.parametrize("which", [True, False])
def test_a_branch_runs_one_side_only(which):
    x, y = leaf("x", 300, 40), leaf("y", 300, 40)
    p = leaf("p", dtype=bool_)
    outputs = cond((x, y), [b.exp(x), x, y], [x - y, b.tanh(y), x], (p, x, y))
    rng = np.random.default_rng(1)
    args = np.asarray(which), draw(x, rng), draw(y, rng)
    schedule = check((p, x, y), outputs, args)
    [branch] = [s for s in schedule.steps if isinstance(s, Branch)]
    assert branch.then and branch.otherwise
    assert re.search(r"if b\d+:", str(schedule)) and "else:" in str(schedule)


def test_branches_in_loops_that_follow_a_condition_of_the_step():
    s, x = leaf("s", 400, 30), leaf("x", 400, 30)
    positive = b.gt(b.reduce_sum(x, axes=(0, 1)), splat(0.0, f32()))
    inner = cond((s, x), [s + x, b.exp(x)], [s * 0.5, x], (positive, s, x))
    operands = leaf("s0", 400, 30), leaf("xs", 7, 400, 30)
    check(operands, scan((s, x), [inner[0], inner[1]], operands, length=7), seed=3)


# ---- failures and the host ---------------------------------------------------------------


def gathered(length: int):
    s, k, table = leaf("s", 4), leaf("k", 4, dtype=int64), leaf("table", 9)
    operands = leaf("s0", 4), leaf("ks", length, 4, dtype=int64), table
    picked = b.gather(table, k, axis=0)
    return operands, scan((s, k, table), [s + picked, picked], operands, length=length)


def test_a_failure_inside_a_loop_is_reported():
    operands, outputs = gathered(5)
    check(operands, outputs)
    args = [draw(n, np.random.default_rng(0)) for n in operands]
    args[1][3, 2] = 99
    for threads in (1, 2):
        case = Case(0, Graph(operands, tuple(outputs)), tuple(args), {})
        with pytest.raises(IndexRangeError, match="gather"):
            Running(case, threads).run()


def test_a_host_operation_inside_a_loop_works_on_the_rows_of_its_step():
    s, x = leaf("s", 3, 3), leaf("x", 3, 3)
    solved = b.solve(x + constant(4 * np.eye(3, dtype=np.float32)), s, caller="solve")
    operands = leaf("s0", 3, 3), leaf("xs", 5, 3, 3)
    outputs = scan((s, x), [solved, solved, b.exp(x)], operands)
    check(operands, outputs, hosts=1)


# ---- the road there ----------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_and_rows_may_be_symbolic(reverse):
    steps, rows = symbol("steps"), symbol("rows")
    h, x, w = leaf("h", rows, 8), leaf("x", rows, 8), leaf("w", 8, 8)
    new = b.tanh(b.matmul(h, w) + x)
    operands = leaf("h0", rows, 8), leaf("xs", steps, rows, 8), w
    outputs = scan(
        (h, x, w), [new, new, h, b.exp(x)], operands, length=steps, reverse=reverse
    )  # fmt: skip
    graph = Graph(operands, tuple(outputs))
    rng = np.random.default_rng(0)
    for length, count in ((5, 3), (1, 1), (0, 2), (40, 33)):
        shapes = (count, 8), (length, count, 8), (8, 8)
        args = tuple((rng.standard_normal(s) * 0.5).astype(np.float32) for s in shapes)
        case = Case(0, graph, args, {})
        for threads in (1, 2):
            Expected(case).check(Running(case, threads, example=64).run(), {})


def test_the_gradient_of_a_recurrence_copies_nothing_but_first_values():
    h, x, w = leaf("h", 4, 8), leaf("x", 4, 8), leaf("w", 8, 8)
    operands = leaf("h0", 4, 8), leaf("xs", 9, 4, 8), w
    new = b.tanh(b.matmul(h, w) + x)
    region = Graph((h, x, w), (new, new), name="body")
    made = emit("scan", *operands, body=region, carried=1, scanned=1, length=9, reverse=False)
    states = b.get(made, index=1)
    loss = b.reduce_sum(states * states, axes=(0, 1, 2))
    graph = differentiate(Graph(operands, (loss,)), ["h0", "xs", "w"])
    schedule = check(graph.inputs, graph.outputs)
    for loop in loops(schedule):
        assert not any("copy" in step.kernel.name for step in loop.body)


def test_a_program_counts_calls_in_loops_and_is_found_again():
    operands, outputs = recurrent(6, False)
    graph = Graph(operands, tuple(outputs))
    args = [draw(n, np.random.default_rng(0)) for n in operands]
    first = gf.compile(graph)
    wanted = first(*args)[1].numpy()
    again = gf.compile(graph)
    again.loaded.profile()
    assert np.array_equal(again(*args)[1].numpy(), wanted)
    assert [runs for _, runs in again.loaded.timings()] == [1, 6]
    again.loaded.profile(False)
    data = program_data(again)
    [loop] = [step for step in data["steps"] if step["kind"] == "loop"]
    assert [step["kind"] for step in loop["steps"]] == ["kernel"]
    assert len(again.explain().kernels) == 2 and not again.explain().host_ops
    assert "6 times:" in str(again.schedule)
