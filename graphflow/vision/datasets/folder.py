"""Datasets of files in folders: one folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphflow.utils.data import Dataset
from graphflow.vision.datasets.labelled import Transform
from graphflow.vision.pillow import read_image

IMG_EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
)  # fmt: skip


def default_loader(path: str) -> Any:
    """The Pillow image in a file, in RGB; a damaged or huge one is a clear error."""
    return read_image(path)


def find_classes(directory: str | os.PathLike[str]) -> tuple[list[str], dict[str, int]]:
    """The sub-folders in alphabetical order, and their numbers."""
    classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    if not classes:
        raise FileNotFoundError(f"{os.fspath(directory)} has no sub-folders, one a class")
    return classes, {name: number for number, name in enumerate(classes)}


def make_dataset(
    directory: str | os.PathLike[str],
    class_to_idx: dict[str, int],
    extensions: str | tuple[str, ...] | None = None,
    is_valid_file: Callable[[str], bool] | None = None,
    allow_empty: bool = False,
) -> list[tuple[str, int]]:
    """Every file of the classes with its class number, in alphabetical order."""
    if (extensions is None) == (is_valid_file is None):
        raise ValueError("pass either extensions or is_valid_file")
    endings = (extensions,) if isinstance(extensions, str) else extensions

    def belongs(path: str) -> bool:
        if is_valid_file is not None:
            return is_valid_file(path)
        return path.lower().endswith(endings or ())

    samples: list[tuple[str, int]] = []
    empty = []
    for name in sorted(class_to_idx):
        folder = Path(directory) / name
        before = len(samples)
        for root, _, files in sorted(os.walk(folder, followlinks=True)):
            for file in sorted(files):
                path = os.path.join(root, file)
                if belongs(path):
                    samples.append((path, class_to_idx[name]))
        if len(samples) == before:
            empty.append(name)
    if empty and not allow_empty:
        wanted = f" Supported extensions are: {', '.join(endings)}" if endings else ""
        raise FileNotFoundError(f"no valid file for the classes {', '.join(empty)}.{wanted}")
    return samples


class DatasetFolder(Dataset[tuple[Any, Any]]):
    """Files under ``root/class/…``; a sample is ``(loader(path), class number)``.

    ``samples`` lists paths and class numbers, ``classes`` and ``class_to_idx``
    the classes.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        loader: Callable[[str], Any],
        extensions: str | tuple[str, ...] | None = None,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        self.root = os.fspath(root)
        self.loader, self.extensions = loader, extensions
        self.transform, self.target_transform = transform, target_transform
        self.classes, self.class_to_idx = self.find_classes(self.root)
        self.samples = self.make_dataset(
            self.root, self.class_to_idx, extensions, is_valid_file, allow_empty
        )
        self.targets = [number for _, number in self.samples]

    make_dataset = staticmethod(make_dataset)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """The classes and their numbers; override it for another layout."""
        return find_classes(directory)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        sample = self.loader(path)
        if self.transform is not None:
            sample = self.transform(sample)
        return sample, target if self.target_transform is None else self.target_transform(target)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root}, samples={len(self)})"


class ImageFolder(DatasetFolder):
    """Images under ``root/class/…``."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        loader: Callable[[str], Any] = default_loader,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        extensions = IMG_EXTENSIONS if is_valid_file is None else None
        super().__init__(
            root, loader, extensions, transform, target_transform, is_valid_file, allow_empty
        )
        self.imgs = self.samples
