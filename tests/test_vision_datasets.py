"""CIFAR, folders of images, noise: their layouts, and what is broken in them."""

import hashlib
import io
import os
import pathlib
import pickle
import sys
import tarfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphflow as gf
from graphflow.utils.data import DataLoader, SequentialSampler, Subset, default_collate
from graphflow.utils.data.fetching import gathered
from graphflow.vision import datasets, pillow, transforms
from graphflow.vision.datasets import labelled
from graphflow.vision.datasets.labelled import LabelledImages
from graphflow.vision.transforms import stacks

PARTS = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}


def write_cifar(root: pathlib.Path, kind: str, protocol: int = 2) -> dict[str, Any]:
    """A small CIFAR in one of its layouts; images ``[n, 32, 32, 3]`` and labels of both parts."""
    hundred, binary = "100" in kind, "bin" in kind
    rng = np.random.default_rng(4)
    folder = root / kind
    folder.mkdir(parents=True)
    parts = {"train": ["train"], "test": ["test"]} if hundred else PARTS
    made = {}
    for part, names in parts.items():
        images, labels = [], []
        for name in names:
            data = rng.integers(0, 256, (4, 3072)).astype(np.uint8)
            chosen = rng.integers(0, 100 if hundred else 10, 4)
            if binary:
                before = (
                    [chosen[:, None]] if not hundred else [chosen[:, None] // 5, chosen[:, None]]
                )
                (folder / f"{name}.bin").write_bytes(
                    np.hstack([*before, data]).astype("u1").tobytes()
                )
            else:
                key = b"fine_labels" if hundred else b"labels"
                table = {b"data": data, key: chosen.tolist(), b"filenames": [b"x"] * 4}
                (folder / name).write_bytes(pickle.dumps(table, protocol))
            images.append(data.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))
            labels += chosen.tolist()
        made[part] = np.concatenate(images), labels
    return made


KINDS = {
    "cifar-10-batches-py": datasets.CIFAR10,
    "cifar-10-batches-bin": datasets.CIFAR10,
    "cifar-100-python": datasets.CIFAR100,
    "cifar-100-binary": datasets.CIFAR100,
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_cifar(tmp_path: pathlib.Path, kind: str, protocol: int) -> None:
    if "bin" in kind and protocol:
        pytest.skip("no pickle")
    made = write_cifar(tmp_path, kind, protocol)
    for part in ("train", "test"):
        data = KINDS[kind](tmp_path, train=part == "train")
        images, labels = made[part]
        assert len(data) == len(images) and data.targets == labels
        np.testing.assert_array_equal(data.data, images)
        image, label = data[2]
        np.testing.assert_array_equal(image, images[2])
        assert image.mode == "RGB" and label == labels[2] and type(label) is int
    loader = DataLoader(
        KINDS[kind](tmp_path, train=False, transform=transforms.ToTensor()), 2, num_workers=1
    )
    assert tuple(next(iter(loader))[0].shape) == (2, 3, 32, 32)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Evil()}), "only running code"),
        (b"", "ends early|damaged"),
        (pickle.dumps([1]), "hold a dict"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}), "array of bytes"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}), "do not fit"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}), "not below 10"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, "1"]}), "labels"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]})[:-900], "damaged"),
    ],
)
def test_damaged_cifar(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path, "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(gf.GraphFlowError, match=message) as caught:
        datasets.CIFAR10(tmp_path, train=False)
    assert "test_batch" in str(caught.value) and os.listdir(tmp_path) == ["cifar-10-batches-py"]


def test_cifar_that_is_not_there_or_cut(tmp_path: pathlib.Path) -> None:
    with pytest.raises(gf.GraphFlowError, match="download=True"):
        datasets.CIFAR10(tmp_path)
    write_cifar(tmp_path, "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(gf.GraphFlowError, match="whole number of records"):
        datasets.CIFAR10(tmp_path, train=False)


def test_cifar_is_downloaded_and_unpacked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_cifar(tmp_path / "source", "cifar-10-batches-py")
    names = pickle.dumps({"label_names": [f"class {n}" for n in range(10)]})
    (tmp_path / "source" / "cifar-10-batches-py" / "batches.meta").write_bytes(names)
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "source" / "cifar-10-batches-py", "cifar-10-batches-py")
        evil = tarfile.TarInfo("../../evil")
        evil.size = 4
        packed.addfile(evil, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    monkeypatch.setattr(datasets.CIFAR10, "url", archive.as_uri())
    root = tmp_path / "root"
    with pytest.raises(gf.GraphFlowError, match="wrong checksum"):
        datasets.CIFAR10(root, download=True)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5)
    data = datasets.CIFAR10(root, download=True)
    np.testing.assert_array_equal(data.data, made["train"][0])
    assert data.classes[3] == "class 3" and data.class_to_idx["class 3"] == 3
    assert not (root / "cifar-10-batches-py" / "data_batch_1").is_symlink()
    assert sorted(p.name for p in root.iterdir()) == ["cifar-10-batches-py", archive.name]


# ---- folders --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    rng = np.random.default_rng(2)
    for name, files in (("cat", ["b.png", "a.jpg", "deep/c.PPM"]), ("ant", ["z.bmp", "note.txt"])):
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".txt":
                path.write_text("no image")
            else:
                Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).save(path)
    return tmp_path


