"""The trainer: what it computes, how it stops and goes on, and its pieces by themselves."""

import ast
import math
import pathlib
import runpy
import sys

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.errors import GraphFlowError
from graphflow.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau
from graphflow.training import Callback, CheckpointManager, EarlyStopping, Trainer
from graphflow.utils.data import DataLoader, IterableDataset, TensorDataset
from graphflow.utils.loggers import JSONLogger
from graphflow.utils.progress import clock

ROOT = pathlib.Path(__file__).parent.parent


def data(count=20, seed=5):
    generator = gf.Generator().manual_seed(seed)
    x = gf.randn(count, 4, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True).tanh())


def error(output, target):
    return (output - target).abs().mean()


def make(seed=0, loss=F.mse_loss, rate=0.1, **options):
    """A trainer of a small network with dropout."""
    gf.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 1))
    optimizer = optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    scheduler = options.pop("scheduler", None)
    if scheduler is not None:
        options["scheduler"] = scheduler(optimizer)
    return Trainer(model, optimizer, loss, progress=False, **options)


def loaders():
    return DataLoader(data(), 8, shuffle=True), DataLoader(data(7, 6), 3)


def bits(trainer):
    return b"".join(p.detach().numpy().tobytes() for p in trainer.model.parameters())


def by_hand(epochs, clip=None):
    """The same training as a loop."""
    trainer = make()
    model, optimizer, (train, validation) = trainer.model, trainer.optimizer, loaders()
    history = []
    for _ in range(epochs):
        total = 0.0
        for x, y in train:
            optimizer.zero_grad()
            loss = F.mse_loss(model.train()(x), y)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            total += loss.item() * len(x) / 20
        model.eval()
        held_out = sum(F.mse_loss(model(x), y).item() * len(x) for x, y in validation) / 7
        history.append((total, held_out))
    return history


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("compiled", [True, False])
def test_it_does_what_a_loop_does(compiled, clip):
    trainer = make(compiled=compiled, clip_norm=clip, metrics={"error": error})
    train, validation = loaders()
    history = trainer.fit(train, validation, epochs=3)
    for found, (loss, held_out) in zip(history, by_hand(3, clip), strict=True):
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        assert found["val_loss"] == pytest.approx(held_out, rel=1e-5)
    assert list(found) == ["loss", "error", "val_loss", "val_error", "lr"]
    tested, last = trainer.test(validation), history[-1]
    assert tested == {"test_loss": last["val_loss"], "test_error": last["val_error"]}
    assert trainer.validate(validation)["val_error"] == last["val_error"]
    output = trainer.predict(validation)
    assert output.shape == (7, 1) and not output.requires_grad
    assert error(output, data(7, 6).tensors[1]).item() == pytest.approx(last["val_error"], 1e-5)
    whole = trainer.predict([data(7, 6).tensors[0]])
    assert whole.flatten().tolist() == pytest.approx(output.flatten().tolist(), rel=1e-5)


class Note(Callback):
    def __init__(self, fail_at=None, stop_at=None):
        self.log, self.fail_at, self.stop_at = [], fail_at, stop_at

    def on_fit_start(self, trainer):
        self.log.append("fit")

    def on_epoch_start(self, trainer):
        self.log.append("epoch")

    def on_step_end(self, trainer, metrics):
        self.log.append(trainer.record.step)
        if trainer.record.step == self.fail_at:
            raise KeyboardInterrupt
        if trainer.record.step == self.stop_at:
            trainer.should_stop = True

    def on_epoch_end(self, trainer, metrics):
        self.log.append(round(metrics["lr"], 9))

    def on_fit_end(self, trainer):
        self.log.append("end")


@pytest.mark.parametrize("compiled", [True, False])
def test_accumulated_gradients_are_those_of_a_larger_batch(compiled):
    def trained(batch, **options):
        trainer = make(compiled=compiled, clip_norm=0.5, **options)
        trainer.model[2].p = 0.0
        return trainer, trainer.fit(DataLoader(data(), batch), epochs=3)

    large, expected = trained(8)
    small, found = trained(2, accumulate=4)
    assert small.record.step == large.record.step == 9, "4 + 4 + 2 batches an epoch"
    for one, other in zip(small.model.parameters(), large.model.parameters(), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=2e-5)
    for one, other in zip(found, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*data(10).tensors, strict=True)


