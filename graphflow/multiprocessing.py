"""Python's ``multiprocessing``, and :func:`spawn`, by the names of ``torch.multiprocessing``.

Tensors are sent to other processes as copies, but for those of ``share_memory_()``: these are
memory that both see.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

from graphflow.errors import GraphFlowError


def __getattr__(name: str) -> Any:
    """What is not here is Python's."""
    return getattr(multiprocessing, name)


class ProcessFailed(GraphFlowError):
    """A process that :func:`spawn` started ended with an error."""


ProcessExitedException = ProcessRaisedException = ProcessFailed


class SpawnContext:
    """The processes that ``spawn(..., join=False)`` started."""

    def __init__(self, processes: list[Any]) -> None:
        self.processes = processes

    def pids(self) -> list[int]:
        """Their process numbers."""
        return [int(process.pid) for process in self.processes]

    def join(self, timeout: float | None = None) -> bool:
        """Wait; True once all have ended well.

        One that fails ends the others, and raises :class:`ProcessFailed`.
        """
        from multiprocessing.connection import wait

        alive = [process.sentinel for process in self.processes if process.is_alive()]
        if alive:  # an empty list would be waited for without end
            wait(alive, timeout)
        failed = [(n, p) for n, p in enumerate(self.processes) if p.exitcode not in (None, 0)]
        if failed:
            for process in self.processes:
                process.terminate()
            for process in self.processes:
                process.join()
            number, process = failed[0]
            raise ProcessFailed(f"process {number} ended with exit code {process.exitcode}")
        return all(process.exitcode == 0 for process in self.processes)


def spawn(
    fn: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True,
    daemon: bool = False, start_method: str = "spawn",
) -> SpawnContext | None:  # fmt: skip
    """``fn(i, *args)`` in ``nprocs`` processes, i from 0; ``join`` waits for all of them."""
    if nprocs < 1:
        raise ValueError(f"spawn needs nprocs >= 1, not {nprocs}")
    context: Any = get_context(start_method)
    processes = [
        context.Process(target=fn, args=(i, *args), daemon=daemon) for i in range(nprocs)
    ]  # fmt: skip
    for process in processes:
        process.start()
    started = SpawnContext(processes)
    if not join:
        return started
    while not started.join():
        pass
    return None


ProcessContext, start_processes = SpawnContext, spawn


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepted: shared memory has no name, whatever the strategy."""


def get_sharing_strategy() -> str:
    """``"file_descriptor"``: one is held open for each shared tensor."""
    return "file_descriptor"


def get_all_sharing_strategies() -> set[str]:
    """What :func:`get_sharing_strategy` may give."""
    return {"file_descriptor"}
