"""CIFAR-10 and CIFAR-100 from their original files, the Python or the binary ones.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.vision.datasets.labelled import LabelledImages, Transform

_BYTES = 3 * 32 * 32  # of an image: red, green and blue planes
_LIMIT = 400 << 20  # bytes of a download; the largest real one has 170 MB
_MOST = 400 << 20  # bytes of a file


class CIFAR10(LabelledImages):
    """Colour images of 32×32 pixels in 10 classes: 50,000 to train on, 10,000 to test.

    The files lie in ``root/cifar-10-batches-py`` as torchvision puts them (they
    are pickles, and read as data: nothing in them is run), or in
    ``root/cifar-10-batches-bin``.  ``download=True`` fetches and checks them.
    ``data`` is a NumPy array ``uint8 [n, 32, 32, 3]``, ``targets`` a list.
    """

    base_folder: ClassVar[str] = "cifar-10-batches-py"
    binary_folder: ClassVar[str] = "cifar-10-batches-bin"
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    tgz_md5: ClassVar[str] = "c58f30108f718f92721af3b95e74349a"
    train_list: ClassVar[list[str]] = [f"data_batch_{n}" for n in range(1, 6)]
    test_list: ClassVar[list[str]] = ["test_batch"]
    meta_file: ClassVar[str] = "batches.meta"
    label_key: ClassVar[str] = "labels"
    label_bytes: ClassVar[int] = 1  # before each image of a binary file; the last one counts
    classes: ClassVar[list[str]] = [
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ]  # fmt: skip

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        self.root, self.train = Path(root).expanduser(), train
        if download and not self.available(root, train):
            self.download()
        images, labels = [], []
        for path in self._files():
            read = self._read_binary if path.suffix == ".bin" else self._read_pickle
            pixels, classes = read(path)
            if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) < self._count:
                raise _damaged(path, f"a label is not below {self._count}")
            images.append(pixels)
            labels.append(classes)
        self.transform, self.target_transform = transform, target_transform
        planes = np.concatenate(images).reshape(-1, 3, 32, 32)
        self.data = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        self.targets = np.concatenate(labels).tolist()
        self.classes = self._names()  # type: ignore[misc]

    @property
    def _count(self) -> int:
        return 10

    @classmethod
    def available(cls, root: str | os.PathLike[str], train: bool = True) -> bool:
        """True when the files of this part are there (they may still be damaged)."""
        base = Path(root).expanduser()
        names = cls.train_list if train else cls.test_list
        return any(
            all((base / folder / f"{name}{suffix}").is_file() for name in names)
            for folder, suffix in ((cls.base_folder, ""), (cls.binary_folder, ".bin"))
        )

    def _files(self) -> list[Path]:
        names = self.train_list if self.train else self.test_list
        for folder, suffix in ((self.base_folder, ""), (self.binary_folder, ".bin")):
            paths = [self.root / folder / f"{name}{suffix}" for name in names]
            if all(path.is_file() for path in paths):
                return paths
        raise GraphFlowError(
            f"{type(self).__name__}: {', '.join(names)} are not in {self.root / self.base_folder} "
            f"(nor, as .bin, in {self.root / self.binary_folder}); pass download=True, or put the "
            "original files there"
        )

    def _read_pickle(self, path: Path) -> tuple[Any, Any]:
        table = read_table(path)
        pixels, labels = table.get("data"), table.get(self.label_key)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            raise _damaged(path, "it has no array of bytes called 'data'")
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise _damaged(path, f"it has no list of numbers called {self.label_key!r}")
        if pixels.shape != (len(labels), _BYTES):
            raise _damaged(path, f"data {list(pixels.shape)} do not fit {len(labels)} labels")
        return pixels, np.array(labels, np.int64)

    def _read_binary(self, path: Path) -> tuple[Any, Any]:
        record = self.label_bytes + _BYTES
        size = path.stat().st_size
        if size % record or size > _MOST:
            raise _damaged(path, f"{size:,} bytes are no whole number of records of {record}")
        records = np.fromfile(path, np.uint8).reshape(-1, record)
        return records[:, self.label_bytes :], records[:, self.label_bytes - 1].astype(np.int64)

    def _names(self) -> list[str]:
        """The names of the classes: from the file that lists them, else the known ones."""
        path = self.root / self.base_folder / self.meta_file
        if path.is_file():
            names = read_table(path).get(self._names_key)
            if isinstance(names, list) and len(names) == self._count:
                return [str(name) for name in names]
            raise _damaged(path, f"it has no list of {self._count} names")
        return list(self.classes)

    @property
    def _names_key(self) -> str:
        return "label_names"

    def download(self) -> None:
        """Fetch the archive and unpack the files that belong to it."""
        from graphflow.utils.download import download

        archive = self.root / self.url.rsplit("/", 1)[-1]
        download([self.url], archive, self.tgz_md5, _LIMIT)
        wanted = {*self.train_list, *self.test_list, self.meta_file}
        target = self.root / self.base_folder
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "r:gz") as packed:
            for member in packed:
                name = member.name.rsplit("/", 1)[-1]
                if name in wanted and member.isreg() and member.size <= _MOST:
                    source = packed.extractfile(member)
                    assert source is not None
                    (target / name).write_bytes(source.read())


class CIFAR100(CIFAR10):
    """Colour images of 32×32 pixels in 100 classes, under ``root/cifar-100-python``."""

    base_folder: ClassVar[str] = "cifar-100-python"
    binary_folder: ClassVar[str] = "cifar-100-binary"
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    tgz_md5: ClassVar[str] = "eb9058c3a382ffc7106e4002c42a8d85"
    train_list: ClassVar[list[str]] = ["train"]
    test_list: ClassVar[list[str]] = ["test"]
    meta_file: ClassVar[str] = "meta"
    label_key: ClassVar[str] = "fine_labels"
    label_bytes: ClassVar[int] = 2
    classes: ClassVar[list[str]] = [str(number) for number in range(100)]

    @property
    def _count(self) -> int:
        return 100

    @property
    def _names_key(self) -> str:
        return "fine_label_names"


def read_table(path: Path) -> dict[str, Any]:
    """The dict in a pickle of the Python version; nothing in it is run."""
    from graphflow.serialization.pickles import Limited, numpy_names, read_pickle

    size = path.stat().st_size
    if size > _MOST:
        raise _damaged(path, f"{size:,} bytes are far too many")
    with open(path, "rb") as stream:
        table = read_pickle(Limited(stream, size), numpy_names(), None, str(path))
    if not isinstance(table, dict):
        raise _damaged(path, "it does not hold a dict")
    return {k.decode("latin-1") if isinstance(k, bytes) else str(k): v for k, v in table.items()}


def _damaged(path: Path, what: str) -> GraphFlowError:
    return GraphFlowError(
        f"{path}: {what}; the file is damaged or foreign: delete it and fetch it again"
    )
