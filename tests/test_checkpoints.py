"""Checkpoints of training runs: whole or not at all, found again, and what goes wrong."""

import json
import random
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.errors import GraphFlowError
from graphflow.training import CheckpointManager, DamagedCheckpoint
from graphflow.training import checkpoint_files as files
from graphflow.training import checkpoints as module


class Run:
    """A model with everything that can have a state; :meth:`train` changes all of it."""

    def __init__(self, width=5, kind=optim.Adam):
        self.model = nn.Sequential(
            nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 2)
        )
        self.optimizer = kind(self.model.parameters(), lr=0.1)
        self.scheduler = optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.scaler = gf.amp.GradScaler("cpu", growth_interval=3)
        self.parts = {
            "model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler,
            "scaler": self.scaler,
        }  # fmt: skip

    def train(self, steps=1):
        for _ in range(steps):
            self.optimizer.zero_grad()
            x = gf.randn(4, 3) + random.random() + np.random.rand()
            loss = self.model(x).square().mean()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.scheduler.step()
        return self

    def bits(self):
        tensors = [*self.model.state_dict().values()]
        for slots in self.optimizer.state_dict()["state"].values():
            tensors += slots.values()
        return b"".join(t.numpy().tobytes() for t in tensors), self.scheduler.get_last_lr()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_run_goes_on_as_if_it_had_not_ended(tmp_path, asynchronous):
    gf.manual_seed(1)
    first = Run().train(3)
    with CheckpointManager(tmp_path, first.parts, asynchronous=asynchronous) as manager:
        assert manager.restore() is None and manager.latest() is None
        manager.save(3, {"loss": gf.tensor(0.5)})
        expected = first.train(4).bits()
    gf.manual_seed(2)
    second = Run()
    with CheckpointManager(tmp_path, second.parts) as manager:
        found = manager.restore()
        assert (found.step, found.metrics) == (3, {"loss": 0.5})
        assert second.train(4).bits() == expected


def test_what_is_kept_is_the_newest_and_the_best(tmp_path):
    part = Run().model
    with CheckpointManager(tmp_path, {"model": part}, keep=2, best="accuracy", mode="max") as m:
        for step, value in enumerate([0.1, 0.9, 0.3, float("nan"), 0.2], 1):
            m.save(step, {"accuracy": value})
        assert [c.step for c in m.all()] == [2, 4, 5]
        assert m.best().step == 2 and m.latest().step == 5
        m.save(6)  # without metrics: never the best
        assert [c.step for c in m.all()] == [2, 5, 6]
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {".lock", "step-00000002", "step-00000005", "step-00000006"}


def test_steps_after_the_one_that_was_gone_back_to_are_forgotten(tmp_path):
    part = Run().model
    with CheckpointManager(tmp_path, {"model": part}, keep=5) as manager:
        for step in (1, 2, 3):
            manager.save(step)
        manager.restore(1)
        assert [c.step for c in manager.all()] == [1, 2, 3]
        manager.save(2)
        assert [c.step for c in manager.all()] == [1, 2]


def test_two_runs_are_not_mixed_in_one_folder(tmp_path):
    part = Run().model
    with CheckpointManager(tmp_path, {"model": part}) as manager:
        manager.save(1)
    with (
        CheckpointManager(tmp_path, {"model": part}) as manager,
        pytest.raises(GraphFlowError, match=r"holds checkpoints already; call restore\(\)"),
    ):
        manager.save(1)


def test_another_process_in_the_folder_is_an_error(tmp_path, monkeypatch):
    code = (
        "import sys, graphflow as gf; from graphflow.training import CheckpointManager\n"
        "m = CheckpointManager(sys.argv[1], {'model': gf.nn.Linear(1, 1)})\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "open\n"
        monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)
        with pytest.raises(GraphFlowError, match="another process writes checkpoints into"):
            CheckpointManager(tmp_path, {"model": Run().model})
        monkeypatch.setattr(module, "_LOCK_SECONDS", 60.0)
        threading.Timer(0.3, other.kill).start()
        CheckpointManager(tmp_path, {"model": Run().model}).close()  # it waits for one that ends


# ---- damage -------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "bit": lambda p: flip(p / "rank-0-of-1.safetensors"),
    "short": lambda p: (p / "rank-0-of-1.safetensors").write_bytes(b"1"),
    "gone": lambda p: (p / "rank-0-of-1.safetensors").unlink(),
    "manifest": lambda p: flip(p / "manifest.json"),
    "no manifest": lambda p: (p / "manifest.json").unlink(),
    "no table": lambda p: (p / "manifest.json").write_text("[1]"),
}


