"""The benchmark suite: workloads mean what they say, and a disagreement is noticed."""

import dataclasses
import importlib.util
import json
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import graphflow as gf
from benchmarks import __main__ as runner
from benchmarks import suite
from benchmarks.compiler import check_compiler
from benchmarks.convolutions import CONVOLUTIONS, DIRECTIONS, Convolution
from benchmarks.floor import floor_of
from benchmarks.images import Residual
from benchmarks.plot import COLOURS, bars, curves
from benchmarks.report import report
from benchmarks.systems import Unavailable, prepare
from benchmarks.worker import Session, Worker
from benchmarks.workloads import GROUPS, TWELVE, WORKLOADS, Expression, Training, with_arrays

TRAINING = [w for w in WORKLOADS.values() if isinstance(w, Training)]
EXPRESSIONS = {w.kind: w for w in WORKLOADS.values() if isinstance(w, Expression)}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Benchmarks choose a thread count; put it back."""
    before = gf.get_num_threads()
    yield
    gf.set_num_threads(before)


def test_arrays_of_a_workload_are_made_once() -> None:
    for name in ("linreg", "softmax", "lstm", "cnn", next(iter(CONVOLUTIONS))):
        workload = WORKLOADS[name]
        ready = with_arrays(workload)
        assert ready == workload and type(ready) is type(workload)
        names = "parameters", "data", "inputs", "arrays"
        makers = [maker for maker in names if callable(getattr(workload, maker, None))]
        for maker in makers:
            made, again = getattr(ready, maker)(), getattr(workload, maker)()
            assert made is getattr(ready, maker)() is not again
            values = made.values() if isinstance(made, dict) else made
            others = again.values() if isinstance(again, dict) else again
            for one, other in zip(values, others, strict=True):
                np.testing.assert_equal(one, other)
        assert makers


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


def figures_of(**systems: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": {"flops": 2e11, "bandwidth": 4e10},
        "threads": 2,
        "pause_ms": 0.0,
        "isa": "avx2",
        "workloads": {"mlp": {"systems": systems, "largest_difference": 1e-7, "floor": 2e-4}},
    }


def test_report_says_why_a_column_is_empty_and_what_share_of_the_floor_is_reached() -> None:
    text = report(
        figures_of(
            static={"median": 1e-3},
            torch_compile={"error": "torch_compile: Unavailable: no C++ compiler"},
            pytensor={"error": "pytensor: NotImplementedError: not expressed"},
            jax={"error": "jax: ValueError: bad"},
        )
    )
    assert "torch.compile: unavailable: no C++ compiler" in text
    assert "JAX jit failed on mlp: jax: ValueError: bad" in text
    assert "PyTensor: " not in text and "20%" in text and "of avx2" in text


def test_a_system_whose_interpreter_or_package_is_missing_is_unavailable() -> None:
    worker = Worker("pytensor", 1, "/nowhere/python")
    with pytest.raises(RuntimeError, match="Unavailable: its interpreter is not there"):
        worker.ask(do="time", count=1, pause=0.0)
    worker.close()


def test_torch_compile_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match="no C\\+\\+ compiler"):
        check_compiler()


def test_convolutions_are_those_of_resnet() -> None:
    model = WORKLOADS["resnet18_train"]
    assert isinstance(model, Residual)
    shapes = {(i, o, k, side) for _, i, o, k, side in model.convolutions()}
    found = {(c.inputs, c.outputs, c.kernel, c.side) for c in CONVOLUTIONS.values()}
    assert found == shapes and len(CONVOLUTIONS) == 3 * len(shapes) - 1
    one = CONVOLUTIONS["conv3x3_64_128_s2_16.forward"]
    assert one.flops == 2 * 16 * 16 * 16 * 9 * 64 * 128
    assert one.bytes == sum(a.nbytes for a in one.arrays())


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_convolution_in_every_direction(direction: str) -> None:
    workload = Convolution(3, 4, 3, 2, 2, direction, batch=2)
    x, w, ct = (a.astype(float) for a in workload.arrays())
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y, dx, dw = np.zeros(ct.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for i, j, s, t in np.ndindex(2, 2, 3, 3):
        pixel = padded[:, 2 * i + s, 2 * j + t]
        y[:, i, j] += pixel @ w[:, :, s, t].T
        dx[:, 2 * i + s, 2 * j + t] += ct[:, i, j] @ w[:, :, s, t]
        dw[:, :, s, t] += ct[:, i, j].T @ pixel
    expected = {"forward": y, "input_gradient": dx[:, 1:-1, 1:-1], "weight_gradient": dw}
    prepared = prepare("eager", workload, 1)
    found = prepared.read(prepared.call())
    np.testing.assert_allclose(found, expected[direction], rtol=1e-4, atol=1e-5)


def test_groups_of_workloads() -> None:
    chosen = runner.parse(["--workloads", "mlp_batch96,twelve"]).workloads
    assert chosen == ["mlp_batch96", *TWELVE]
    assert set(GROUPS["perturbed"]) | set(TWELVE) | set(CONVOLUTIONS) == set(WORKLOADS)
    assert not set(runner.parse([]).workloads) & set(CONVOLUTIONS)


def test_plots_are_svg_that_shows_every_system() -> None:
    page = ElementTree.fromstring(bars(figures_of(static={"median": 1e-3}, jax={"median": 4e-3})))
    words = [e.text or "" for e in page.iter() if e.tag.endswith("text")]
    assert {"mlp", "GraphFlow", "JAX jit", "4.00 (4.00 ms)"} <= set(words)
    lengths = [float(e.get("width", "")) for e in page.iter() if e.get("fill") == COLOURS["jax"]]
    assert max(lengths) == 560
    line = {"static": {"1": 1e-3, "4096": 1e-1}, "jax": {"1": 2e-3}}
    page = ElementTree.fromstring(curves(["batch"], [line]))
    assert sum(e.tag.endswith("polyline") for e in page.iter()) == 2


def test_the_suite_names_what_it_wrote_and_what_failed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('{\"a\": 1}'); print('rows')"
    (tmp_path / "shown.py").write_text(code)
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chosen = [("good", ["shown"]), ("bad", ["broken"])]
    monkeypatch.setattr(suite, "sections", lambda *_: chosen)
    monkeypatch.setattr(sys, "argv", ["suite", "--folder", str(tmp_path), "--name", "run"])
    with pytest.raises(SystemExit, match="failed: bad: status 3"):
        suite.main()
    assert json.loads((tmp_path / "run.json").read_text()) == {"good": {"a": 1}}
    assert "rows" in (tmp_path / "run.txt").read_text()
    assert "run.*" in capsys.readouterr().out


@pytest.mark.parametrize("quick", [False, True])
def test_sections_of_the_suite_are_commands_that_exist(quick: bool) -> None:
    for _, (module, *arguments) in suite.sections(quick, "python", pathlib.Path("plot")):
        assert importlib.util.find_spec(module) is not None
        if module == "benchmarks":
            assert runner.parse(arguments).workloads
