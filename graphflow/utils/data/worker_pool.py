"""The loader's side of its workers: starting, feeding, hearing and ending processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from graphflow.runtime.fork import renew_after_fork
from graphflow.utils.data.fetching import Fetcher
from graphflow.utils.data.messages import receive
from graphflow.utils.data.worker_process import Epoch, Order, Settings, run_worker

JOIN_SECONDS = 5.0
"""How long a worker may take to end before it is terminated."""


class WorkerPool:
    """Worker processes, each with a pipe of its own.

    ``context`` is a start method or a multiprocessing context; by default the
    platform's.  With ``spawn`` and ``forkserver`` the dataset and the functions
    are pickled.  :meth:`close` ends everything, and may be called at any time.
    """

    def __init__(
        self,
        count: int,
        fetcher: Fetcher,
        init: Callable[[int], Any] | None,
        context: Any,
    ) -> None:
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context)
        self.epoch = 0
        self._owner = os.getpid()
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        renew_after_fork(self)
        try:
            for number in range(count):
                self._start(context, Settings(number, count, fetcher, init))
        except BaseException:
            self.close()
            raise

    def _start(self, context: Any, settings: Settings) -> None:
        ours, theirs = context.Pipe()
        self._connections.append(ours)
        process = context.Process(
            target=run_worker,
            args=(theirs, settings),
            name=f"graphflow-loader-{settings.id}",
            daemon=True,
        )
        try:
            process.start()
        finally:
            theirs.close()  # so that the end of the worker is the end of the pipe
        self._processes.append(process)

    def after_fork(self) -> None:
        """In a forked child: these ends belong to the parent; workers watch them for its death."""
        for connection in self._connections:
            connection.close()
        self._connections, self._processes = [], []

    @property
    def closed(self) -> bool:
        """True when there are no processes (any more)."""
        return not self._processes

    def begin(self, seed: int) -> int:
        """Start an epoch; its number.  What earlier ones still have to deliver is dropped."""
        self.epoch += 1
        for number in range(len(self._processes)):
            self._send(number, Epoch(self.epoch, seed))
        return self.epoch

    def order(self, worker: int, task: int, indices: Any) -> None:
        """Ask ``worker`` for a batch."""
        self._send(worker, Order(self.epoch, task, indices))

    def _send(self, worker: int, message: Any) -> None:
        try:
            self._connections[worker].send(message)
        except OSError:
            self._report(worker)

    def hear(self, seconds: float | None) -> list[tuple[int, str, Any]] | None:
        """What workers deliver next: ``(task, kind, result)``; None after ``seconds`` of silence.

        A worker that died is a :class:`RuntimeError` that says how.
        """
        sentinels = {process.sentinel: n for n, process in enumerate(self._processes)}
        ready = wait([*self._connections, *sentinels], seconds)
        if not ready:
            return None
        heard = []
        speaking = [n for n, c in enumerate(self._connections) if c in ready]
        worker = -1
        try:
            for worker in speaking:
                epoch, task, kind, result = receive(self._connections[worker])
                if epoch == self.epoch:
                    heard.append((task, kind, result))
        except (EOFError, OSError):
            self._report(worker)
        except BaseException:  # half a message was read: nothing after it makes sense
            self.close()
            raise
        if not speaking:
            self._report(next(n for sentinel, n in sentinels.items() if sentinel in ready))
        return heard

    def _report(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(1.0)
        pid, code = process.pid, process.exitcode
        self.close()
        how = "ended its pipe" if code is None else f"exited with code {code}"
        if code is not None and code < 0:
            try:
                how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
            except ValueError:
                how = f"was killed by signal {-code}"
        raise RuntimeError(
            f"DataLoader worker {worker} (pid {pid}) {how} before its batch was complete"
        )

    def close(self) -> None:
        """End the workers: at once when idle, after the current sample, or by force."""
        if self._owner != os.getpid():
            return
        connections, processes = self._connections, self._processes
        self._connections, self._processes = [], []
        for connection in connections:
            connection.close()
        deadline = time.monotonic() + JOIN_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for end in ("terminate", "kill"):
            for process in processes:
                if process.is_alive():
                    getattr(process, end)()
                    process.join(1.0)
        for process in processes:
            if not process.is_alive():
                process.close()
