"""The model scripts run in both modes, agree, learn, and show their stages."""

import importlib
import pathlib
import sys
from collections import Counter
from typing import Any

import pytest

import graphflow as gf

MODELS = pathlib.Path(__file__).parent.parent / "models"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script as if its folder were the current one."""
    monkeypatch.syspath_prepend(str(MODELS))
    yield importlib.import_module
    for name in ("harness", "mlp", "autoencoder", "linear_regression", "cnn", "resnet", "lstm",
                 "quantized_resnet"):  # fmt: skip
        sys.modules.pop(name, None)


def both(load: Any, name: str, *arguments: str) -> tuple[Any, Any]:
    """Train in both modes; the two runs."""
    harness, script = load("harness"), load(name)
    static, eager = harness.main(script.TASK, ["--mode", "both", "--data", "none", *arguments])
    assert (static.mode, eager.mode) == ("static", "eager")
    return static, eager


def relative(static: Any, eager: Any, steps: int) -> float:
    """The largest relative difference of the first losses."""
    pairs = zip(static.losses[:steps], eager.losses[:steps], strict=True)
    return max(abs(a - b) / abs(b) for a, b in pairs)


def test_linear_regression(load: Any) -> None:
    static, eager = both(load, "linear_regression", "--epochs", "200")
    assert static.result < 0.05 and relative(static, eager, 100) < 1e-5


def test_mlp(load: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "stages"
    static, eager = both(load, "mlp", "--epochs", "5", "--inspect", str(folder))
    assert len(static.losses) == 5 * (1438 // 64)
    assert relative(static, eager, 100) < 1e-5
    assert static.result > 0.9 and abs(static.result - eager.result) < 0.02
    out = capsys.readouterr().out
    assert "test accuracy" in out and "largest relative difference" in out
    traced = next(folder.glob("*_traced.txt")).read_text()
    assert "matmul" in traced and "f32[64,784]" in traced
    kernels = list((folder / "kernels").glob("*.py"))
    assert kernels and all(compile(k.read_text(), k.name, "exec") for k in kernels)
    assert (folder / "explain.txt").read_text().strip()


def test_autoencoder(load: Any, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "graph.txt"
    static, eager = both(load, "autoencoder", "--epochs", "5", "--export", str(file))
    assert relative(static, eager, 100) < 1e-5
    assert static.losses[-1] < 0.75 * static.losses[0]
    graph = gf.Graph.parse(file.read_text())
    assert str(graph.inputs[0].type) == "f32[64,784]"  # the rest are run-time scalars
    assert {str(n.type) for n in graph.inputs[1:]} == {"f64[]"}


def test_cnn(load: Any) -> None:
    static, eager = both(load, "cnn", "--epochs", "1")
    assert len(static.losses) == 1438 // 64
    assert relative(static, eager, 22) < 1e-3
    assert static.result > 0.4 and abs(static.result - eager.result) < 0.05


def test_fine_tuning_leaves_frozen_weights_alone(load: Any, tmp_path: pathlib.Path) -> None:
    script = load("resnet")
    gf.manual_seed(0)
    first = script.network(5)
    gf.save(first.state_dict(), tmp_path / "lower.pt")
    model = script.adapted(gf.load(tmp_path / "lower.pt"))
    assert tuple(model.fc.weight.shape) == (10, 512) and not model.layer1.training
    frozen, others = script.frozen_state(model), model.layer4[0].conv1.weight.detach().clone()
    assert len(frozen) == 6 + 12 + 18  # stem, a block, a block with a shortcut
    step = script.training_step(model, script.sgd(model))
    for _ in range(2):
        step(gf.randn(4, 3, 28, 28), gf.tensor([1, 7, 3, 9]))
    assert script.frozen_state(model) == frozen
    assert not gf.equal(model.layer4[0].conv1.weight, others)


def test_a_quantised_network_is_a_quarter_and_says_the_same(load: Any) -> None:
    """Every convolution and the linear layer are of 8 bits; norms are gone; scores are near."""
    script = load("quantized_resnet")
    gf.manual_seed(0)
    model, images = script.network(), gf.randn(4, 1, 8, 8)
    model(images)  # running statistics
    small = script.quantized(model, images)
    kinds = Counter(type(each).__module__ for each in small.modules() if each._buffers)
    assert kinds == {"graphflow.quantization.layers": 21}
    assert script.bytes_on_disk(small) < 0.27 * script.bytes_on_disk(model)
    exact, found = model.eval()(images).detach(), small(images)
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()
    rows = [script.Outcome(0.99, 400, 2e-3), script.Outcome(0.98, 100, 1e-3)]
    assert script.shown(rows).endswith("0.250 of the bytes, 0.50 of the time")


@pytest.mark.parametrize("task", ["TASK", "DIGITS"])
def test_lstm_learns_a_few_examples(load: Any, task: str) -> None:
    script = load("lstm")
    session = getattr(script, task).start(0, pathlib.Path("none"))
    inputs, wanted = next(iter(session.batches))
    assert [tuple(spec.shape) for spec in session.specs] == [inputs.shape, wanted.shape]
    if task == "TASK":
        inputs, wanted = inputs[:, :8], wanted[:, :8]
    losses = [float(session.step(inputs[:4], wanted[:4])) for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]


def test_lstm_writes_from_its_state(load: Any) -> None:
    script = load("lstm")
    gf.manual_seed(0)
    model = script.Writer(16)
    tokens = gf.randint(0, 90, (2, 6))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :4])
    second, _ = model(tokens[:, 4:], state)
    assert gf.allclose(whole, gf.cat([first, second], 1), atol=1e-5)
    assert script.written(model).startswith("def ")


def test_both_modes_see_the_same_seeds(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    harness, script = load("harness"), load("linear_regression")
    runs = harness.main(script.TASK, ["--mode", "both", "--seeds", "3", "--epochs", "3"])
    assert [(r.mode, r.seed) for r in runs] == [
        ("static", 0), ("eager", 0), ("eager", 1), ("static", 1), ("static", 2), ("eager", 2),
    ]  # fmt: skip
    assert len({r.losses[0] for r in runs}) >= 3, "every seed starts elsewhere"
    assert "3 seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "lazy"], "invalid choice"),
        (["--epochs", "0"], "not a positive number"),
        (["--nonsense"], "--nonsense"),
        (["--device", "toaster"], "no device is called 'toaster'"),
    ],
)
def test_wrong_flags(
    load: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        load("harness").main(load("mlp").TASK, arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err
