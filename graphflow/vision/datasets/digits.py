"""Real handwritten digits that need no download.

The data are scikit-learn's ``load_digits``: the test set of "Optical
Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI Machine
Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0), 1,797
images of 8×8 counts 0 … 16.  ``digits.npz`` holds them unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphflow.vision.datasets.labelled import LabelledImages, Transform

_SMALL, _LARGE, _TOP = 8, 28, 16


class Digits(LabelledImages):
    """1,797 handwritten digits in MNIST's shape: uint8, 28×28, 0 … 255.

    1,438 to train on, 359 to test: of every class, in the order of the file,
    the third of each five samples is for testing.  Upsampling and split use
    integers alone, so they are the same everywhere.
    """

    classes: ClassVar[list[str]] = [str(digit) for digit in range(10)]

    def __init__(
        self,
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        images, labels = load_original()
        chosen = is_test(labels) != train
        self.train = train
        super().__init__(upsample(images[chosen]), labels[chosen], transform, target_transform)


def load_original() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The 8×8 images (uint8, 0 … 16) and their labels (uint8), as published."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as archive:
        return archive["images"], archive["labels"]


def is_test(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which samples are for testing: a fifth of every class."""
    chosen = np.zeros(len(labels), dtype=bool)
    for digit in np.unique(labels):
        chosen[np.flatnonzero(labels == digit)[2::5]] = True
    return chosen


def upsample(images: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """8×8 counts 0 … 16 as 28×28 bytes 0 … 255, bilinear between pixel centres.

    Output pixel ``i`` lies at ``(i + 1/2) · 8/28 − 1/2 = (4 i − 5) / 14``, so every
    weight is a multiple of 1/14 and the sum can be rounded exactly.
    """
    weights = _weights()
    scaled = weights @ images.astype(np.int64) @ weights.T * 255
    whole = 14 * 14 * _TOP
    return np.asarray((2 * scaled + whole) // (2 * whole), dtype=np.uint8)


def _weights() -> np.ndarray[Any, np.dtype[np.int64]]:
    """The 28×8 matrix of interpolation weights, in fourteenths."""
    place = np.clip(4 * np.arange(_LARGE) - 5, 0, 14 * (_SMALL - 1))
    low, part = place // 14, place % 14
    rows = np.arange(_LARGE)
    weights = np.zeros((_LARGE, _SMALL), dtype=np.int64)
    weights[rows, low] += 14 - part
    weights[rows, np.minimum(low + 1, _SMALL - 1)] += part
    return weights
