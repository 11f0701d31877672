"""Real text for the language models: the sources of Python's standard library.

Every tenth file is for validation, so that no model is measured on a file that it
has trained on.
"""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import graphflow as gf

Array: TypeAlias = np.ndarray[Any, Any]

CHARACTERS = "\n" + "".join(map(chr, range(32, 127))) + "\ufffd"
"""The vocabulary: what can be printed, the end of a line, and everything else."""
EVERY = 10
FOLDERS = ("", "asyncio", "collections", "concurrent", "email", "http", "importlib", "json",
           "logging", "multiprocessing", "unittest", "urllib", "xml")  # fmt: skip

_CODES = {character: code for code, character in enumerate(CHARACTERS)}


def encode(text: str) -> list[int]:
    """The number of every character."""
    return [_CODES.get(character, len(CHARACTERS) - 1) for character in text]


def decode(codes: list[int]) -> str:
    """The characters of numbers."""
    return "".join(CHARACTERS[code] for code in codes)


def files() -> list[Path]:
    """The sources, in the order of their names."""
    root = Path(sysconfig.get_path("stdlib"))
    return [path for folder in FOLDERS for path in sorted((root / folder).glob("*.py"))]


@functools.cache
def corpus() -> tuple[Array, Array]:
    """The characters to train on, and those of other files to validate."""
    parts: tuple[list[Array], list[Array]] = ([], [])
    for number, path in enumerate(files()):
        source = path.read_text("utf-8", "replace").expandtabs()
        parts[number % EVERY == EVERY - 1].append(np.array(encode(source), np.uint8))
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def describe() -> str:
    """What there is to train on and to validate."""
    train, held_out = corpus()
    return (
        f"Python's standard library, {len(train):,} characters to train on, "
        f"{len(held_out):,} of other files to validate"
    )


class Crops:
    """``steps`` batches of windows at random places; if ``shifted``, also one character later."""

    def __init__(
        self, codes: Array, length: int, batch: int, steps: int, seed: int, shifted: bool = True
    ) -> None:
        self.codes, self.length, self.batch, self.steps = codes, length, batch, steps
        self.shifted = shifted
        self.places = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[gf.Tensor, ...]]:
        offsets = np.arange(self.length + 1)
        for _ in range(self.steps):
            begins = self.places.integers(0, len(self.codes) - self.length, (self.batch, 1))
            batch = pair(self.codes[begins + offsets])
            yield batch if self.shifted else batch[:1]


def windows(codes: Array, length: int, limit: int) -> Array:
    """At most ``limit`` windows of ``length + 1``, evenly spread: ``[count, length + 1]``."""
    count = min(limit, len(codes) // (length + 1))
    begins = np.linspace(0, len(codes) - length - 1, count).astype(np.int64)
    return codes[begins[:, None] + np.arange(length + 1)]


def batches(found: Array, batch: int) -> Iterator[tuple[gf.Tensor, gf.Tensor]]:
    """Whole batches of windows."""
    for begin in range(0, len(found) - batch + 1, batch):
        yield pair(found[begin : begin + batch])


def pair(found: Array) -> tuple[gf.Tensor, gf.Tensor]:
    """Windows without their last character, and without their first."""
    codes = found.astype(np.int64)
    return gf.from_numpy(codes[:, :-1].copy()), gf.from_numpy(codes[:, 1:].copy())
