"""Replay of steps, with a recorder that notes launches in place of CUDA's.

Run by ``tests/test_cuda.py`` in the simulator.  What a driver is asked for is looked at with a
stand-in for its calls; that it does it, only a GPU can show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.cuda import toolchain as chain
from graphflow.errors import GraphFlowError, IndexRangeError
from graphflow.runtime.cuda import driver as calls
from graphflow.runtime.cuda import graphs, replay


class Recorder:
    """Notes what is started, as capture does, and starts it again when it is replayed."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.replays = 0
        self.error: Exception | None = None

    def record(self, starts: Sequence[graphs.Start]) -> Callable[[], None]:
        if self.error is not None:
            raise self.error
        self.recorded.append(len(starts))

        def again() -> None:
            self.replays += 1
            for start in starts:
                start(0)

        return again


def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What records steps from now on, as if the driver could be called directly."""
    made = Recorder()
    monkeypatch.setattr(replay, "missing", lambda: "")
    monkeypatch.setattr(graphs, "recorder", lambda device: made)
    return made


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return recorded(monkeypatch)


def losses(device: str, steps: int = 4) -> tuple[list[float], Any]:
    gf.manual_seed(0)
    words, head = gf.nn.Embedding(5, 3).to(device), gf.nn.Linear(3, 2).to(device)
    optimizer = gf.optim.SGD([*words.parameters(), *head.parameters()], lr=0.1, momentum=0.9)

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = head(words(x)).tanh().square().sum()
        loss.backward()
        optimizer.step()
        return loss

    x = gf.tensor([1, 3, 1]).to(device)
    return [float(step(x)) for _ in range(steps)], step


def test_replayed_training_is_that_of_the_cpu(recorder: Recorder) -> None:
    found, compiled = losses("cuda")
    np.testing.assert_allclose(found, losses("cpu")[0], rtol=2e-5)
    pieces = compiled.programs[0].loaded.replay.pieces
    straight = [piece for piece in pieces if piece.straight]
    assert len(recorder.recorded) == len(straight) > 0, "each is recorded once"
    assert any(piece.checked for piece in pieces), "the embedding's index is looked at"
    assert recorder.replays == 3 * len(straight), "the first step is walked"
    assert "CUDA graphs, replayed" in str(compiled.explain())


def test_random_state_stays_on_the_device_and_is_right_on_the_host(recorder: Recorder) -> None:
    step = gf.compile(lambda x: (gf.nn.functional.dropout(x, 0.5) + gf.rand(6, device="cuda")) * 2)
    x = {d: gf.ones(6).to(d) for d in ("cpu", "cuda")}
    gf.manual_seed(3)
    found = [step(x["cuda"]).tolist() for _ in range(4)]
    after = gf.rand(2).tolist()
    gf.manual_seed(3)
    eager = gf.compile(lambda x: (gf.nn.functional.dropout(x, 0.5) + gf.rand(6)) * 2)
    assert found == [eager(x["cpu"]).tolist() for _ in range(4)] and after == gf.rand(2).tolist()
    program = step.programs[0]
    assert [carried.advance is not None for carried in program._carried] == [True]
    reads: list[int] = []
    block = program._carried[0].here.block
    original = type(block).read
    type(block).read = lambda self, *a: reads.append(self is block) or original(self, *a)
    try:
        step(x["cuda"])
        gf.manual_seed(3)
        assert step(x["cuda"]).tolist() == found[0], "a new seed reaches the device"
    finally:
        type(block).read = original
    assert not any(reads), "the generator's state is not read back"


def test_inputs_scalars_and_results_are_those_of_each_call(recorder: Recorder) -> None:
    scale = gf.tensor(1.0)

    @gf.compile
    def step(x: gf.Tensor, factor: float) -> tuple[gf.Tensor, gf.Tensor]:
        y = (x.cumsum(0) * factor).softmax(0) * scale
        return y @ x, y.cumsum(0)

    rng = np.random.default_rng(0)
    kept = []
    for n in range(4):
        data = rng.normal(size=(3, 3)).astype(np.float32)
        scale.fill_(n + 1.0)
        found = step(gf.tensor(data, device="cuda"), float(n))
        wanted = step.original(gf.tensor(data), float(n))
        kept.append((found, wanted))
    for found, wanted in kept:  # results of one call are not overwritten by the next
        for a, b in zip(found, wanted):
            np.testing.assert_allclose(a.cpu().numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    assert recorder.replays >= 3


def test_state_that_moves_is_recorded_again_and_few_graphs_are_kept(recorder: Recorder) -> None:
    totals = gf.nn.Linear(3, 3).cuda()

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        with gf.no_grad():
            totals.bias.add_(x.cumsum(0)[-1])
        return totals(x).cumsum(0).softmax(1).cumsum(1)

    x = gf.ones(2, 3).cuda()
    for _ in range(replay.MOST_GRAPHS + 2):
        step(x), step(x)
        totals.bias.data = gf.zeros(3).cuda()
    kept = [program.loaded.replay._kept for program in step.programs]
    assert max(map(len, kept)) <= replay.MOST_GRAPHS
    step(x)
    assert totals.bias.tolist() == [2, 2, 2]


def test_a_step_that_fails_changes_nothing_and_the_next_is_right(recorder: Recorder) -> None:
    table, count = gf.arange(12.0).reshape(4, 3).cuda(), gf.zeros(3).cuda()

    @gf.compile
    def step(index: gf.Tensor) -> gf.Tensor:
        rows = table[index].cumsum(0).softmax(1)
        count.add_(rows.sum(0))
        return rows.cumsum(1)

    good, bad = gf.tensor([1, 3]).cuda(), gf.tensor([1, 7]).cuda()
    for _ in range(3):
        step(good)
    before = count.tolist()
    with pytest.raises(IndexRangeError):
        step(bad)
    assert count.tolist() == before
    step(good)
    np.testing.assert_allclose(count.tolist(), np.array(before) * 4 / 3, rtol=1e-5)


def test_why_steps_are_not_replayed_is_said(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(function: Any, *arguments: gf.Tensor) -> str:
        step = gf.compile(function)
        step(*arguments), step(*arguments)
        return str(step.explain())

    x = gf.ones(2, 3).cuda()
    assert "for no 3 of them follow each other" in text(lambda y: y + 1, x)
    monkeypatch.setattr(replay, "MOST_COPIED", 8)
    long = lambda y: y.cumsum(0).cumsum(1).cumsum(0).cumsum(1)  # noqa: E731
    assert "would have to be copied" in text(long, x)
    monkeypatch.setattr(replay, "MOST_COPIED", 10**6)
    monkeypatch.setattr(gf.backends.cuda, "replay", False)
    assert "gf.backends.cuda.replay is off" in text(long, x)
    monkeypatch.setattr(gf.backends.cuda, "replay", True)
    recorder.error = GraphFlowError("cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
    step = gf.compile(long)
    first = step(x)
    with pytest.warns(UserWarning, match="failed.*INVALIDATED"):
        second = step(x)
    assert first.tolist() == second.tolist() == step(x).tolist()
    assert "failed (cuStreamEndCapture" in str(step.explain())


class Driver:
    """The driver's calls, as ``cuda.bindings.driver`` has them."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.failing = ""

    def __getattr__(self, name: str) -> Any:
        answers = {"cuStreamCreate": ["stream"], "cuStreamEndCapture": ["graph"]}
        answers |= {"cuGraphInstantiate": ["ready"], "cuDriverGetVersion": [13000]}

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.said.append((name, *arguments))
            failed = name == self.failing
            return (
                (SimpleNamespace(name="CUDA_ERROR"), None)
                if failed
                else (0, *answers.get(name, []))
            )

        return call


