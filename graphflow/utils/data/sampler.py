"""Samplers: in which order samples are visited, and how they group into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import numpy as np

from graphflow.utils.data.randomness import (
    Order,
    RandomSource,
    as_source,
    draw_seed,
    permutation,
    shuffled,
    uniform,
    words,
)

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """Base of samplers: an iterable of indices (or of lists of them)."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__()")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, …"""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def order(self) -> Order:
        """All indices of an epoch."""
        return np.arange(len(self.data_source))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """A new random order every epoch.

    With ``replacement`` samples are drawn independently; ``num_samples``
    (default: all) may exceed the dataset, which then is passed several times.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: RandomSource = None,
    ) -> None:
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples <= 0):
            raise ValueError(f"num_samples should be a positive integer, got {num_samples!r}")
        self.data_source = data_source
        self.replacement = replacement
        self.generator = as_source(generator)
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """How many indices an epoch has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(indices.tolist() for indices in self._passes())

    def order(self) -> Order:
        """All indices of an epoch, drawn anew as by ``iter()``."""
        return np.concatenate([np.empty(0, np.int64), *self._passes()])

    def _passes(self) -> Iterator[Order]:
        size, wanted = len(self.data_source), self.num_samples
        if self.replacement:
            drawn = uniform(draw_seed(self.generator), wanted) * size
            yield drawn.astype(np.int64)
            return
        # All at once, so that the rest of an epoch does not depend on other draws meanwhile.
        seeds = [draw_seed(self.generator) for _ in range(0, wanted if size else 0, size or 1)]
        for seed in seeds:
            yield shuffled(size, seed)[:wanted]
            wanted -= size

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: RandomSource = None) -> None:
        self.indices = indices
        self.generator = as_source(generator)

    def __iter__(self) -> Iterator[int]:
        return (self.indices[i] for i in permutation(len(self.indices), self.generator))

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices drawn with probability proportional to ``weights``."""

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: RandomSource = None,
    ) -> None:
        if not isinstance(num_samples, int) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer, got {num_samples!r}")
        listed: Any = weights.tolist() if hasattr(weights, "tolist") else weights
        self.weights = np.asarray(listed, dtype=np.float64)
        if self.weights.ndim != 1 or not self.weights.size:
            raise ValueError(f"weights should be one number a sample, got {self.weights.shape}")
        if not np.all(np.isfinite(self.weights)) or np.any(self.weights < 0):
            raise ValueError("weights should be finite and not negative")
        if not self.weights.sum() > 0:
            raise ValueError("weights are all zero: no sample can be drawn")
        positive = int(np.count_nonzero(self.weights))
        if not replacement and num_samples > positive:
            raise ValueError(
                f"cannot draw {num_samples} samples without replacement from "
                f"{positive} with a positive weight"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = as_source(generator)

    def __iter__(self) -> Iterator[int]:
        seed = draw_seed(self.generator)
        if self.replacement:
            bounds = np.cumsum(self.weights)
            chosen = np.searchsorted(bounds, uniform(seed, self.num_samples) * bounds[-1], "right")
        else:
            # The smallest of exponential arrival times at these rates: a weighted
            # draw without replacement (Efraimidis and Spirakis, 2006).
            raw = (words(seed, self.weights.size) >> np.uint64(11)) + np.uint64(1)
            with np.errstate(divide="ignore"):
                arrival = -np.log(raw * 2.0**-53) / self.weights
            arrival[self.weights == 0] = np.inf
            chosen = np.argsort(arrival, kind="stable")[: self.num_samples]
        return iter(chosen.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Groups another sampler's indices into lists of ``batch_size``."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer, got {batch_size!r}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be True or False, got {drop_last!r}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        samples = len(self.sampler)  # type: ignore[arg-type]
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)
