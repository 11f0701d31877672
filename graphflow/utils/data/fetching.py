"""From indices to a batch: what a loader and its worker processes both do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from graphflow.records import dataclass, field
from graphflow.utils.data.collate import default_collate
from graphflow.utils.data.dataset import Subset, fetch

Collate = Callable[[Any], Any]


class EndOfStream(Exception):
    """An iterable dataset has no more samples."""


@dataclass
class MapFetcher:
    """Batches of a map-style dataset: ``fetcher(indices)``, or samples without batching."""

    dataset: Any
    collate: Collate
    batching: bool

    def start(self) -> None:
        """Begin an epoch: nothing to do, indices say everything."""

    def __call__(self, indices: Any) -> Any:
        """The collated samples at ``indices`` (one index, without batching)."""
        if not self.batching:
            return self.collate(self.dataset[indices])
        chosen = list(indices)
        if self.collate is default_collate:
            rows = gathered(self.dataset, chosen)
            if rows is not None:
                return rows
        return self.collate(fetch(self.dataset, chosen))

    def several(self, tasks: Sequence[Any]) -> Iterator[Any]:
        """The batches of ``tasks``: made at once where the dataset does that quicker."""
        made = None
        if self.batching and self.collate is default_collate:
            made = _gathered_together(self.dataset, tasks)
        yield from map(self, map(_listed, tasks)) if made is None else made


def _listed(indices: Any) -> Any:
    """Indices as datasets take them: Python's numbers."""
    return indices.tolist() if isinstance(indices, np.ndarray) else indices


@dataclass
class StreamFetcher:
    """Batches of an iterable dataset, from one ``iter()`` of it an epoch."""

    dataset: Any
    collate: Collate
    batch_size: int | None
    drop_last: bool
    _samples: Iterator[Any] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin an epoch."""
        self._samples = None

    def __call__(self, _: Any = None) -> Any:
        """The next batch; raises :class:`EndOfStream` after the last."""
        if self._samples is None:
            self._samples = iter(self.dataset)
        if self.batch_size is None:
            for sample in self._samples:
                return self.collate(sample)
            raise EndOfStream
        batch = list(islice(self._samples, self.batch_size))
        if not batch or (self.drop_last and len(batch) < self.batch_size):
            raise EndOfStream
        return self.collate(batch)


Fetcher = MapFetcher | StreamFetcher


def gathered(dataset: Any, indices: Sequence[int]) -> list[Any] | None:
    """The collated batch from the dataset itself, if it makes the same batch quicker at once."""
    dataset, (indices,) = _without_subsets(dataset, [indices])
    getbatch = getattr(dataset, "__getbatch__", None)
    made: list[Any] | None = getbatch(indices) if getbatch is not None else None
    return made


def _gathered_together(dataset: Any, groups: Sequence[Sequence[int]]) -> list[Any] | None:
    """:func:`gathered` for several batches, if that is quicker still."""
    dataset, groups = _without_subsets(dataset, groups)
    getbatches = getattr(dataset, "__getbatches__", None)
    made: list[Any] | None = getbatches(groups) if getbatches is not None else None
    return made


def _without_subsets(
    dataset: Any, groups: Sequence[Sequence[int]]
) -> tuple[Any, Sequence[Sequence[int]]]:
    while type(dataset) is Subset:
        groups = [[dataset.indices[i] for i in indices] for indices in groups]
        dataset = dataset.dataset
    return dataset, groups
