"""Random order, reproducible across machines and NumPy versions.

Only raw Philox words are used (their stream is fixed); NumPy does not promise
that of ``Generator.permutation``.
"""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

import numpy as np

from graphflow.ir.types import float32
from graphflow.rng import Generator, rand

RandomSource: TypeAlias = Any
"""``None`` (GraphFlow's default generator, set by ``manual_seed``), an ``int``
seed, a ``graphflow.Generator`` or a ``numpy.random.Generator``."""

Order: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_APART = 0x9E3779B97F4A7C15  # any constant: it sets one stream apart from another
_WORD = 1 << 24  # rand() draws multiples of 2^-24


def as_source(generator: RandomSource) -> RandomSource:
    """Turn an ``int`` seed into a generator that moves on from draw to draw."""
    if isinstance(generator, (int, np.integer)) and not isinstance(generator, bool):
        return np.random.Generator(np.random.Philox(key=int(generator)))
    if generator is None or isinstance(generator, (np.random.Generator, Generator)):
        return generator
    raise TypeError(
        f"generator is a {type(generator).__name__}; expected None, an int seed, "
        "a graphflow.Generator or a numpy.random.Generator"
    )


def worker_source(generator: RandomSource) -> RandomSource:
    """Where the seeds of a loader's workers come from.

    GraphFlow's generators give them themselves, one draw an epoch, so that their
    state decides them.  From any other source comes an independent stream, so
    that workers do not change the order of samples.
    """
    source = as_source(generator)
    if isinstance(source, np.random.Generator):
        peeked = int(copy.deepcopy(source.bit_generator).random_raw())
        return as_source(peeked ^ _APART)
    return source


def draw_seed(generator: RandomSource) -> int:
    """The next seed (48 bits or more) from ``generator``."""
    source = as_source(generator)
    if isinstance(source, np.random.Generator):
        return int(source.bit_generator.random_raw()) >> 1
    low, high = rand(2, generator=source, dtype=float32).tolist()
    return int(low * _WORD) | int(high * _WORD) << 24


def words(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """``count`` random 64-bit words that depend on ``seed`` alone."""
    raw = np.random.Philox(key=seed).random_raw(count)
    return np.asarray(raw, dtype=np.uint64)


def uniform(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``count`` numbers in [0, 1)."""
    return np.asarray((words(seed, count) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def permutation(count: int, generator: RandomSource = None) -> list[int]:
    """The numbers 0 … ``count - 1`` in random order."""
    made: list[int] = shuffled(count, draw_seed(generator)).tolist()
    return made


def shuffled(count: int, seed: int) -> Order:
    """The numbers 0 … ``count - 1`` in the order that ``seed``, drawn before, decides.

    They are sorted by a word each, and by themselves where words are equal.
    """
    drawn = words(seed, count)
    # Places stand in the lowest bits and are sorted along: half the time of a sort of places.
    low = np.uint64((1 << max(count - 1, 1).bit_length()) - 1)
    packed = (drawn & ~low) | np.arange(count, dtype=np.uint64)
    packed.sort()
    high = packed & ~low
    if (high[1:] == high[:-1]).any():  # words that differ in those bits only: one shuffle in 10^5
        return np.argsort(drawn, kind="stable")
    return (packed & low).astype(np.int64)
