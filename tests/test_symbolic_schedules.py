"""Schedules made for some sizes and run at others: every result is the interpreter's.

Kernels run as plain Python here, so that many programs can be tried; that what is lowered
for symbolic dimensions compiles is what ``test_dynamic.py`` shows.
"""

from __future__ import annotations

import graphs
import numpy as np
import pytest
from graphs import Case, random_graph
from op_cases import Case as Call
from op_cases import all_cases
from running import Expected, Running, sizes_of

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import flags, nn
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.instance import at_sizes
from graphflow.codegen.sizes import (
    Size,
    example_for,
    for_example,
    greatest,
    is_fixed,
    known_sizes,
    least,
    surely,
)
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.ir.build import NODES, emit, input_node
from graphflow.ir.dims import Dim, symbol
from graphflow.ir.graph import Graph
from graphflow.ir.op import Kind
from graphflow.ir.types import TensorType, float32, from_numpy_dtype
from graphflow.passes.pipeline import run_pipeline

SIZES = ((3, 2), (1, 1), (1, 7), (0, 3), (6, 5))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_random_graphs_at_sizes_they_were_not_made_for(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "SIZES", dict(zip(("batch", "seq"), sizes)))
    tried = 0
    for seed in range(10, 16):
        case = random_graph(seed, 40, symbolic=True, control=False)
        if 0 in sizes and any(n.op.kind is Kind.REDUCTION for n in case.graph.nodes):
            continue  # the largest of no elements
        with flags.override(disable_jit=True):
            running = Running(case, 2, 32 if seed % 2 else 200)
            Expected(case).check(running.run(), running.values())
        tried += 1
    assert tried >= 1


def symbolic(dim: int) -> Dim:
    """Extents above 1 as symbols, one a size."""
    return symbol(f"n{dim}") if dim > 1 else dim


def symbolic_call(call: Call) -> Case | None:
    """The call with symbols for extents; None where there is no such call."""
    attrs = dict(call.attrs)
    if "shape" in attrs:
        attrs["shape"] = tuple(map(symbolic, attrs["shape"]))
    if "limits" in attrs:
        pairs = zip(attrs["limits"], call.arrays[0].shape)
        attrs["limits"] = tuple(symbolic(end) if end == extent else end for end, extent in pairs)
    leaves = tuple(
        input_node(f"x{i}", TensorType(from_numpy_dtype(a.dtype), tuple(map(symbolic, a.shape))))
        for i, a in enumerate(call.arrays)
    )
    try:
        node = emit(call.op, *leaves, **attrs)
        case = Case(0, Graph(inputs=leaves, outputs=(node,)), call.arrays, {})
        return case if sizes_of(case) and isinstance(node.type, TensorType) else None
    except GraphFlowError:
        return None


def test_every_operation_at_sizes_it_was_not_lowered_for() -> None:
    tried: dict[str, int] = {}
    for call in all_cases(("f32", "i64")):
        name = call.op.name
        # The extents of a kernel are known, and what shape alone gives has no leaf to say it.
        fixed = call.op.kind is Kind.OPAQUE or call.op.tiles is not None
        if fixed or name in ("conv", "strided") or tried.get(name, 0) > 2:
            continue
        if name in ("expand", "reshape") and not set(call.attrs["shape"]) <= {
            *call.arrays[0].shape,
            1,
        }:
            continue
        case = symbolic_call(call)
        if case is None:
            continue
        with flags.override(disable_jit=True):
            running = Running(case, 2, 32)
            Expected(case).check(running.run(), {})
        tried[name] = tried.get(name, 0) + 1
    assert len(tried) > 100


