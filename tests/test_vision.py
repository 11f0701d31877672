"""Vision: the IDX reader against damaged files, MNIST's layout, the digits, transforms."""

import gzip
import hashlib
import http.server
import pathlib
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import GraphFlowError
from graphflow.utils.data import DataLoader
from graphflow.vision import datasets, transforms
from graphflow.vision.datasets.digits import is_test, load_original, upsample
from graphflow.vision.datasets.idx import read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray[Any, Any], extents: tuple[int, ...] | None = None) -> bytes:
    """An IDX file holding ``array`` (its header may claim other ``extents``)."""
    claimed = array.shape if extents is None else extents
    head = bytes([0, 0, CODES[array.dtype.str[1:]], len(claimed)])
    big = array.astype(array.dtype.newbyteorder(">"))
    return head + struct.pack(f">{len(claimed)}I", *claimed) + big.tobytes()


def write_mnist(root: pathlib.Path, name: str = "MNIST", compressed: bool = False) -> Any:
    """A small MNIST under ``root``; returns images and labels of both parts."""
    rng = np.random.default_rng(5)
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    made = {}
    for part, count in (("train", 40), ("t10k", 15)):
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        made[part] = images, labels
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{part}-{kind}-ubyte{'.gz' if compressed else ''}"
            path.write_bytes(gzip.compress(data) if compressed else data)
    return made


# ---- the IDX reader ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(CODES))
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_round_trip(tmp_path: pathlib.Path, dtype: str, compressed: bool) -> None:
    array = np.arange(-12, 12).reshape(2, 3, 4).astype(dtype)
    path = tmp_path / ("a.gz" if compressed else "a")
    path.write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    read = read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_idx_empty_array(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    assert read_idx(tmp_path / "a").shape == (0, 28, 28)


GOOD = idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
DAMAGED = {
    "empty": (b"", "ends inside its header"),
    "short header": (GOOD[:3], "ends inside its header"),
    "short extents": (GOOD[:9], "ends inside its header"),
    "foreign": (b"\x89PNG" + GOOD[4:], "does not start like an IDX file"),
    "unknown type": (b"\0\0\x42\x03" + GOOD[4:], "does not start like an IDX file"),
    "no dimensions": (b"\0\0\x08\0" + GOOD[4:], "does not start like an IDX file"),
    "truncated": (GOOD[:-1], "60 bytes"),
    "longer": (GOOD + b"x", "60 bytes"),
    "lying": (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "can hold"),
    "many dimensions": (b"\0\0\x08\xff" + b"\xff" * 1020, "can hold"),
}


@pytest.mark.parametrize("case", sorted(DAMAGED))
@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_one_clear_error(
    tmp_path: pathlib.Path, case: str, compressed: bool
) -> None:
    data, message = DAMAGED[case]
    path = tmp_path / ("damaged.gz" if compressed else "damaged")
    path.write_bytes(gzip.compress(data) if compressed else data)
    with pytest.raises(GraphFlowError, match=message) as caught:
        read_idx(path)
    assert "damaged" in str(caught.value) and "delete it" in str(caught.value)


@pytest.mark.parametrize("cut", [1, 9, 15, 40])
def test_a_truncated_gzip_file(tmp_path: pathlib.Path, cut: int) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(GOOD)[:cut])
    with pytest.raises(GraphFlowError, match=r"a\.gz"):
        read_idx(path)


