"""DataLoader: batches out of a dataset, epoch after epoch."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from graphflow.codegen.cuda.toolchain import state
from graphflow.errors import TraceError
from graphflow.mode import mode
from graphflow.utils.data.collate import default_collate, default_convert
from graphflow.utils.data.dataset import Dataset, IterableDataset, size_of
from graphflow.utils.data.distributed_sampler import DistributedSampler
from graphflow.utils.data.fetching import Collate, EndOfStream, Fetcher, MapFetcher, StreamFetcher
from graphflow.utils.data.pinning import pin_batches
from graphflow.utils.data.randomness import RandomSource, as_source, draw_seed, worker_source
from graphflow.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)
from graphflow.utils.data.worker_process import get_worker_info as get_worker_info

T_co = TypeVar("T_co", covariant=True)
PREFETCH = 2  # batches a worker, as in PyTorch
TOGETHER = 16  # batches that are made at once, by datasets that can
ORDERED = {SequentialSampler, RandomSampler, DistributedSampler}  # have a method order()
FORESEEN = {*ORDERED, SubsetRandomSampler}


class DataLoader(Generic[T_co]):
    """Iterate over a dataset in batches; every ``iter()`` is a new epoch.

    ``dataset``: a map-style :class:`Dataset` or an :class:`IterableDataset`.
    ``batch_size``: samples a batch; ``None`` hands samples over one by one.
    ``shuffle``: a new random order every epoch, drawn from ``generator`` (by
    default GraphFlow's own, so ``manual_seed`` decides it; an ``int`` is a seed).
    ``sampler`` / ``batch_sampler``: an order of one's own instead.
    ``collate_fn``: makes a batch of a list of samples (:func:`default_collate`).
    ``drop_last``: leave out the last, smaller batch.

    ``num_workers``: processes that make batches, 0 for none; order and values
    are the same for any number.  Each seeds GraphFlow's, Python's and NumPy's
    generators anew every epoch, then calls ``worker_init_fn(worker_id)`` once.
    ``prefetch_factor``: batches a worker makes ahead (2).  ``timeout``: seconds to
    wait for a batch.  ``persistent_workers`` keeps the processes between epochs.
    ``multiprocessing_context``: ``"fork"``, ``"spawn"``, ``"forkserver"`` or a
    context; the platform's default.  ``in_order=False`` gives batches as they
    are ready.  An exception in a worker is raised here with its traceback.

    Batches of a :class:`TensorDataset` are one gather, which worker processes
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
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: RandomSource = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        self._pins = pin_memory and state().usable
        if pin_memory and not self._pins:
            warnings.warn("pin_memory has no effect: there is no CUDA device", stacklevel=2)
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory, self.pin_memory_device = pin_memory, pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.prefetch_factor = prefetch_factor or (PREFETCH if num_workers else None)
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.drop_last = drop_last
        self.generator = as_source(generator)
        self._seeds = worker_source(self.generator)
        self._streaming = isinstance(dataset, IterableDataset)
        self._pool: Any = None
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
        self._decide_order(batch_size, shuffle, sampler, batch_sampler)
        batching = self.batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batching else default_convert)

    def _decide_order(
        self, batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any
    ) -> None:
        self.batch_size = batch_size
        self.sampler = self._default_sampler(shuffle) if sampler is None else sampler
        self.batch_sampler = batch_sampler
        if batch_sampler is None and batch_size is not None:
            self.batch_sampler = BatchSampler(self.sampler, batch_size, self.drop_last)

    def _default_sampler(self, shuffle: bool | None) -> Iterable[Any]:
        if self._streaming:
            return _Endless()
        if shuffle:
            return RandomSampler(self.dataset, generator=self.generator)  # type: ignore[arg-type]
        return SequentialSampler(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return self.iterate()

    def iterate(self, skip: int = 0) -> Iterator[Any]:
        """:meth:`_batches`, in page-locked memory if ``pin_memory`` asks for it."""
        if mode.tracer is not None:
            raise TraceError(
                "a DataLoader inside a compiled function would be read when it is traced only; "
                "compile the step, and loop over the loader outside"
            )
        batches = self._batches(skip)
        return pin_batches(batches) if self._pins else batches

    def _batches(self, skip: int) -> Iterator[Any]:
        """A new epoch without its first ``skip`` batches.

        All that is random is drawn as if they had been there.  They are made, and thrown away,
        only where the others depend on it: by workers, whose samples may be random, and by streams.
        """
        # Drawn with and without workers, so that their number changes no other draw.
        seed = draw_seed(self._seeds)
        fetcher = self._fetcher()
        tasks: Iterable[Any] = self.sampler if self.batch_sampler is None else self.batch_sampler
        left = iter(tasks)
        if self.num_workers or self._streaming:
            made = self._with_workers(fetcher, left, seed) if self.num_workers else None
            return _without_first(skip, made or _here(fetcher, left))
        if isinstance(fetcher, MapFetcher) and self._foreseen():
            return _together(fetcher, _without_first(skip, _in_arrays(self.batch_sampler, left)))
        return _here(fetcher, _without_first(skip, left))

    def _foreseen(self) -> bool:
        """True if nothing that happens during an epoch has a say in what is sampled next."""
        batches = self.batch_sampler
        return type(batches) is BatchSampler and type(batches.sampler) in FORESEEN

    def _fetcher(self) -> Fetcher:
        if self._streaming:
            return StreamFetcher(self.dataset, self.collate_fn, self.batch_size, self.drop_last)
        return MapFetcher(self.dataset, self.collate_fn, self.batch_sampler is not None)

    def _with_workers(self, fetcher: Fetcher, tasks: Iterator[Any], seed: int) -> Iterator[Any]:
        from graphflow.utils.data.worker_iterator import WorkerIterator
        from graphflow.utils.data.worker_pool import WorkerPool

        pool = self._pool
        if pool is None or pool.closed:
            pool = WorkerPool(
                self.num_workers, fetcher, self.worker_init_fn, self.multiprocessing_context
            )
            if self.persistent_workers:
                self._pool = pool
                weakref.finalize(self, pool.close)
        return WorkerIterator(
            pool,
            self.num_workers,
            tasks,
            seed=seed,
            prefetch=self.prefetch_factor or PREFETCH,
            timeout=self.timeout,
            in_order=self.in_order,
            kept_by=self if self.persistent_workers else None,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the processes."""
        return {**self.__dict__, "_pool": None}

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


def _without_first(count: int, items: Iterator[Any]) -> Iterator[Any]:
    """``items`` after ``count`` of them were taken."""
    for _ in islice(items, count):
        pass
    return items


def _in_arrays(batches: Any, lists: Iterator[Any]) -> Iterator[Any]:
    """The groups of a BatchSampler as arrays where its sampler has them all at once.

    An epoch of 60,000 indices is 4 ms as Python's numbers, and nothing as slices.
    """
    if type(batches.sampler) not in ORDERED:
        yield from lists
        return
    order, size = batches.sampler.order(), batches.batch_size
    for begin in range(0, len(order) - (size - 1 if batches.drop_last else 0), size):
        yield order[begin : begin + size]


def _here(fetcher: Fetcher, tasks: Iterator[Any]) -> Iterator[Any]:
    """The batches, made in this process."""
    for indices in tasks:
        try:
            batch = fetcher(indices)
        except EndOfStream:
            return
        yield batch


def _together(fetcher: MapFetcher, tasks: Iterator[Any]) -> Iterator[Any]:
    """The batches, made in this process, a few of them at once."""
    while few := list(islice(tasks, TOGETHER)):
        yield from fetcher.several(few)


def check_workers(
    num_workers: Any, timeout: float, prefetch_factor: Any, persistent_workers: bool
) -> None:
    """Refuse arguments about workers that make no sense."""
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f"num_workers should be an integer ≥ 0, got {num_workers!r}")
    if timeout < 0:
        raise ValueError(f"timeout should be seconds ≥ 0, got {timeout!r}")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError("prefetch_factor is about worker processes; set num_workers > 0")
    if num_workers == 0 and persistent_workers:
        raise ValueError("persistent_workers is about worker processes; set num_workers > 0")
    if prefetch_factor is not None and (
        not isinstance(prefetch_factor, int) or prefetch_factor <= 0
    ):
        raise ValueError(f"prefetch_factor should be a positive integer, got {prefetch_factor!r}")


def _refuse_order_of_stream(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    if shuffle:
        raise ValueError("an IterableDataset decides its own order: shuffle=True is not possible")
    if sampler is not None or batch_sampler is not None:
        raise ValueError("an IterableDataset decides its own order: no sampler or batch_sampler")
