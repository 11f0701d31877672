"""What a deep model costs to compile: each layer costs the same, and is lowered once."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.codegen import build_schedule as scheduling
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.schedule import Call, Schedule
from graphflow.ir.graph import Graph
from graphflow.ir.node import Form
from graphflow.ir.op import Kind
from graphflow.passes import clusters, fuse, groups
from graphflow.passes.pipeline import run_pipeline
from graphflow.trace import Tracer

TRACED, COMPILED = 46, 118
"""Calls of Python functions for a node of the traced graph, a tenth more than there are."""


class Layer(nn.Module):
    """An MLP beside the stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


def training_step(depth: int) -> Graph:
    """A step of a net of ``depth`` equal layers, traced."""
    gf.manual_seed(0)
    model = nn.Sequential(*(Layer(24) for _ in range(depth)), nn.Linear(24, 5))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    def step(x: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return gf.trace(step, gf.TensorSpec((32, 24)), gf.TensorSpec((32,), gf.int64))


@pytest.fixture(scope="module")
def steps() -> dict[int, Graph]:
    return {depth: training_step(depth) for depth in (2, 4, 8)}


def compiled(graph: Graph) -> Schedule:
    return build_schedule(run_pipeline(graph)[-1].graph)


def test_the_kernels_of_a_deep_model_are_those_of_a_shallow_one(steps: dict[int, Graph]) -> None:
    def kernels(schedule: Schedule) -> set[str]:
        return {s.kernel.source for s in schedule.steps if isinstance(s, Call)}

    assert kernels(compiled(steps[8])) == kernels(compiled(steps[2]))


def test_equal_units_are_lowered_once(
    steps: dict[int, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    lowered: Counter[int] = Counter()
    names = ("lower_group", "lower_epilogue", "contraction_calls", "product_calls")

    def counted(lower: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            lowered[depth] += 1
            return lower(*args)

        return wrapped

    for name in names:
        monkeypatch.setattr(scheduling, name, counted(getattr(scheduling, name)))
    calls = {}
    for depth, graph in steps.items():
        calls[depth] = len(compiled(graph).steps)
    assert lowered[8] == lowered[4] == lowered[2] > 10
    assert calls[8] - calls[4] == 2 * (calls[4] - calls[2]) > 40


def calls_in(work: Callable[[], object]) -> int:
    """Calls of Python functions that ``work`` makes, which do not depend on the machine.

    Nor on what other tests left: a node in a cycle calls a function when it is collected.
    """
    made = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal made
        made += event == "call"

    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return made


def test_a_layer_costs_the_same_in_a_deep_model(steps: dict[int, Graph]) -> None:
    compiled(steps[2])  # what is done once in a process
    few, some, many = (calls_in(partial(compiled, steps[depth])) for depth in (2, 4, 8))
    assert (many - some) / 4 <= 1.05 * (some - few) / 2, (few, some, many)


def test_a_node_of_a_further_layer_costs_few_calls(steps: dict[int, Graph]) -> None:
    """From the trace to the schedule; what is the same in all layers is found once."""
    traced = {}
    for depth in (4, 4, 8):  # once for what is done once in a process
        traced[depth] = calls_in(partial(training_step, depth))
    nodes = len(steps[8].nodes) - len(steps[4].nodes)
    some, many = (calls_in(partial(compiled, steps[depth])) for depth in (4, 8))
    assert (traced[8] - traced[4]) / nodes <= TRACED, (nodes, traced)
    assert (many - some) / nodes <= COMPILED, (nodes, some, many)


def test_equal_layers_are_of_the_same_forms(steps: dict[int, Graph]) -> None:
    def forms(graph: Graph) -> set[Form]:
        return {form for form in graph.forms if form.op.kind is not Kind.LEAF}

    assert forms(steps[8]) == forms(steps[4])
    assert len(forms(steps[8])) < len(steps[8].nodes) / 8


def test_the_body_of_equal_groups_is_made_once(
    steps: dict[int, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[int] = Counter()
    body = fuse._body

    def counted(*args: Any) -> Any:
        made[depth] += 1
        return body(*args)

    monkeypatch.setattr(fuse, "_body", counted)
    places = {}
    for depth, graph in steps.items():
        fused = [n for n in run_pipeline(graph)[-1].graph.nodes if n.op.name == "fused"]
        places[depth] = len({tuple(n.attrs["body"].locations.values()) for n in fused})
    assert made[8] == made[4] > 5
    # Each body is said to come from its own layer.
    assert places[8] - places[4] == 2 * (places[4] - places[2]) > 0


def test_looking_for_cycles_takes_the_same_time_in_a_deep_model(
    steps: dict[int, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[clusters.Clusters] = []

    class Kept(clusters.Clusters):
        def __init__(self, successors: Any) -> None:
            super().__init__(successors)
            made.append(self)

    monkeypatch.setattr(groups, "Clusters", Kept)
    for graph in steps.values():
        run_pipeline(graph)
    few, some, many = (found.searched for found in made)
    # From 240 to 290 a layer, up and down, to 48 layers; a search that grew would be twice that.
    assert (many - some) / 4 <= 1.4 * (some - few) / 2, (few, some, many)


def test_collection_is_off_while_a_program_is_traced_and_on_again_afterwards() -> None:
    seen: list[bool] = []

    def step(x: gf.Tensor) -> gf.Tensor:
        seen.append(gc.isenabled())
        return x.reshape(7)  # which fails

    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(gf.ShapeError):
                gf.compile(step)(gf.ones(3))
            assert gc.isenabled() is enabled
        finally:
            gc.enable()
    assert seen == [False, False]


def test_objects_that_the_user_has_frozen_stay_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 1)
    monkeypatch.setattr(gc, "unfreeze", lambda: pytest.fail("unfrozen"))
    assert gf.compile(lambda x: x + 1.0)(gf.ones(2)).tolist() == [2.0, 2.0]


def test_names_are_given_once() -> None:
    tracer = Tracer("step")
    asked = ("x", "x_1", "x", "x", "x_1", "x_2", "y")
    given = [tracer._unique(name) for name in asked]
    assert given == ["x", "x_1", "x_2", "x_3", "x_1_1", "x_2_1", "y"]