def test_a_gzip_file_with_flipped_bits(tmp_path: pathlib.Path) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (9, 8, 8)).astype(np.uint8)
    data = gzip.compress(idx(noise))
    for position in range(10, len(data) - 8, 7):
        path = tmp_path / f"{position}.gz"
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        with pytest.raises(GraphFlowError):
            read_idx(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_lying_header_allocates_nothing(tmp_path: pathlib.Path, compressed: bool) -> None:
    lie = idx(np.zeros((1, 28, 28), np.uint8), (60_000, 28, 28))
    path = tmp_path / ("a.gz" if compressed else "a")
    path.write_bytes(gzip.compress(lie) if compressed else lie)
    tracemalloc.start()
    try:
        with pytest.raises(GraphFlowError):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_compressed_flood_is_not_unpacked(tmp_path: pathlib.Path) -> None:
    flood = zlib.compressobj(9, wbits=31)
    data = flood.compress(idx(np.zeros((2, 2), np.uint8)))
    data += b"".join(flood.compress(bytes(1 << 20)) for _ in range(64)) + flood.flush()
    (tmp_path / "a.gz").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(GraphFlowError, match="more"):
            read_idx(tmp_path / "a.gz")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


# ---- MNIST ------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [datasets.MNIST, datasets.FashionMNIST])
def test_mnist_reads_torchvisions_layout(
    tmp_path: pathlib.Path, kind: Any, compressed: bool
) -> None:
    made = write_mnist(tmp_path, kind.__name__, compressed)
    for part, train in (("train", True), ("t10k", False)):
        data = kind(tmp_path, train=train)
        images, labels = made[part]
        assert len(data) == len(labels) and kind.available(tmp_path, train)
        np.testing.assert_array_equal(data.data.numpy(), images)
        np.testing.assert_array_equal(data.targets.numpy(), labels)
        image, target = data[7]
        np.testing.assert_array_equal(image, images[7])
        assert target == labels[7] and type(target) is int
        with pytest.raises(IndexError):
            data[len(labels)]
    assert data.class_to_idx[kind.classes[3]] == 3


def test_mnist_transforms(tmp_path: pathlib.Path) -> None:
    images, labels = write_mnist(tmp_path)["train"]
    pipeline = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.1307, 0.3081)])
    data = datasets.MNIST(tmp_path, transform=pipeline, target_transform=lambda t: t + 100)
    image, target = data[3]
    assert tuple(image.shape) == (1, 28, 28) and image.dtype == gf.float32
    expected = (images[3].astype(np.float64) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(image.numpy()[0], expected, rtol=1e-5, atol=1e-6)
    assert target == labels[3] + 100
    batch, targets = next(iter(DataLoader(data, batch_size=8)))
    assert tuple(batch.shape) == (8, 1, 28, 28) and targets.dtype == gf.int64


def test_mnist_not_there(tmp_path: pathlib.Path) -> None:
    assert not datasets.MNIST.available(tmp_path)
    with pytest.raises(GraphFlowError, match="download=True"):
        datasets.MNIST(tmp_path)


def replaced(tmp_path: pathlib.Path, name: str, array: np.ndarray[Any, Any]) -> None:
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / name).write_bytes(idx(array))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(39, np.uint8), "40 images but 39 labels"),
        ("train-labels-idx1-ubyte", np.full(40, 10, np.uint8), "a label is 10"),
        ("train-labels-idx1-ubyte", np.zeros((40, 1), np.uint8), r"not uint8 \[n\]"),
        ("train-images-idx3-ubyte", np.zeros((40, 784), np.uint8), r"not uint8 \[n, h, w\]"),
        ("train-images-idx3-ubyte", np.zeros((40, 28, 28), np.float32), "not uint8"),
    ],
)
def test_mnist_of_the_wrong_shape(
    tmp_path: pathlib.Path, name: str, array: np.ndarray[Any, Any], message: str
) -> None:
    replaced(tmp_path, name, array)
    with pytest.raises(GraphFlowError, match=message):
        datasets.MNIST(tmp_path)


# ---- downloading ------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """A web server on this machine; its address and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/", folder
        finally:
            running.shutdown()
            thread.join()


def served_mnist(folder: pathlib.Path, tmp_path: pathlib.Path) -> Any:
    """A subclass of MNIST whose files the server has, and their arrays."""
    made = write_mnist(tmp_path / "source", compressed=True)
    resources = []
    for path in sorted((tmp_path / "source" / "MNIST" / "raw").iterdir()):
        data = path.read_bytes()
        (folder / path.name).write_bytes(data)
        resources.append((path.name, hashlib.md5(data).hexdigest()))
    return type("MNIST", (datasets.MNIST,), {"resources": resources}), made


