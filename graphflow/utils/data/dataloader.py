"""DataLoader: batches out of a dataset, epoch after epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from graphflow.functions.creation import tensor
from graphflow.utils.data.collate import default_collate, default_convert
from graphflow.utils.data.dataset import (
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    fetch,
    size_of,
)
from graphflow.utils.data.randomness import RandomSource, as_source
from graphflow.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

T_co = TypeVar("T_co", covariant=True)
Collate = Callable[[Any], Any]


class DataLoader(Generic[T_co]):
    """Iterate over a dataset in batches; every ``iter()`` is a new epoch.

    ``dataset``: a map-style :class:`Dataset` or an :class:`IterableDataset`.
    ``batch_size``: samples a batch; ``None`` hands samples over one by one.
    ``shuffle``: a new random order every epoch, drawn from ``generator`` (by
    default GraphFlow's own, so ``manual_seed`` decides it; an ``int`` is a seed).
    ``sampler`` / ``batch_sampler``: an order of one's own instead.
    ``collate_fn``: makes a batch of a list of samples (:func:`default_collate`).
    ``drop_last``: leave out the last, smaller batch.

    Batches are made in this process.  ``num_workers`` above 0 raises: whole
    batches of a :class:`TensorDataset` are one gather, which worker processes
    could only slow down.
    """

    dataset: Dataset[T_co]
    batch_size: int | None
    sampler: Iterable[Any]
    batch_sampler: Iterable[Sequence[int]] | None
    collate_fn: Collate

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[int] | Iterable[int] | None = None,
        batch_sampler: Sampler[list[int]] | Iterable[Sequence[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Collate | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        *,
        generator: RandomSource = None,
    ) -> None:
        _refuse_workers(num_workers)
        if pin_memory:
            warnings.warn("pin_memory has no effect on batches in CPU memory", stacklevel=2)
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.generator = as_source(generator)
        self._streaming = isinstance(dataset, IterableDataset)
        if self._streaming:
            _refuse_order_of_stream(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("pass either sampler or shuffle=True: a sampler is the order")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler decides batch_size, shuffle, sampler and drop_last; "
                    "leave those out"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None makes no batches, so drop_last has no meaning")
        self.batch_size = batch_size
        self.sampler = self._default_sampler(shuffle) if sampler is None else sampler
        self.batch_sampler = batch_sampler
        if batch_sampler is None and batch_size is not None:
            self.batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)
        batching = self.batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batching else default_convert)

    def _default_sampler(self, shuffle: bool | None) -> Iterable[Any]:
        if self._streaming:
            return _Endless()
        if shuffle:
            return RandomSampler(self.dataset, generator=self.generator)  # type: ignore[arg-type]
        return SequentialSampler(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self._streaming:
            return self._iterate_stream()
        if self.batch_sampler is None:
            return (self.collate_fn(self.dataset[index]) for index in self.sampler)
        return (self._batch(list(indices)) for indices in self.batch_sampler)

    def _batch(self, indices: list[int]) -> Any:
        if self.collate_fn is default_collate:
            rows = _gathered(self.dataset, indices)
            if rows is not None:
                return rows
        return self.collate_fn(fetch(self.dataset, indices))

    def _iterate_stream(self) -> Iterator[Any]:
        samples = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, samples)
            return
        while batch := list(islice(samples, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield self.collate_fn(batch)

    def __len__(self) -> int:
        """Batches an epoch (samples, with ``batch_size=None``)."""
        if self._streaming:
            total, size = size_of(self.dataset), self.batch_size or 1
            return total // size if self.drop_last else -(-total // size)
        order = self.sampler if self.batch_sampler is None else self.batch_sampler
        return len(order)  # type: ignore[arg-type]


class _Endless(Sampler[None]):
    """The sampler of a stream: the stream itself decides what comes and when it ends."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


def _refuse_workers(num_workers: int) -> None:
    if not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f"num_workers should be an integer ≥ 0, got {num_workers!r}")
    if num_workers:
        raise NotImplementedError(
            f"DataLoader(num_workers={num_workers}): there are no worker processes yet; use "
            "num_workers=0, and a TensorDataset where samples fit in memory (its batches are "
            "gathered in one operation)"
        )


def _refuse_order_of_stream(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    if shuffle:
        raise ValueError("an IterableDataset decides its own order: shuffle=True is not possible")
    if sampler is not None or batch_sampler is not None:
        raise ValueError("an IterableDataset decides its own order: no sampler or batch_sampler")


def _gathered(dataset: Any, indices: list[int]) -> list[Any] | None:
    """The collated batch in one indexing operation a tensor, where that is the same thing."""
    while type(dataset) is Subset:
        indices = [dataset.indices[i] for i in indices]
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset:
        return None
    rows = tensor(indices)
    return [column[rows] for column in dataset.tensors]