def test_what_the_driver_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(calls.importlib, "import_module", lambda name: driver)
    made = graphs.Recorder(0)
    launch = made.record([lambda s: driver.said.append(s), lambda s: driver.said.append(s)])
    launch()
    del launch
    assert driver.said == [
        ("cuStreamCreate", 1), ("cuStreamBeginCapture", "stream", 2), "stream",
        "stream", ("cuStreamEndCapture", "stream"), ("cuGraphInstantiate", "graph", 0),
        ("cuGraphDestroy", "graph"), ("cuGraphLaunch", "ready", 0), ("cuGraphExecDestroy", "ready"),
    ]  # fmt: skip
    driver.said.clear()

    def broken(stream: Any) -> None:
        raise ValueError("no kernel")

    with pytest.raises(ValueError, match="no kernel"):
        made.record([broken])
    assert driver.said[-1] == ("cuStreamEndCapture", "stream"), "the stream is not left capturing"
    driver.failing = "cuGraphInstantiate"
    with pytest.raises(GraphFlowError, match="cuGraphInstantiate: CUDA_ERROR"):
        made.record([])


def test_what_is_missing_for_the_drivers_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls._reached.cache_clear()
    asked = calls._reached.__wrapped__
    assert calls.missing() == asked() == "the simulator has no driver"
    assert calls.direct() is None
    driver = Driver()
    monkeypatch.setattr(calls, "is_simulated", lambda: False)
    monkeypatch.setattr(calls.importlib, "import_module", lambda name: driver)
    monkeypatch.setattr(calls, "toolchain", lambda: chain.Toolchain("numba", "1", None))
    assert asked() == "the driver's calls come with numba-cuda, not with numba"
    monkeypatch.setattr(calls, "toolchain", lambda: chain.Toolchain("numba-cuda", "1", None))
    assert asked().calls is driver
    driver.failing = "cuDriverGetVersion"
    assert "cannot be reached (cuDriverGetVersion: CUDA_ERROR)" in asked()
    driver.failing = ""
    monkeypatch.setattr(calls, "OLDEST", 14000)
    assert asked() == "the driver is too old (13.0, 14.0 is needed)"