def test_a_stream_has_no_length(capsys, tmp_path):
    trainer = make(accumulate=2, folder=tmp_path, save_every=1, monitor="loss")
    trainer.progress = True
    history = trainer.fit(DataLoader(Stream(), 4), epochs=2)
    assert trainer.record.step == 4 and history[1]["loss"] < history[0]["loss"]
    assert "3  " in capsys.readouterr().err.splitlines()[-1]
    again = make(accumulate=2, folder=tmp_path, monitor="loss")
    assert again.fit(DataLoader(Stream(), 4), epochs=2) == history


def test_callbacks_are_called_in_order_and_may_stop():
    note = Note(stop_at=5)
    trainer = make(callbacks=[note])
    trainer.fit(loaders()[0], epochs=4)
    assert note.log == ["fit", "epoch", 1, 2, 3, 0.1, "epoch", 4, 5, "end"]
    assert len(trainer.record.history) == 1


@pytest.mark.parametrize(
    ("schedule", "scheduler", "rates"),
    [
        ("epoch", lambda o: ExponentialLR(o, 0.5), [0.05, 0.025]),
        ("step", lambda o: ExponentialLR(o, 0.5), [0.1 / 8, 0.1 / 64]),
        (
            "epoch",
            lambda o: ReduceLROnPlateau(o, patience=0, threshold=1e9, threshold_mode="abs"),
            [0.1, 0.01],
        ),
    ],
)
def test_schedules(schedule, scheduler, rates):
    note = Note()
    trainer = make(schedule=schedule, scheduler=scheduler, callbacks=[note])
    trainer.fit(*loaders(), epochs=2)
    ends = [trainer.record.history[1]["lr"], float(trainer.optimizer.param_groups[0]["lr"])]
    if schedule == "step":
        ends = [h["lr"] for h in trainer.record.history]
    assert ends == pytest.approx(rates)


@pytest.mark.parametrize(("fail_at", "accumulate"), [(5, 1), (7, 1), (3, 2), (5, 2)])
def test_a_run_that_was_interrupted_goes_on_with_the_same_bits(tmp_path, fail_at, accumulate):
    def options(folder, *callbacks):
        stopping = EarlyStopping(patience=50)
        return {
            "folder": folder, "save_every": 2, "callbacks": [*callbacks, stopping],
            "accumulate": accumulate,
            "scheduler": lambda o: ExponentialLR(o, 0.9), "metrics": {"error": error},
        }  # fmt: skip

    plain = make(**options(tmp_path / "plain"))
    expected = plain.fit(*loaders(), epochs=4)
    with pytest.raises(KeyboardInterrupt):
        make(**options(tmp_path / "run", Note(fail_at))).fit(*loaders(), epochs=4)
    again = make(9, **options(tmp_path / "run", Note()))
    assert again.fit(*loaders(), epochs=4) == expected
    assert bits(again) == bits(plain)
    first = again.callbacks[0].log[2]
    assert first == fail_at, "the step before was the last one saved"
    assert again.callbacks[1].state_dict() == plain.callbacks[0].state_dict()
    assert make(**options(tmp_path / "run", Note())).fit(*loaders(), epochs=4) == expected
    assert len(make(**options(tmp_path / "run", Note())).fit(*loaders(), epochs=5)) == 5


def test_without_resuming_checkpoints_are_not_written_over(tmp_path):
    make(folder=tmp_path).fit(*loaders(), epochs=1)
    with pytest.raises(GraphFlowError, match="holds checkpoints already"):
        make(folder=tmp_path).fit(*loaders(), epochs=1, resume=False)


def test_early_stopping_and_the_best_checkpoint(tmp_path):
    stopping = EarlyStopping("val_loss", patience=2)
    trainer = make(folder=tmp_path, callbacks=[stopping], rate=0.9)
    history = trainer.fit(*loaders(), epochs=100)
    losses = [h["val_loss"] for h in history]
    assert len(history) == losses.index(min(losses)) + 3 < 100
    best = trainer.load_best()
    assert best.metrics["val_loss"] == min(losses) == stopping.best
    assert trainer.validate(loaders()[1])["val_loss"] == min(losses)
    again = make(folder=tmp_path, callbacks=[EarlyStopping(patience=2)])
    assert again.fit(*loaders(), epochs=100) == history, "it stays stopped"
    longer = make(folder=tmp_path, callbacks=[EarlyStopping(patience=4)])
    assert len(longer.fit(*loaders(), epochs=100)) > len(history), "unless it may wait longer"


