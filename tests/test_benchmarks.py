"""The benchmark suite: workloads mean what they say, and a disagreement is noticed."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from benchmarks import __main__ as runner
from benchmarks.floor import floor_of
from benchmarks.report import report
from benchmarks.systems import prepare
from benchmarks.worker import Session
from benchmarks.workloads import WORKLOADS, Expression, Training

TRAINING = [w for w in WORKLOADS.values() if isinstance(w, Training)]
EXPRESSIONS = {w.kind: w for w in WORKLOADS.values() if isinstance(w, Expression)}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Benchmarks choose a thread count; put it back."""
    before = gf.get_num_threads()
    yield
    gf.set_num_threads(before)


def losses(workload: Training, steps: int) -> list[float]:
    """The losses of a few steps, by hand in float64."""
    layers = [[w.astype(float), b.astype(float)] for w, b in workload.parameters()]
    slots = [[np.zeros_like(w), np.zeros_like(b)] for w, b in layers]
    x, y = workload.data()
    found = []
    for _ in range(steps):
        values = [x.astype(float)]
        for number, (w, b) in enumerate(layers):
            z = values[-1] @ w + b
            values.append(z if number == len(layers) - 1 else np.maximum(z, 0))
        loss, ct = _loss(workload.loss, values[-1], y)
        found.append(loss)
        for number in reversed(range(len(layers))):
            gradients = values[number].T @ ct, ct.sum(0)
            ct = (ct @ layers[number][0].T) * (values[number] > 0)
            for p, m, g in zip(layers[number], slots[number], gradients, strict=True):
                m[...] = workload.momentum * m + g
                p -= workload.lr * m
    return found


def _loss(kind: str, out: Any, y: Any) -> tuple[float, Any]:
    if kind == "mse":
        return float(((out - y) ** 2).mean()), 2 * (out - y) / out.size
    e = np.exp(out - out.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    return float(loss), p / len(y)


@pytest.mark.parametrize("system", ["eager", "static"])
@pytest.mark.parametrize("workload", TRAINING, ids=lambda w: w.name)
def test_training_workloads(system: str, workload: Training) -> None:
    prepared = prepare(system, workload, 2)
    found = [float(prepared.read(prepared.call())) for _ in range(5)]
    np.testing.assert_allclose(found, losses(workload, 5), rtol=1e-5)


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf)(x)


def _layernorm(x: Any, w: Any, b: Any) -> Any:
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b
    return z * 0.5 * (1 + _erf(z / math.sqrt(2)))


def _softmax(x: Any) -> Any:
    e = np.exp(x / 8)
    return e / e.sum(-1, keepdims=True)


ORACLES = {
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))) * 0.5 + 1,
    "softmax": _softmax,
    "layernorm": _layernorm,
    "matmul": lambda a, b: a @ b,
}


@pytest.mark.parametrize("system", ["eager", "static"])
@pytest.mark.parametrize("kind", sorted(ORACLES))
def test_expressions(system: str, kind: str) -> None:
    shape = {"matmul": (33, 45, 17), "mish": (1000,)}.get(kind, (37, 70))
    workload = Expression("small", kind, shape)
    prepared = prepare(system, workload, 2)
    expected = ORACLES[kind](*(a.astype(float) for a in workload.inputs()))
    found = prepared.read(prepared.call())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_every_kind_of_expression_has_an_oracle() -> None:
    assert set(EXPRESSIONS) == set(ORACLES)


def test_floors() -> None:
    machine = {"flops": 200e9, "bandwidth": 40e9}
    mlp = WORKLOADS["mlp"]
    # Forward, weight gradients, and the gradient of the hidden layer.
    assert mlp.flops == 2 * 128 * (2 * (784 * 128 + 128 * 10) + 128 * 10)
    assert floor_of(mlp, machine) == mlp.flops / 200e9
    assert floor_of(WORKLOADS["softmax"], machine) == 4096 * 1024 * 8 / 40e9
    assert floor_of(WORKLOADS["gemm1024"], machine) == 2 * 1024**3 / 200e9


def test_a_disagreement_stops_the_run() -> None:
    assert runner.compare("x", {"a": [1.0, 2.0], "b": [1.0, 2.0 + 1e-6]}) < 1e-6
    with pytest.raises(SystemExit, match="disagree"):
        runner.compare("x", {"a": [1.0, 2.0], "b": [1.0, 2.1]})
    with pytest.raises(SystemExit, match="disagree"):
        runner.compare("x", {"a": [1.0, 2.0], "b": [1.0, float("nan")]})


def test_median_and_spread() -> None:
    figures = runner.statistics_of([[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    assert figures["median"] == 2.0 and figures["n"] == 9 and figures["spread"] == 0.5


def test_report_shows_ratios_and_survives_a_failed_system() -> None:
    systems = {
        "static": {"median": 1e-3, "spread": 0.02},
        "eager": {"median": 6e-3, "spread": 0.02},
        "torch": {"median": 2e-3, "spread": 0.02},
        "jax": {"error": "not installed"},
    }
    figures = {
        "machine": {"flops": 2e11, "bandwidth": 4e10},
        "threads": 2,
        "pause_ms": 5.0,
        "workloads": {"mlp": {"systems": systems, "largest_difference": 1e-7, "floor": 2e-4}},
    }
    text = report(figures)
    for word in ("0.500", "3.00", "failed", "200 µs", "5 ms of busy Python", "1e-07"):
        assert word in text


def test_unknown_workload_is_a_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        runner.parse(["--workloads", "mlq"])
    assert "'mlq' is not one of" in capsys.readouterr().err


@pytest.mark.parametrize("workload", TRAINING[:2], ids=lambda w: w.name)
def test_changes_are_noticed_at_the_next_call(workload: Training) -> None:
    def losses_of(system: str, skipped: int = -1) -> list[float]:
        session = Session(system, 1)
        session.prepare(workload.name)
        session.time(3, 0.0)
        changes = list(session.prepared.changes)
        if skipped >= 0:
            changes[skipped] = lambda: None
        session.prepared = dataclasses.replace(session.prepared, changes=tuple(changes))
        return session.change()

    eager = losses_of("eager")
    np.testing.assert_allclose(losses_of("static"), eager, rtol=1e-5)
    for number in (1, 2, 3, 4, 6):  # each shows in the losses (thawing too, but only later)
        assert not np.allclose(losses_of("eager", number), eager, rtol=1e-5)
