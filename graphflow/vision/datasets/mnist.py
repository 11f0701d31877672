"""MNIST and the data sets in its format, from their original files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.vision.datasets.idx import read_idx
from graphflow.vision.datasets.labelled import LabelledImages, Transform

_LIMIT = 100 << 20  # bytes; the largest real file has 26 MB


class MNIST(LabelledImages):
    """Handwritten digits, 28×28 grey: 60,000 to train on, 10,000 to test.

    The IDX files lie in ``root/MNIST/raw``, as torchvision puts them, compressed
    (``.gz``) or not.  ``download=True`` fetches the ones that are missing and
    checks their MD5.  Y. LeCun, C. Cortes, C. Burges, http://yann.lecun.com/exdb/mnist/
    """

    mirrors: ClassVar[list[str]] = [
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ]
    resources: ClassVar[list[tuple[str, str]]] = [
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ]
    classes: ClassVar[list[str]] = [
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four",
        "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine",
    ]  # fmt: skip

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        self.root = Path(root).expanduser()
        self.train = train
        if download:
            self.download()
        part = "train" if train else "t10k"
        images = read_idx(self._file(f"{part}-images-idx3-ubyte"))
        labels = read_idx(self._file(f"{part}-labels-idx1-ubyte"))
        self._check(images, labels)
        super().__init__(images, labels, transform, target_transform)

    @property
    def raw_folder(self) -> Path:
        """Where the files lie."""
        return self.root / type(self).__name__ / "raw"

    @classmethod
    def available(cls, root: str | os.PathLike[str], train: bool = True) -> bool:
        """True when the files of this part are there (they may still be damaged)."""
        folder = Path(root).expanduser() / cls.__name__ / "raw"
        part = "train" if train else "t10k"
        names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
        return all(_find(folder, name) is not None for name in names)

    def download(self) -> None:
        """Fetch the files that are missing, each from the first mirror that works."""
        from graphflow.utils.download import download  # imports all of urllib

        for name, md5 in self.resources:
            if _find(self.raw_folder, name.removesuffix(".gz")) is None:
                urls = [mirror + name for mirror in self.mirrors]
                download(urls, self.raw_folder / name, md5, _LIMIT)

    def _file(self, name: str) -> Path:
        path = _find(self.raw_folder, name)
        if path is None:
            raise GraphFlowError(
                f"{type(self).__name__}: {name} (or {name}.gz) is not in {self.raw_folder}; "
                "pass download=True, or put the original files there"
            )
        return path

    def _check(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        problem = ""
        if images.ndim != 3 or images.dtype != np.uint8:
            problem = f"the images are {images.dtype} {list(images.shape)}, not uint8 [n, h, w]"
        elif labels.ndim != 1 or labels.dtype != np.uint8:
            problem = f"the labels are {labels.dtype} {list(labels.shape)}, not uint8 [n]"
        elif len(images) != len(labels):
            problem = f"there are {len(images):,} images but {len(labels):,} labels"
        elif labels.size and labels.max() >= len(self.classes):
            problem = f"a label is {labels.max()}; there are {len(self.classes)} classes"
        if problem:
            raise GraphFlowError(
                f"{type(self).__name__} in {self.raw_folder}: {problem}; "
                "the files are damaged or foreign: delete them and fetch them again"
            )


class FashionMNIST(MNIST):
    """Zalando's article images, in the format of MNIST, under ``root/FashionMNIST/raw``."""

    mirrors: ClassVar[list[str]] = ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"]
    resources: ClassVar[list[tuple[str, str]]] = [
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ]
    classes: ClassVar[list[str]] = [
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ]  # fmt: skip


class KMNIST(MNIST):
    """Kuzushiji: cursive Japanese characters in the format of MNIST, under ``root/KMNIST/raw``."""

    mirrors: ClassVar[list[str]] = ["http://codh.rois.ac.jp/kmnist/dataset/kmnist/"]
    resources: ClassVar[list[tuple[str, str]]] = [
        ("train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
        ("train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
        ("t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
        ("t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
    ]
    classes: ClassVar[list[str]] = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]


def _find(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None
