"""Batches that know where they are, and go on there in another process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graphflow.rng import Generator
from graphflow.training.ranks import place
from graphflow.training.state import random_states, set_random_states
from graphflow.utils.data import DataLoader, DistributedSampler, IterableDataset
from graphflow.utils.data.sampler import RandomSampler, SequentialSampler


class ResumableLoader:
    """The epochs of a :class:`DataLoader`, counted, with a state.

    ``for batch in batches`` is an epoch.  After :meth:`load_state_dict` it is the rest of that
    in which :meth:`state_dict` was called: the same batches follow, whatever random order or
    random samples (given that the global random numbers are put back too, as
    :class:`CheckpointManager` does).  ``set_epoch`` of a :class:`DistributedSampler` is called.
    ``epoch`` and ``batch`` count what was given out; breaking off begins the next epoch.

    On another number of ranks an epoch goes on where all of them together had been (to a batch).
    """

    state_is_own = True
    """The place is the same on every rank, but their random numbers are not."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.epoch = self.batch = 0
        self._skip = 0
        self._start: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        skip, self._skip = self._skip, 0
        if self.batch and not skip:  # the last epoch was broken off
            self.epoch, self.batch = self.epoch + 1, 0
        sampler = self._sampler()
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.epoch)
        if skip and self._start is not None:
            now = random_states()
            self._put_back(self._start)
            batches = self.loader.iterate(skip)
            set_random_states(now)
        else:
            self._start = self._states()
            batches = iter(self.loader)
        for batch in batches:
            self.batch += 1
            yield batch
        self.epoch, self.batch, self._start = self.epoch + 1, 0, None

    def _sampler(self) -> Any:
        """What decides the order of samples."""
        return getattr(self.loader.batch_sampler, "sampler", self.loader.sampler)

    def _sources(self) -> list[Any]:
        """The generators that the loader draws from, besides the global ones."""
        loader = self.loader
        holders = (loader, loader.batch_sampler, self._sampler())
        found = [getattr(holder, "generator", None) for holder in holders] + [loader._seeds]
        distinct = {id(s): s for s in found if isinstance(s, (Generator, np.random.Generator))}
        return list(distinct.values())

    def _states(self) -> dict[str, Any]:
        made = []
        for source in self._sources():
            own = isinstance(source, Generator)
            made.append(source.get_state() if own else source.bit_generator.state)
        return {"global": random_states(), "own": made}

    def _put_back(self, states: Mapping[str, Any]) -> None:
        set_random_states(states["global"])
        self._put_sources_back(states)

    def _put_sources_back(self, states: Mapping[str, Any]) -> None:
        for source, state in zip(self._sources(), states["own"], strict=True):
            if isinstance(source, Generator):
                source.set_state(state)
            else:
                source.bit_generator.state = state

    def state_dict(self) -> dict[str, Any]:
        """The place, and the random numbers with which this epoch began (or will)."""
        ranks = getattr(self._sampler(), "num_replicas", 1)
        random = self._start if self.batch and self._start is not None else self._states()
        return {"epoch": self.epoch, "batch": self.batch, "ranks": ranks, "random": random}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on there with the next iteration."""
        ranks = getattr(self._sampler(), "num_replicas", 1)
        self.epoch = state_dict["epoch"]
        self.batch = self._skip = state_dict["batch"] * state_dict["ranks"] // ranks
        self._start = state_dict["random"] if self._skip else None
        self._put_sources_back(state_dict["random"])


def shared_out(loader: DataLoader[Any], *, padded: bool) -> DataLoader[Any]:
    """This rank's share of a loader that knows nothing of ranks; ``loader`` itself on one rank.

    ``padded``: every rank gets as many samples, some of them twice if need be, as training
    wants; otherwise each sample once.  A loader whose order is its user's own stays as it is.
    """
    rank, size = place()
    sampler: Any = loader.sampler
    plain = type(sampler) in (RandomSampler, SequentialSampler) and loader.batch_size is not None
    if size == 1 or not plain or isinstance(loader.dataset, IterableDataset):
        return loader
    shuffle = type(sampler) is RandomSampler
    dataset: Any = loader.dataset
    order: Any = range(rank, len(dataset), size)
    if padded:
        order = DistributedSampler(dataset, shuffle=shuffle, drop_last=loader.drop_last)
    return DataLoader(
        dataset, loader.batch_size, sampler=order, drop_last=loader.drop_last,
        num_workers=loader.num_workers, collate_fn=loader.collate_fn, timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn, generator=loader.generator,
        prefetch_factor=loader.prefetch_factor, persistent_workers=loader.persistent_workers,
        multiprocessing_context=loader.multiprocessing_context, in_order=loader.in_order,
    )  # fmt: skip