def test_image_folder(folder: pathlib.Path) -> None:
    data = datasets.ImageFolder(folder, transform=transforms.ToTensor())
    assert data.classes == ["ant", "cat"] and data.class_to_idx == {"ant": 0, "cat": 1}
    names = [(pathlib.Path(path).name, number) for path, number in data.samples]
    assert names == [("z.bmp", 0), ("a.jpg", 1), ("b.png", 1), ("c.PPM", 1)]
    assert data.targets == [0, 1, 1, 1] and data.imgs is data.samples
    image, label = data[2]
    with Image.open(folder / "cat" / "b.png") as original:
        expected = np.asarray(original).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(image.numpy(), expected)
    assert label == 1
    images, labels = next(iter(DataLoader(data, 4, num_workers=2)))
    assert tuple(images.shape) == (4, 3, 6, 8) and labels.tolist() == [0, 1, 1, 1]


def test_folder_of_anything(folder: pathlib.Path) -> None:
    read = lambda path: pathlib.Path(path).read_text()  # noqa: E731
    with pytest.raises(FileNotFoundError, match=r"classes cat.*\.txt"):
        datasets.DatasetFolder(folder, read, extensions=".txt")
    data = datasets.DatasetFolder(folder, read, extensions=(".txt",), allow_empty=True)
    assert list(data) == [("no image", 0)] and len(data) == 1
    chosen = datasets.ImageFolder(folder, is_valid_file=lambda path: path.endswith(".jpg"),
                                  allow_empty=True)  # fmt: skip
    assert len(chosen) == 1
    with pytest.raises(FileNotFoundError, match="no sub-folders"):
        datasets.ImageFolder(folder / "ant")


def test_damaged_images_name_their_file(folder: pathlib.Path) -> None:
    whole = (folder / "cat" / "b.png").read_bytes()
    bomb = bytearray(whole)
    bomb[16:24] = (2**30).to_bytes(4, "big") * 2  # width and height of a PNG
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    for content in (b"", b"nonsense", whole[:-40], bytes(bomb), postscript):
        (folder / "cat" / "b.png").write_bytes(content)
        with pytest.raises(gf.GraphFlowError, match=r"b\.png"):
            datasets.ImageFolder(folder)[2]


def test_an_image_of_many_pixels_is_refused(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow, "MOST_PIXELS", 40)
    with pytest.raises(gf.GraphFlowError, match="claims 8 × 6 pixels"):
        datasets.ImageFolder(folder)[0]


def test_fake_data() -> None:
    data = datasets.FakeData(5, (3, 8, 9), num_classes=4)
    image, label = data[3]
    assert image.size == (9, 8) and image.mode == "RGB" and 0 <= label < 4
    np.testing.assert_array_equal(image, datasets.FakeData(5, (3, 8, 9))[3][0])
    assert np.asarray(image).std() > 20
    with pytest.raises(IndexError):
        data[5]


def test_without_pillow_there_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    data = datasets.Digits()
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert data.data.shape[0] == len(data)
    with pytest.raises(gf.GraphFlowError, match=r"pip install 'graphflow\[vision\]'"):
        data[0]


# ---- a batch of images made at once ---------------------------------------------------

NORMALIZED = [transforms.ToTensor(), transforms.Normalize((0.2, 0.4, 0.6), (0.5, 0.25, 1.5))]


def images(channels: int, transform: Any, target: Any = None, kind: Any = None) -> Any:
    """Thirty images of noise with classes."""
    rng = np.random.default_rng(channels)
    shape = (30, 7, 5) if channels == 1 else (30, 7, 5, channels)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    return (kind or LabelledImages)(pixels, rng.integers(0, 10, 30), transform, target)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target", [None, lambda label: label * 0.5])
def test_a_batch_made_at_once_is_what_collating_gives(channels: int, target: Any) -> None:
    normal = NORMALIZED[1] if channels == 3 else transforms.Normalize(0.1307, 0.3081)
    transform = transforms.Compose([NORMALIZED[0], transforms.Compose([normal])])
    data = Subset(images(channels, transform, target), list(range(29, -1, -1)))
    indices = [4, 0, 17, -1, 4]
    made = gathered(data, indices)
    assert made is not None
    expected = default_collate([data[i] for i in indices])
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tolist() == other.tolist()


def test_a_loader_makes_batches_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(1, transforms.ToTensor())
    alone = data[29][0].tolist()
    monkeypatch.setattr(labelled, "pil", lambda: pytest.fail("an image was made on its own"))
    pixels = [batch for batch, _ in DataLoader(data, 8)]
    assert [len(batch) for batch in pixels] == [8, 8, 8, 6]
    assert pixels[3][5].tolist() == alone