def test_early_stopping_by_itself():
    stopping = EarlyStopping(patience=2, mode="max", min_delta=0.1)
    values = [0.5, 0.65, 0.7, math.nan, 0.9]
    assert [stopping.update(v) for v in values] == [False, False, False, True, False]
    assert stopping.state_dict() == {"best": 0.9, "waited": 0}
    for options in ({"mode": "most"}, {"patience": 0}):
        with pytest.raises(ValueError, match="should be"):
            EarlyStopping(**options)


def test_loggers_get_epochs_and_batches(tmp_path):
    class Writer:
        def __init__(self):
            self.scalars = []

        def add_scalar(self, name, value, step):
            self.scalars.append((name, step))

    lines, writer = JSONLogger(tmp_path / "log.jsonl"), Writer()
    make(loggers=[lines, writer], log_every=2).fit(*loaders(), epochs=2)
    rows = [(row["step"], sorted(row)) for row in lines.rows()]
    epoch = ["loss", "lr", "step", "val_loss"]
    batch = ["batch_loss", "step"]
    assert rows == [(2, batch), (3, epoch), (4, batch), (6, batch), (6, epoch)]
    assert ("val_loss", 6) in writer.scalars and ("batch_loss", 2) in writer.scalars


class Pairs(Trainer):
    """Batches that are no pairs of input and target."""

    def compute(self, model, x, y, weight):
        return {"loss": ((model(x) - y).square() * weight).mean(), "weight": weight.mean()}


def test_compute_may_be_replaced():
    whole = TensorDataset(*data().tensors, gf.full((20, 1), 2.0))
    model = nn.Linear(4, 1)
    trainer = Pairs(model, optim.SGD(model.parameters(), lr=0.1), progress=False)
    (found,) = trainer.fit(DataLoader(whole, 5), epochs=1)
    assert found["weight"] == 2.0 and found["loss"] > 0


def test_lower_precision_and_a_scaler(tmp_path):
    scaler = gf.amp.GradScaler("cpu", init_scale=2.0**19, growth_interval=50)
    trainer = make(
        precision=gf.float16, scaler=scaler, clip_norm=1.0, folder=tmp_path, monitor="loss"
    )
    history = trainer.fit(loaders()[0], epochs=6)
    assert scaler.get_scale() < 2.0**19, "the first updates overflowed"
    assert history[-1]["loss"] < history[0]["loss"]
    names = {"model", "optimizer", "scaler", "data", "record"}
    with CheckpointManager(tmp_path, {"model": trainer.model}) as manager:
        with pytest.raises(GraphFlowError) as caught:
            manager.restore()
    assert all(f"{name!r}" in str(caught.value) for name in names - {"model"})


def test_mistakes_are_one_clear_error():
    train, validation = loaders()
    with pytest.raises(GraphFlowError, match="no metric 'val_loss'; there are loss, lr"):
        make(callbacks=[EarlyStopping()]).fit(train, epochs=1)
    with pytest.raises(GraphFlowError, match=r"pass loss= .* or override Trainer\.compute"):
        make(loss=None).fit(train, epochs=1)
    with pytest.raises(GraphFlowError, match="without folder="):
        make().load_best()
    with pytest.raises(ValueError, match="'epoch' or 'step'"):
        make(schedule="day")
    with pytest.raises(ValueError, match="plateau"):
        make(schedule="step", scheduler=ReduceLROnPlateau)
    with pytest.raises(ValueError, match="at least 1 batch, got 0"):
        make(accumulate=0)
    assert validation is not None


def test_there_is_no_best_without_the_metric(tmp_path):
    trainer = make(folder=tmp_path)
    trainer.fit(loaders()[0], epochs=1)
    with pytest.raises(GraphFlowError, match="no checkpoint with 'val_loss'"):
        trainer.load_best()


def test_the_bar_says_how_long_it_takes(capsys):
    trainer = make()
    trainer.progress = True
    trainer.fit(loaders()[0], epochs=2)
    lines = capsys.readouterr().err.splitlines()
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "3/3" in lines[-1] and "/s" in lines[-1] and "loss 0." in lines[-1]
    assert [clock(s) for s in (7.2, 750, 3723)] == ["0:07", "12:30", "1:02:03"]


def test_the_script_of_the_digits(tmp_path, monkeypatch, capsys):
    script = ROOT / "models" / "trainer_digits.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out.split()
    assert 5 <= int(said[0]) < 100 and float(said[3]) > 0.95
    tree = ast.parse(script.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef)) and ast.get_docstring(node):
            del node.body[0]
    assert len(ast.unparse(tree).splitlines()) < 30
    lines = script.read_text().partition('"""\n')[2].partition('"""\n')[2].splitlines()
    assert len([line for line in lines if line.strip()]) < 30
