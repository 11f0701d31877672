"""Schedules: aliases, order, state, outputs and memory, run by a machine in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_graphs import f32, mlp_step, softmax
from graphs import random_graph
from schedule_machine import Machine

from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.schedule import BufferKind, Call, HostCall, Schedule
from graphflow.errors import CompileError
from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, emit, input_node, splat, state_node
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.op import NON_DIFFERENTIABLE, Kind, OpDef, OpTests
from graphflow.ir.types import TensorType, float32, int64
from graphflow.passes.fuse import Fuse


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    made.install(monkeypatch)
    return made


def x(*shape: int, name: str = "x") -> Node:
    return input_node(name, f32(*shape))


def values(graph: Graph, seed: int = 0) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)

    def draw(node: Node) -> np.ndarray:
        shape = node.tensor_type.static_shape
        if node.dtype is int64:
            return rng.integers(0, 3, shape)
        return rng.standard_normal(shape).astype(node.dtype.numpy)

    return [draw(n) for n in graph.inputs], {n.attrs["name"]: draw(n) for n in graph.state}


def check(machine: Machine, graph: Graph, seed: int = 0, fuse: bool = True) -> Schedule:
    """Schedule ``graph`` and hold a run of it against the interpreter."""
    schedule = build_schedule(Fuse().run(graph) if fuse else graph)
    args, state = values(graph, seed)
    expected = interpret(graph, args, state)
    outputs, after = machine.run(schedule, args, list(state.values()), seed)
    for got, want in zip(outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6, err_msg=f"seed {seed}")
    for got, name in zip(after, state, strict=True):
        np.testing.assert_allclose(got, expected.state[name], rtol=2e-5, atol=1e-6, err_msg=name)
    writers = [n for n, s in enumerate(schedule.steps) if s.writes & set(schedule.committed)]
    risky = [n for n, s in enumerate(schedule.steps) if isinstance(s, HostCall) or s.fallible]
    assert not writers or not risky or max(risky) < min(writers), "state before a failure"
    return schedule


def kinds(schedule: Schedule) -> list[str]:
    return [b.kind.name for b in schedule.buffers]


# ---- views -------------------------------------------------------------------------------


def test_views_of_buffers_cost_no_call(machine):
    a = x(6, 4)
    view = b.flip(b.slice(b.permute(a, axes=(1, 0)), starts=(1, 0), limits=(4, 6), steps=(2, 3)),
                  axes=(0,))  # fmt: skip
    schedule = check(machine, Graph((a,), (b.exp(view),)))
    assert len(schedule.steps) == 1 and "ARENA" not in kinds(schedule)


def test_a_reshape_of_a_transposed_buffer_is_copied_once(machine):
    a = x(6, 4)
    flat = b.reshape(b.permute(a, axes=(1, 0)), shape=(24,))
    schedule = check(
        machine, Graph((a,), (b.exp(flat), b.tanh(flat) * b.reduce_sum(flat, axes=(0,))))
    )
    assert sum(s.reads == {schedule.inputs[0]} for s in schedule.steps) == 1


def test_a_reshape_that_strides_express_is_no_copy(machine):
    a = x(6, 4)
    rows = b.slice(a, starts=(0, 0), limits=(6, 4), steps=(2, 1))
    split = b.reshape(rows, shape=(3, 2, 2))
    assert len(check(machine, Graph((a,), (b.exp(split),))).steps) == 1


def test_padding_and_joining_read_their_operands_in_place(machine):
    a, c = x(3, 4), x(2, 4, name="c")
    joined = b.concatenate(a, b.permute(b.permute(c, axes=(1, 0)), axes=(1, 0)), axis=0)
    padded = b.pad(joined, low=(1, 0), high=(0, 2), value=7.0)
    schedule = check(machine, Graph((a, c), (b.exp(padded),)))
    assert len(schedule.steps) == 2


def test_parts_are_written_where_they_are_put_together(machine):
    a, c, d = x(3, 4), x(3, 2, name="c"), x(2, 6, name="d")
    rows = b.concatenate(b.exp(a), c, axis=1)
    schedule = check(machine, Graph((a, c, d), (b.concatenate(rows, b.tanh(d), axis=0),)))
    assert len(schedule.steps) == 3 and "ARENA" not in kinds(schedule)
    (target,) = {n for step in schedule.steps for n in step.writes}
    assert target == schedule.results[0].buffer


def test_borders_are_copied_from_the_part_that_they_surround(machine):
    a = x(5, 7, 9)

    def bordered(image: Node, axis: int) -> Node:
        def border(begin: int) -> Node:
            starts = [begin if k == axis else 0 for k in range(3)]
            ends = [begin + 2 if k == axis else n for k, n in enumerate(image.shape)]
            part = b.slice(image, starts=tuple(starts), limits=tuple(ends), steps=(1, 1, 1))
            return b.flip(part, axes=(axis,))

        return b.concatenate(border(1), image, border(image.shape[axis] - 3), axis=axis)

    schedule = check(machine, Graph((a,), (bordered(bordered(b.exp(a), 2), 1),)))
    assert len(schedule.steps) == 5 and "ARENA" not in kinds(schedule)
    turned = b.concatenate(b.permute(b.exp(x(4, 4)), axes=(1, 0)), b.exp(x(4, 4)), axis=0)
    check(machine, Graph((x(4, 4),), (turned,)))
    made = b.exp(x(4, 6))
    row = b.reshape(b.slice(b.reshape(made, shape=(24,)), starts=(3,), limits=(9,), steps=(1,)),
                    shape=(1, 6))  # fmt: skip
    check(machine, Graph((x(4, 6),), (b.concatenate(made, row, axis=0),)))


def test_parts_among_each_other_are_written_in_one_run(machine):
    a, c = x(3, 40), x(3, 40, name="c")
    apart = [b.reshape(part, shape=(3, 40, 1)) for part in (b.exp(a) * c, b.exp(a) - c)]
    schedule = check(machine, Graph((a, c), (b.concatenate(*apart, axis=2),)))
    assert len(schedule.steps) == 1 and "ARENA" not in kinds(schedule)
    mixed = [apart[0], b.reshape(c, shape=(3, 40, 1))]
    schedule = check(machine, Graph((a, c), (b.concatenate(*mixed, axis=2),)))
    assert len(schedule.steps) == 2  # one makes a part, one copies both


def test_a_part_with_another_reader_or_below_another_is_written_elsewhere(machine):
    a, c = x(3, 4), x(3, 4, name="c")
    part = b.exp(a)
    schedule = check(
        machine, Graph((a, c), (b.concatenate(part, c, axis=0), b.permute(part, axes=(1, 0))))
    )
    assert len({result.buffer for result in schedule.results}) == 2
    check(machine, Graph((a, c), (b.concatenate(part, part, axis=1),)))
    corner = b.tanh(b.slice(c, starts=(0, 0), limits=(2, 3), steps=(1, 1)))
    check(machine, Graph((a, c), (b.slice_update(b.exp(a), corner, starts=(1, 0), steps=(1, 1)),)))
    sums = b.reduce_sum(a, axes=(0,)), b.exp(b.reduce_max(a, axes=(1,)))
    check(machine, Graph((a,), (b.concatenate(*sums, axis=0),)))


# ---- outputs -----------------------------------------------------------------------------


def test_an_output_that_is_an_input_or_a_view_of_one_aliases_it(machine):
    a = x(6, 4)
    part = b.slice(a, starts=(2, 1), limits=(6, 3), steps=(2, 1))
    schedule = check(machine, Graph((a,), (a, b.permute(part, axes=(1, 0)))))
    assert not schedule.steps
    first, second = schedule.results
    assert (first.buffer, first.offset, first.strides) == (schedule.inputs[0], 0, (4, 1))
    assert (second.buffer, second.offset, second.strides) == (schedule.inputs[0], 9, (1, 8))


def test_much_of_an_input_in_no_runs_is_copied_by_a_kernel(machine):
    a = x(40, 30)
    backwards = b.flip(a, axes=(1,))
    spread = b.expand(b.reshape(a, shape=(40, 30, 1)), shape=(40, 30, 3))
    apart = b.slice(a, starts=(0, 1), limits=(40, 30), steps=(1, 2))
    for view, calls in ((backwards, 1), (spread, 1), (apart, 1), (b.permute(a, axes=(1, 0)), 0)):
        schedule = check(machine, Graph((a,), (view,)))
        assert len(schedule.steps) == calls
        assert (schedule.results[0].buffer == schedule.inputs[0]) == (calls == 0)


def test_views_of_one_result_share_its_memory(machine):
    y = b.exp(x(6, 4))
    schedule = check(machine, Graph((x(6, 4),), (y, b.reshape(y, shape=(24,)))))
    assert schedule.results[0].buffer == schedule.results[1].buffer
    assert kinds(schedule) == ["INPUT", "OUTPUT"]


def test_outputs_are_never_in_the_arena_and_constants_are_never_given_away(machine):
    data = constant(np.arange(4, dtype=np.float32))
    y = b.tanh(x(4)) + data
    schedule = check(machine, Graph((x(4),), (data, y, b.exp(y), splat(2.0, f32(3)))))
    for result in schedule.results:
        assert schedule.buffers[result.buffer].kind is BufferKind.OUTPUT


def test_an_unused_input_has_no_buffer(machine):
    a, unused = x(4), x(5, name="unused")
    schedule = check(machine, Graph((a, unused), (b.exp(a),)))
    assert schedule.inputs[0] >= 0 and schedule.inputs[1] == -1


# ---- state -------------------------------------------------------------------------------


def updated(*updates: tuple[Node, Node], outputs: tuple[Node, ...] = (), inputs=()) -> Graph:
    return Graph(inputs, outputs, tuple(s for s, _ in updates), updates)


def test_state_is_updated_in_place(machine):
    w, g = state_node("w", f32(50)), x(50, name="g")
    schedule = check(machine, updated((w, w - g * 0.1), inputs=(g,)))
    [call] = schedule.steps
    assert call.writes == {schedule.state[0]} == set(schedule.committed)


def test_readers_of_an_old_value_run_before_its_update(machine):
    w, g = state_node("w", f32(8, 8)), x(8, 8, name="g")
    y = b.matmul(b.matmul(g, w), b.permute(w, axes=(1, 0)))
    new = w - b.matmul(b.permute(g, axes=(1, 0)), g)
    schedule = check(machine, updated((w, new), outputs=(y,), inputs=(g,)))
    assert [bool(s.writes & {schedule.state[0]}) for s in schedule.steps] == [False, False, True]


def test_an_old_value_that_is_needed_later_gives_the_update_its_own_memory(machine):
    w, g = state_node("w", f32(8, 8)), x(8, 8, name="g")
    new = b.matmul(g, w)
    y = b.matmul(b.exp(new), w)  # reads both the new and the old value
    schedule = check(machine, updated((w, new), outputs=(y,), inputs=(g,)))
    assert [s.writes for s in schedule.steps][-1] == {schedule.state[0]}
    assert sum(bool(s.writes & {schedule.state[0]}) for s in schedule.steps) == 1


def test_swapped_and_shared_state(machine):
    p, q, r = (state_node(n, f32(7)) for n in "pqr")
    check(machine, updated((p, q), (q, p), (r, r)))
    new = p + q
    check(machine, updated((p, new), (q, new), (r, b.flip(r, axes=(0,)))))


def test_state_that_takes_an_input_a_constant_or_a_view(machine):
    p, q, r = state_node("p", f32(6)), state_node("q", f32(6)), state_node("r", f32(2, 3))
    a = x(6)
    check(machine, updated((p, a), (q, splat(1.5, f32(6))), (r, b.reshape(p, shape=(2, 3))),
                           inputs=(a,)))  # fmt: skip


def test_a_returned_new_value_is_not_the_state_itself(machine):
    w = state_node("w", f32(6))
    new = w * 2.0
    schedule = check(machine, updated((w, new), outputs=(new,)))
    assert schedule.results[0].buffer != schedule.state[0]


def test_a_returned_old_value_is_a_copy_of_it(machine):
    w = state_node("w", f32(6))
    part = b.slice(w, starts=(1,), limits=(3,), steps=(1,))
    schedule = check(machine, updated((w, w * 2.0), outputs=(w, part)))
    assert all(schedule.buffers[r.buffer].kind is BufferKind.OUTPUT for r in schedule.results)


def test_state_waits_for_what_can_fail(machine):
    table, w, index = x(9, 4), state_node("w", f32(4)), input_node("i", TensorType(int64, (5,)))
    rows = b.take(table, index, axis=0)
    schedule = check(machine, updated((w, w * 0.5), outputs=(b.exp(rows),), inputs=(table, index)))
    assert schedule.steps[0].fallible and schedule.failures
    assert schedule.steps[-1].writes == {schedule.state[0]}


def test_a_unit_that_can_fail_does_not_write_state_itself(machine):
    w, index = state_node("w", f32(5, 4)), input_node("i", TensorType(int64, (5,)))
    schedule = check(machine, updated((w, w + b.take(w, index, axis=0)), inputs=(index,)))
    fallible = [s for s in schedule.steps if s.fallible]
    assert fallible and not any(s.writes & set(schedule.committed) for s in fallible)


def test_a_scatter_into_state_is_checked_ahead_and_writes_in_place(machine):
    w, v = state_node("w", f32(5, 4)), state_node("v", f32(5, 4))
    index = b.expand(input_node("i", TensorType(int64, (2, 1))), shape=(2, 4))
    one = b.scatter(w, index, x(2, 4), axis=0)
    two = b.scatter_add(v, index, b.slice(one, starts=(1, 0), limits=(3, 4), steps=(1, 1)), axis=0)
    inputs = (index.inputs[0], x(2, 4))
    schedule = check(machine, updated((w, one), (v, two), outputs=(b.exp(two),), inputs=inputs))
    first, *others = schedule.steps
    assert first.fallible and not first.writes and not any(s.fallible for s in others)
    assert [s.writes for s in others[:2]] == [{schedule.state[0]}, {schedule.state[1]}]


def test_a_gather_of_state_by_other_rows_is_not_in_place(machine):
    w = state_node("w", f32(6, 6))
    check(machine, updated((w, w + b.permute(w, axes=(1, 0)))))
    check(machine, updated((w, w - b.reshape(b.reduce_sum(w, axes=(1,)), shape=(6, 1)))))
    check(machine, updated((w, softmax(b.exp(w)) + w)))


def test_a_slice_of_state_is_updated_where_it_lies(machine):
    cache, row = state_node("cache", f32(6, 4)), x(1, 4)
    new = b.slice_update(cache, b.tanh(row), starts=(2, 0), steps=(1, 1))
    schedule = check(machine, updated((cache, new), inputs=(row,)))
    assert schedule.steps[-1].writes == {schedule.state[0]}
    assert not any("copy" in step.kernel.name for step in schedule.steps)
    part = b.slice(cache, starts=(0, 0), limits=(1, 4), steps=(1, 1))
    new = b.slice_update(cache, part, starts=(2, 0), steps=(1, 1))
    schedule = check(machine, updated((cache, new)))
    assert len(schedule.steps) == 2  # its value is read while its base would change


# ---- memory ------------------------------------------------------------------------------


def test_a_dying_operand_gives_its_memory_to_the_result(machine):
    a = x(64, 64)
    y = b.flip(b.exp(a), axes=(0,))
    for _ in range(3):
        y = b.tanh(b.flip(y + 1.0, axes=(0,)))
    schedule = check(machine, Graph((a,), (b.reduce_sum(y, axes=(0, 1)),)))
    assert schedule.arena_bytes <= 2 * 64 * 64 * 4
    assert schedule.naive_bytes >= schedule.arena_bytes


def test_the_result_may_have_another_shape_than_the_operand_whose_memory_it_takes(machine):
    a = x(64, 64)
    y = b.tanh(b.reshape(b.exp(a), shape=(8, 8, 64)))
    graph = Graph((a,), (b.reduce_sum(y, axes=(0, 1, 2)),))
    assert check(machine, graph, fuse=False).arena_bytes == 64 * 64 * 4


def test_a_long_chain_reuses_memory(machine):
    a = x(100)
    y = a
    for k in range(60):
        y = b.matmul(b.reshape(y, shape=(10, 10)), b.reshape(a, shape=(10, 10)))
        y = b.reshape(b.tanh(y) if k % 3 else y, shape=(100,))
    schedule = check(machine, Graph((a,), (b.reduce_sum(y, axes=(0,)),)))
    assert len(schedule.steps) == 61
    assert schedule.arena_bytes <= 3 * 448


# ---- host calls --------------------------------------------------------------------------


def test_what_has_no_kernel_is_a_host_call(machine):
    a = x(4, 4)
    turned = b.flip(b.permute(a, axes=(1, 0)), axes=(1,))
    both = b.qr(turned, complete=False)
    outputs = (b.get(both, index=0) * 2.0, b.get(both, index=1))
    schedule = check(machine, Graph((a,), outputs))
    [host] = [s for s in schedule.steps if isinstance(s, HostCall)]
    assert host.name == "qr" and len(host.more) == 1
    assert "host qr" in str(schedule) and "1 on the host" in str(schedule)


def test_an_operation_without_a_template_runs_on_the_host(machine):
    sinc = OpDef(
        "sinc", Kind.ELEMENTWISE, "sin(pi x) / (pi x)", infer=lambda types, attrs: types[0],
        reference=np.sinc, vjp=NON_DIFFERENTIABLE, tests=OpTests(),
    )  # fmt: skip
    a = x(5, 3)
    middle = emit(sinc, b.permute(b.exp(a), axes=(1, 0)))
    w = state_node("w", f32(3, 5))
    schedule = check(machine, Graph((a,), (b.tanh(middle),), (w,), ((w, w * 2.0),)))
    [host] = [s for s in schedule.steps if isinstance(s, HostCall)]
    assert host.name == "sinc" and host.function is np.sinc


def test_a_product_of_generated_values_reads_them_from_memory(machine):
    a = x(4, 4)
    count = b.iota(shape=(4, 4), axis=1, dtype=float32)
    filled = splat(2.0, f32(4, 4))
    check(machine, Graph((a,), (b.exp(b.matmul(count, filled) + count * a),)))


# ---- whole graphs ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(80))
def test_random_graphs_run_as_interpreted(machine, seed):
    machine.parallel = seed % 2 == 0
    case = random_graph(seed, 25)
    with np.errstate(all="ignore"):
        schedule = build_schedule(Fuse().run(case.graph), threads=2)
        outputs, after = machine.run(schedule, case.args, list(case.state.values()), seed)
        expected = interpret(case.graph, case.args, case.state)
    for got, want in zip(outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=str(case))
    for got, name in zip(after, case.state, strict=True):
        np.testing.assert_allclose(got, expected.state[name], rtol=1e-4, atol=1e-5,
                                   err_msg=str(case))  # fmt: skip


@pytest.mark.parametrize("fuse", [True, False])
def test_a_training_step_of_an_mlp(machine, fuse):
    graph = mlp_step(16, 20, 12, 3)
    schedule = check(machine, graph, fuse=fuse)
    assert len(schedule.steps) == (9 if fuse else len(schedule.steps))
    assert set(schedule.committed) == set(schedule.state)
    assert not any("copy" in str(s) for s in schedule.steps)


def test_the_real_lowering_schedules_the_training_step():
    schedule = build_schedule(Fuse().run(mlp_step()), threads=2)
    names = [s.kernel.name for s in schedule.steps if isinstance(s, Call)]
    assert len(names) == 9
    assert sum(name.startswith("mm_") for name in names) == 5
    text = str(schedule)
    assert "schedule: 9 calls" in text
    assert "memory: " in text and " → " in text
    assert "state w1 (written)" in text
    assert "failure 1: gather" in text
    weights = schedule.state[0]
    last = next(s for s in reversed(schedule.steps) if weights in s.writes)
    assert weights in last.reads and last.flops == 2 * 128 * 128 * 784


@pytest.mark.parametrize("seed", range(60))
def test_the_real_lowering_takes_every_group_that_is_found(seed):
    case = random_graph(1000 + seed, 40)
    schedule = build_schedule(Fuse().run(case.graph), threads=2)
    hosts = {s.name for s in schedule.steps if isinstance(s, HostCall)}
    assert hosts <= {"cond", "while_loop", "scan"}, str(case)


def test_a_generator_that_is_read_through_an_index():
    """The real lowering: a gather of values that are made, not loaded, and of padding."""
    index = input_node("i", TensorType(int64, (3,)))
    count = b.iota(shape=(6, 2), axis=0, dtype=float32)
    padded = b.pad(x(4, 2), low=(1, 0), high=(1, 0), value=0.0)
    outputs = (b.take(count, index, axis=0), b.take(padded, index, axis=0))
    schedule = build_schedule(Fuse().run(Graph((x(4, 2), index), outputs)))
    assert all(isinstance(s, Call) for s in schedule.steps)


def test_symbolic_shapes_are_refused():
    a = input_node("x", TensorType(float32, (symbol("batch"), 3)))
    with pytest.raises(CompileError, match="symbolic dimension a size"):
        build_schedule(Graph((a,), (b.exp(a),)))
