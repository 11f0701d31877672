"""Values that are made again instead of being kept: budgets, equal results, what stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import assert_same_results, random_graph

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.memory import lifetimes
from graphflow.codegen.outlook import outline_of
from graphflow.errors import GraphFlowError, OutOfMemoryError
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.op import Kind
from graphflow.passes import remat_search
from graphflow.passes.pipeline import run_pipeline
from graphflow.passes.recipes import Recipes
from graphflow.passes.rematerialise import Rematerialise
from graphflow.runtime import available, storage
from graphflow.scheduling import bytes_beside, limit_in_bytes

WIDTH, ROWS, LAYERS = 32, 256, 8


class Block(nn.Module):
    """A residual block with a normalisation, an activation and dropout."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Any) -> Any:
        return x + self.drop(self.down(F.gelu(self.up(self.norm(x)))))


def training(drop: float = 0.0, layers: int = LAYERS, **options: Any) -> tuple[Any, Any, Any]:
    """A compiled step of a deep model, its model, and a batch; always with the same numbers."""
    gf.manual_seed(7)
    model = nn.Sequential(*[Block(drop) for _ in range(layers)])
    opt = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        opt.step()
        return loss

    x, y = gf.randn(ROWS, WIDTH), gf.randn(ROWS, WIDTH)
    return gf.compile(step, **options), model, (x, y)


def program_of(step: Any) -> Any:
    return step.latest.program


def traced(drop: float = 0.0, layers: int = LAYERS) -> Graph:
    step, _, batch = training(drop, layers)
    return gf.trace(step, *batch)


@pytest.fixture(scope="module")
def fused() -> Graph:
    return run_pipeline(traced())[-1].graph


def test_the_outline_foretells_the_plan(fused: Graph) -> None:
    outline, schedule = outline_of(fused), build_schedule(fused, 1)
    scratch = sum(i.size for i in lifetimes(schedule.buffers, schedule.steps) if i.first == i.last)
    assert outline.peak <= schedule.arena_bytes <= outline.peak + scratch


@pytest.mark.parametrize("share", [0.75, 0.5, 0.3])
def test_the_peak_falls_to_the_limit(fused: Graph, share: float) -> None:
    limit = int(share * outline_of(fused).peak)
    made = Rematerialise(outline_of, limit).run(fused).verify("fused")
    assert outline_of(made).peak <= limit
    before, after = build_schedule(fused, 1), build_schedule(made, 1)
    assert after.arena_bytes < (share + 0.2) * before.arena_bytes
    assert len(after.steps) > len(before.steps)


def test_a_graph_that_fits_stays_as_it_is(fused: Graph) -> None:
    assert Rematerialise(outline_of, outline_of(fused).peak).run(fused) is fused
    assert Rematerialise(outline_of).run(fused) is fused  # too small to be worth a look


def test_the_interpreter_finds_the_same_numbers() -> None:
    graph = run_pipeline(traced(layers=3))[-1].graph
    assert_same_numbers(graph, Rematerialise(outline_of, 0).run(graph))