@pytest.fixture
def three(tmp_path):
    """A manager whose folder has checkpoints of three steps; the model's bias says which."""
    model = nn.Linear(2, 2)
    with CheckpointManager(tmp_path, {"model": model}) as manager:
        for step in (1, 2, 3):
            with gf.no_grad():
                model.bias.fill_(step)
            manager.save(step)
        manager.wait()
        yield manager


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(three, kind):
    newest = three.latest().path
    DAMAGE[kind](newest)
    with pytest.warns(UserWarning) as warned:
        assert three.restore().step == 2
    assert len(warned) == 1 and f"{newest}: " in str(warned[0].message)
    assert "the one before is used" in str(warned[0].message)
    assert three.parts["model"].bias.tolist() == [2.0, 2.0]
    with pytest.raises(DamagedCheckpoint, match="step-00000003"):
        three.restore(3)
    three.save(3)  # takes its place
    assert three.restore().step == 3


def test_damage_everywhere_is_an_error_and_not_a_new_run(three):
    for checkpoint in three.all():
        flip(checkpoint.path / "rank-0-of-1.safetensors")
    with (
        pytest.warns(UserWarning),
        pytest.raises(GraphFlowError, match=r"all checkpoints are damaged \(steps 1, 2, 3\)"),
    ):
        three.restore()
    with pytest.raises(GraphFlowError, match="no checkpoint of step 7; there: 1, 2, 3"):
        three.restore(7)


def test_every_flipped_bit_is_found(three):
    path = three.latest().path
    rng = random.Random(5)
    for name in ("rank-0-of-1.safetensors", "manifest.json"):
        whole = (path / name).read_bytes()
        for _ in range(100):
            content = bytearray(whole)
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            (path / name).write_bytes(content)
            with pytest.raises(GraphFlowError):
                three.restore(3)
        (path / name).write_bytes(whole)
    assert three.restore(3).step == 3


def test_a_newer_version_is_not_taken_for_damage(three, monkeypatch):
    monkeypatch.setattr(files, "VERSION", 2)
    three.save(4)
    three.wait()
    monkeypatch.undo()
    with pytest.raises(GraphFlowError, match=r"step-00000004: written in version 2 .* up to 1"):
        three.restore()


