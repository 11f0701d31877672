"""Tasks on worker processes: one that hangs or crashes costs only itself."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

_fork = multiprocessing.get_context("fork")


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.pipe, theirs = _fork.Pipe()
        self.process = _fork.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Any = None
        self.started = 0.0

    def give(self, task: Any) -> None:
        self.task, self.started = task, time.monotonic()
        self.pipe.send(task)

    def result(self, ready: bool, seconds: float) -> Any:
        """The task's result, a string when it is lost, None while it runs."""
        if not ready:
            late = time.monotonic() - self.started > seconds
            return f"took more than {seconds:g} s" if late else None
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            return f"the process ended with code {self.process.exitcode}"

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            result = function(task)
        except Exception as error:  # a fault of the runner costs one task too
            result = f"{type(error).__name__}: {error}"
        pipe.send(result)


def each(
    function: Callable[[Any], Any], tasks: Sequence[Any], jobs: int, seconds: float
) -> Iterator[tuple[Any, Any]]:
    """``(task, function(task))`` as they finish; a lost task's result is a string saying why."""
    waiting = deque(tasks)
    workers: list[_Worker] = []
    try:
        while waiting or any(w.task is not None for w in workers):
            workers += [_Worker(function) for _ in range(min(jobs - len(workers), len(waiting)))]
            for worker in workers:
                if worker.task is None and waiting:
                    worker.give(waiting.popleft())
            busy = [w for w in workers if w.task is not None]
            ready = wait([w.pipe for w in busy], timeout=1.0)
            for worker in busy:
                result = worker.result(worker.pipe in ready, seconds)
                if result is None:
                    continue
                task, worker.task = worker.task, None
                if isinstance(result, str):
                    worker.end()
                    workers.remove(worker)
                yield task, result
    finally:
        for worker in workers:
            worker.end()
