"""A step that fails has changed nothing: parameters, optimiser, generator, arguments.

Labels and indices out of range are found by kernels while the step runs, after
some of it is done; the message says what was wrong and nothing is left of it.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.runtime import walk

THREADS = [1, 2]


@pytest.fixture(autouse=True, params=THREADS, ids=lambda n: f"{n} threads")
def _threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(walk, "SERIAL_NS", 0)
    before = gf.get_num_threads()
    gf.set_num_threads(request.param)
    yield
    gf.set_num_threads(before)


def memory(*parts: object) -> list[bytes]:
    """Every tensor reachable from modules, optimisers and tensors, to the last bit."""
    found = []
    for part in parts:
        if isinstance(part, nn.Module):
            found += [value.numpy().tobytes() for value in part.state_dict().values()]
        elif isinstance(part, gf.Tensor):
            found.append(part.detach().numpy().tobytes())
        else:
            for held in part.state_dict()["state"].values():  # type: ignore[attr-defined]
                found += [np.asarray(value).tobytes() for value in held.values()]
    return found


def training() -> tuple[nn.Module, object, Callable[..., gf.Tensor]]:
    gf.manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))
    optimiser = optim.Adam(model.parameters(), lr=0.01)

    @gf.compile
    def step(x: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        return loss

    return model, optimiser, step


def test_a_label_out_of_range_leaves_the_training_where_it_was() -> None:
    model, optimiser, step = training()
    x = gf.tensor(np.random.default_rng(0).normal(size=(96, 20)).astype(np.float32))
    labels = np.random.default_rng(1).integers(0, 10, 96)
    step(x, gf.tensor(labels))
    wrong = labels.copy()
    wrong[95] = 10
    before = [*memory(model, optimiser), gf.get_rng_state().numpy().tobytes()]
    for _ in range(2):
        with pytest.raises((IndexError, RuntimeError), match="out of range"):
            step(x, gf.tensor(wrong))
        after = [*memory(model, optimiser), gf.get_rng_state().numpy().tobytes()]
        assert after == before

    # What follows is what would have followed without the failure.
    following = [float(step(x, gf.tensor(labels)).item()) for _ in range(3)]
    model, optimiser, step = training()
    step(x, gf.tensor(labels))
    assert following == [float(step(x, gf.tensor(labels)).item()) for _ in range(3)]


@pytest.mark.parametrize("index", [7, -1, 2**40])
def test_no_state_is_written_when_a_later_read_fails(index: int) -> None:
    counter, table = gf.zeros(1000), gf.arange(7.0)
    history = gf.zeros(7)

    @gf.compile
    def step(at: gf.Tensor) -> gf.Tensor:
        counter.add_(1.0)
        history.copy_(table * 2)
        table.mul_(counter[:7])
        return table.gather(0, at)

    good = gf.tensor([0, 6, 3])
    step(good)
    before = memory(counter, table, history)
    assert any(np.frombuffer(part, np.float32).any() for part in before)
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        step(gf.tensor([0, index, 3]))
    assert memory(counter, table, history) == before
    step(good)
    assert memory(counter)[0] == np.full(1000, 2, np.float32).tobytes()


def test_an_argument_that_is_written_keeps_its_values() -> None:
    @gf.compile
    def step(values: gf.Tensor, at: gf.Tensor) -> gf.Tensor:
        values.mul_(2.0)
        return gf.index_select(values, 0, at)

    values = gf.arange(5000.0)
    step(values, gf.tensor([4999]))
    before = memory(values)
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        step(values, gf.tensor([5000]))
    assert memory(values) == before


def test_every_failing_element_is_noticed() -> None:
    table = gf.arange(10.0)
    take = gf.compile(lambda at: table.gather(0, at).sum())
    rng = np.random.default_rng(5)
    good = rng.integers(0, 10, 20_000)
    assert take(gf.tensor(good)).item() == pytest.approx(float(good.sum()))
    for place in (0, 1, 9_999, 10_000, 19_999):
        wrong = good.copy()
        wrong[place] = 10
        with pytest.raises((IndexError, RuntimeError), match="out of range"):
            take(gf.tensor(wrong))
