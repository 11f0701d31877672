"""BERT: it learns to fill in real text in one compiled step, and loads published names."""

import importlib
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

import graphflow as gf

MODELS = pathlib.Path(__file__).parent.parent / "models"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, imported as if its folder were the current one, and made small."""
    monkeypatch.syspath_prepend(str(MODELS))
    bert = importlib.import_module("bert")
    bert.CHARACTERS = bert.Config(98, 48, 32, layers=1, heads=2, hidden=64, dropout=0.1)
    bert.STEPS, bert.BATCH = 20, 8
    yield bert
    for name in ("harness", "bert", "text"):
        sys.modules.pop(name, None)


def test_the_script(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = script.main(script.TASK, ["--epochs", "4"])
    assert np.mean(run.losses[:5]) > 4.3 and np.mean(run.losses[-10:]) < 3.8
    assert run.result > 0.15  # of 98 characters
    out = capsys.readouterr().out
    assert "accuracy on masked characters" in out and "filled in:" in out


def test_what_is_masked(script: Any) -> None:
    gf.manual_seed(0)
    tokens = gf.randint(0, 97, (200, 300))
    shown, labels = (x.numpy() for x in script.masked(tokens))
    asked, tokens = labels != script.IGNORED, tokens.numpy()
    assert (labels[asked] == tokens[asked]).all() and (shown[~asked] == tokens[~asked]).all()
    assert abs(asked.mean() - 0.15) < 0.01
    assert abs((shown[asked] == script.MASK).mean() - 0.8) < 0.02
    assert abs((shown[asked] == tokens[asked]).mean() - 0.1 - 0.1 / 97) < 0.02


def test_padding_is_not_looked_at(script: Any) -> None:
    model = script.BERT(script.CHARACTERS).eval()
    tokens, present = gf.randint(0, 97, (2, 10)), gf.arange(10) < gf.tensor([[10], [6]])
    with gf.no_grad():
        found = model(tokens, present)
        tokens[1, 6:] = 3
        again, shorter = model(tokens, present), model(tokens[1:, :6])
    np.testing.assert_allclose(found[1, :6].numpy(), again[1, :6].numpy(), atol=1e-6)
    np.testing.assert_allclose(found[1:, :6].numpy(), shorter.numpy(), atol=1e-6)


def test_published_names_load(script: Any, tmp_path: pathlib.Path) -> None:
    model, rng = script.BERT(script.CHARACTERS), np.random.default_rng(0)
    values = {
        name: gf.from_numpy(rng.standard_normal(tuple(value.shape)).astype(np.float32))
        for name, value in model.state_dict().items()
    }
    assert "bert.encoder.layer.0.attention.self.query.weight" in values
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): v for name, v in values.items()}
    beside = {"cls.seq_relationship.bias": gf.zeros(2), "bert.pooler.dense.bias": gf.zeros(32)}
    gf.save(old | beside, tmp_path / "model.safetensors")
    script.load_pretrained(model, tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert gf.equal(value, values[name])
