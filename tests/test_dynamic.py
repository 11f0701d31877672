"""Symbolic dimensions from the front to kernels: one program for all sizes."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.codegen import build_schedule as scheduling
from graphflow.passes import pipeline

FEATURES, HIDDEN, CLASSES = 20, 16, 5


def training(seed: int = 0) -> tuple[nn.Module, Any]:
    """A small MLP and its training step."""
    gf.manual_seed(seed)
    model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    optimizer = gf.optim.Adam(model.parameters(), lr=1e-3)

    def step(images: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def batch_of(size: int, seed: int = 0) -> tuple[gf.Tensor, gf.Tensor]:
    """Images and labels."""
    numbers = np.random.default_rng(seed + size)
    images = numbers.standard_normal((size, FEATURES)).astype(np.float32)
    return gf.tensor(images), gf.tensor(numbers.integers(0, CLASSES, size))


def close(got: Any, want: Any, tolerance: float = 2e-5) -> None:
    """Equal within rounding."""
    got, want = got.detach().numpy(), want.detach().numpy()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


NAMED = {"images": {0: "batch"}, "labels": {0: "batch"}}


@pytest.mark.parametrize("dynamic", [NAMED, True], ids=["named", "all leading ones"])
def test_one_program_trains_on_every_batch_size(dynamic: Any) -> None:
    model, step = training()
    twin, eager = training()
    compiled = gf.compile(step, dynamic=dynamic)
    for size in (64, 1, 2, 3, 7, 33, 64, 100, 257, 1):
        close(compiled(*batch_of(size)), eager(*batch_of(size)))
    assert len(compiled.programs) == 1
    assert compiled.recompiles == []
    for mine, other in zip(model.parameters(), twin.parameters()):
        close(mine.detach(), other.detach(), 1e-3)
    assert "f32[batch,20] = input" in str(compiled.programs[0].graph)


def test_another_size_runs_no_pass_and_lowers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, step = training()
    compiled = gf.compile(step, dynamic=NAMED)
    compiled(*batch_of(8))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("this must not run for another size")

    monkeypatch.setattr(pipeline, "run_pipeline", refuse)
    monkeypatch.setattr(scheduling, "build_schedule", refuse)
    loaded = compiled.programs[0].loaded.loaded
    for size in (9, 21, 1):
        compiled(*batch_of(size))
        assert compiled.latest.program.loaded.loaded is loaded


def test_a_size_that_changes_twice_becomes_dynamic() -> None:
    _, step = training()
    _, eager = training()
    compiled = gf.compile(step)
    for count, size in ((1, 8), (2, 12), (3, 9), (3, 40), (3, 8), (3, 1)):
        close(compiled(*batch_of(size)), eager(*batch_of(size)))
        assert len(compiled.programs) == count
    assert len(compiled.recompiles) == 2
    assert "batch = images[0], labels[0] (its size changed more than once)" in str(
        compiled.explain()
    )


def test_dynamic_false_keeps_sizes_fixed() -> None:
    compiled = gf.compile(lambda x: x * 2, dynamic=False)
    for size in (2, 3, 4, 5):
        compiled(gf.zeros(size))
    assert len(compiled.programs) == 4


def test_a_traced_graph_with_names_runs_for_all_sizes() -> None:
    model, _ = training()
    graph = gf.trace(lambda x: model(x).detach(), gf.TensorSpec(("batch", FEATURES), name="x"))
    program = gf.compile(graph)
    for size in (5, 1, 0, 70):
        images, _ = batch_of(size)
        close(program(images), model(images).detach())
    with pytest.raises(gf.ShapeError, match=r"expected shape \[5, 20\]"):
        program(gf.zeros(5, FEATURES + 1))


def test_an_empty_batch_gives_what_eager_gives() -> None:
    def statistics(x: gf.Tensor) -> Any:
        return x.sum(0), x.mean(), (x @ x.T).shape, gf.cat([x, x]).shape

    compiled = gf.compile(statistics, dynamic=True)
    for size in (4, 0, 6):
        x = gf.arange(size * 3).reshape(size, 3).float()
        got, want = compiled(x), statistics(x)
        for mine, other in zip(got[:2], want[:2]):
            np.testing.assert_allclose(mine.numpy(), other.numpy(), equal_nan=True)
        assert got[2:] == want[2:]


SHAPES = {
    "view": lambda x: x.view(x.shape[0] * 2, -1),
    "halves": lambda x: x[: x.shape[0] // 2],
    "odd": lambda x: x[1::2],
    "rest": lambda x: x[1:] + x[:-1],
    "last": lambda x: x[-1] * x[x.shape[0] - 1],
    "rows": lambda x: x + gf.arange(x.shape[0]).unsqueeze(1),
    "even": lambda x: gf.linspace(0, 1, x.shape[0]) @ x,
    "identity": lambda x: gf.eye(x.shape[0]) @ x,
    "cat": lambda x: gf.cat([x, x * 2, x[:1]]),
    "lower": lambda x: gf.tril(x @ x.T),
    "expand": lambda x: x.sum(0).expand(x.shape[0], -1) * x,
    "windows": lambda x: F.avg_pool1d(x.T.unsqueeze(0), 2, 1)[0],
    "convolve": lambda x: F.conv1d(x.T.unsqueeze(0), gf.ones(3, 6, 2), stride=2, padding=1),
    "count": lambda x: x.sum() / len(x.shape) + x.numel(),
    "attend": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "one hot": lambda x: F.one_hot(x.argmax(1), 6).float().mean(0),
    "flatten": lambda x: x.flatten(),
    "mean": lambda x: x.mean() + x.mean(0, keepdim=True),
    "divide": lambda x: x.sum(0) / x.shape[0],
    "scale": lambda x: x * (x.shape[0] ** -0.5) + 0.5 * x.numel(),
    "new": lambda x: x + gf.ones(x.shape[0], 1) * 2 + gf.zeros_like(x),
    "softmax": lambda x: F.softmax(x, 0),
    "norm": lambda x: F.layer_norm(x, (6,)),
    "variance": lambda x: x.var(0),
    "pad": lambda x: F.pad(x, (0, 0, 1, 2)),
    "outer": lambda x: (x @ x.T).sum(1),
    "square": lambda x: x.reshape(x.shape[0], 2, 3).transpose(0, 2) * 2,
    "running": lambda x: x.cumsum(0),
    "sorted": lambda x: x.sort(0).values,
    "biggest": lambda x: x.argmax(0),
    "pick": lambda x: x[x.argmax(0)],
    "repeat": lambda x: x.repeat(2, 1),
    "flip": lambda x: x.flip(0),
    "stack": lambda x: gf.stack([x, -x], 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_results_are_those_of_fixed_sizes(name: str) -> None:
    function = SHAPES[name]
    compiled = gf.compile(function, dynamic=True)
    for size in (6, 2, 3, 17, 129):
        x = gf.tensor(np.random.default_rng(size).standard_normal((size, 6)).astype(np.float32))
        close(compiled(x), function(x))
    assert len(compiled.programs) == 1, compiled.dimensions


def test_what_is_asked_of_a_size_becomes_an_assumption() -> None:
    def function(x: gf.Tensor) -> gf.Tensor:
        return x * 2 if x.shape[0] > 10 else x * 3

    compiled = gf.compile(function, dynamic={"x": {0: "n"}})
    for size, programs in ((20, 1), (11, 1), (10, 2), (4, 2), (30, 2)):
        x = gf.ones(size)
        close(compiled(x), function(x))
        assert len(compiled.programs) == programs
    assert "n >= 11" in compiled.explain().guards
    assert [str(r).partition(" (")[0] for r in compiled.recompiles] == [
        "the size of n: n >= 11 → n = 10"
    ]
    assert [str(a) for a in compiled.latest.capture.assumptions] == ["n >= 11"]


def test_code_that_needs_the_number_fixes_the_dimension() -> None:
    def function(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        total = y.sum()
        for i in range(x.shape[0]):
            total = total + x[i].sum()
        return total

    compiled = gf.compile(function, dynamic={"x": {0: "steps"}, "y": {0: "n"}})
    for steps, n in ((3, 5), (3, 8), (4, 9)):
        x, y = gf.ones(steps, 2), gf.ones(n)
        with pytest.warns(UserWarning, match=r"fixed: x\[0\]") if n == 5 else nullcontext():
            close(compiled(x, y), function(x, y))
    assert len(compiled.programs) == 2  # one for each number of steps
    assert any("fixed: x[0] = 3" in line for line in compiled.dimensions)
    assert any("dynamic: n = y[0]" in line for line in compiled.dimensions)


def test_without_an_example_the_number_is_refused() -> None:
    spec = gf.TensorSpec(("steps", 2))
    with pytest.raises(gf.TraceError, match="symbolic dimension 'steps'"):
        gf.trace(lambda x: sum(x[i] for i in range(x.shape[0])), spec)


def test_shapes_that_are_returned_are_numbers() -> None:
    compiled = gf.compile(lambda x: (x.shape, x.shape[0] * 2, x[:1].T), dynamic=True)
    for size in (3, 5):
        shape, twice, view = compiled(gf.ones(size, 2))
        assert tuple(shape) == (size, 2) and twice == 2 * size and view.shape == (2, 1)


def test_gradients_flow_through_results_of_any_size() -> None:
    weight = gf.randn(6, 4).requires_grad_()
    compiled = gf.compile(lambda x: gf.tanh(x @ weight).mean(), dynamic=True)
    for size in (4, 9, 1):
        x = gf.randn(size, 6)
        weight.grad = None
        compiled(x).backward()
        got, weight.grad = weight.grad, None
        gf.tanh(x @ weight).mean().backward()
        close(got, weight.grad)
    assert len(compiled.programs) == 1


@pytest.mark.parametrize(
    "dynamic", [3, "batch", {"x": 0}, {"x": {"0": "n"}}, {"x": {0: "my dim"}}], ids=str
)
def test_a_dynamic_that_says_nothing_is_refused(dynamic: Any) -> None:
    with pytest.raises(TypeError, match="names of dimensions by parameter and axis"):
        gf.compile(lambda x: x, dynamic=dynamic)


def test_names_that_fit_no_argument_are_refused() -> None:
    with pytest.raises(gf.GraphFlowError, match="dynamic names the argument 'y'"):
        gf.compile(lambda x: x * 2, dynamic={"y": {0: "n"}})(gf.ones(2))
    with pytest.raises(gf.GraphFlowError, match="dynamic names dimension 2"):
        gf.compile(lambda x: x * 2, dynamic={"x": {2: "n"}})(gf.ones(2))
    both = gf.compile(lambda x, y: x.sum() + y.sum(), dynamic={"x": {0: "n"}, "y": {0: "n"}})
    with pytest.raises(gf.GraphFlowError, match="'n' has size 2 in one argument and 3 in another"):
        both(gf.ones(2), gf.ones(3))


def test_sizes_share_kernels_constants_and_memory() -> None:
    numbers = gf.tensor(np.arange(300, dtype=np.float32))
    compiled = gf.compile(lambda x: (gf.sort(x * 2).values @ x.T)[:, :1] + numbers[0], dynamic=True)
    arenas = set()
    for size in (40, 8, 39, 41, 60):
        x = gf.randn(size, 3)
        compiled(x)
        loaded = compiled.latest.program.loaded
        assert loaded.memory.arena.nbytes >= loaded.schedule.arena_bytes
        arenas.add(loaded.memory.arena.address)
    assert len(arenas) <= 2  # it grows to twice as much


def test_only_the_last_sizes_are_kept_ready() -> None:
    from graphflow.program import MOST_SIZES

    compiled = gf.compile(lambda x: x * 2 + 1, dynamic=True)
    for size in range(2, MOST_SIZES + 10):
        close(compiled(gf.ones(size)), gf.ones(size) * 3)
    held = [entry for entries in compiled._entries.values() for entry in entries]
    assert len(held) == MOST_SIZES and len(compiled.programs) == 1


def test_large_results_of_other_sizes_are_let_go() -> None:
    compiled = gf.compile(lambda x: x + 1, dynamic=True)
    compiled(gf.zeros(1 << 18))
    first = compiled.latest.program.loaded
    assert [len(pool._entries) for pool in first._outputs] == [1]
    compiled(gf.zeros(1 << 19))
    assert [len(pool._entries) for pool in first._outputs] == [0]


def test_a_plan_for_all_sizes_is_found_by_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = training(5)
    graph = gf.trace(lambda x: model(x).detach() * 3, gf.TensorSpec(("batch", FEATURES)))
    first = gf.compile(graph)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the plan should have been found")

    monkeypatch.setattr(pipeline, "run_pipeline", refuse)
    second = gf.compile(gf.Graph.parse(str(graph)))
    second.load_state_dict(first.state_dict())
    for size in (1, 64, 130):
        images, _ = batch_of(size)
        close(second(images), first(images))


def test_a_size_that_equals_a_number_gets_a_program_of_its_own() -> None:
    def function(x: gf.Tensor) -> gf.Tensor:
        return x * 2 if x.shape[0] == 4 else x * 3

    compiled = gf.compile(function, dynamic=True)
    for size, programs in ((4, 1), (7, 2), (9, 2), (4, 2), (30, 2)):
        close(compiled(gf.ones(size)), function(gf.ones(size)))
        assert len(compiled.programs) == programs


def test_dimensions_that_part_get_names_of_their_own() -> None:
    compiled = gf.compile(lambda x, y: x.sum(0) * y.mean(0), dynamic=True)
    for first, second, programs in ((4, 4, 1), (5, 5, 1), (6, 3, 2), (3, 8, 2), (2, 2, 2)):
        x, y = gf.randn(first, 3), gf.randn(second, 3)
        close(compiled(x, y), x.sum(0) * y.mean(0))
        assert len(compiled.programs) == programs


def test_arguments_that_share_memory_or_are_written_to_have_fixed_dimensions() -> None:
    add = gf.compile(lambda x, y: x + y, dynamic=True)
    write = gf.compile(lambda x: x.add_(1), dynamic=True)
    for size in (3, 4, 5):
        x = gf.ones(size)
        close(add(x, x), x * 2)
        write(x)
        close(x, gf.ones(size) * 2)


def test_dropout_and_random_numbers_of_any_size() -> None:
    def noisy(x: gf.Tensor) -> gf.Tensor:
        return F.dropout(x, 0.5, training=True) + gf.rand(x.shape[0], 1)

    compiled = gf.compile(noisy, dynamic=True)
    for size in (100, 7, 1, 64):
        x = gf.ones(size, 50)
        gf.manual_seed(size)
        got = compiled(x)
        gf.manual_seed(size)
        close(got, noisy(x))
    assert len(compiled.programs) == 1


class Block(nn.Module):
    """Self-attention over sequences of symbols, as a language model has it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.symbols, self.places = nn.Embedding(20, width), nn.Embedding(64, width)
        self.norm, self.queries = nn.LayerNorm(width), nn.Linear(width, 3 * width)

    def forward(self, ids: gf.Tensor) -> gf.Tensor:
        count, length = ids.shape
        x = self.symbols(ids) + self.places(gf.arange(length))
        parts = self.queries(self.norm(x)).chunk(3, -1)
        q, k, v = (part.view(count, length, 2, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(count, length, -1)
        return (x + mixed) @ self.symbols.weight.T


def test_attention_over_any_batch_and_length() -> None:
    gf.manual_seed(1)
    model = Block()

    def loss_of(ids: gf.Tensor) -> gf.Tensor:
        scores = model(ids[:, :-1])
        return F.cross_entropy(scores.reshape(-1, 20), ids[:, 1:].reshape(-1)).detach()

    compiled = gf.compile(loss_of, dynamic={"ids": {0: "batch", 1: "length"}})
    for count, length in ((3, 9), (2, 5), (4, 33), (7, 12)):
        ids = gf.randint(0, 20, (count, length))
        close(compiled(ids), loss_of(ids))
    assert len(compiled.programs) == 1


@pytest.mark.parametrize("kind", ["pooled", "strided", "depthwise", "transposed", "wide"])
def test_a_convolutional_network_trains_on_any_batch(kind: str) -> None:
    gf.manual_seed(2)
    first = nn.Conv2d(2, 4, 3, padding=1)
    layers = {
        "pooled": (first, nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        "strided": (first, nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU()),
        "depthwise": (first, nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4)),
        "transposed": (first, nn.ReLU(), nn.ConvTranspose2d(4, 4, 3, stride=2)),
        "wide": (nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=2)),
    }[kind]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    twin = copy.deepcopy(model)

    def step_of(network: nn.Module) -> Any:
        optimizer = gf.optim.SGD(network.parameters(), lr=0.05)

        def step(images: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    compiled, eager = gf.compile(step_of(model), dynamic=NAMED), step_of(twin)
    for size in (6, 2, 9, 1):
        images, labels = gf.randn(size, 2, 6, 6), gf.randint(0, CLASSES, (size,))
        close(compiled(images, labels), eager(images, labels))
    assert len(compiled.programs) == 1
    for mine, other in zip(model.state_dict().values(), twin.state_dict().values()):
        close(mine, other, 1e-4)


def test_kernels_are_tuned_for_the_largest_size_seen() -> None:
    compiled = gf.compile(lambda x: x * 2)
    for size in (5000, 4000, 3):
        compiled(gf.ones(size))
    assert len(compiled.programs) == 3
    assert compiled.programs[-1]._example == {"batch": 5000}


def test_names_reach_into_nested_arguments() -> None:
    compiled = gf.compile(lambda pair: pair[0] @ pair[1].T, dynamic={"pair": {0: "rows"}})
    for size in (3, 8, 5):
        x = gf.randn(size, 4)
        close(compiled((x, x + 1)), x @ (x + 1).T)
    assert len(compiled.programs) == 1 and "[rows,4]" in str(compiled.programs[0].graph)


def test_what_is_left_of_a_fixed_length_may_be_padding() -> None:
    def padded(x: gf.Tensor) -> gf.Tensor:
        return F.pad(x, (0, 20 - x.shape[0])) * 2

    compiled = gf.compile(padded, dynamic=True)
    for size in (15, 3, 19):
        close(compiled(gf.ones(size)), padded(gf.ones(size)))
    assert len(compiled.programs) == 1


def test_the_program_of_all_sizes_equals_the_programs_of_each() -> None:
    for size in (1, 2, 7, 31, 64, 127, 257):
        (model, step), (twin, other) = training(), training()
        symbolic, static = gf.compile(step, dynamic=NAMED), gf.compile(other, dynamic=False)
        symbolic(*batch_of(40))
        static(*batch_of(40))
        for _ in range(2):
            close(symbolic(*batch_of(size)), static(*batch_of(size)), 1e-6)
        for one, two in zip(model.parameters(), twin.parameters(), strict=True):
            close(one, two, 1e-6)
        assert len(symbolic.programs) == 1 and len(static.programs) == 2


def test_remainders_that_are_asked_about_are_guarded() -> None:
    def by_remainder(x: gf.Tensor) -> gf.Tensor:
        if x.shape[0] % 8 == 0:
            return x + 1
        return x * 2 if x.shape[0] % 8 != 3 else x * 3

    compiled = gf.compile(by_remainder, dynamic={"x": {0: "batch"}})
    for size, programs in ((16, 1), (8, 1), (64, 1), (7, 2), (11, 3), (3, 3), (24, 3), (6, 3)):
        x = gf.randn(size)
        close(compiled(x), by_remainder(x))
        assert len(compiled.programs) == programs
    assert compiled.recompiles[0].before == "batch % 8 == 0"
    compiled(gf.randn(11))
    assert compiled.explain().guards == ("batch % 8 != 0", "batch % 8 == 3")