class Darker(transforms.ToTensor):
    """A transform of a user's own, which inherits what makes stacks."""

    def __call__(self, image: Any) -> Any:
        return super().__call__(image) * 0.5


class Flipped(LabelledImages):
    """A data set of a user's own, which makes its samples otherwise."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image.flip(-1), label


def test_what_a_user_changes_is_asked_for_each_image() -> None:
    random = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    plain = lambda image: transforms.functional.to_tensor(image)  # noqa: E731
    for data in (
        images(1, Darker()),
        images(1, transforms.Compose([Darker()])),
        images(1, random),
        images(1, plain),
        images(1, transforms.ToTensor(), kind=Flipped),
    ):
        assert gathered(data, [0, 1]) is None
    pixels, _ = next(iter(DataLoader(images(1, Darker()), 30)))
    assert 0.4 < float(pixels.max()) <= 0.5


def test_normalize_names_the_channels_that_do_not_fit_of_a_stack() -> None:
    with pytest.raises(ValueError, match="Normalize has 3 channels, the image 1"):
        next(iter(DataLoader(images(1, transforms.Compose(NORMALIZED)), 4)))


# ---- several batches at once -----------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if many batches had been made."""
    monkeypatch.setattr(stacks, "ENOUGH", 0)


@pytest.mark.parametrize(("channels", "normal"), [(1, (0.1307, 0.3081)), (3, None)])
def test_a_program_makes_the_same_bits(channels: int, normal: Any, often: None) -> None:
    last = transforms.Normalize(*normal) if normal else NORMALIZED[1]
    data = images(channels, transforms.Compose([transforms.ToTensor(), last]))
    groups = [[4, 0, 17, 4], [29, 3], list(range(30))]
    made = data.__getbatches__(groups)
    assert made is not None
    for (pixels, labels), group in zip(made, groups, strict=True):
        expected, classes = default_collate([data[i] for i in group])
        assert pixels.dtype == expected.dtype and pixels.shape == expected.shape
        assert pixels.numpy().tobytes() == expected.numpy().tobytes()
        assert labels.dtype == gf.int64 and labels.tolist() == classes.tolist()
    assert data.__getbatch__([2, -1])[0].tolist() == data.__getbatch__([2, 29])[0].tolist()
    with pytest.raises(IndexError):
        data.__getbatch__([2, 30])


def test_a_loader_makes_a_few_batches_at_once(often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(1, transforms.ToTensor())
    subset = Subset(data, list(range(28, -1, -1)))
    calls: list[list[Any]] = []
    whole = LabelledImages.__getbatches__

    def counted(self: Any, groups: Any) -> Any:
        calls.append(groups)
        return whole(self, groups)

    monkeypatch.setattr(LabelledImages, "__getbatches__", counted)
    found = list(DataLoader(subset, 1, shuffle=True, generator=5))
    assert [len(groups) for groups in calls] == [16, 13]
    monkeypatch.setattr(stacks, "ENOUGH", 1 << 60)
    expected = list(DataLoader(subset, 1, shuffle=True, generator=5))
    assert [len(pixels) for pixels, _ in found] == [1] * 29
    for (pixels, labels), (others, classes) in zip(found, expected, strict=True):
        assert pixels.tolist() == others.tolist() and labels.tolist() == classes.tolist()
    pixels, other = found[0][0], found[1][0].tolist()
    pixels.zero_()
    assert found[1][0].tolist() == other


def test_nobody_looks_ahead_in_an_order_that_is_made_on_the_way(often: None) -> None:
    seen: list[int] = []

    def chosen() -> Any:
        for index in range(12):
            seen.append(index)
            yield index

    class Order(SequentialSampler):
        def __iter__(self) -> Any:
            return chosen()

    data = images(1, transforms.ToTensor())
    for order in (Order(data), Order(range(12))):
        seen.clear()
        next(iter(DataLoader(data, 4, sampler=order)))
        assert seen == [0, 1, 2, 3]


def test_settings_of_a_transform_are_read_for_each_batch(often: None) -> None:
    normal = transforms.Normalize(0.0, 1.0)
    data = images(1, transforms.Compose([transforms.ToTensor(), normal]))
    first, _ = data.__getbatch__([3])
    normal.mean = np.array([0.5])
    second, _ = data.__getbatch__([3])
    assert second.tolist() == (first - 0.5).tolist()


def test_a_program_pays_after_some_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "_made", {})
    monkeypatch.setattr(stacks, "ENOUGH", 80)
    made = stacks.Stack(np.zeros((9, 3, 7), np.uint8), np.arange(2)).to_tensors()
    found = []
    for _ in range(3):
        found.append(made.often())
        made.tensor()
    assert found == [False, False, True]