def assert_same_numbers(graph: Graph, made: Graph) -> None:
    """``made`` is another graph than ``graph`` with the same results, to the last bit."""
    assert made is not graph
    rng = np.random.default_rng(3)
    print("seed 3")
    args = [0.1 * rng.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    state = {
        n.attrs["name"]: (np.abs(rng.standard_normal(n.shape)) + 1).astype(n.dtype.numpy)
        for n in graph.state
    }
    one, other = interpret(graph, args, state), interpret(made, args, state)
    for before, after in zip(one.outputs, other.outputs, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs_mean_the_same(seed: int, monkeypatch: Any) -> None:
    print("seed", seed)
    monkeypatch.setattr(remat_search, "SMALL", 1 << 40)  # every value counts
    case = random_graph(seed, 90)
    graph = run_pipeline(case.graph)[-1].graph
    made = Rematerialise(outline_of, 0).run(graph).verify("fused")
    assert_same_results(graph, made, case)
    build_schedule(made, 2)


class Attending(nn.Module):
    """A residual block of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Any) -> Any:
        heads = (*x.shape[:2], 4, WIDTH // 4)
        q, k, v = (y.reshape(heads).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(x.shape))


def test_a_batch_in_chunks_whose_kernels_share_weights() -> None:
    """One kernel has values of two chunks: what is made again for one is wanted for the other."""
    gf.manual_seed(7)
    model = nn.Sequential(Attending(), Attending())
    opt = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = F.mse_loss(gf.cat([model(part) for part in x.chunk(4)]), x)
        loss.backward()
        opt.step()
        return loss

    graph = run_pipeline(gf.trace(step, gf.randn(12, 16, WIDTH)))[-1].graph
    assert_same_numbers(graph, Rematerialise(outline_of, 0).run(graph))


def test_kernels_store_what_is_read_only(fused: Graph) -> None:
    made = Rematerialise(outline_of, 0).run(fused)
    several = [n for n in made.nodes if n.op.name == "fused" and len(n.attrs["body"].outputs) > 1]
    for node in several:
        taken = {user.attrs["index"] for user in made.users[node]}
        assert taken == set(range(len(node.attrs["body"].outputs)))


def losses(step: Any, batch: Any, count: int = 4) -> list[float]:
    return [step(*batch).item() for _ in range(count)]


@pytest.mark.parametrize("drop", [0.0, 0.25])
def test_half_the_memory_and_the_same_losses(drop: float) -> None:
    plain, _, batch = training(drop)
    expected = losses(plain, batch)
    schedule = program_of(plain).schedule
    limit = bytes_beside(schedule) + schedule.arena_bytes // 2
    step, _, batch = training(drop, memory_limit=limit)
    found = losses(step, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # with the same elements dropped
    chosen = program_of(step).schedule
    assert chosen.arena_bytes + bytes_beside(chosen) <= limit
    assert program_of(step).loaded.memory.arena.nbytes == chosen.arena_bytes
    page = step.explain()
    assert "made again" in str(page)
    assert page.remade
    assert page.stages[-2].name == "rematerialise"
    assert "falls from" in page.stages[-2].note


def test_a_limit_that_cannot_be_met_says_what_can() -> None:
    step, _, batch = training(layers=3, memory_limit="300 kB")
    with pytest.raises(OutOfMemoryError, match=r"needs at least (\d+) bytes") as caught:
        step(*batch)
    assert isinstance(caught.value, MemoryError)
    least = int(str(caught.value).split("at least ")[1].split(" ")[0])
    step, _, batch = training(layers=3, memory_limit=least)
    assert np.isfinite(losses(step, batch, 2)).all()


def test_a_limit_holds_for_autocast_and_beside_loops() -> None:
    model, cell = nn.Sequential(*[Block(0.0) for _ in range(4)]), nn.GRUCell(WIDTH, WIDTH)
    opt = optim.SGD([*model.parameters(), *cell.parameters()], lr=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad()
        with gf.autocast("cpu"):
            h = model(x)
        h = h.float()

        def advance(carry: Any, _: Any) -> Any:
            new = cell(h, carry)
            return new, new.mean()

        _, found = gf.scan(advance, h, gf.zeros(3))
        loss = found.sum()
        loss.backward()
        opt.step()
        return loss

    start = {k: v.clone() for k, v in [*model.state_dict().items()]}
    first = {k: v.clone() for k, v in cell.state_dict().items()}
    x, found, arenas, limit = gf.randn(ROWS, WIDTH), [], [], None
    for _ in range(2):
        model.load_state_dict(start)
        cell.load_state_dict(first)
        compiled = gf.compile(step, memory_limit=limit)
        found.append(losses(compiled, (x,), 2))
        schedule = program_of(compiled).schedule
        arenas.append(schedule.arena_bytes)
        limit = int(0.8 * schedule.arena_bytes) + bytes_beside(schedule)
    # Halves are rounded where they are stored, not inside a kernel.
    np.testing.assert_allclose(found[1], found[0], rtol=2e-3)
    assert arenas[1] <= 0.8 * arenas[0]


def test_a_limit_with_a_symbolic_batch() -> None:
    plain, _, (x, y) = training(layers=4)
    plain(x, y)
    schedule = program_of(plain).schedule
    limit = bytes_beside(schedule) + int(0.7 * schedule.arena_bytes)
    sizes = {"x": {0: "rows"}, "y": {0: "rows"}}
    step, _, _ = training(layers=4, dynamic=sizes, memory_limit=limit)
    again, _, _ = training(layers=4)
    for rows in (ROWS, 96):
        expected = again(x[:rows], y[:rows]).item() if rows != ROWS else None
        found = step(x[:rows], y[:rows]).item()
        assert expected is None or np.isfinite(found)
    assert program_of(step).template.arena_bytes + bytes_beside(schedule) <= limit


def test_what_has_effects_or_can_fail_runs_once() -> None:
    table = nn.Embedding(16, 8)

    def step(places: Any) -> Any:
        rows = table(places)
        gf.print("rows", rows.sum())
        loss = rows.square().sum()
        loss.backward()
        return loss, table.weight.grad.clone()

    graph = run_pipeline(gf.trace(step, gf.TensorSpec((32,), gf.int64)))[-1].graph
    tasks = outline_of(graph).tasks
    once = [t for t in tasks if not t.repeatable]
    assert {t.kind for t in once} >= {"host", "loop"}
    assert Kind.SCATTER in {n.op.kind for t in once for n in t.body.nodes}
    recipes = [Recipes().of(t.body, range(len(t.body.outputs)), ()) for t in tasks if t.repeatable]
    gathers = [r for r in recipes if any(n.op.kind is Kind.GATHER for n in r.nodes)]
    assert gathers and all(recipe.fallible for recipe in gathers)


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        (1000, 1000),
        ("512MB", 512_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("64kb", 64_000),
        ("12", 12),
        (None, None),
    ],
)
def test_limits_are_numbers_or_texts(limit: Any, size: int | None) -> None:
    assert limit_in_bytes(limit) == size


@pytest.mark.parametrize("limit", [0, -5, "many", "5 XB", "", 1.5, True, "-3MB", "0"])
def test_other_limits_are_refused(limit: Any) -> None:
    with pytest.raises(GraphFlowError, match="memory_limit takes a positive number"):
        gf.compile(lambda x: x, memory_limit=limit)


# ---- more than the machine has -------------------------------------------------------------


def test_a_step_that_cannot_fit_is_refused_before_it_runs(monkeypatch: Any) -> None:
    monkeypatch.setattr(available, "LARGE", 1)
    monkeypatch.setattr(available, "available_bytes", lambda: 100_000)
    step, _, batch = training(layers=2)
    with pytest.raises(OutOfMemoryError, match="temporaries at the peak") as caught:
        step(*batch)
    assert "memory_limit" in str(caught.value)
    monkeypatch.undo()
    assert np.isfinite(step(*batch).item())


def test_a_tensor_that_cannot_fit_is_refused() -> None:
    assert (available.available_bytes() or 1) > 0
    with pytest.raises(OutOfMemoryError, match=r"a tensor of shape \[1048576, 1073741824\]"):
        storage.aligned_empty((1 << 20, 1 << 30), np.float32)


def test_what_a_container_leaves_counts(tmp_path: Any, monkeypatch: Any) -> None:
    limit, used, stat = tmp_path / "max", tmp_path / "current", tmp_path / "memory.stat"
    used.write_text("600\n")
    stat.write_text("anon 5\ninactive_file 100\n")
    monkeypatch.setattr(available, "_GROUPS", ((str(limit), str(used), "inactive_file"),))
    limit.write_text("max\n")
    assert (available.available_bytes() or 1 << 20) > 1000
    limit.write_text("1000\n")
    assert available.available_bytes() == 500


def gelu_blocks(layers: int = 4) -> Graph:
    """A step of layers whose gradients compute the activation's ``tanh`` again."""

    def step(x: Any, y: Any) -> Any:
        for w in weights:
            w.grad = None
        for up, down in zip(weights[::2], weights[1::2], strict=True):
            x = x + F.linear(F.gelu(F.linear(x, up), approximate="tanh"), down)
        loss = F.mse_loss(x, y)
        loss.backward()
        with gf.no_grad():
            for w in weights:
                w.sub_(0.1 * w.grad)
        return loss

    gf.manual_seed(5)
    shapes = [(512, 256), (256, 512)] * layers  # so wide that no product is made again
    weights = [(0.05 * gf.randn(*shape)).requires_grad_() for shape in shapes]
    return gf.trace(step, gf.randn(4, 16, 256), gf.randn(4, 16, 256))


def kernels_with(graph: Graph, name: str) -> list[Graph]:
    bodies = [n.attrs["body"] for n in graph.nodes if n.op.name == "fused"]
    return [body for body in bodies if any(n.op.name == name for n in body.nodes)]


def test_a_kernel_that_runs_anyway_makes_the_value_too() -> None:
    graph = run_pipeline(gelu_blocks())[-1].graph
    made = Rematerialise(outline_of, int(0.7 * outline_of(graph).peak)).run(graph).verify("fused")
    assert outline_of(made).peak < 0.7 * outline_of(graph).peak
    # Backward kernels store the activation beside the gradient; no third one computes it.
    assert len(kernels_with(made, "tanh")) == len(kernels_with(graph, "tanh")) == 8
    assert sum(len(body.outputs) == 2 for body in kernels_with(made, "tanh")) == 4
    rng = np.random.default_rng(9)
    print("seed 9")
    args = [rng.standard_normal(n.shape).astype(np.float32) for n in graph.inputs]
    state = {n.attrs["name"]: 0.05 * rng.standard_normal(n.shape) for n in graph.state}
    state = {name: value.astype(np.float32) for name, value in state.items()}
    one, other = interpret(graph, args, state), interpret(made, args, state)
    np.testing.assert_array_equal(one.outputs[0], other.outputs[0])
    for name in state:
        np.testing.assert_array_equal(one.state[name], other.state[name])
