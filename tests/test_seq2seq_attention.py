"""The encoder and decoder with attention: what it is asked for, and that it learns to."""

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
    script = importlib.import_module("seq2seq_attention")
    script.WIDTH, script.HEADS, script.LAYERS, script.BATCH = 32, 2, 1, 16
    yield script
    for name in ("harness", "seq2seq_attention", "text"):
        sys.modules.pop(name, None)


def test_what_is_asked_for(script: Any) -> None:
    cases = {
        "parse_http_date": "date http parse", "HTTPServer": "server http",
        "_getAttr2": "2 attr get", "B": "b", "__": "",
    }  # fmt: skip
    assert {name: script.respelled(name) for name in cases} == cases
    train, test = script.names()
    assert len(train) > 5000 and 0 < len(test) < len(train) / 5 and not set(train) & set(test)
    codes = script.encode(train[:50])
    assert [script.decode(row) for row in codes.tolist()] == list(train[:50])


def test_labels_hold_one_end(script: Any) -> None:
    target = script.encode(("ab", "x" * 19))
    labels, seen = script.labels_of(target), script.begun(target)
    assert seen[0, :4].tolist() == [script.BEGIN, *target[0, :2].tolist(), script.END]
    assert labels[0, :4].tolist() == [*target[0, :2].tolist(), script.END, script.IGNORED]
    assert labels[1].tolist() == target[1].tolist()


def test_it_learns_a_batch_by_heart(script: Any) -> None:
    gf.manual_seed(0)
    model, optimizer = script.make()
    chosen = ("do_it", "getAttr", "HTTPServer", "new_line")
    source = script.encode(chosen)
    target = script.encode(tuple(map(script.respelled, chosen)))
    step = gf.compile(script.training_step(model, optimizer))
    losses = [float(step(source, target)) for _ in range(150)]
    assert np.mean(losses[:3]) > 3 and np.mean(losses[-5:]) < 0.3
    assert not step.explain().host_ops
    assert script.accuracy(model, source, target) == 1.0
    assert "getAttr → attr get" in script.examples(model, chosen)
    written = script.translate(model, source)  # letter after letter is what one pass says
    model.eval()
    with gf.no_grad():
        likeliest = model(source, script.begun(written)).argmax(-1)
    ends = (written == script.END).to(gf.int64).argmax(-1).tolist()
    for row, other, end in zip(written.tolist(), likeliest.tolist(), ends, strict=True):
        assert row[: end + 1] == other[: end + 1]
