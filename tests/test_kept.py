"""What depends on state alone is made once, and again whenever that state has changed."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.codegen.kept import LEAST_WORK
from graphflow.codegen.schedule import Branch, BufferKind
from graphflow.runtime.storage import Storage, aligned_empty
from tests.threads import in_threads

RNG = np.random.default_rng(20)
IMAGES = RNG.standard_normal((2, 40, 7, 9), np.float32)


def wanted(x: Any, w: Any) -> Any:
    """A convolution under 3 × 3 taps, padded by one, in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    high, wide = x.shape[2] - 2, x.shape[3] - 2
    return sum(
        np.einsum("nchw,kc->nkhw", x[:, :, i : i + high, j : j + wide], w[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )


class Net(nn.Module):
    """One convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(40, 48, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        return self.conv(x)


@pytest.fixture(params=(1, 2))
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Numbers of threads to run with."""
    before = gf.get_num_threads()
    gf.set_num_threads(request.param)
    yield request.param
    gf.set_num_threads(before)


def compiled() -> tuple[Net, Any]:
    """A network and its scores as a compiled function that keeps transformed taps."""
    net = Net().eval()

    @gf.compile
    def scores(x: Any) -> Any:
        with gf.no_grad():
            return net(x)

    return net, scores


def holds(net: Net, scores: Any, weight: Any, images: Any = IMAGES) -> None:
    """Two calls give what the weights of this moment give."""
    want = wanted(images, np.asarray(weight, np.float64))
    for _ in range(2):
        found = scores(gf.tensor(images)).numpy()
        assert np.abs(found - want).max() <= 6e-6 * np.abs(want).max()


def kept_of(scores: Any) -> list[Branch]:
    """The branches of a compiled function's last program that make what is kept."""
    steps = scores.latest.program.schedule.steps
    return [step for step in steps if isinstance(step, Branch)]


def weights(net: Net) -> Any:
    """The weights now, without a view of them."""
    return np.array(net.conv.weight.tolist(), np.float32)


def in_place(net: Net) -> None:
    with gf.no_grad():
        net.conv.weight.mul_(1.5)


def a_row(net: Net) -> None:
    with gf.no_grad():
        net.conv.weight[3] = 2.0


def replaced(net: Net) -> None:
    net.conv.weight = nn.Parameter(gf.tensor(0.1 * RNG.standard_normal((48, 40, 3, 3), np.float32)))


def other_data(net: Net) -> None:
    net.conv.weight.data = gf.tensor(0.1 * RNG.standard_normal((48, 40, 3, 3), np.float32))


def loaded(net: Net) -> None:
    net.load_state_dict({"conv.weight": gf.full((48, 40, 3, 3), 0.25)})


def trained(net: Net) -> None:
    """A step of another compiled function."""
    optimizer = gf.optim.SGD(net.parameters(), lr=0.1)

    @gf.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    step(gf.tensor(IMAGES))


def trained_by_a_program(net: Net) -> None:
    """A run of a program over the same memory."""
    optimizer = gf.optim.SGD(net.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    gf.compile(gf.trace(step, gf.tensor(IMAGES)))(gf.tensor(IMAGES))


def by_numpy(net: Net) -> None:
    net.conv.weight.detach().numpy()[...] *= 2


@pytest.mark.parametrize(
    "change",
    (in_place, a_row, replaced, other_data, loaded, trained, trained_by_a_program, by_numpy),
)
def test_changed_weights_are_seen(change: Callable[[Net], None], threads: int) -> None:
    gf.manual_seed(3)
    net, scores = compiled()
    holds(net, scores, weights(net))
    assert kept_of(scores)
    change(net)
    holds(net, scores, weights(net))


def test_a_view_may_write_at_any_time() -> None:
    net, scores = compiled()
    view = net.conv.weight.detach().numpy()
    for factor in (1.0, 0.5, 3.0):
        view *= factor
        holds(net, scores, view)


def test_taps_are_made_once() -> None:
    net, scores = compiled()
    holds(net, scores, weights(net))
    loaded = scores.latest.program.loaded
    loaded.profile()
    for _ in range(3):
        scores(gf.tensor(IMAGES))
    runs = [count for _, count in loaded.timings()]
    loaded.profile(False)
    (branch,) = kept_of(scores)
    assert runs[: len(branch.then)] == [0] * len(branch.then)
    assert set(runs[len(branch.then) :]) == {3}


def test_kept_memory_is_nobody_elses() -> None:
    _, scores = compiled()
    scores(gf.tensor(IMAGES))
    schedule = scores.latest.program.schedule
    kept = {b.id for b in schedule.buffers if b.kind is BufferKind.KEPT}
    assert kept and kept.isdisjoint(schedule.offsets)
    outside = [step for step in schedule.steps if not isinstance(step, Branch)]
    assert all(kept.isdisjoint(step.writes) for step in outside)


def test_constants_without_state_are_made(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Work that depends on nothing at all is kept too; new memory may hold anything."""

    def zeros(shape: Any, dtype: Any) -> Storage:
        array = aligned_empty(shape, dtype)
        array[...] = 0
        return Storage(array)

    monkeypatch.setattr("graphflow.runtime.kept.empty", zeros)
    count = LEAST_WORK // 4
    line = np.arange(0, count, 7)
    places = gf.compile(lambda x: gf.searchsorted(x, gf.arange(count), right=True))
    expected = np.searchsorted(line, np.arange(count), "right")
    for _ in range(2):
        np.testing.assert_array_equal(places(gf.tensor(line)), expected)
    assert kept_of(places)


def test_training_keeps_nothing() -> None:
    net = Net()
    step = gf.compile(lambda x: F.mse_loss(net(x), gf.zeros(2, 48, 7, 9)))
    step(gf.tensor(IMAGES)).backward()
    assert not kept_of(step)


def test_other_sizes_share_what_is_kept() -> None:
    net = Net().eval()

    def scores(x: Any) -> Any:
        with gf.no_grad():
            return net(x)

    found = gf.compile(scores, dynamic={"x": {0: "batch"}})
    for count in (2, 5, 2, 3):
        images = RNG.standard_normal((count, 40, 7, 9), np.float32)
        holds(net, found, weights(net), images)
        in_place(net)
        holds(net, found, weights(net), images)


def test_what_depends_on_sizes_is_not_kept() -> None:
    """Positions are made of nothing, but more of them in a larger batch."""

    def waves(x: Any) -> Any:
        return gf.cos(gf.arange(x.numel(), dtype=gf.float64)).reshape(x.shape) * 2

    found = gf.compile(waves, dynamic={"x": {0: "batch"}})
    for count in (2, 3, 1, 3):
        x = gf.zeros(count, LEAST_WORK // 8)
        expected = np.cos(np.arange(x.numel())).reshape(x.shape) * 2
        np.testing.assert_allclose(found(x).numpy(), expected, atol=1e-12)


def test_several_threads_and_writes() -> None:
    """Calls from four threads between writes see the weights of their time."""
    net, scores = compiled()
    scores(gf.tensor(IMAGES))
    for _ in range(3):
        in_place(net)
        in_threads(4, lambda number: holds(net, scores, weights(net)))


def test_a_saved_program_keeps_too(tmp_path: Any) -> None:
    net = Net().eval()

    def scores(x: Any) -> Any:
        with gf.no_grad():
            return net(x)

    gf.compile(gf.trace(scores, gf.tensor(IMAGES))).save(tmp_path / "net.gf")
    program = gf.load_program(tmp_path / "net.gf")
    holds(net, program, weights(net))
    assert any(isinstance(step, Branch) for step in program.schedule.steps)
    (name,) = program.state_dict()
    program.load_state_dict({name: gf.full((48, 40, 3, 3), 0.25)})
    holds(net, program, np.full((48, 40, 3, 3), 0.25))
