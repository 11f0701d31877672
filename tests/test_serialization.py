"""gf.save and gf.load: round trips, PyTorch's own files, other programs' safetensors."""

import collections
import enum
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import graphflow as gf
from graphflow import nn, optim
from graphflow.serialization.atomic import replacing
from tests.front import linear, ramp, training_step

CHECKPOINTS = pathlib.Path(__file__).parent / "checkpoints"
DTYPES = "float64 float16 bfloat16 int8 int16 int32 int64 uint8 bool complex64 complex128".split()


def same(a: Any, b: Any) -> None:
    """Equal in value, type, dtype and shape, all the way down."""
    assert type(a) is type(b), (type(a), type(b))
    if isinstance(a, gf.Tensor):
        assert a.dtype is b.dtype and a.shape == b.shape and a.requires_grad == b.requires_grad
        assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, (np.ndarray, np.generic)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b or (a != a and b != b)


def everything() -> dict[str, Any]:
    shared = nn.Parameter(gf.tensor([1.5, -2.0]))
    return {
        "state": collections.OrderedDict(w=ramp(3, 4), b=gf.tensor(7)),
        "dtypes": [gf.tensor([0, 1, 2]).to(getattr(gf, name)) for name in DTYPES],
        "views": [ramp(3, 4).t(), ramp(3, 4)[1:, ::2], gf.zeros(0, 3)],
        "tied": [shared, shared],
        "grad": gf.ones(2).requires_grad_(),
        "numbers": (1, -(2**70), 0.1, float("inf"), float("nan"), -0.0, True, None, 3 + 4j),
        "texts": ["", "é", "x\ny", b"\x00\xff", bytearray(b"a")],
        "sets": [{1, 2}, frozenset({3}), collections.Counter({5: 2}), gf.ones(2, 3).shape],
        "kinds": [gf.float32, gf.device("cpu")],
        "numpy": [np.arange(6.0).reshape(2, 3), np.float32(2.5), np.array(3)],
        7: [(), [], {}],
        "a.b": {"c": gf.ones(1)},
        "a": {"b.c": gf.zeros(1)},
    }


@pytest.mark.parametrize("name", ["file.safetensors", "file", "file.pt", "file.pth"])
def test_everything_comes_back(tmp_path: pathlib.Path, name: str) -> None:
    value = everything()
    gf.save(value, tmp_path / name)
    loaded = gf.load(tmp_path / name)
    same(value, loaded)
    assert loaded["tied"][0]._cell is loaded["tied"][1]._cell, "sharing is kept"
    assert zipfile.is_zipfile(tmp_path / name) == (".p" in name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("format", ["safetensors", "pytorch"])
def test_streams(format: str) -> None:
    stream = io.BytesIO()
    gf.save(everything(), stream, format=format)
    stream.seek(0)
    same(everything(), gf.load(stream))
    later = io.BytesIO(b"before" + stream.getvalue())
    later.seek(6)
    same(everything(), gf.load(later))


@pytest.mark.parametrize("file", ["pytorch.pt", "pytorch_legacy.pt"])
def test_what_pytorch_wrote(file: str) -> None:
    # Written by PyTorch 2.13.0, torch.save() of the values below; the second file with
    # _use_new_zipfile_serialization=False.
    got = gf.load(CHECKPOINTS / file)
    base = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    assert type(got["model"]) is collections.OrderedDict
    same(dict(got["model"]), {"a": gf.arange(6.0).reshape(2, 3), "b": gf.tensor(7)})
    views = [base.T, base[1:3], base[:, ::2], np.ones((3, 4), np.float32)]
    same([v.numpy() for v in got["views"]], views)
    same(got["dtypes"], [gf.tensor([0, 1, 2]).to(getattr(gf, name)) for name in DTYPES])
    assert got["tied"][0]._cell is got["tied"][1]._cell
    same(got["tied"][0], nn.Parameter(gf.tensor([1.5, -2.0])))
    plain = (
        1, -5, 2**40, -(2**70), 1.5, None, True, "héllo", b"\x00\xff", {1, 2}, 3 + 4j,
        gf.ones(1, 2).shape,
    )  # fmt: skip
    same(got["plain"], plain)
    same(got["kinds"], (gf.float32, gf.device("cpu"), collections.Counter({3: 1})))
    integers = np.arange(6, dtype=np.int32).reshape(2, 3)
    same(got["numpy"], [np.arange(6.0).reshape(2, 3), integers, np.float64(3.5)])
    assert tuple(got["empty"].shape) == (0, 3)


def test_state_dicts_are_plain_safetensors(tmp_path: pathlib.Path) -> None:
    state = {
        "small": gf.tensor([1, 2, 3], dtype=gf.int8),
        "weight": ramp(3, 5),
        "one": gf.tensor(2.0),
    }
    gf.save(state, tmp_path / "a.safetensors")
    other = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert set(other) == set(state)
    for name, array in other.items():
        np.testing.assert_array_equal(array, state[name].numpy())
    assert list(gf.load(tmp_path / "a.safetensors")) == list(state), "in the order of saving"
    arrays = {"b": np.arange(4, dtype=np.float16), "a": np.ones((2, 2)), "c": np.zeros((0, 2))}
    safetensors.numpy.save_file(arrays, tmp_path / "b.safetensors", {"note": "x"})
    loaded = gf.load(tmp_path / "b.safetensors")
    assert {k: v.numpy().tolist() for k, v in loaded.items()} == {
        k: v.tolist() for k, v in arrays.items()
    }


def test_tied_weights_are_written_once(tmp_path: pathlib.Path) -> None:
    model = nn.Sequential(linear(64, 64), linear(64, 64))
    model[1].weight = model[0].weight
    for name in ("a.safetensors", "a.pt"):
        gf.save(model.state_dict(), tmp_path / name)
        assert (tmp_path / name).stat().st_size < 64 * 64 * 4 * 1.5
        loaded = gf.load(tmp_path / name)
        assert loaded["0.weight"]._cell is loaded["1.weight"]._cell
        twin = nn.Sequential(linear(64, 64), linear(64, 64))
        twin.load_state_dict(loaded)
        np.testing.assert_array_equal(twin(ramp(2, 64)).detach(), model(ramp(2, 64)).detach())


def checkpoint(model: Any, opt: Any, scheduler: Any) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizer": opt.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": gf.get_rng_state(),
    }


