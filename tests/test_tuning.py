"""Blocks chosen by measuring: any choice has the same bits, the budget holds, results are kept."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import tuning
from graphflow.codegen.contraction.choice import Choice, asking
from graphflow.codegen.schedule import Call, plain_steps
from graphflow.errors import GraphFlowError


class Unchanged:
    """A pass that does nothing; programs with passes of one's own are in no cache of plans."""

    name = "unchanged"

    def run(self, graph: gf.Graph) -> gf.Graph:
        return graph


class Numbered:
    """Chooses the cut of one number for every product."""

    def __init__(self, number: int) -> None:
        self.number, self.asked, self.most = number, 0, 0

    def choose(self, product: str, usual: Choice, others: Sequence[Choice]) -> Choice:
        offered = [usual, *others]
        self.asked += 1
        self.most = max(self.most, len(offered))
        return offered[self.number % len(offered)]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = gf.get_num_threads()
    gf.set_num_threads(2)
    yield
    gf.set_num_threads(before)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Where results are kept, in place of the cache."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(tuning, "recall", found.get)
    monkeypatch.setattr(tuning, "remember", found.__setitem__)
    return found


def product(a: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
    return F.relu(a @ b)


def factors(seed: int = 3) -> tuple[gf.Tensor, gf.Tensor]:
    gf.manual_seed(seed)
    return gf.randn(150, 400), gf.randn(400, 700)


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "matrices": (product, ((150, 400), (400, 700))),
    "turned": (lambda a, b: a.T @ b.T, ((400, 100), (600, 400))),
    "strided": (
        lambda x, w: F.conv2d(x, w, stride=2, padding=1),
        ((4, 24, 17, 17), (40, 24, 3, 3)),
    ),
    "winograd": (lambda x, w: F.relu(F.conv2d(x, w, padding=1)), ((6, 32, 20, 20), (64, 32, 3, 3))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_cut_gives_the_same_bits(name: str) -> None:
    function, shapes = FUNCTIONS[name]
    gf.manual_seed(1)
    arguments = [gf.randn(*shape) for shape in shapes]

    def result(number: int) -> tuple[Any, Numbered, set[Any]]:
        adviser = Numbered(number)
        with asking(adviser):
            graph = gf.trace(function, *arguments)
            program = gf.compile(graph, passes=[Unchanged()])
        steps = plain_steps(program.schedule.steps)
        words = {s.arguments for s in steps if isinstance(s, Call) and s.product}
        return program(*arguments).numpy(), adviser, words

    usual, adviser, words = result(0)
    assert adviser.asked and adviser.most >= 3 and words
    for number in range(1, adviser.most):
        found, _, other = result(number)
        assert other != words
        np.testing.assert_array_equal(found, usual)


@pytest.mark.parametrize(
    ("tune", "seconds"),
    [("10s", 10.0), ("500ms", 0.5), (" 2 min ", 120.0), ("1.5", 1.5), (3, 3.0), (None, None)],
)
def test_budgets(tune: Any, seconds: float | None) -> None:
    assert tuning.budget_in_seconds(tune) == seconds


@pytest.mark.parametrize(
    "tune", ["soon", "10 parsecs", "-1s", "0s", 0, -2.0, True, float("nan"), []]
)
def test_a_budget_that_is_none_is_a_clear_error(tune: Any) -> None:
    with pytest.raises(GraphFlowError, match='such as "10s", "500ms" or "2min"'):
        gf.compile(product, tune=tune)


def fake_trials(monkeypatch: pytest.MonkeyPatch, race: float) -> list[Any]:
    """Trials of which each is faster than the one before; what is chosen runs in ``race``."""
    made: list[Any] = []

    class Fake:
        loaded = None

        def __init__(self, program: Any, schedule: Any, beside: Any = None) -> None:
            self.number = len(made)
            made.append(self)
            calls = [s for s in plain_steps(schedule.steps) if isinstance(s, Call)]
            self.seconds = {c.product: [1.0 / (1 + self.number)] for c in calls if c.product}

        def run(self) -> float:
            return race * 1e-6 if self.number else 1e-6

        def measure(self) -> None:
            pass

    monkeypatch.setattr(tuning, "Trial", Fake)
    return made


def test_the_fastest_cut_is_taken_shown_and_kept(
    kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = fake_trials(monkeypatch, race=0.9)
    step = gf.compile(product, tune="30s", passes=[Unchanged()])
    a, b = factors()
    expected = gf.compile(product)(a, b)
    np.testing.assert_array_equal(step(a, b).numpy(), expected.numpy())
    (fact,) = kept.values()
    text = str(step.latest.program.explain())
    assert "tuning: 1 products, 1 cut otherwise than usual" in text
    assert str(Choice(*fact["cut"])) in text and "mm_f32" in text and "150×700×400" in text
    count = len(trials)
    again = gf.compile(product, tune="30s", passes=[Unchanged()])
    np.testing.assert_array_equal(again(a, b).numpy(), expected.numpy())
    assert len(trials) == count  # nothing is measured that is known
    assert "1 cut otherwise" in str(again.latest.program.explain())
    cuts = [
        [s.arguments for s in plain_steps(f.latest.program.schedule.steps) if isinstance(s, Call)]
        for f in (step, again)
    ]
    assert cuts[0] == cuts[1]


def test_what_makes_the_program_slower_is_not_taken(
    kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_trials(monkeypatch, race=1.1)
    step = gf.compile(product, tune="30s", passes=[Unchanged()])
    step(*factors())
    text = str(step.latest.program.explain())
    assert "0 cut otherwise" in text and len(kept) == 1


def test_measured_for_real_within_the_budget(kept: dict[str, Any]) -> None:
    weight = gf.nn.Parameter(gf.full((400, 700), 0.5))
    optimizer = gf.optim.SGD([weight], lr=0.1)

    def train(a: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = (a @ weight).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    first = weight.detach().clone()
    a, _ = factors()
    eager = train(a)
    changed = weight.detach().clone()
    with gf.no_grad():
        weight.copy_(first)
    step = gf.compile(train, tune=0.3, passes=[Unchanged()])
    np.testing.assert_allclose(step(a).item(), eager.item(), rtol=1e-5)  # one step, not more
    np.testing.assert_allclose(weight.detach().numpy(), changed.numpy(), rtol=1e-5)
    found = step.latest.program.tuning
    assert found.products >= 2 and found.budget == 0.3


def test_too_short_a_budget_changes_nothing_and_says_so(kept: dict[str, Any]) -> None:
    step = gf.compile(product, tune="0.001ms", passes=[Unchanged()])
    step(*factors())
    found = step.latest.program.tuning
    assert found.trials == 0 and not found.complete and not kept
    assert "the time was up after 0 of" in str(step.latest.program.explain())


def test_what_cannot_be_tried_out_is_not_measured(kept: dict[str, Any]) -> None:
    step = gf.compile(product, tune="30s", dynamic={"a": {0: "batch"}})
    a, b = factors()
    np.testing.assert_allclose(step(a, b).numpy(), np.maximum(a.numpy() @ b.numpy(), 0), atol=1e-3)
    assert "sizes are symbolic" in str(step.latest.program.explain())

    def printing(a: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        return gf.linalg.svdvals((a @ b) @ (a @ b).T * 1e-3)

    other = gf.compile(printing, tune="30s", passes=[Unchanged()])
    other(gf.randn(40, 50), gf.randn(50, 60))
    assert "calls Python between kernels" in str(other.latest.program.explain())


def test_what_was_found_lies_in_the_cache_of_kernels(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "usable_folder", lambda: tmp_path)
    assert tuning.recall("mm 1") is None
    tuning.remember("mm 1", {"cut": [256, 48, 1], "times": ""})
    assert tuning.recall("mm 1") == {"cut": [256, 48, 1], "times": ""}
    assert tuning.recall("mm 2") is None
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(tuning, "usable_folder", lambda: None)
    tuning.remember("mm 3", {})  # a folder that cannot be used stops nothing
    assert tuning.recall("mm 1") is None
