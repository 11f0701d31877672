"""Datasets over files that stay where they are, against NumPy's own reading of them."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import GraphFlowError
from graphflow.utils.data import DataLoader, MappedDataset, TokenDataset

RNG = np.random.default_rng(5)


@pytest.fixture
def tokens(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = RNG.integers(0, 60_000, 1003).astype(np.uint16)
    np.save(tmp_path / "tokens.npy", values)
    return tmp_path / "tokens.npy", values


@pytest.mark.parametrize(("length", "stride"), [(10, None), (7, 1), (16, 5), (1002, None)])
def test_windows_are_those_of_the_sequence(tokens, length: int, stride: int | None) -> None:
    path, values = tokens
    windows = TokenDataset(path, length, stride=stride)
    step = stride or length
    begins = range(0, len(values) - length, step)
    assert len(windows) == len(begins)
    for i in {0, len(windows) // 2, len(windows) - 1}:
        inputs, targets = windows[i]
        assert inputs.dtype is targets.dtype is gf.int64
        np.testing.assert_array_equal(inputs.numpy(), values[begins[i] : begins[i] + length])
        np.testing.assert_array_equal(targets.numpy(), values[begins[i] + 1 :][:length])
    assert windows[-1][0].tolist() == windows[len(windows) - 1][0].tolist()
    with pytest.raises(IndexError, match=f"index {len(windows)} is out of range"):
        windows[len(windows)]


def test_a_sequence_that_is_too_short_has_no_windows(tokens) -> None:
    assert len(TokenDataset(tokens[1], 1003)) == 0
    assert len(TokenDataset(tokens[1][:0], 4)) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_and_their_processes_give_the_same_batches(tokens, workers: int) -> None:
    path, values = tokens
    loader = DataLoader(TokenDataset(path, 8), batch_size=25, num_workers=workers)
    found = list(loader)
    inputs = np.concatenate([b[0].numpy() for b in found])
    np.testing.assert_array_equal(inputs.reshape(-1), values[: inputs.size])
    assert [len(b[0]) for b in found] == [25] * 5
    np.testing.assert_array_equal(
        np.concatenate([b[1].numpy() for b in found]).reshape(-1), values[1 : inputs.size + 1]
    )


def test_files_stay_on_disk_and_travel_as_paths(tmp_path: Path) -> None:
    images, labels = RNG.normal(size=(100, 3, 8, 8)).astype(np.float32), np.arange(100)
    np.save(tmp_path / "images.npy", images)
    rows = MappedDataset(tmp_path / "images.npy", labels)
    assert isinstance(rows._columns[0].array, np.memmap)
    sent = pickle.dumps(rows)
    assert len(sent) < 5000
    again = pickle.loads(sent)
    for dataset in (rows, again):
        image, label = dataset[17]
        np.testing.assert_array_equal(image.numpy(), images[17])
        assert label.item() == 17
        batch = next(iter(DataLoader(dataset, batch_size=7)))
        np.testing.assert_array_equal(batch[0].numpy(), images[:7])
        np.testing.assert_array_equal(batch[1].numpy(), labels[:7])
    image += 1  # a sample is the caller's own
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), images)


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.arange(1000))
    data = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:-100])
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "one.npy", np.float32(1))
    np.savez(tmp_path / "several.npz", a=np.arange(3))
    for name in ("cut.npy", "text.npy", "words.npy", "one.npy", "several.npz"):
        with pytest.raises(GraphFlowError, match=name):
            MappedDataset(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TokenDataset(tmp_path / "nowhere.npy", 3)
    with pytest.raises(GraphFlowError, match="one row of integers, not float64"):
        TokenDataset(np.zeros(10), 3)
    with pytest.raises(ValueError, match="positive"):
        TokenDataset(np.zeros(10, np.int32), 0)
    with pytest.raises(ValueError, match=r"\[1000, 3\]"):
        MappedDataset(tmp_path / "whole.npy", np.zeros(3))