@pytest.mark.parametrize("name", ["c.safetensors", "c.pt"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_goes_on_where_it_was_saved(
    tmp_path: pathlib.Path, name: str, compiled: bool
) -> None:
    def fresh() -> Any:
        model = nn.Sequential(linear(), nn.Dropout(0.5))
        opt = optim.Adam(model.parameters(), lr=0.1)
        scheduler = optim.lr_scheduler.StepLR(opt, 2, 0.5)
        step = training_step(model, opt, gf.compile if compiled else lambda f: f)
        return model, opt, scheduler, step

    def train(run: Any, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            losses.append(run[3](ramp(5, 4)).item())
            run[2].step()
        return losses

    gf.manual_seed(5)
    first = fresh()
    train(first, 3)
    gf.save(checkpoint(*first[:3]), tmp_path / name)
    expected = train(first, 4)
    gf.manual_seed(99)
    second = fresh()
    train(second, 1)
    saved = gf.load(tmp_path / name)
    for part, key in zip(second, ("model", "optimizer", "scheduler"), strict=False):
        part.load_state_dict(saved[key])
    gf.set_rng_state(saved["rng"])
    assert train(second, 4) == expected
    same(dict(second[0].state_dict()), dict(first[0].state_dict()))


# ---- what cannot be saved -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"m": [nn.Linear(1, 1)]}, r"'m\.0', a Linear.*state_dict"),
        (lambda: 1, "a function|function"),
        (np.array(["a"]), "cannot save"),
    ],
)
def test_what_has_no_form_is_named(
    tmp_path: pathlib.Path, name: str, value: Any, message: str
) -> None:
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(gf.GraphFlowError, match=message):
        gf.save(value, tmp_path / name)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"old"


def test_data_that_contain_themselves(tmp_path: pathlib.Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    for name in ("a", "a.pt"):
        with pytest.raises(gf.GraphFlowError, match="nested deeper"):
            gf.save(loop, tmp_path / name)


def test_arguments(tmp_path: pathlib.Path) -> None:
    gf.save({"a": gf.ones(1)}, tmp_path / "a.pt", pickle_protocol=4)
    got = gf.load(tmp_path / "a.pt", map_location=lambda storage, place: storage, weights_only=True)
    assert got["a"].item() == 1
    assert gf.load(tmp_path / "a.pt", map_location="cpu")["a"].item() == 1
    with pytest.raises(gf.GraphFlowError, match="cuda"):
        gf.load(tmp_path / "a.pt", map_location="cuda")
    with pytest.raises(ValueError, match="format"):
        gf.save(1, tmp_path / "a", format="zip")
    with pytest.raises(FileNotFoundError):
        gf.load(tmp_path / "missing.pt")
    with pytest.raises(gf.GraphFlowError, match="folder"):
        gf.load(tmp_path)


# ---- classes that the user allows ------------------------------------------------------------


class Settings:
    def __init__(self, rate: float, shape: tuple[int, ...]) -> None:
        self.rate, self.shape = rate, shape


class Slotted:
    __slots__ = ("rate",)


class Kind(enum.Enum):
    SMALL = 1


def checkpoint_of(value: Any, module: str = __name__) -> io.BytesIO:
    """What PyTorch writes of ``value``, which holds no tensors, its classes from ``module``."""
    stream = io.BytesIO()
    data = pickle.dumps(value, protocol=2).replace(__name__.encode(), module.encode())
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", data)
    stream.seek(0)
    return stream


def test_classes_are_made_when_they_are_allowed() -> None:
    slotted = Slotted()
    slotted.rate = 3
    value = {"settings": Settings(0.5, (2, 3)), "kind": Kind.SMALL, "slots": slotted}
    for _ in range(2):
        with pytest.raises(gf.GraphFlowError, match=r"Settings, which .*add_safe_globals\(\[Sett"):
            gf.load(checkpoint_of(value))
        with gf.serialization.safe_globals([Settings, Kind, Slotted]):
            found = gf.load(checkpoint_of(value))
    assert vars(found["settings"]) == {"rate": 0.5, "shape": (2, 3)}
    assert type(found["settings"]) is Settings and found["kind"] is Kind.SMALL
    assert found["slots"].rate == 3
    gf.serialization.add_safe_globals([(Settings, "gone.Settings")])
    assert gf.serialization.get_safe_globals() == [Settings]
    assert gf.load(checkpoint_of(value["settings"], "gone")).shape == (2, 3)
    with pytest.raises(gf.GraphFlowError, match=r"test_serialization\.Settings"):
        gf.load(checkpoint_of(value["settings"]))
    gf.serialization.clear_safe_globals()
    assert not gf.serialization.get_safe_globals()


# ---- whole files ----------------------------------------------------------------------------


def test_an_error_while_writing_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), replacing(path) as stream:
        stream.write(b"new")
        raise OSError("the disk is full")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's files")
def test_a_full_disk_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    gf.save({"a": gf.ones(3)}, tmp_path / "a")
    code = (
        "import resource, signal, sys, graphflow as gf\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: gf.save({'a': gf.zeros(1_000_000)}, sys.argv[1])\n"
        "except OSError as error: print('refused')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "refused\n"
    assert gf.load(tmp_path / "a")["a"].tolist() == [1, 1, 1] and os.listdir(tmp_path) == ["a"]


def test_links_modes_and_leftovers(tmp_path: pathlib.Path) -> None:
    real = tmp_path / "real"
    gf.save({"a": gf.ones(1)}, real)
    assert not real.stat().st_mode & 0o111  # data, not a program
    real.chmod(0o640)
    (tmp_path / "link").symlink_to(real)
    with replacing(real):  # the name of a file that a killed process leaves behind
        name = next(n for n in os.listdir(tmp_path) if n.endswith(".part"))
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    orphan = tmp_path / name.replace(f"-{os.getpid()}-", f"-{dead.stdout.strip()}-")
    orphan.write_bytes(b"half")
    gf.save({"a": gf.zeros(1)}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and gf.load(real)["a"].item() == 0
    assert real.stat().st_mode & 0o777 == 0o640 and not orphan.exists()


def test_a_header_whose_length_begins_like_a_pickle(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "tensors.safetensors"
    for length in range(1, 240):
        gf.save({"x" * length: gf.ones(2)}, file)
        if file.read_bytes()[0] == 0x80:
            break
    assert file.read_bytes()[0] == 0x80 and gf.load(file)["x" * length].tolist() == [1.0, 1.0]