def training_graph() -> Graph:
    """An MLP's training step over a batch of unknown size."""
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1)

    def step(images: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    specs = gf.TensorSpec(("batch", 20)), gf.TensorSpec(("batch",), gf.int64)
    return run_pipeline(gf.trace(step, *specs))[-1].graph


@pytest.mark.parametrize("examples", [(128, 200), (200, 257)])
def test_two_examples_give_the_same_kernels_and_numbers(examples: tuple[int, int]) -> None:
    graph = training_graph()
    one, other = (build_schedule(graph, 2, {"batch": size}) for size in examples)
    assert [s.kernel for s in one.steps] == [s.kernel for s in other.steps]
    # An example decides which kernels are enough work for two threads, and they where buffers
    # lie best: that of cross entropy is enough for 200 rows, and not for 128.
    alike = [s.parallel for s in one.steps] == [s.parallel for s in other.steps]
    assert alike == (examples == (200, 257))
    for size in (1, 64, 257):
        here, there = (at_sizes(schedule, {"batch": size}) for schedule in (one, other))
        assert [s.arguments for s in here.steps] == [s.arguments for s in there.steps]
        assert here.buffers == there.buffers
        assert here.offsets == there.offsets or not alike


def test_a_schedule_at_sizes_holds_plain_integers_only() -> None:
    schedule = at_sizes(build_schedule(training_graph(), 2, {"batch": 64}), {"batch": 7})
    assert "batch" not in str(schedule).replace("batch,", "").partition("steps:")[0]
    for buffer in schedule.buffers:
        assert all(map(is_fixed, buffer.type.static_shape))
    for step in schedule.steps:
        values = [a.value for a in step.arguments if hasattr(a, "value")]
        assert all(map(is_fixed, (*values, step.bytes, step.flops)))


def test_sizes_remember_their_expressions() -> None:
    batch = Size(64, symbol("batch"))
    assert str(batch * 3 + 1) == "3*batch+1" and int(batch * 3 + 1) == 193
    assert batch != 64 and batch == Size(64, symbol("batch")) and batch != Size(32, symbol("batch"))
    assert batch - batch == 0 and is_fixed(batch - batch) and (batch * 4) // 2 == batch * 2
    assert int(-(-batch // 10)) == 7 and int(batch % 10) == 4 and not is_fixed(batch % 10)
    assert 100 - batch == Size(36, 100 - symbol("batch")) and bool(batch - 64)
    assert str(least(batch, 8)) == "min(batch,8)" and int(least(batch, 8)) == 8
    assert greatest(batch, 0) == batch and surely(0, batch) and not surely(1, batch)


def test_an_extent_below_zero_is_refused() -> None:
    x = input_node("x", TensorType(float32, (symbol("n"),)))
    graph = Graph((x,), (NODES.slice(x, starts=(5,), limits=(symbol("n"),), steps=(1,)) + 1.0,))
    assert str(for_example(graph, {"n": 40}).outputs[0].type) == "f32[n-5]"
    schedule = build_schedule(run_pipeline(graph)[-1].graph, 1, {"n": 40})
    assert at_sizes(schedule, {"n": 6}).results[0].type.shape == (1,)
    with pytest.raises(ShapeError, match=r"f32\[n-5\] has a negative extent for n = 3"):
        at_sizes(schedule, {"n": 3})


def test_examples_are_sizes_that_can_be() -> None:
    x = input_node("x", TensorType(float32, (symbol("n"),)))
    padding = NODES.expand(
        NODES.slice(x, starts=(0,), limits=(1,), steps=(1,)), shape=(9 - symbol("n"),)
    )
    graph = Graph((x,), (NODES.concatenate(x, padding, axis=0),))
    assert known_sizes(graph, {}) == {"n": 4} and known_sizes(graph, {"n": 7}) == {"n": 7}
    assert example_for(graph, {"n": 7}, {"n": 8}) == {"n": 7}
    free = Graph((x,), (x * 2.0,))
    assert known_sizes(free, {}) == {"n": 64}
    assert example_for(free, {"n": 7}, {}) == {"n": 32} and example_for(
        free, {"n": 7}, {"n": 90}
    ) == {"n": 90}


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
def test_a_recurrence_over_any_length_and_batch(reverse: bool) -> None:
    length, batch = symbol("length"), symbol("batch")
    hidden, item = (input_node(n, TensorType(float32, (batch, k))) for n, k in (("h", 4), ("x", 3)))
    recurrent, taken = (input_node(n, TensorType(float32, (k, 4))) for n, k in (("w", 4), ("u", 3)))
    new = NODES.tanh(NODES.matmul(hidden, recurrent) + NODES.matmul(item, taken))
    body = Graph((hidden, item, recurrent, taken), (new, NODES.reduce_sum(new, axes=(1,))))
    items = input_node("xs", TensorType(float32, (length, batch, 3)))
    operands = hidden, items, recurrent, taken
    both = NODES.scan(*operands, body=body, carried=1, scanned=1, length=length, reverse=reverse)
    graph = Graph(operands, tuple(NODES.get(both, index=i) for i in range(2)))
    numbers = np.random.default_rng(4)
    for steps, rows in ((5, 3), (1, 1), (7, 2), (20, 33), (0, 2)):
        shapes = ((rows, 4), (steps, rows, 3), (4, 4), (3, 4))
        values = [numbers.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
        case = Case(0, graph, values, {})
        with flags.override(disable_jit=True):
            running = Running(case, 2, 32)
            Expected(case).check(running.run(), {})