# ---- other models -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: Run(width=6).parts,
         r"its model\.0\.weight is f32\[5,3\], here it is f32\[6,3\]; .*; and \d more"),
        (lambda run: {**run.parts, "model": nn.Sequential(nn.Linear(3, 5))},
         r"it has model\.1\.weight, which is not here"),
        (lambda run: {"model": run.model}, "it has a 'optimizer', which is not here"),
        (lambda run: {**run.parts, "other": run.model}, "it has no 'other'"),
        (lambda run: Run(kind=optim.SGD).parts, "its 'optimizer' is a Adam, here it is a SGD"),
        (lambda run: {**run.parts, "optimizer": optim.Adam([run.model[0].bias])},
         r"its 'optimizer' has groups of \[6\] parameters, here \[1\]"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_says_what_differs(tmp_path, change, message):
    run = Run().train(2)
    with CheckpointManager(tmp_path, run.parts) as manager:
        manager.save(1)
    parts = change(run)
    before, numbers = run.bits(), gf.get_rng_state().tolist()
    with CheckpointManager(tmp_path, parts) as manager:
        with pytest.raises(GraphFlowError, match=message):
            manager.restore()
    assert run.bits() == before and gf.get_rng_state().tolist() == numbers, "nothing has changed"


def test_parts_can_be_restored_by_themselves(tmp_path):
    run = Run().train(2)
    with CheckpointManager(tmp_path, run.parts) as manager:
        manager.save(1)
    other = Run(kind=optim.SGD)
    numbers = gf.get_rng_state().tolist()
    with CheckpointManager(tmp_path, other.parts) as manager:
        manager.restore(only=["model"])
        assert gf.get_rng_state().tolist() == numbers
        assert other.bits()[0][:60] == run.bits()[0][:60]
        with pytest.raises(GraphFlowError, match="holds checkpoints already"):
            manager.save(2)


# ---- writing fails ------------------------------------------------------------------------


def test_an_error_of_the_writer_is_raised_by_the_next_call(three, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.safetensors, "write", full)
    three.save(4)
    with pytest.raises(GraphFlowError, match=r"cannot write checkpoints to .* No space left"):
        three.save(5)
    monkeypatch.undo()
    three.save(5)
    assert [c.step for c in three.all()] == [2, 3, 5]


FULL = """
import resource, sys, graphflow as gf
from graphflow.training import CheckpointManager

manager = CheckpointManager(sys.argv[1], {"model": gf.nn.Linear(2, 2)})
manager.restore()
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))  # bytes a file: Python ignores SIGXFSZ
manager.save(4)
try:
    manager.wait()
except gf.GraphFlowError as error:
    print(error)
manager.save(5)  # the error comes, or else a warning when the process ends
"""


def test_a_disk_that_is_full_leaves_what_was_there(three):
    pytest.importorskip("resource")
    three.close()
    command = [sys.executable, "-c", FULL, str(three.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("cannot write checkpoints to "), done.stderr
    assert "File too large" in done.stdout
    assert "File too large (and nobody waited for it)" in " ".join(done.stderr.split())
    assert [c.step for c in three.all()] == [1, 2, 3]
    with CheckpointManager(three.folder, three.parts) as manager:
        assert manager.restore().step == 3
    assert not list(three.folder.glob(".step*")), "what was not finished is removed"


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GraphFlowError, match=r"cannot write checkpoints to .*file"):
        CheckpointManager(tmp_path / "file" / "run", {"model": Run().model})
    for options in ({"keep": 0}, {"mode": "most"}):
        with pytest.raises(ValueError, match="should be"):
            CheckpointManager(tmp_path, {"model": Run().model}, **options)
    with pytest.raises(ValueError, match="parts are named"):
        CheckpointManager(tmp_path, {"random": Run().model})


def test_training_goes_on_while_the_state_as_it_was_is_written(three, monkeypatch):
    may = threading.Event()
    write = files.write_shard

    def slow(*arguments):
        assert may.wait(100)
        write(*arguments)

    monkeypatch.setattr(files, "write_shard", slow)
    model = three.parts["model"]
    three.save(4)
    with gf.no_grad():
        model.bias.fill_(-1.0)
    assert not (three.folder / "step-00000004").exists()
    may.set()
    three.wait()
    three.restore(4)
    assert model.bias.tolist() == [3.0, 3.0]


# ---- several ranks ------------------------------------------------------------------------


def on_ranks(monkeypatch, size, task):
    """Call ``task(rank)`` for every rank of a job in turn, rank 0 last."""
    monkeypatch.setattr(module, "decided", lambda decide: decide())
    for rank in reversed(range(size)):
        monkeypatch.setattr(module, "place", lambda rank=rank: (rank, size))
        task(rank)


@pytest.mark.parametrize(("before", "after"), [(3, 3), (2, 4), (4, 1), (1, 2)])
def test_ranks_share_the_writing_and_another_number_reads_it(
    tmp_path, monkeypatch, before, after
):  # fmt: skip
    monkeypatch.setattr(module.secrets, "token_hex", lambda _: "job")
    monkeypatch.setattr(module.CheckpointManager, "_begin", lambda self: None)
    gf.manual_seed(4)
    run = Run().train(2)
    expected = run.bits()
    drawn = {}

    def save(rank):
        gf.manual_seed(rank)
        with CheckpointManager(tmp_path, run.parts) as manager:
            manager.save(7)
            manager.wait()
            drawn[rank] = gf.rand(2).tolist()

    # Every manager forgets unfinished parts, as rank 0 does before the others begin.
    monkeypatch.setattr(files, "forget_parts", lambda _: None)
    on_ranks(monkeypatch, before, save)
    (path,) = files.listed(tmp_path).values()
    assert len(list(path.glob("rank-*"))) == before
    sizes = [p.stat().st_size for p in path.glob("rank-*")]
    assert max(sizes) < 2 * min(sizes)
    found = {}

    def load(rank):
        other = Run()
        with CheckpointManager(tmp_path, other.parts) as manager:
            manager.restore()
        assert other.bits() == expected
        found[rank] = gf.rand(2).tolist()

    on_ranks(monkeypatch, after, load)
    for rank in range(min(before, after)):
        assert found[rank] == drawn[rank]
    assert len({tuple(v) for v in found.values()}) == after, "ranks do not draw the same"


def test_a_rank_that_does_not_save_is_missed_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "place", lambda: (0, 3))
    monkeypatch.setattr(module, "decided", lambda decide: decide())
    manager = CheckpointManager(tmp_path, {"model": Run().model}, timeout=0.2)
    manager.save(1)
    with pytest.raises(GraphFlowError, match="ranks 1, 2 have not written a part"):
        manager.wait()
    assert manager.all() == []
    manager.close()


def test_the_manifest_is_for_people_too(three):
    manifest = json.loads((three.latest().path / "manifest.json").read_text())["manifest"]
    assert manifest["version"] == 1 and manifest["step"] == 3
    plain = gf.load(three.latest().path / "rank-0-of-1.safetensors")
    assert plain["model.bias"].tolist() == [3.0, 3.0]
    shutil.rmtree(three.latest().path)
    assert three.restore().step == 2
