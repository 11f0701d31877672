"""The worker side of a loader: a process that turns indices into batches.

Three threads: one reads tasks and notices that the loader is gone, the main
one makes batches, one writes them to the pipe.  So neither side ever waits for
the other while it has something to read.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from graphflow.records import dataclass
from graphflow.rng import manual_seed
from graphflow.runtime.threads import set_num_threads
from graphflow.utils.data.fetching import EndOfStream, Fetcher
from graphflow.utils.data.messages import Packed, WorkerFailure, pack, send
from graphflow.utils.data.randomness import words

POLL_SECONDS = 1.0
"""How often a worker makes sure that its parent still lives."""
GRACE_SECONDS = 2.0
"""How long a worker may finish its sample after the loader has gone."""

BATCH, FAILURE, END = "batch", "failure", "end"


@dataclass(frozen=True)
class WorkerInfo:
    """What :func:`get_worker_info` says inside a worker process."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


@dataclass(frozen=True)
class Epoch:
    """A message to a worker: a new epoch begins; older tasks are void."""

    number: int
    seed: int


@dataclass(frozen=True)
class Order:
    """A message to a worker: make batch ``task`` of ``epoch`` from ``indices``."""

    epoch: int
    task: int
    indices: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Which worker this is (``id``, ``num_workers``, ``seed``, ``dataset``); None outside workers.

    An iterable dataset uses it to give every worker its own part of the stream.
    """
    return _info


@dataclass
class Settings:
    """Everything a worker is started with."""

    id: int
    num_workers: int
    fetcher: Fetcher
    init: Callable[[int], Any] | None


def run_worker(connection: Connection, settings: Settings) -> None:
    """The worker's life: until the loader closes its end, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the loader's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_num_threads(1)
    _Worker(connection, settings).run()


class _Worker:
    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self.settings = settings
        self.place = f"DataLoader worker process {settings.id}"
        self.orders: queue.SimpleQueue[Epoch | Order | None] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[Packed | None] = queue.SimpleQueue()
        self.epoch = 0
        self.failed: WorkerFailure | None = None
        self.started = False

    def run(self) -> None:
        threading.Thread(target=self.read, daemon=True).start()
        writer = threading.Thread(target=self.write, daemon=True)
        writer.start()
        while (message := self.orders.get()) is not None:
            if isinstance(message, Epoch):
                self.begin(message)
            elif message.epoch == self.epoch:
                self.results.put(self.answer(message))
        self.results.put(None)
        writer.join()

    def read(self) -> None:
        """Pass on what the loader sends; end the process soon after the loader is gone."""
        parent, pid = multiprocessing.parent_process(), os.getppid()
        sources: list[Any] = [self.connection] + ([parent.sentinel] if parent else [])
        while True:
            ready = wait(sources, POLL_SECONDS)
            if self.connection in ready:
                try:
                    message = self.connection.recv()
                except (EOFError, OSError):
                    break
                if isinstance(message, Epoch):
                    self.epoch = message.number
                self.orders.put(message)
            elif ready or os.getppid() != pid:
                break
        self.epoch = -1  # tasks in the queue are void
        self.orders.put(None)
        time.sleep(GRACE_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    def write(self) -> None:
        """Send results in order; a loader that is gone ends it."""
        while (packed := self.results.get()) is not None:
            try:
                send(self.connection, packed)
            except OSError:
                return

    def begin(self, epoch: Epoch) -> None:
        """Seed every generator; the first time also call the user's ``worker_init_fn``."""
        global _info
        settings = self.settings
        seed = epoch.seed + settings.id
        manual_seed(seed)
        random.seed(seed)
        np.random.seed(words(seed % 2**63, 4).astype(np.uint32))
        fetcher = settings.fetcher
        _info = WorkerInfo(settings.id, settings.num_workers, seed, fetcher.dataset)
        fetcher.start()
        if not self.started:
            self.started = True
            if settings.init is not None:
                try:
                    settings.init(settings.id)
                except Exception as error:
                    self.failed = WorkerFailure(error, self.place, traceback.format_exc())

    def answer(self, order: Order) -> Packed:
        """The batch, the end of the stream, or what went wrong."""
        kind: str
        result: Any
        try:
            if self.failed is not None:
                kind, result = FAILURE, self.failed
            else:
                kind, result = BATCH, self.settings.fetcher(order.indices)
            return pack((order.epoch, order.task, kind, result))
        except EndOfStream:
            kind, result = END, None
        except Exception as error:
            kind, result = FAILURE, WorkerFailure(error, self.place, traceback.format_exc())
        try:
            return pack((order.epoch, order.task, kind, result))
        except Exception:  # a type of exception that only exists here
            return pack((order.epoch, order.task, FAILURE, result.without_type()))
