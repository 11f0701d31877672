"""An epoch with worker processes: tasks go out round robin, batches come back in order."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from graphflow.utils.data.messages import WorkerFailure
from graphflow.utils.data.worker_pool import WorkerPool
from graphflow.utils.data.worker_process import BATCH, END, FAILURE

_Result = tuple[str, Any]


class WorkerIterator:
    """Iterates over the batches that ``pool`` makes of ``tasks`` (indices).

    At most ``prefetch`` batches a worker are under way or waiting.  Batches
    arrive in the order of ``tasks`` (``in_order``), else as they are ready.
    A failure of a worker is raised where its batch would have been; the
    iteration may go on after it.  ``timeout``: seconds to wait for a batch, 0
    for ever.  The processes end with the iterator, unless they are ``kept_by``
    a loader: then with that, which lives at least as long as the iterator.
    """

    def __init__(
        self,
        pool: WorkerPool,
        count: int,
        tasks: Iterator[Any],
        *,
        seed: int,
        prefetch: int,
        timeout: float,
        in_order: bool,
        kept_by: object | None,
    ) -> None:
        self._pool, self._tasks = pool, tasks
        self._timeout, self._in_order, self._kept_by = timeout, in_order, kept_by
        self._active = list(range(count))  # workers that still have something to give
        self._turn = 0
        self._sent = self._given = 0
        self._asked: dict[int, int] = {}  # task -> worker
        self._results: dict[int, _Result] = {}
        if kept_by is None:
            weakref.finalize(self, pool.close)
        self._epoch = pool.begin(seed)
        for _ in range(prefetch * count):
            self._ask()

    def __iter__(self) -> WorkerIterator:
        return self

    def _ask(self) -> None:
        """Give the next worker the next task, if there is one."""
        if not self._active:
            return
        try:
            indices = next(self._tasks)
        except StopIteration:
            return
        worker = self._active[self._turn % len(self._active)]
        self._turn = (self._turn + 1) % len(self._active)
        self._asked[self._sent] = worker
        self._sent += 1
        self._pool.order(worker, self._sent - 1, indices)

    def __next__(self) -> Any:
        if self._epoch != self._pool.epoch:
            raise RuntimeError("this epoch of the DataLoader was given up: a new one has begun")
        while self._asked:
            task = self._next_ready()
            if task is None:
                self._hear()
                continue
            worker = self._asked.pop(task)
            kind, result = self._results.pop(task)
            if kind == END:
                self._retire(worker)
            self._ask()
            if kind == BATCH:
                return result
            if kind == FAILURE:
                assert isinstance(result, WorkerFailure)
                raise result.exception()
        if self._kept_by is None:
            self._pool.close()
        raise StopIteration

    def _next_ready(self) -> int | None:
        """The task whose result is given next, if it is here."""
        first = next(iter(self._asked))
        if first in self._results:
            return first
        return None if self._in_order else next(iter(self._results), None)

    def _hear(self) -> None:
        if self._pool.closed:
            raise RuntimeError("the workers of this DataLoader have ended")
        heard = self._pool.hear(self._timeout or None)
        if heard is None:
            self._pool.close()
            raise RuntimeError(
                f"DataLoader timed out: no batch within {self._timeout:g} seconds; "
                "raise timeout= or look at what the dataset is waiting for"
            )
        for task, kind, result in heard:
            self._results[task] = (kind, result)

    def _retire(self, worker: int) -> None:
        if worker in self._active:
            place = self._active.index(worker)
            self._active.remove(worker)
            if place < self._turn:
                self._turn -= 1