def test_download_checks_and_falls_back(
    tmp_path: pathlib.Path, server: tuple[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address, folder = server
    kind, made = served_mnist(folder, tmp_path)
    kind.mirrors = [address + "missing/", address]
    data = kind(tmp_path / "root", download=True)
    np.testing.assert_array_equal(data.data.numpy(), made["train"][0])
    kind.mirrors = []  # everything is there: nothing is fetched again
    assert len(kind(tmp_path / "root", train=False, download=True)) == 15


def test_download_of_a_wrong_file_leaves_nothing(
    tmp_path: pathlib.Path, server: tuple[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address, folder = server
    kind, _ = served_mnist(folder, tmp_path)
    for path in folder.iterdir():
        path.write_bytes(b"something else")
    kind.mirrors = [address]
    with pytest.raises(GraphFlowError, match="wrong checksum"):
        kind(tmp_path / "root", download=True)
    assert list((tmp_path / "root" / "MNIST" / "raw").iterdir()) == []


def test_download_without_a_network_says_what_to_do(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/a/", "nonsense"])
    with pytest.raises(GraphFlowError, match="by hand") as caught:
        datasets.MNIST(tmp_path, download=True)
    assert "http://127.0.0.1:9/a/" in str(caught.value) and str(tmp_path) in str(caught.value)


# ---- the digits -------------------------------------------------------------------------


def test_digits_are_the_published_ones() -> None:
    images, labels = load_original()
    assert images.shape == (1797, 8, 8) and images.max() == 16
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(labels).tolist() == counts
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0] and labels[0] == 0
    assert int(images.sum(dtype=np.int64)) == 561718


def test_digits_split_is_stratified_and_disjoint() -> None:
    train, test = datasets.Digits(train=True), datasets.Digits(train=False)
    assert len(train) == 1438 and len(test) == 359
    totals = np.bincount(load_original()[1])
    for total, held in zip(totals, np.bincount(test.targets.numpy()), strict=True):
        assert abs(held - total / 5) <= 1
    chosen = is_test(load_original()[1])
    whole = upsample(load_original()[0])
    np.testing.assert_array_equal(test.data.numpy(), whole[chosen])
    np.testing.assert_array_equal(train.data.numpy(), whole[~chosen])


def test_upsampling_is_bilinear() -> None:
    images = load_original()[0][:50].astype(np.float64)
    place = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    rows = np.stack([[np.interp(place, np.arange(8), r) for r in image] for image in images])
    both = np.stack([[np.interp(place, np.arange(8), c) for c in i.T] for i in rows])
    expected = both.transpose(0, 2, 1) * 255 / 16
    assert np.abs(upsample(images.astype(np.uint8)) - expected).max() <= 0.5 + 1e-9
    assert upsample(np.full((1, 8, 8), 16, np.uint8)).min() == 255


# ---- transforms -------------------------------------------------------------------------


def test_to_tensor_moves_channels_and_scales_bytes() -> None:
    image = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    made = transforms.ToTensor()(image)
    np.testing.assert_allclose(made.numpy(), image.transpose(2, 0, 1) / np.float32(255), rtol=1e-6)
    floats = transforms.ToTensor()(image.astype(np.float64))
    assert floats.dtype == gf.float64 and float(floats.numpy().max()) == 23.0
    image[:] = 0
    assert float(made.numpy().max()) > 0, "the tensor must not share the image's memory"


@pytest.mark.parametrize("wrong", [np.zeros(3, np.uint8), np.zeros((1, 2, 3, 4)), "image", None])
def test_to_tensor_refuses(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="ToTensor"):
        transforms.ToTensor()(wrong)


def test_normalize_by_channel_and_in_place() -> None:
    values = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    expected = (values - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    tensor = gf.from_numpy(values.copy())
    np.testing.assert_allclose(transforms.Normalize(mean, std)(tensor).numpy(), expected, 1e-5)
    np.testing.assert_array_equal(tensor.numpy(), values)
    transforms.Normalize(mean, std, inplace=True)(tensor)
    np.testing.assert_allclose(tensor.numpy(), expected, 1e-5, 1e-6)


@pytest.mark.parametrize("std", [0.0, [1.0, 0.0], -1.0, float("nan")])
def test_normalize_refuses_a_std_it_cannot_divide_by(std: Any) -> None:
    with pytest.raises(ValueError, match="std"):
        transforms.Normalize(0.5, std)


def test_normalize_names_a_channel_mismatch() -> None:
    with pytest.raises(ValueError, match="2 channels, the image 3"):
        transforms.Normalize([0.1, 0.2], 1.0)(gf.zeros(3, 4, 4))
    with pytest.raises(TypeError, match="ToTensor"):
        transforms.Normalize(0.1, 1.0)(np.zeros((1, 2, 2)))  # type: ignore[arg-type]


def test_lambda_and_repr() -> None:
    pipeline = transforms.Compose([transforms.Lambda(lambda a: a + 1), transforms.ToTensor()])
    assert pipeline(np.zeros((2, 2), np.uint8)).numpy().max() == np.float32(1 / 255)
    assert "ToTensor()" in repr(pipeline)
    with pytest.raises(TypeError, match="function"):
        transforms.Lambda(3)  # type: ignore[arg-type]
